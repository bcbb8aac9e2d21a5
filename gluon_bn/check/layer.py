"""A student's Block as something that can be asked: made anew for every question, its parameters
and statistics found by their names, set, and read again."""

import copy
import inspect
import re
import warnings
from contextlib import contextmanager

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon, nd
from mxnet.initializer import Initializer

from gluon_bn.check import probes
from gluon_bn.check.calling import Failure, dtype_of, guarded, make, mode, to_numpy, world
from gluon_bn.check.handles import blocks, gradient_at, handles
from gluon_bn.check.student import Outcome
from gluon_bn.check.suspects import same

CHANNELS = ("num_features", "in_channels", "num_channels", "channels", "features", "c", "units")
RANKS = ("num_dims", "ndim", "num_dim", "dims", "n_dims", "ndims", "rank")
CLASSES = ("num_classes", "classes", "n_classes", "num_labels", "k")


class Quiet(Initializer):
    """Random weights that leave MXNet's own generator alone."""

    def _init_weight(self, name, array):
        array[:] = np.random.RandomState(3).uniform(-0.07, 0.07, array.shape)


class Layer:
    """A subject (see `topics`): each run is a new layer in the state that the situation says.

    made: a class, a factory, or an instance (copied; if it cannot be copied, it is used itself).
    """

    layout, numpy_style = "column", True

    def __init__(self, made, labels=False):
        self.made, self.labels, self.kind = made, labels, "nd"
        self.failures, self.changed, self.assumed = {}, set(), {}
        self.eps, self.momentum = 1e-5, 0.9
        self.eps_said = self.momentum_said = False
        self.instance = made if isinstance(made, gluon.Block) else None
        self.channels = self.classes = 0
        self.extra = False  # forward returned more than Y
        if self.instance is not None:
            self.channels, self.classes = _sizes(self.instance)
        if self.instance is None and not callable(made):
            raise Failure("a Block class is expected, or a function that makes a Block, or a "
                          f"Block; this is of type {type(made).__name__}", "not a Block")

    # ------------------------------------------------------------------------------- making

    def new(self, channels, rank, initialize=True):
        """A new layer."""
        if self.instance is not None:
            try:
                block = copy.deepcopy(self.instance)
            except Exception:  # not every Block can be copied
                block = self.instance
        else:
            block = self._construct(channels, rank)
        if not isinstance(block, gluon.Block):
            raise Failure("what it makes is no gluon.Block, but of type "
                          f"{type(block).__name__}: then nothing knows its parameters",
                          "not a Block")
        if initialize and any(p._data is None and not p._deferred_init
                              for p in block.collect_params().values()):
            block.initialize(init=Quiet())
        return block

    def _construct(self, channels, rank):
        sizes = {**dict.fromkeys(CHANNELS, channels), **dict.fromkeys(RANKS, rank),
                 **dict.fromkeys(CLASSES, probes.CLASSES if self.labels else None),
                 "shape": (1, channels) + (1,) * (rank - 2)}
        try:
            parameters = [p for p in inspect.signature(self.made).parameters.values()
                          if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        except (TypeError, ValueError):
            parameters = []
        known = {p.name: sizes[p.name.lower()] for p in parameters
                 if sizes.get(p.name.lower()) is not None}
        required = [p for p in parameters if p.default is p.empty]
        if all(p.name in known for p in required):
            return self.made(**known)
        order = [channels, probes.CLASSES, rank] if self.labels else [channels, rank]
        return self.made(*order[:len(required)])

    def prepared(self, s, dtype="float32"):
        """A new layer with the parameters and, where they were found, the statistics of s."""
        block = self.new(s.X.shape[1], s.X.ndim)
        if dtype != "float32":
            block.cast(dtype)
        with autograd.pause(train_mode=False):
            self.call(block, s, dtype).wait_to_read()  # sizes that were left open are known now
        found = handles(block, s)
        for role in ("gamma", "beta", "moving_mean", "moving_var"):
            if role in found:
                found[role].set(getattr(s, role), self.kind)
        return block, found

    def call(self, block, s, dtype="float32", X=None):
        X = make(s.X, self.kind, dtype) if X is None else X
        if not self.labels:
            Y = block(X)
        else:
            Y = block(X, make(_labels(s), self.kind))
        self.extra |= isinstance(Y, (tuple, list)) and len(Y) > 1
        Y = Y[0] if isinstance(Y, (tuple, list)) and len(Y) else Y
        if not isinstance(Y, nd.NDArray):
            to_numpy(Y, "what forward returns")
            raise Failure(f"forward returns an object of type {type(Y).__name__}; an array of "
                          "MXNet's is expected", "wrong type returned")
        return Y

    # ------------------------------------------------------------------------------- asking

    def settle(self):
        """The array kind it works with; `failures` says where it fails all the same."""
        best = self.first_failures = None
        for kind in ["np", "nd"] if mx.util.is_np_array() else ["nd", "np"]:
            self.kind, failures = kind, {}
            for rank in (4, 2):
                for training in (True, False):
                    s = self.fit(probes.ordinary(rank, labels=self.labels))
                    try:
                        shape = self.run(s.but(training=training), recording=False).shape
                        if int(np.prod(shape)) != s.X.size:
                            raise Failure(f"Y comes back with shape {shape}", "shape changed")
                    except Failure as failure:
                        failures[rank, training] = failure
            if self.first_failures is None:
                self.first_failures = failures
            if best is None or len(failures) < len(best[0]):
                best = failures, kind
            if not failures:
                break
        self.failures, self.kind = best
        self.changed.clear()
        return len(self.failures) < 4

    def run(self, s, recording=True, upstream=None, dtype="float32", statistics=None):
        """One call of a new layer; see `BatchNormFunction.run`."""
        with self.at_work():
            block, found = self.prepared(s, dtype)
            X = make(s.X, self.kind, dtype)
            before = X.asnumpy()
            learned = {r: found[r].get() for r in ("gamma", "beta") if r in found}
            if upstream is not None:
                X.attach_grad()
            with mode(s.training, recording):
                Y = self.call(block, s, X=X)
            outcome = Outcome(to_numpy(Y, "Y"), dtype=dtype_of(Y), shape=tuple(Y.shape))
            if recording and upstream is not None:
                self._back(outcome, Y, X, found, upstream, dtype)
            found = handles(block, s)
            if "moving_mean" in found and "moving_var" in found:
                outcome.moving_mean = found["moving_mean"].get()
                outcome.moving_var = found["moving_var"].get()
            if not np.array_equal(before, X.asnumpy()):
                self.changed.add(("X", s.training))
            self.changed |= {(role, s.training) for role, value in learned.items()
                             if role in found and not same(found[role].get(), value)}
            return outcome

    def _back(self, outcome, Y, X, found, upstream, dtype):
        try:
            with guarded():
                Y.backward(make(upstream.reshape(Y.shape), self.kind, dtype))
                outcome.gradients = {"X": X.grad.asnumpy().astype("float64")}
                for role in ("gamma", "beta"):
                    grad = gradient_at(found.get(role))
                    if grad is not None:
                        outcome.gradients[role] = grad
        except Failure as failure:
            outcome.gradient_failure = failure

    @contextmanager
    def at_work(self):
        """Around everything that a student's layer is asked to do."""
        with guarded(), world(self.kind), mx.name.NameManager(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield

    def fit(self, s):
        """The situation with as many channels and classes as an instance has."""
        c = s.X.shape[1]
        if self.classes and len(s.gamma) != self.classes and s.labels is not None:
            rows = np.arange(self.classes) % len(s.gamma)
            s = s.but(gamma=s.gamma[rows], beta=s.beta[rows], labels=s.labels % self.classes)
        if self.channels in (0, c):
            return s
        wide = np.arange(self.channels) % c
        return s.but(X=s.X[:, wide], **{n: getattr(s, n)[..., wide] for n in (
            "gamma", "beta", "moving_mean", "moving_var")})

    def step(self, net, s, X=None):
        """A step of training without the Trainer, forward and backward; Y."""
        X = make(s.X, self.kind) if X is None else X
        with autograd.record():
            Y = self.call(net, s, X=X)
        Y.backward(make(np.linspace(-1, 2, Y.size).reshape(Y.shape), self.kind))
        nd.waitall()
        return Y.asnumpy()

    def predict(self, net, s, X=None):
        with autograd.pause(train_mode=False):
            return self.call(net, s, X=X).asnumpy().astype("float64")

    def adapt(self, s):
        """The situation as this layer can be brought into it: its own epsilon, momentum, and
        what of its parameters is not within reach."""
        s = self.fit(s)
        key = s.X.shape[1], s.X.ndim
        if key not in self.assumed:
            self.assumed[key] = self._own(s)
        return s.but(**self.assumed[key])

    def _own(self, s):
        with self.at_work():
            block, found = self.prepared(s)
            eps, momentum = _number(block, ("eps", "epsilon")), _number(block, ("momentum",))
            if eps is not None:
                self.eps, self.eps_said = eps, True
            if momentum is not None and not self.momentum_said:
                self.momentum, self.momentum_said = momentum, True
            own = {"eps": self.eps, "momentum": self.momentum}
            c = s.X.shape[1]
            start = {"gamma": np.ones(s.gamma.shape), "beta": np.zeros(s.beta.shape),
                     "moving_mean": np.zeros(c), "moving_var": np.ones(c)}
            return {**own, **{role: v for role, v in start.items() if role not in found}}


def _labels(s):
    return s.labels.astype("int32") if s.labels.dtype.kind == "i" else s.labels


def _sizes(block):
    """How many channels and classes an instance is for, 0 where that is open."""
    channels = classes = 0
    for name, parameter in block._collect_params_with_prefix().items():
        if re.search("gamma|beta|mean", name.lower()) and parameter.shape:
            shape = parameter.shape
            channels = max(shape[-1] if len(shape) < 3 else max(shape[1:]), channels, 0)
            if len(shape) == 2 and shape[0] > 1:
                classes = shape[0]
    return channels, classes


def _number(block, names):
    """A number that a Block (or its child) keeps under one of these names."""
    for owner in blocks(block):
        for space in (getattr(owner, "_kwargs", None) or {}, vars(owner), vars(type(owner))):
            for name, value in space.items():
                if name.lower().strip("_") in names and isinstance(value, (int, float)):
                    return float(value)
    return None
