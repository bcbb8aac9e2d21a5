"""The life of a layer (how it starts, what the Trainer does to it, saved, shared, hybridized) as a
table of experiments; what each may find is said in said.py."""

import os
import tempfile

import numpy as np
from mxnet import autograd, gluon, nd

from gluon_bn.check.arrays import ROLES, arrays
from gluon_bn.check.calling import Failure, make
from gluon_bn.check.engine import same
from gluon_bn.check.questions import STATISTICS

NAMES = dict(zip(ROLES, ("gamma", "beta", "running mean", "running variance")))
START = dict(zip(ROLES, (1, 0, 0, 1)))


class Life:
    """A layer, and the case of the experiments. Each is a function of a Life that returns what it
    found, [] if all is well, None if it cannot tell."""

    def __init__(self, session, case):
        self.report, self.layer, self.case, self.found = session.report, session.student, case, {}
        labels = case.given.get("labels")
        turned = {} if labels is None else {"labels": labels[::-1]}
        self.other = case.but(X=case["X"][::-1] * 1.5 + 1, **turned)

    def run(self, *names):
        """What each finds becomes a line; what it cannot find out because something fails, too."""
        for what in names:
            experiment, right, failing = EXPERIMENTS[what]
            try:
                with self.layer.at_work():
                    found = experiment(self)
            except Failure as problem:
                name = "fails when hybridized" if "hybrid" in what else problem.mistake
                if failing:
                    self.report.not_yet(what, failing.format(problem), name)
                continue
            for name, *words in found or ():
                self.report.complain(name, *words)
            if right and found == []:
                self.report.ok(right)
        return self.report.mistakes

    def step(self, net, case, X=None):
        """A step of training without the Trainer, forward and backward; Y."""
        X = make(case["X"], self.layer.kind) if X is None else X
        with autograd.record():
            Y = self.layer.call(net, case, X=X)[0]
        Y.backward(make(np.linspace(-1, 2, Y.size).reshape(Y.shape), self.layer.kind))
        nd.waitall()
        return Y.asnumpy()

    def predict(self, net, case=None, X=None):
        with autograd.pause(train_mode=False):
            return self.layer.call(net, case or self.case, X=X)[0].asnumpy().astype("float64")

    def trained(self):
        """A layer after one step, and its arrays."""
        net, found = self.layer.prepared(self.case)
        self.step(net, self.case)
        return net, arrays(net, self.case)


def starts(life):
    """What arrays there are, whether they are Parameters, and what they start at."""
    net = life.layer.new(life.case)
    first = {role: array.get() for role, array in arrays(net, life.case).items()}
    life.predict(net)  # now every size is known
    life.found = arrays(net, life.case)
    values, found = {r: first.get(r, a.get()) for r, a in life.found.items()}, []
    gamma, beta = (life.found.get(role) for role in ("gamma", "beta"))
    if gamma and beta and gamma.parameter is not None and gamma.parameter is beta.parameter:
        if gamma.columns == beta.columns:
            found.append(("gamma and beta are one",))
            values.pop("beta")
    for role, array in (("gamma", gamma), ("beta", beta)):
        if array is None:
            found.append(("no {0}", role))
        elif not array.learned:
            plain = array.parameter is None
            found.append(("{0} not registered" if plain else "{0} without gradient", role))
    for role, value in values.items() if life.layer.instance is None else ():
        if not np.allclose(value, START[role]):
            came = f"{value.ravel()[0]:.4g}" if np.ptp(value) < 1e-6 else "different values"
            found.append(("{0} starts wrong", NAMES[role], came, START[role]))
    for role in STATISTICS:
        if role in life.found and life.found[role].learned:
            found.append(("statistics receive gradients", NAMES[role], life.found[role].name))
    if not found:
        where = "; everything starts where it should" * (life.layer.instance is None)
        life.report.ok("gamma and beta are Parameters" + where)
    return found


def remembers(life):
    net, _ = life.layer.prepared(life.case)
    before = life.predict(net)
    life.predict(net, life.other)
    known = any("in prediction" in m or "in place" in m for m in life.report.mistakes)
    return [] if known or same(before, life.predict(net)) else [("remembers",)]


def trainer(life):
    """gamma and beta move, the statistics do not."""
    net, found = life.trained()
    parameters = net.collect_params()
    if not parameters:
        return None
    before = {role: array.get() for role, array in found.items()}
    one = gluon.Trainer(parameters, "sgd", {"learning_rate": 0.5, "wd": 0.1}, kvstore=None)
    one.step(1, ignore_stale_grad=True)
    moved = {role for role, array in found.items() if not same(before[role], array.get(), 1e-7)}
    pushed = [found[role].name for role in STATISTICS if role in moved]
    still = [role for role in ("gamma", "beta") if role in found and role not in moved]
    still = [("no gradient for {0}", role) for role in still if found[role].learned]
    return [("statistics trained", " and ".join(pushed))] * bool(pushed) + still


def two_scales(life):
    """A second scale and shift, such as those of a whole batch norm inside the layer."""
    net, found = life.trained()
    known = [id(array.parameter) for array in found.values()]
    all_of_it = net._collect_params_with_prefix().items()
    more = [(n, p) for n, p in all_of_it if p.grad_req != "null" and id(p) not in known]
    if more := [name for name, p in more if p.grad().asnumpy().any()]:
        life.report.note(
            f"besides gamma and beta it trains {' and '.join(more)}: two numbers do the work of "
            "one. A batch norm inside the layer needs none of its own: center=False, scale=False"
        )


def network(layer, kind=gluon.nn.Sequential):
    """A network of one layer: a lone one is saved in an older format, which MXNet 1.9.1 cannot
    load under NumPy semantics."""
    net = kind()
    net.add(layer)
    return net


def saved(life):
    """A file carries the layer, with its statistics, into a new one."""
    try:
        net, found = life.trained()
    except Failure:
        return None  # said with the gradients
    want = life.predict(net)
    if not same(life.predict(net), want):
        return None  # prediction changes it, which another line says
    other = life.layer.new(life.case)
    if other is net:
        life.report.note("this Block cannot be copied, so it was not saved; pass the class")
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "layer.params")
        network(net).save_parameters(file)
        untouched = life.predict(other)
        network(other).load_parameters(file)
    got = life.predict(other)
    if same(got, want):
        return []
    lost = [role for role, array in found.items() if array.parameter is None]
    if same(got, untouched) or set(lost) & {"gamma", "beta"}:
        return [("parameters lost on save",)]
    names = " and ".join(NAMES[role] for role in lost) or "what it has seen"
    return [("statistics lost on save", names + (" are" if len(lost) > 1 else " is"))]


def shared(life):
    """Whether training one layer changes what another predicts."""
    if life.layer.instance is not None:
        return None
    one, two = (life.layer.new(life.case) for _ in range(2))
    before = life.predict(two)
    if not same(life.predict(two), before):
        return None
    life.step(one, life.case)
    return [] if same(before, life.predict(two)) else [("state shared between layers",)]


def hybridized(life):
    """Inside a hybridized network, trained first or asked first."""
    layer, case = life.layer, life.case
    if layer.labels or not isinstance(layer.prepared(case)[0], gluon.HybridBlock):
        return None

    def story(train_first, graph):
        net = network(layer.prepared(case)[0], gluon.nn.HybridSequential)
        net.hybridize(graph)
        x = make(life.other["X"], layer.kind)
        if not train_first:
            life.predict(net, case, x)
        return life.step(net, case, x), life.predict(net, case, x)

    both = [zip(story(first, True), story(first, False)) for first in (True, False)]
    (trained, asked), (later, again) = [[same(*pair) for pair in pairs] for pairs in both]
    if trained and asked and later and again:
        return []
    frozen = trained and not asked or again and not later
    return [("mode frozen by hybridize" if frozen else "changed by hybridize",)]


def unseen(life):
    """Statistics under no name that is known: does prediction change after training?"""
    net, _ = life.layer.prepared(life.case)
    before = life.predict(net)
    life.step(net, life.case)
    if same(before, life.predict(net)):
        return [("moving statistics not updated",)]
    life.report.note("no arrays with mean and var in their names: they could not be compared")
    return None


# fmt: off
EXPERIMENTS = {  # what is looked at: the experiment, what is said if all is well, and if it fails
    "a new layer": (starts, "", "It fails: {}."),
    "running statistics": (unseen, "", "It fails: {}."),
    "the same call again": (remembers, "", ""),
    "a step of the Trainer": (trainer, "a step of the Trainer moves gamma and beta, and leaves the "
                              "statistics", "It fails: {}."),
    "two scales": (two_scales, "", ""),
    "saved and loaded": (saved, "saved and loaded, it predicts the same",
                         "save_parameters or load_parameters fails: {}."),
    "two layers": (shared, "two layers keep their statistics apart", ""),
    "in a hybridized network": (
        hybridized, "in a hybridized network it does the same",
        "It fails: {}. A HybridBlock is drawn once, with symbols that have no values; what needs "
        "values cannot stand in hybrid_forward."),
}
# fmt: on
LIFE = list(EXPERIMENTS)[2:]
