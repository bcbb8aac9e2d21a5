"""Exercises whose answer is a layer. Its life (how it starts, what the Trainer does to it, saved,
shared, hybridized) is a table of experiments; what each may find is said in said.py."""

import inspect
import os
import tempfile
from contextlib import suppress
from dataclasses import replace

import numpy as np
from mxnet import autograd, gluon, nd

from gluon_bn.check import exercises
from gluon_bn.check.calling import Failure, make
from gluon_bn.check.engine import Student, same
from gluon_bn.check.layers import ROLES, Layer, arrays
from gluon_bn.check.questions import STATISTICS

NAMES = dict(zip(ROLES, ("gamma", "beta", "running mean", "running variance")))
START = dict(zip(ROLES, (1, 0, 0, 1)))
BLOCK = replace(exercises.BATCH_NORM, title="block")
# What a layer that does not say them may have.
EPSILONS = (1e-5, 1e-3, 1e-12, 2e-5, 1e-6, 1e-8, 1e-4, 1e-2)
MOMENTA = (0.9, 0.99, 0.999, 0.995, *np.arange(50, 100) / 100)


def block(made, mistakes=()):
    """Check a batch normalization layer: a Block class called as MyBlock(num_features, num_dims),
    as d2l's, or with Gluon's arguments; a function that makes one; or a Block.

    Parameters and statistics are found by their names: gamma (or scale, weight), beta (shift,
    bias), and anything with mean and var in it. Epsilon and momentum are read from attributes of
    these names, else found out. Statistics are read after a whole step, forward and backward, so
    layers that move them in either pass are right: `gluon.nn.BatchNorm` passes.

    Parameters
    ----------
    made : class, function or Block
    mistakes : as for `batch_norm`

    Examples
    --------
    >>> bool(check.block(gluon_bn.BatchNorm))
    True
    """
    return exercises.asked(BLOCK, made, mistakes, Layer, of_layers)


def conditional(f, mistakes=()):
    """Check conditional batch normalization, a layer or a function.

    f is a Block class called as MyBlock(num_features, num_classes) (and num_dims, if it has it),
    or a Block, whose forward takes (X, labels); its gamma and beta have shape (num_classes, C), or
    are Embeddings. Or f is a function f(X, labels, gamma, beta, moving_mean, moving_var, eps,
    momentum) -> (Y, moving_mean, moving_var), gamma and beta of shape (num_classes, C). labels is
    of shape (N,), whole numbers from 0 to num_classes - 1; anything else is refused. The
    statistics are those of the whole batch, shared by the classes.

    Parameters
    ----------
    f : class, function or Block
    mistakes : as for `batch_norm`

    Examples
    --------
    >>> bool(check.conditional(gluon_bn.ConditionalBatchNorm))
    True
    """
    is_layer = isinstance(f, (type, gluon.Block))
    if not is_layer and callable(f):
        try:  # a function of few arguments must be a factory
            is_layer = len(inspect.signature(f).parameters) <= 3
        except (TypeError, ValueError):
            pass

    def questions(session):
        if (of_layers if is_layer else exercises.of_batch_norm)(session):
            out_of_range(session)
            float_labels(session)

    student = Layer if is_layer else Student
    return exercises.asked(exercises.CONDITIONAL, f, mistakes, student, questions)


def of_layers(session):
    """Everything that is asked of a layer, conditional or not."""
    report, layer = session.report, session.student
    if "state shared between layers" in Life(session, layer.cases[4][0]).run("two layers"):
        report.note("nothing else was looked at: every answer depends on what others were asked")
        return False
    report.lines = []  # said again further down
    if not session.runs():
        return False
    ranks = [r for r, cases in session.cases.items() if not set(cases) & set(layer.failures)]
    life = Life(session, session.cases[(ranks or session.ranks)[0]][0])
    session.say_kind()
    if "gamma and beta are one" in life.run("a new layer"):
        report.note("nothing else was looked at until they are two")
        return False
    if "several" in layer.seen:
        report.complain("more than Y returned")
    find_numbers(session)
    exercises.outputs_and_statistics(session, plain_average(life))
    if not set(STATISTICS) <= set(life.found):
        life.run("running statistics")
    if ranks:
        life.run(*LIFE)
    if all(role in life.found and life.found[role].parameter is not None for role in ROLES):
        session.say_types("Y has the shape and the type of X", shapes=True)
    if session.right_in_training:
        session.say_precision()
    return True


def find_numbers(session):
    """Epsilon and momentum of a layer that does not say them: those that explain what it gives. Or
    that says its momentum from the other side."""
    layer, own, ranks = session.student, session.student.fixed["momentum"], session.cases.values()
    epsilons = () if "eps" in layer.said else EPSILONS
    momenta = (own, max(own, 1 - own)) if "momentum" in layer.said else MOMENTA
    for name, key, groups, values in (
        ("eps", "Y", [cases[i : i + 2] for cases in ranks for i in (1, 4)], epsilons),
        ("momentum", "moving_mean", [cases[:2] for cases in ranks], momenta),
    ):
        found = []
        for group in groups:
            with suppress(Failure):
                found.append(session.evidence(group, [key]))
        for value in values:
            changed = [[(c.but(**{name: value}), got) for c, got in some] for some in found]
            if any(some and session.exercise.explains((), some) for some in changed):
                layer.fixed[name] = value
                break
    if "momentum" in layer.said and layer.fixed["momentum"] != own:
        session.report.note(
            f"momentum={own:g} is the weight of the new batch here, as in PyTorch and the newer "
            f"d2l; in Gluon the same layer has momentum={1 - own:g}"
        )


def plain_average(life):
    """Whether two steps leave the average of two batches: a layer that forgets nothing."""
    try:
        with life.layer.at_work():
            net, found = life.layer.prepared(life.case)
            life.step(net, life.case)
            life.step(net, life.other)
            got = [found[role].get() for role in STATISTICS]
    except (Failure, KeyError):
        return False
    X = np.stack([life.case["X"], life.other["X"]])
    axes = tuple(a for a in range(1, X.ndim) if a != 2)
    return all(same(g, s.mean(0)) for g, s in zip(got, (X.mean(axes), X.var(axes))))


# ----------------------------------------------------------------------------------- experiments


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


# ------------------------------------------------------------------------------------ the labels


def out_of_range(session):
    """A label that no class has must not be some other class's."""
    student, case = session.student, session.cases[session.ranks[0]][0].silent
    classes, accepted, name = len(case["gamma"]), [], "labels not checked"
    for label in (classes, -1):
        labels = case["labels"].copy()
        labels[1] = label
        outcome = student.run(case.but(labels=labels))
        if not outcome:
            continue
        Y = outcome.values["Y"]
        takes = ", which comes out as zeros" * (not Y.reshape(case.shape)[1].any())
        for row in range(classes):
            other = case.but(labels=np.where(labels == label, row, labels))
            if session.exercise.explains((), [(other, {"Y": Y})]):
                takes, name = f" as if it were {row}", "labels clipped"
        accepted.append(f"label {label}{takes}")
    if accepted:
        session.report.complain(name, classes, " and ".join(accepted))
    else:
        session.report.ok("labels that no class has are refused")


def float_labels(session):
    """Gluon's data loaders often give labels as float32."""
    case = session.cases[session.ranks[0]][0].silent
    want = session.student.run(case)
    got = session.student.run(case.but(labels=case["labels"].astype("float32")))
    if want and not got:
        session.report.note(f"labels of type float32: {got.failure}")
    elif want and not same(got.values["Y"], want.values["Y"]):
        session.report.complain("type of the labels")
