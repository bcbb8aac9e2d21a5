"""A student's Block as something that can be asked: made anew for every question, in the state that
is asked about."""

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
from gluon_bn.check.arrays import ROLES, arrays, number
from gluon_bn.check.calling import Failure, guarded, make, modes, send_back, to_numpy
from gluon_bn.check.engine import differs
from gluon_bn.check.student import PLAIN, Outcome, Student

# What a constructor may call its sizes.
CHANNELS = ("num_features", "in_channels", "num_channels", "channels")
RANK, CLASSES = ("num_dims", "ndim", "dims"), ("num_classes", "classes")


class Quiet(Initializer):
    """Random weights that leave MXNet's own generator alone."""

    def _init_weight(self, name, array):
        array[:] = np.random.RandomState(3).uniform(-0.07, 0.07, array.shape)


class Layer(Student):
    """Each run is a new layer in the state of the case.

    made: a class, a factory, or an instance (copied; if it cannot be copied, it is used itself).
    """

    is_layer = True

    def __init__(self, made, exercise):
        self.made, self.exercise, self.function = made, exercise, SimpleNamespace(reordered=False)
        self.kind, self.column, self.memory = "nd", True, {}
        self.fixed, self.said = {"eps": 1e-5, "momentum": 0.9}, set()
        self.instance = made if isinstance(made, gluon.Block) else None
        self.one_rank = self.instance is not None  # it may be made for one
        self.labels = "labels" in exercise.names
        if self.instance is None and not callable(made):
            said = "a Block class, a function that makes a Block, or a Block is expected; this is"
            raise Failure(f"{said} of type {type(made).__name__}", "not a Block")
        channels = classes = 0
        for name, p in self.instance._collect_params_with_prefix().items() if self.instance else ():
            if p.shape and re.search("gamma|beta|mean", name.lower()):
                channels = max(p.shape[-1] if len(p.shape) < 3 else max(p.shape[1:]), channels)
                classes = p.shape[0] if len(p.shape) == 2 and p.shape[0] > 1 else classes
        self.sizes = channels or 3, self.labels * (classes or probes.CLASSES)
        self.small_sizes = channels, self.labels * (classes or 3)

    def ways(self):
        return [("np", True), ("nd", True)][:: 1 if mx.util.is_np_array() else -1]

    def settle(self):
        """First its own epsilon and momentum, and what of its parameters is not within reach."""
        firsts = [cases[0] for cases in self.cases.values()]
        for kind, case in [(kind, case) for kind, _ in self.ways() for case in firsts]:
            self.kind = kind
            try:
                with self.at_work():
                    block, found = self.prepared(case)
            except Failure:
                continue
            own = {"eps": number(block, "eps", "epsilon"), "momentum": number(block, "momentum")}
            self.said = {name for name, value in own.items() if value is not None}
            self.fixed.update({name: own[name] for name in self.said})
            self.fixed.update({role: PLAIN[role] for role in ROLES if role not in found})
            break
        super().settle()

    @contextmanager
    def at_work(self):
        """Around everything that a student's layer is asked to do."""
        with guarded(self.kind), mx.name.NameManager(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield

    def new(self, case):
        """A new layer, initialized."""
        block = self.instance
        if block is None:
            block = self.constructed(case.shape[1], len(case.shape), len(case["gamma"]))
        else:
            try:
                block = copy.deepcopy(block)
                for parameter in block.collect_params().values():  # a copy has lost its gradient
                    wanted, parameter.grad_req = parameter.grad_req, "null"
                    parameter.grad_req = wanted
            except Exception:  # not every Block can be copied
                pass
        if not isinstance(block, gluon.Block):
            said = f"what it makes is no gluon.Block, but of type {type(block).__name__}"
            raise Failure(f"{said}: then nothing knows its parameters", "not a Block")
        if any(p._data is None and not p._deferred_init for p in block.collect_params().values()):
            block.initialize(init=Quiet())
        return block

    def constructed(self, channels, rank, classes):
        sizes = {**dict.fromkeys(CHANNELS, channels), **dict.fromkeys(RANK, rank)}
        sizes.update(dict.fromkeys(CLASSES, classes) if self.labels else {})
        try:
            parameters = inspect.signature(self.made).parameters.values()
        except (TypeError, ValueError):
            parameters = ()
        parameters = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        known = {p.name: sizes[p.name] for p in parameters if p.name in sizes}
        self.one_rank = not parameters and not isinstance(self.made, type)
        required = [p.name for p in parameters if p.default is p.empty]
        if set(required) <= set(known):
            return self.made(**known)
        order = [channels, classes, rank] if self.labels else [channels, rank]
        return self.made(*order[: len(required)])

    def prepared(self, case, dtype="float32"):
        """A new layer with the parameters and, where they were found, the statistics of a case."""
        block = self.new(case)
        if dtype != "float32":
            block.cast(dtype)
        with autograd.pause(train_mode=False):
            self.call(block, case, dtype)[0].wait_to_read()  # sizes left open are known now
        found = arrays(block, case)
        for role in found:
            found[role].set(case[role], self.kind)
        return block, found

    def call(self, block, case, dtype="float32", X=None):
        """All that comes back; the first is an array."""
        X = make(case["X"], self.kind, dtype) if X is None else X
        more = []
        if self.labels:
            whole = case["labels"].dtype.kind == "i"
            more = [make(case["labels"].astype("int32") if whole else case["labels"], self.kind)]
        returned = block(X, *more)
        returned = returned if isinstance(returned, (tuple, list)) and len(returned) else [returned]
        if not isinstance(returned[0], nd.NDArray):
            to_numpy(returned[0], "what forward returns")
            said = f"forward returns an object of type {type(returned[0]).__name__}; an array of"
            raise Failure(f"{said} MXNet's is expected", "wrong type returned")
        return returned

    def _run(self, case, dtype):
        with self.at_work():
            block, found = self.prepared(case, dtype)
            X, flags = make(case["X"], self.kind, dtype), modes()
            before = {r: found[r].get() for r in ("gamma", "beta") if r in found}
            X.attach_grad()
            with (autograd.record if case.recording else autograd.pause)(train_mode=case.training):
                inside = modes()
                Y, *more = self.call(block, case, X=X)
                left = modes() != inside
            if Y.size != X.size:
                raise Failure(f"Y comes back with shape {tuple(Y.shape)}", "shape changed")
            outcome = Outcome({"Y": to_numpy(Y, "Y")}, [Y])
            if case.recording and case.training:
                try:
                    send_back([Y], self.kind)
                    grads = {role: found[role].gradient() for role in before}
                    grads = {"X": to_numpy(X.grad, "dX"), **grads}
                    outcome.values.update({f"d{n}": g for n, g in grads.items() if g is not None})
                except Failure as problem:
                    outcome.failure = problem
            after = arrays(block, case)
            if {"moving_mean", "moving_var"} <= set(after):
                outcome.values.update({r: after[r].get() for r in ("moving_mean", "moving_var")})
            seen = {r: differs(before[r], found[r].get()) for r in before}
            seen.update(modes=left or modes() != flags, several=bool(more))
            seen["X"] = differs(make(case["X"], "numpy", dtype), X.asnumpy())
            outcome.seen = {name for name, is_so in seen.items() if is_so}
            return outcome
