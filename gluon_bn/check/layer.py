"""A student's Block as something that can be asked: made anew for every question, its parameters
and statistics found by their names, set, and read again."""

import copy
import inspect
import re
import warnings
from contextlib import contextmanager
from types import SimpleNamespace

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon, nd
from mxnet.initializer import Initializer

from gluon_bn.check import probes
from gluon_bn.check.calling import (
    Failure,
    dtype_of,
    explain,
    guarded,
    make,
    modes,
    to_numpy,
)
from gluon_bn.check.exercise import Outcome, Student
from gluon_bn.check.matching import same

ROLES = ("gamma", "beta", "moving_mean", "moving_var")
# What an array may be called, and an argument of the constructor, the surest names first.
SIGNS = {
    "gamma": ("gamma", "scale", "weight"),
    "beta": ("beta", "shift", "bias", "offset"),
    "moving_mean": ("mean", r"(^|_)mu(_|$)"),
    "moving_var": ("var", "std|sigma"),
}
CHANNELS = ("num_features", "in_channels", "num_channels", "channels", "features", "c", "units")
RANKS = ("num_dims", "ndim", "num_dim", "dims", "n_dims", "ndims", "rank")
CLASSES = ("num_classes", "classes", "n_classes", "num_labels", "k")


class Quiet(Initializer):
    """Random weights that leave MXNet's own generator alone."""

    def _init_weight(self, name, array):
        array[:] = np.random.RandomState(3).uniform(-0.07, 0.07, array.shape)


# ------------------------------------------------------------------------ the arrays of a Block


class Array:
    """One named array of a Block, a Parameter or a plain attribute; or some columns of it."""

    def __init__(self, name, parameter=None, owner=None, columns=slice(None)):
        self.name, self.parameter, self.owner, self.columns = name, parameter, owner, columns

    def raw(self):
        return (
            self.parameter.data() if self.parameter is not None else getattr(self.owner, self.name)
        )

    def exists(self):
        """Not so for a Parameter whose size is still open."""
        try:
            return self.raw() is not None
        except Exception:
            return False

    def cut(self, array):
        return array if self.columns == slice(None) else array[:, self.columns]

    def get(self):
        return self.cut(self.raw().asnumpy().astype("float64"))

    def gradient(self):
        """The gradient that arrived here, None where there is none to ask for."""
        if self.parameter is not None and self.parameter.grad_req == "null":
            return None
        grad = self.parameter.grad() if self.parameter is not None else self.raw().grad
        return None if grad is None else self.cut(grad.asnumpy().astype("float64"))

    def set(self, value, kind):
        old, whole = self.raw(), self.raw().asnumpy()
        if self.columns != slice(None):
            whole[:, self.columns] = value
        elif value.ndim == 1 and old.ndim == 2 and old.shape[1:] == value.shape:
            whole[:] = value  # a row for each class where one row for all was expected
        elif value.ndim == 2 and old.shape == value.shape[::-1] != value.shape:
            raise Failure(
                f"{self.name} has shape {tuple(old.shape)}; a row for each class is "
                f"expected, {value.shape}",
                "table transposed",
            )
        elif old.size != value.size:
            needs = (
                f"a row for each class, {value.shape}"
                if value.ndim == 2
                else f"one value per channel, {value.size} in all"
            )
            raise Failure(
                f"{self.name} has shape {tuple(old.shape)}; it needs {needs}",
                "no row per class" if value.ndim == 2 else "parameter of the wrong shape",
            )
        else:
            whole = value.reshape(old.shape)
        new = make(whole, kind, dtype_of(old))
        if self.parameter is not None:
            self.parameter.set_data(new)
            return
        setattr(self.owner, self.name, new)
        if getattr(old, "grad", None) is not None:
            new.attach_grad()


def blocks(block):
    yield block
    for child in block._children.values():
        yield from blocks(child)


def arrays(block, case):
    """gamma, beta, moving_mean and moving_var of a Block, as `Array`s, those that are found."""
    found = [Array(name, p) for name, p in block._collect_params_with_prefix().items()]
    found += [
        Array(name, owner=owner)
        for owner in blocks(block)
        for name, value in vars(owner).items()
        if isinstance(value, nd.NDArray)
    ]
    found = [a for a in found if a.exists()]
    observed = r"mean|var|std|running|moving|ema|avg"
    # What is called running or moving comes first, then parameters, then the rest.
    found.sort(
        key=lambda a: (
            not re.search(r"running|moving|ema|avg", a.name.lower()),
            a.parameter is None,
        )
    )
    result, labels = {}, case["gamma"].ndim == 2
    for role, signs in SIGNS.items():
        free = [
            a
            for a in found
            if a not in result.values()
            and not (role in ("gamma", "beta") and re.search(observed, a.name.lower()))
        ]
        # Those that are learned before those that are fixed; of the size that is expected, or of
        # twice that, an Embedding of both; at last any.
        learned = [a for a in free if a.parameter is None or a.parameter.grad_req != "null"]
        groups = [free] if role.startswith("moving") else [learned, free]
        sizes = [case[role].size * n for n in ((1, 2) if labels else (1,))]
        for group in [*([a for a in g if a.raw().size == n] for n in sizes for g in groups), free]:
            match = next(
                (a for sign in signs for a in group if re.search(sign, a.name.lower())), None
            )
            if match is not None:
                result.setdefault(role, match)
    both, c = result.get("gamma"), case.shape[1]
    if labels and both is not None and both.raw().size == 2 * case["gamma"].size:
        for role, columns in (("gamma", slice(0, c)), ("beta", slice(c, 2 * c))):
            result[role] = Array(both.name, both.parameter, both.owner, columns)
    return result


# ------------------------------------------------------------------------------------- the Block


class Layer(Student):
    """Each run is a new layer in the state of the case.

    made: a class, a factory, or an instance (copied; if it cannot be copied, it is used itself).
    """

    is_layer = True

    def called(self, function, exercise):
        return SimpleNamespace(function=function, reordered=False)

    def __init__(self, made, exercise):
        super().__init__(made, exercise)
        self.made, self.labels = made, "labels" in exercise.names
        self.eps, self.momentum, self.said, self.adapted = 1e-5, 0.9, set(), {}
        self.instance = made if isinstance(made, gluon.Block) else None
        self.channels = self.classes = 0
        if self.instance is None and not callable(made):
            raise Failure(
                "a Block class is expected, or a function that makes a Block, or a "
                f"Block; this is of type {type(made).__name__}",
                "not a Block",
            )
        for name, parameter in (
            self.instance._collect_params_with_prefix().items() if self.instance is not None else ()
        ):
            shape = parameter.shape or ()
            if shape and re.search("gamma|beta|mean", name.lower()):
                self.channels = max(shape[-1] if len(shape) < 3 else max(shape[1:]), self.channels)
                if len(shape) == 2 and shape[0] > 1:
                    self.classes = shape[0]

    @contextmanager
    def at_work(self):
        """Around everything that a student's layer is asked to do."""
        with guarded(self.kind), mx.name.NameManager(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield

    def new(self, channels, rank):
        """A new layer, initialized."""
        block = self.instance
        if block is None:
            block = self._constructed(channels, rank)
        else:
            try:
                block = copy.deepcopy(block)
            except Exception:  # not every Block can be copied
                pass
        if not isinstance(block, gluon.Block):
            raise Failure(
                "what it makes is no gluon.Block, but of type "
                f"{type(block).__name__}: then nothing knows its parameters",
                "not a Block",
            )
        if any(p._data is None and not p._deferred_init for p in block.collect_params().values()):
            block.initialize(init=Quiet())
        return block

    def _constructed(self, channels, rank):
        classes = probes.CLASSES if self.labels else None
        sizes = {
            **dict.fromkeys(CHANNELS, channels),
            **dict.fromkeys(RANKS, rank),
            **dict.fromkeys(CLASSES, classes),
            "shape": (1, channels) + (1,) * (rank - 2),
        }
        try:
            parameters = [
                p
                for p in inspect.signature(self.made).parameters.values()
                if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
            ]
        except (TypeError, ValueError):
            parameters = []
        known = {
            p.name: sizes[p.name.lower()]
            for p in parameters
            if sizes.get(p.name.lower()) is not None
        }
        required = [p for p in parameters if p.default is p.empty]
        if all(p.name in known for p in required):
            return self.made(**known)
        order = [channels, classes, rank] if self.labels else [channels, rank]
        return self.made(*order[: len(required)])

    def prepared(self, case, dtype="float32"):
        """A new layer with the parameters and, where they were found, the statistics of a case."""
        block = self.new(case.shape[1], len(case.shape))
        if dtype != "float32":
            block.cast(dtype)
        with autograd.pause(train_mode=False):
            self.call(block, case, dtype).wait_to_read()  # sizes that were left open are known now
        found = arrays(block, case)
        for role in found:
            found[role].set(case[role], self.kind)
        return block, found

    def call(self, block, case, dtype="float32", X=None):
        X = make(case["X"], self.kind, dtype) if X is None else X
        labels = case.given.get("labels")
        flags = modes()
        Y = (
            block(
                X, make(labels.astype("int32") if labels.dtype.kind == "i" else labels, self.kind)
            )
            if self.labels
            else block(X)
        )
        self.left_modes |= modes() != flags
        self.extra |= isinstance(Y, (tuple, list)) and len(Y) > 1
        Y = Y[0] if isinstance(Y, (tuple, list)) and len(Y) else Y
        if not isinstance(Y, nd.NDArray):
            to_numpy(Y, "what forward returns")
            raise Failure(
                f"forward returns an object of type {type(Y).__name__}; an array of "
                "MXNet's is expected",
                "wrong type returned",
            )
        return Y

    def _run(self, case, dtype):
        with self.at_work():
            block, found = self.prepared(case, dtype)
            X = make(case["X"], self.kind, dtype)
            before = {"X": X.asnumpy(), **{r: found[r].get() for r in ROLES[:2] if r in found}}
            X.attach_grad()
            with (
                autograd.record(case.training) if case.recording else autograd.pause(case.training)
            ):
                Y = self.call(block, case, X=X)
            if Y.size != X.size:
                raise Failure(f"Y comes back with shape {tuple(Y.shape)}", "shape changed")
            outcome = Outcome({"Y": to_numpy(Y, "Y")}, {"Y": tuple(Y.shape)}, {"Y": dtype_of(Y)})
            if case.recording and case.training:
                try:
                    Y.backward(
                        make(probes.upstream(Y.size).reshape(Y.shape), self.kind, dtype_of(Y))
                    )
                    grads = {
                        "X": X.grad.asnumpy().astype("float64"),
                        **{r: found[r].gradient() for r in ROLES[:2] if r in found},
                    }
                    outcome.values.update({f"d{n}": g for n, g in grads.items() if g is not None})
                except Exception as error:
                    outcome.failure = explain(error)
            found = arrays(block, case)
            if {"moving_mean", "moving_var"} <= set(found):
                outcome.values.update({r: found[r].get() for r in ROLES[2:]})
            now = {"X": X.asnumpy(), **{r: found[r].get() for r in ROLES[:2] if r in found}}
            outcome.changed = {
                (name, case.training)
                for name in before
                if name in now and not same(now[name], before[name])
            }
            return outcome

    # ------------------------------------------------------------------ cases as it can take them

    def fit(self, case):
        """The case with as many channels and classes as an instance has."""
        c, given = case.shape[1], dict(case.given)
        if self.channels in (0, c) and self.classes in (0, len(given["gamma"])):
            return case
        if self.classes and self.labels and len(given["gamma"]) != self.classes:
            rows = np.arange(self.classes) % len(given["gamma"])
            given.update(
                gamma=given["gamma"][rows],
                beta=given["beta"][rows],
                labels=given["labels"] % self.classes,
            )
        if self.channels not in (0, c):
            wide = np.arange(self.channels) % c
            given.update({n: given[n][..., wide] for n in ROLES}, X=given["X"][:, wide])
        return case.but(**given)

    def adapt(self, case):
        """The case as this layer can be brought into it: its own epsilon and momentum, and what
        of its parameters is not within reach."""
        case = self.fit(case)
        key = case.shape[1], len(case.shape)
        if key not in self.adapted:
            with self.at_work():
                block, found = self.prepared(case)
                for name, names in (("eps", ("eps", "epsilon")), ("momentum", ("momentum",))):
                    number = _number(block, names)
                    if number is not None and name not in self.said:
                        setattr(self, name, number)
                        self.said.add(name)
                start = {
                    "gamma": case["gamma"] * 0 + 1,
                    "beta": case["beta"] * 0,
                    "moving_mean": case["moving_mean"] * 0,
                    "moving_var": case["moving_var"] * 0 + 1,
                }
                self.adapted[key] = {r: v for r, v in start.items() if r not in found}
        return case.but(eps=self.eps, momentum=self.momentum, **self.adapted[key])


def _number(block, names):
    """A number that a Block (or its child) keeps under one of these names."""
    for owner in blocks(block):
        for space in (getattr(owner, "_kwargs", None) or {}, vars(owner), vars(type(owner))):
            for name, value in space.items():
                if name.lower().strip("_") in names and isinstance(value, (int, float)):
                    return float(value)
    return None
