"""The arrays of a student's Block: gamma, beta and the statistics, found by their names, set, and
read again."""

import re

from mxnet import gluon, nd

from gluon_bn.check.calling import Failure, dtype_of, make, to_numpy

# What an array may be called, the surest names first.
ROLES = {
    "gamma": ("gamma", "scale", "weight"),
    "beta": ("beta", "shift", "bias", "offset"),
    "moving_mean": ("mean", "(^|_)mu(_|$)"),
    "moving_var": ("var", "std|sigma"),
}
OBSERVED = "running|moving|ema|avg"


class Array:
    """One named array of a Block, a Parameter or a plain attribute; or some columns of it."""

    def __init__(self, name, parameter=None, owner=None, columns=slice(None)):
        self.name, self.parameter, self.owner, self.columns = name, parameter, owner, columns

    @property
    def learned(self):
        return self.parameter is not None and self.parameter.grad_req != "null"

    def raw(self):
        """The array; None for a Parameter whose size is still open."""
        try:
            return getattr(self.owner, self.name) if self.owner else self.parameter.data()
        except gluon.parameter.DeferredInitializationError:
            return None

    def get(self):
        return to_numpy(self.raw(), self.name)[..., self.columns]

    def gradient(self):
        """The gradient that arrived here, None where there is none to ask for."""
        grad = None if self.parameter is not None and not self.learned else self.raw().grad
        return None if grad is None else to_numpy(grad, self.name)[..., self.columns]

    def set(self, value, kind):
        old, whole = self.raw(), self.raw().asnumpy()
        turned = value.ndim == 2 and old.shape == value.shape[::-1]
        if self.columns != slice(None):
            whole[:, self.columns] = value
        elif value.ndim == 1 and old.ndim == 2 and old.shape[1:] == value.shape:
            whole[:] = value  # a row for each class where one row for all was expected
        elif old.size == value.size and not turned:
            whole = value.reshape(old.shape)
        else:
            needs = f"one value per channel, {value.size} in all"
            needs = f"a row for each class, {value.shape}" if value.ndim == 2 else needs
            name = "no row per class" if value.ndim == 2 else "parameter of the wrong shape"
            said = f"{self.name} has shape {tuple(old.shape)}; it needs {needs}"
            raise Failure(said, "table transposed" if turned else name)
        new = make(whole, kind, dtype_of(old))
        if self.parameter is not None:
            self.parameter.set_data(new)
            return
        setattr(self.owner, self.name, new)
        if old.grad is not None:
            new.attach_grad()


def blocks(block):
    yield block
    for child in block._children.values():
        yield from blocks(child)


def expected(array, signs, sizes):
    """The order in which arrays are taken for what is looked for: those of the size that is
    expected; those that are learned, before those that are fixed; by their names."""
    name, size, plain = array.name.lower(), array.raw().size, array.parameter is None
    size = sizes.index(size) if size in sizes else len(sizes)
    sign = [bool(re.search(sign, name)) for sign in signs].index(True)
    if signs[0] in ("gamma", "beta"):
        return size, not (array.learned or plain), plain, sign
    return size, not re.search(OBSERVED, name), plain, sign


def arrays(block, case):
    """gamma, beta, moving_mean and moving_var of a Block, as `Array`s, those that are found."""
    found = [Array(name, p) for name, p in block._collect_params_with_prefix().items()]
    for owner in blocks(block):
        plain = [name for name, value in vars(owner).items() if isinstance(value, nd.NDArray)]
        found += [Array(name, owner=owner) for name in plain]
    found = [a for a in found if a.raw() is not None]
    result, labels = {}, case["gamma"].ndim == 2
    for role, signs in ROLES.items():
        free = [a for a in found if re.search("|".join(signs), a.name.lower())]
        free = [a for a in free if a not in result.values()]
        if not role.startswith("moving"):
            free = [a for a in free if not re.search(f"mean|var|std|{OBSERVED}", a.name.lower())]
        sizes = [case[role].size * n for n in (1, 2)[: 1 + labels]]
        if free:
            result[role] = min(free, key=lambda a, s=signs, n=sizes: expected(a, s, n))
    both, c = result.get("gamma"), case.shape[1]
    if labels and both is not None and both.raw().size == 2 * case["gamma"].size:
        for role, columns in (("gamma", slice(0, c)), ("beta", slice(c, 2 * c))):
            result[role] = Array(both.name, both.parameter, both.owner, columns)
    return result


def number(block, *names):
    """A number that a Block (or its child) keeps under one of these names."""
    for owner in blocks(block):
        for space in (getattr(owner, "_kwargs", None) or {}, vars(owner), vars(type(owner))):
            for name, value in space.items():
                if name.lower().strip("_") in names and isinstance(value, (int, float)):
                    return float(value)
    return None
