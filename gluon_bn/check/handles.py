"""The arrays of a student's Block, found by their names: gamma, beta and the running statistics."""

import re

import numpy as np
from mxnet import nd

from gluon_bn.check.calling import Failure, dtype_of, make

# What an array may be called, the surest names first.
SIGNS = {"gamma": ("gamma", "scale", "weight"), "beta": ("beta", "shift", "bias", "offset"),
         "moving_mean": ("mean", r"(^|_)mu(_|$)"), "moving_var": ("var", "std|sigma")}


class Handle:
    """One named array of a Block, a Parameter or a plain attribute; or some columns of it."""

    def __init__(self, name, parameter=None, owner=None, columns=slice(None)):
        self.name, self.parameter, self.owner, self.columns = name, parameter, owner, columns

    def raw(self):
        return self.parameter.data() if self.parameter is not None else getattr(self.owner,
                                                                                self.name)

    def exists(self):
        """Not so for a Parameter whose size is still open."""
        try:
            self.raw()
        except Exception:
            return False
        return True

    def get(self):
        return self.cut(self.raw().asnumpy().astype("float64"))

    def cut(self, array):
        return array if self.columns == slice(None) else array[:, self.columns]

    def set(self, value, kind):
        old, value = self.raw(), np.asarray(value)
        whole = old.asnumpy()
        if self.columns != slice(None):
            whole[:, self.columns] = value
        elif old.size != value.size and old.ndim == 2 and old.shape[1:] == value.shape:
            whole[:] = value  # a row for each class where one row for all was expected
        elif value.ndim == 2 and old.shape == value.shape[::-1] != value.shape:
            raise Failure(f"{self.name} has shape {tuple(old.shape)}; a row for each class is "
                          f"expected, {value.shape}", "table transposed")
        elif old.size == value.size:
            whole = value.reshape(old.shape)
        elif value.ndim == 2:
            raise Failure(f"{self.name} has shape {tuple(old.shape)}; it needs a row for each "
                          f"class, {value.shape}", "no row per class")
        else:
            raise Failure(f"{self.name} has shape {tuple(old.shape)}; it needs one value per "
                          f"channel, {value.size} in all", "parameter of the wrong shape")
        new = make(whole, kind, dtype_of(old))
        if self.parameter is not None:
            self.parameter.set_data(new)
            return
        wants_gradient = getattr(old, "grad", None) is not None
        setattr(self.owner, self.name, new)
        if wants_gradient:
            new.attach_grad()


def handles(block, s):
    """gamma, beta, moving_mean and moving_var of a Block in a situation, those that are found."""
    found = [Handle(name, p) for name, p in block._collect_params_with_prefix().items()]
    for owner in blocks(block):
        found += [Handle(name, owner=owner) for name, value in vars(owner).items()
                  if isinstance(value, nd.NDArray)]
    found = [h for h in found if h.exists()]
    # What is called running or moving comes first, then parameters, then the rest.
    found.sort(key=lambda h: (not re.search(r"running|moving|ema|avg", h.name.lower()),
                              h.parameter is None))
    result = {}
    for role, signs in SIGNS.items():
        size = getattr(s, role).size
        free = [h for h in found if h not in result.values() and not (
            role in ("gamma", "beta") and
            re.search(r"mean|var|std|running|moving", h.name.lower()))]
        # Those that are learned before those that are fixed; of the size that is expected, or of
        # twice that, an Embedding of both; at last any.
        learned = [h for h in free if h.parameter is None or h.parameter.grad_req != "null"]
        groups = [free] if role.startswith("moving") else [learned, free]
        wanted = [size, 2 * size] if s.labels is not None else [size]
        tries = [[h for h in group if h.raw().size == n] for n in wanted for group in groups]
        for group in [*tries, free]:
            for sign in signs:
                match = next((h for h in group if re.search(sign, h.name.lower())), None)
                if match is not None:
                    result.setdefault(role, match)
    both = result.get("gamma")
    if s.labels is not None and both is not None and both.raw().size == 2 * s.gamma.size:
        c = s.X.shape[1]  # one Embedding that holds gamma and beta side by side
        result["gamma"] = Handle(both.name, both.parameter, both.owner, slice(0, c))
        result["beta"] = Handle(both.name, both.parameter, both.owner, slice(c, 2 * c))
    return result


def blocks(block):
    yield block
    for child in block._children.values():
        yield from blocks(child)


def gradient_at(handle):
    """The gradient that arrived at a handle, None where there is none to ask for."""
    if handle is None:
        return None
    if handle.parameter is not None:
        grad = None if handle.parameter.grad_req == "null" else handle.parameter.grad()
    else:
        grad = handle.raw().grad
    return None if grad is None else handle.cut(grad.asnumpy().astype("float64"))
