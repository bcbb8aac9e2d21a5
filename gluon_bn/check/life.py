"""The life of a layer: how it starts, what the Trainer does to it, saved, shared, hybridized. A
table of experiments; what each may find is said in `SAID`, under the name of the mistake."""

# A table is read by its rows.
# fmt: off

import os
import tempfile

import numpy as np
from mxnet import autograd, gluon, nd

from gluon_bn.check import probes
from gluon_bn.check.calling import Failure, make
from gluon_bn.check.layer import ROLES, arrays
from gluon_bn.check.matching import same

NAMES = dict(zip(ROLES, ("gamma", "beta", "running mean", "running variance")))
AT_ONE = "At {} the layer starts as plain normalization."
START = {"gamma": (1, AT_ONE.format(1)), "beta": (0, AT_ONE.format(0)),
         "moving_mean": (0, "0 is what a normalized input would have."),
         "moving_var": (1, "1 is what a normalized input would have; from 0, a prediction before "
                        "the averages have come up divides by almost nothing.")}
SAID = {
    "gamma and beta are one":
        "gamma and beta are one and the same Parameter: self.params.get returns the one that has "
        "this name already, if there is one.",
    "missing":
        "No array of the layer is called {0}. It is a Parameter, made in the constructor, so that "
        "it is initialized, trained and saved with the network.",
    "not registered":
        "{0} is an array, but no Parameter: collect_params() does not know it, so no Trainer will "
        "move it and no file will hold it.",
    "without gradient":
        "{0} asks for no gradient (grad_req='null'), so it stays as it is for ever.",
    "starts wrong": "It starts at {0}, not at {1}. {2}",
    "statistics receive gradients":
        "{0} asks for gradients (grad_req is not 'null'). It is observed, not learned: the Trainer "
        "would wait for its gradient, or decay it.",
    "statistics trained":
        "It moves {0}. The statistics are observed, not learned: the Trainer must not touch them.",
    "no gradient": "It leaves {0} where they were: no gradient arrives.",
    "two scales":
        "besides gamma and beta it trains {0}: two numbers do the work of one, and weight decay "
        "and learning rate act on both. A batch norm inside the layer needs none of its own: "
        "center=False, scale=False",
    "parameters lost on save":
        "After load_parameters a new layer predicts as if it had never been trained: nothing of it "
        "is in the file.",
    "statistics lost on save":
        "Loaded into a new layer, it predicts something else: {0} not in the file. save_parameters "
        "writes Parameters only; an array that is a plain attribute is left behind (chapter 4).",
    "remembers":
        "In prediction the same input gives another answer after a different one was asked in "
        "between: something of the last call is kept and used in the next.",
    "state shared between layers":
        "Training one layer changes what another predicts: they share an array, perhaps an "
        "attribute of the class or a default argument.",
    "mode frozen by hybridize":
        "The network is drawn once, in the first call, and what Python asked then is frozen: the "
        "layer stays in the mode of its first call, training or prediction.",
    "changed by hybridize":
        "Hybridized, it gives other numbers than call by call: something that Python does at every "
        "call happens only once in the drawn network.",
    "moving statistics not updated":
        "After a step of training the predictions are what they were, and no array of the layer "
        "has mean or var in its name: where is kept what the batches were like?",
}


class Life:
    """A layer, and the case of the experiments."""

    def __init__(self, report, layer, case):
        self.report, self.layer, self.case, self.rank = report, layer, case, len(case.shape)
        labels = case.given.get("labels")
        self.other = case.but(X=case["X"][::-1] * 1.5 + 1, **(
            {} if labels is None else {"labels": labels[::-1]}))

    def step(self, net, case, X=None):
        """A step of training without the Trainer, forward and backward; Y."""
        X = make(case["X"], self.layer.kind) if X is None else X
        with autograd.record():
            Y = self.layer.call(net, case, X=X)
        Y.backward(make(np.linspace(-1, 2, Y.size).reshape(Y.shape), self.layer.kind))
        nd.waitall()
        return Y.asnumpy()

    def predict(self, net, case=None, X=None):
        with autograd.pause(train_mode=False):
            return self.layer.call(net, case or self.case, X=X).asnumpy().astype("float64")

    def trained(self):
        """A layer after one step, and its arrays."""
        net, found = self.layer.prepared(self.case)
        self.step(net, self.case)
        return net, arrays(net, self.case)

    def run(self, experiments):
        """What each finds becomes a line; what it cannot find out because something fails, too."""
        for what, right, failing, experiment in experiments:
            try:
                with self.layer.at_work():
                    found = experiment(self)
            except Failure as problem:
                if failing:
                    name = "fails when hybridized" if "hybrid" in what else problem.mistake
                    self.report.not_yet(what, failing.format(problem), (name,))
                continue
            for name, sentence, where in found or ():
                self.report.not_yet(where or what, sentence, (name,))
            if right and found == []:
                self.report.ok(right)


def said(name, *words, as_name=None, where=None):
    return as_name or name, SAID[name].format(*words), where


def starts(life):
    """What arrays there are, whether they are Parameters, and what they start at."""
    layer, case = life.layer, life.case
    net = layer.new(case.shape[1], life.rank)
    first = {role: array.get() for role, array in arrays(net, case).items()}
    life.predict(net)  # now every size is known
    life.found = arrays(net, case)
    values, found = {r: first.get(r, a.get()) for r, a in life.found.items()}, []
    gamma, beta = (life.found.get(role) for role in ROLES[:2])
    if gamma and beta and gamma.parameter is not None and (
            gamma.parameter is beta.parameter and gamma.columns == beta.columns):
        found.append(said("gamma and beta are one", where="gamma and beta are two"))
        values.pop("beta")
    for role in ROLES[:2]:
        array = life.found.get(role)
        if array is None:
            found.append(said("missing", role, as_name=f"no {role}", where=f"it has a {role}"))
        elif array.parameter is None:
            found.append(said("not registered", role, as_name=f"{role} not registered",
                              where=f"{role} is a Parameter"))
        elif array.parameter.grad_req == "null":
            found.append(said("without gradient", role, as_name=f"{role} without gradient",
                              where=f"{role} is learned"))
    for role, value in values.items() if layer.instance is None else ():
        want, why = START[role]
        if not np.allclose(value, want):
            came = f"{value.ravel()[0]:.4g}" if np.ptp(value) < 1e-6 else "different values"
            found.append(said("starts wrong", came, want, why, where=f"where the {NAMES[role]} "
                              "starts", as_name=f"{NAMES[role]} starts wrong"))
    for role in ROLES[2:]:
        array = life.found.get(role)
        if array and array.parameter is not None and array.parameter.grad_req != "null":
            found.append(said("statistics receive gradients", array.name,
                              where=f"the {NAMES[role]} is no weight"))
    if not found:
        life.report.ok("gamma and beta are Parameters" + "; everything starts where it should" * (
            layer.instance is None))
    return found


def remembers(life):
    net, _ = life.layer.prepared(life.case)
    before = life.predict(net)
    life.predict(net, life.other)
    known = any("in prediction" in m or "in place" in m for m in life.report.mistakes)
    return [] if known or same(before, life.predict(net)) else [said("remembers")]


def trainer(life):
    """gamma and beta move, the statistics do not."""
    net, found = life.trained()
    parameters = net.collect_params()
    if not parameters:
        return None
    before = {role: array.get() for role, array in found.items()}
    gluon.Trainer(parameters, "sgd", {"learning_rate": 0.5, "wd": 0.1}, kvstore=None).step(
        1, ignore_stale_grad=True)
    after = {role: array.get() for role, array in arrays(net, life.case).items()}
    pushed = [found[r].name for r in ROLES[2:] if r in before and not same(before[r], after[r])]
    still = [r for r in ROLES[:2] if r in before and found[r].parameter is not None
             and found[r].parameter.grad_req != "null" and same(before[r], after[r], 1e-7)]
    return [said("statistics trained", " and ".join(pushed))] * bool(pushed) + [
        said("no gradient", r, as_name=f"no gradient for {r}") for r in still]


def two_scales(life):
    """A second scale and shift, such as those of a whole batch norm inside the layer."""
    net, found = life.trained()
    known = [array.parameter for array in found.values()]
    more = [name for name, p in net._collect_params_with_prefix().items() if p.grad_req != "null"
            and not any(p is k for k in known) and p.grad().asnumpy().any()]
    if more:
        life.report.note(SAID["two scales"].format(" and ".join(more)))


def network(layer):
    """A network of one layer: a lone one is saved in an older format, which MXNet 1.9.1 cannot
    load under NumPy semantics."""
    net = gluon.nn.Sequential()
    net.add(layer)
    return net


def saved(life):
    """A file carries the layer, with its statistics, into a new one."""
    try:
        net, found = life.trained()
    except Failure:
        return None  # said with the gradients
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "layer.params")
        network(net).save_parameters(file)
        want = life.predict(net)
        if not same(life.predict(net), want):
            return None  # prediction changes it, which another line says
        other = life.layer.new(life.case.shape[1], life.rank)
        if other is net:
            life.report.note("this Block cannot be copied, so saving and loading was not tried; "
                             "pass the class")
            return None
        untouched = life.predict(other)
        network(other).load_parameters(file)
        got = life.predict(other)
    if same(got, want):
        return []
    if same(got, untouched):
        return [said("parameters lost on save")]
    lost = [NAMES[r] for r, array in found.items() if array.parameter is None]
    only = [name for name in lost if name.startswith("running")]
    left = " and ".join(only) + (" are" if len(only) > 1 else " is")
    return [said("statistics lost on save", left if only else "what it has seen is",
                 as_name="parameters lost on save" if lost and not only else None)]


def shared(life):
    """Whether training one layer changes what another predicts."""
    if life.layer.instance is not None:
        return None
    one, two = (life.layer.new(life.case.shape[1], life.rank) for _ in range(2))
    before = life.predict(two)
    if not same(life.predict(two), before):
        return None
    life.step(one, life.case)
    return [] if same(before, life.predict(two)) else [said("state shared between layers")]


def hybridized(life):
    """Inside a hybridized network, trained first or asked first."""
    layer = life.layer
    case = life.case.but(X=layer.fit(life.case.but(X=probes.ordinary(
        probes.SHAPES[life.rank], seed=4)["X"]))["X"]) if not layer.labels else life.case

    def story(train_first, graph):
        net = gluon.nn.HybridSequential()
        net.add(layer.prepared(life.case)[0])
        if graph:
            net.hybridize()
        x = make(case["X"], layer.kind)
        if not train_first:
            life.predict(net, case, x)
        return life.step(net, case, x), life.predict(net, case, x)

    if layer.labels or not isinstance(layer.prepared(case)[0], gluon.HybridBlock):
        return None
    agree = [[same(*pair) for pair in zip(story(first, True), story(first, False))]
             for first in (True, False)]
    if all(map(all, agree)):
        return []
    frozen = agree[0] == [True, False] or agree[1] == [False, True]
    return [said("mode frozen by hybridize" if frozen else "changed by hybridize")]


def unseen(life):
    """Statistics under no name that is known: does prediction change after training?"""
    net, _ = life.layer.prepared(life.case)
    before = life.predict(net)
    life.step(net, life.case)
    if same(before, life.predict(net)):
        return [said("moving statistics not updated")]
    life.report.note("no arrays were found that have mean and var in their names, so the running "
                     "statistics could not be compared one by one")
    return None


# what is looked at, what is said if all is well, and if it fails, the experiment
BIRTH = (("a new layer", "", "It fails: {}.", starts),)
SHARED = (("two layers", "two layers keep their statistics apart", "", shared),)
HIDDEN = (("running statistics", "", "It fails: {}.", unseen),)
LIFE = (
    ("the same question again", "", "", remembers),
    ("a step of the Trainer", "a step of the Trainer moves gamma and beta, and leaves the "
     "statistics", "It fails: {}.", trainer),
    ("two scales", "", "", two_scales),
    ("saved and loaded", "saved and loaded, it predicts the same",
     "save_parameters or load_parameters fails: {}.", saved),
    *SHARED,
    ("in a hybridized network", "in a hybridized network it does the same",
     "It fails: {}. A HybridBlock is drawn once, with symbols that have no values; what needs "
     "values cannot stand in hybrid_forward.", hybridized),
)
