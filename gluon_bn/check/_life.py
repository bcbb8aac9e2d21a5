"""The life of a layer: how it starts, what the Trainer does to it, saved, loaded, hybridized."""

import os
import tempfile

import numpy as np
from mxnet import gluon

from gluon_bn.check import probes
from gluon_bn.check.calling import Failure, make
from gluon_bn.check.handles import handles
from gluon_bn.check.suspects import same

NAMES = {"gamma": "gamma", "beta": "beta", "moving_mean": "running mean",
         "moving_var": "running variance"}
START = {"gamma": (1, "At 1 the layer starts as plain normalization."),
         "beta": (0, "At 0 the layer starts as plain normalization."),
         "moving_mean": (0, "0 is what a normalized input would have."),
         "moving_var": (1, "1 is what a normalized input would have; from 0, a prediction before "
                        "the averages have come up divides by almost nothing.")}


def starts(report, layer, rank):
    """What arrays there are, whether they are Parameters, and what they start at.

    Returns the handles of a layer that nothing was set in.
    """
    s = layer.fit(probes.ordinary(rank, labels=layer.labels))
    try:
        with layer.at_work():
            net = layer.new(s.X.shape[1], rank)
            first = {role: h.get() for role, h in handles(net, s).items()}
            layer.predict(net, s)  # now every size is known
            found = handles(net, s)
            values = {role: first.get(role, h.get()) for role, h in found.items()}
    except Failure as problem:
        report.not_yet("a new layer", f"It fails: {problem}.", (problem.mistake,))
        return {}
    said = len(report.lines)
    both = [found[role].parameter for role in ("gamma", "beta") if role in found]
    if len(both) == 2 and both[0] is not None and both[0] is both[1] and (
            found["gamma"].columns == found["beta"].columns):
        report.not_yet("gamma and beta are two", "gamma and beta are one and the same Parameter: "
                       "self.params.get returns the one that has this name already, if there is "
                       "one.", ("gamma and beta are one",))
        values.pop("beta")
    for role in ("gamma", "beta"):
        if role not in found:
            report.not_yet(f"it has a {role}", f"No array of the layer is called {role}. It is a "
                           "Parameter, made in the constructor, so that it is initialized, "
                           "trained and saved with the network.", (f"no {role}",))
        elif found[role].parameter is None:
            report.not_yet(f"{role} is a Parameter", f"{role} is an array, but no Parameter: "
                           "collect_params() does not know it, so no Trainer will move it and no "
                           "file will hold it.", (f"{role} not registered",))
        elif found[role].parameter.grad_req == "null":
            report.not_yet(f"{role} is learned", f"{role} asks for no gradient (grad_req='null'), "
                           "so it stays as it is for ever.", (f"{role} without gradient",))
    fresh = layer.instance is None
    for role, value in values.items() if fresh else ():
        want, why = START[role]
        if not np.allclose(value, want):
            came = f"{value.ravel()[0]:.4g}" if np.ptp(value) < 1e-6 else "different values"
            report.not_yet(f"where the {NAMES[role]} starts",
                           f"It starts at {came}, not at {want}. {why}",
                           (f"{NAMES[role]} starts wrong",))
    for role in ("moving_mean", "moving_var"):
        parameter = found[role].parameter if role in found else None
        if parameter is not None and parameter.grad_req != "null":
            report.not_yet(f"the {NAMES[role]} is no weight", f"{found[role].name} asks for "
                           "gradients (grad_req is not 'null'). It is observed, not learned: the "
                           "Trainer would wait for its gradient, or decay it.",
                           ("statistics receive gradients",))
    if len(report.lines) == said:
        report.ok("gamma and beta are Parameters; everything starts where it should" if fresh else
                  "gamma and beta are Parameters")
    return found


def trained(report, layer, rank):
    """One step of the Trainer: gamma and beta move, the statistics do not."""
    s = layer.adapt(probes.ordinary(rank, labels=layer.labels))
    what = "a step of the Trainer"
    try:
        with layer.at_work():
            net, _ = layer.prepared(s)
            parameters = net.collect_params()
            if not parameters:
                return
            layer.step(net, s)
            found = handles(net, s)
            before = {role: h.get() for role, h in found.items()}
            trainer = gluon.Trainer(parameters, "sgd", {"learning_rate": 0.5, "wd": 0.1},
                                    kvstore=None)
            trainer.step(1, ignore_stale_grad=True)
            after = {role: h.get() for role, h in handles(net, s).items()}
    except Failure as problem:
        report.not_yet(what, f"It fails: {problem}.", (problem.mistake,))
        return
    pushed = [found[r].name for r in ("moving_mean", "moving_var")
              if r in before and not same(before[r], after[r])]
    still = [r for r in ("gamma", "beta") if r in before and found[r].parameter is not None
             and found[r].parameter.grad_req != "null" and same(before[r], after[r], 1e-7)]
    if pushed:
        report.not_yet(what, f"It moves {' and '.join(pushed)}. The statistics are observed, not "
                       "learned: the Trainer must not touch them.", ("statistics trained",))
    if still:
        report.not_yet(what, f"It leaves {' and '.join(still)} where they were: no gradient "
                       "arrives.", tuple(f"no gradient for {r}" for r in still))
    if not pushed and not still:
        report.ok(f"{what} moves gamma and beta, and leaves the statistics")


def spare(report, layer, rank):
    """A second scale and shift, such as those of a whole batch norm inside the layer."""
    s = layer.adapt(probes.ordinary(rank, labels=layer.labels))
    try:
        with layer.at_work():
            net, found = layer.prepared(s)
            layer.step(net, s)
            known = [h.parameter for h in found.values()]
            more = [name for name, p in net._collect_params_with_prefix().items()
                    if p.grad_req != "null" and not any(p is k for k in known)
                    and p.grad().asnumpy().any()]
    except Failure:
        return  # said with the gradients
    if more:
        report.note(f"besides gamma and beta it trains {' and '.join(more)}: two numbers do the "
                    "work of one, and weight decay and learning rate act on both. A batch norm "
                    "inside the layer needs none of its own: center=False, scale=False")


def saved(report, layer, rank):
    """A file carries the layer, with its statistics, into a new one."""
    s = layer.adapt(probes.ordinary(rank, labels=layer.labels))
    what = "saved and loaded"
    try:
        with layer.at_work():
            net, _ = layer.prepared(s)
            layer.step(net, s)
    except Failure:
        return  # said with the gradients
    try:
        with layer.at_work(), tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "layer.params")
            _network(net).save_parameters(file)
            want = layer.predict(net, s)
            if not same(layer.predict(net, s), want):
                return  # prediction changes it, which another line says
            other = layer.new(s.X.shape[1], rank)
            if other is net:
                report.note("this Block cannot be copied, so saving and loading was not tried; "
                            "pass the class")
                return
            untouched = layer.predict(other, s)
            _network(other).load_parameters(file)
            got = layer.predict(other, s)
    except Failure as problem:
        report.not_yet(what, f"save_parameters or load_parameters fails: {problem}.",
                       (problem.mistake,))
        return
    if same(got, want):
        report.ok(f"{what}, it predicts the same")
        return
    lost = [NAMES[r] for r, h in handles(net, s).items() if h.parameter is None]
    if same(got, untouched):
        report.not_yet(what, "After load_parameters a new layer predicts as if it had never been "
                       "trained: nothing of it is in the file.", ("parameters lost on save",))
        return
    only = [n for n in lost if n.startswith("running")]
    which = " and ".join(only) if only else "what it has seen"
    name = "statistics lost on save" if only or not lost else "parameters lost on save"
    report.not_yet(what, f"Loaded into a new layer, it predicts something else: {which} "
                   f"{'are' if len(only) > 1 else 'is'} not in the file. save_parameters writes "
                   "Parameters only; an array that is a plain attribute is left behind "
                   "(chapter 4).", (name,))


def _network(layer):
    """A network of one layer: a lone one is saved in an older format, which MXNet 1.9.1 cannot
    load under NumPy semantics."""
    net = gluon.nn.Sequential()
    net.add(layer)
    return net


def remembers(report, layer, rank):
    """In prediction an answer depends on the parameters and the statistics, not on what was asked
    before."""
    s = layer.adapt(probes.ordinary(rank, labels=layer.labels))
    other = s.but(X=s.X[::-1] + 1, labels=None if s.labels is None else s.labels[::-1])
    try:
        with layer.at_work():
            net, _ = layer.prepared(s)
            before = layer.predict(net, s)
            layer.predict(net, other)
            after = layer.predict(net, s)
    except Failure:
        return
    if not same(before, after) and not any("in prediction" in m or "in place" in m
                                           for m in report.mistakes):
        report.not_yet("the same question again", "In prediction the same input gives another "
                       "answer after a different one was asked in between: something of the last "
                       "call is kept and used in the next.", ("remembers",))


def shares_state(layer, rank):
    """Whether training one layer changes what another predicts; None where it cannot be tried."""
    if layer.instance is not None:
        return None
    try:
        s = layer.adapt(probes.ordinary(rank, labels=layer.labels))
        with layer.at_work():
            one, _ = layer.prepared(s)
            two, _ = layer.prepared(s)
            before = layer.predict(two, s)
            if not same(layer.predict(two, s), before):
                return None
            layer.step(one, s)
            return not same(before, layer.predict(two, s))
    except Failure:
        return None


def separate(report, shares):
    """Two layers of a network have nothing in common; `shares` is what `shares_state` found."""
    if shares:
        report.not_yet("two layers", "Training one layer changes what another predicts: they share "
                       "an array, perhaps an attribute of the class or a default argument.",
                       ("state shared between layers",))
    elif shares is False:
        report.ok("two layers keep their statistics apart")


def hybridized(report, layer, rank):
    """Inside a hybridized network, trained first or asked first."""
    s = layer.adapt(probes.ordinary(rank, labels=layer.labels))
    t = s.but(X=probes.ordinary(rank, seed=4, labels=layer.labels).X)
    what = "in a hybridized network"
    try:
        with layer.at_work():
            if not isinstance(layer.prepared(s)[0], gluon.HybridBlock) or layer.labels:
                return
            answers = [_story(layer, s, t, first, graph) for first in (True, False)
                       for graph in (False, True)]
    except Failure as problem:
        report.not_yet(what, f"It fails: {problem}. A HybridBlock is drawn once, with symbols that "
                       "have no values; what needs values cannot stand in hybrid_forward.",
                       ("fails when hybridized",))
        return
    (plain, graph), (plain2, graph2) = answers[:2], answers[2:]
    trained_right = same(graph[0], plain[0]) and same(graph2[0], plain2[0])
    asked_right = same(graph[1], plain[1]) and same(graph2[1], plain2[1])
    if trained_right and asked_right:
        report.ok(f"{what} it does the same")
        return
    if same(graph[0], plain[0]) and not same(graph[1], plain[1]) or (
            not same(graph2[0], plain2[0]) and same(graph2[1], plain2[1])):
        report.not_yet(what, "The network is drawn once, in the first call, and what Python asked "
                       "then is frozen: the layer stays in the mode of its first call, training "
                       "or prediction.", ("mode frozen by hybridize",))
    else:
        report.not_yet(what, "Hybridized, it gives other numbers than call by call: something that "
                       "Python does at every call happens only once in the drawn network.",
                       ("changed by hybridize",))


def _story(layer, s, t, train_first, graph):
    """What a network gives in training and then, or before, in prediction."""
    net = gluon.nn.HybridSequential()
    net.add(layer.prepared(s)[0])
    if graph:
        net.hybridize()
    x = make(t.X, layer.kind)
    if not train_first:
        layer.predict(net, t, x)
    return layer.step(net, t, x), layer.predict(net, t, x)
