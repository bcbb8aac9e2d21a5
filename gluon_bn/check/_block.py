"""Exercise: the layer, a Block with parameters and running statistics."""

import numpy as np

from gluon_bn.check import probes, topics
from gluon_bn.check._batch_norm import (
    gradients,
    inverted,
    kept,
    one_rank,
    runs,
    scopes,
    to_the_end,
)
from gluon_bn.check._life import (
    NAMES,
    hybridized,
    remembers,
    saved,
    separate,
    shares_state,
    spare,
    starts,
    trained,
)
from gluon_bn.check.calling import Failure
from gluon_bn.check.conduct import in_place, precision, types_and_shapes
from gluon_bn.check.layer import Layer
from gluon_bn.check.report import Report
from gluon_bn.check.student import upstream
from gluon_bn.check.suspects import forward, same, statistics


def block(made):
    """Check a batch normalization layer: a Block class called as MyBlock(num_features, num_dims),
    as d2l's, or with Gluon's arguments; a function that makes one; or a Block.

    Parameters and statistics are found by their names: gamma (or scale, weight), beta (shift,
    bias), and anything with mean and var in it. Epsilon and momentum are read from attributes of
    these names, else found out. Statistics are read after a whole step, forward and backward, so
    layers that move them in either pass are right: `gluon.nn.BatchNorm` passes.

    Returns a `Report`, true when all is right.
    """
    report = Report("block")
    try:
        layer = Layer(made)
    except Failure as problem:
        report.not_yet("it can be made", f"{problem}.", (problem.mistake,))
        return report
    to_the_end(report, examine, layer)
    return report


def examine(report, layer):
    """Everything that is asked of a layer, conditional or not."""
    shares = shares_state(layer, 4)
    if shares:  # then every answer depends on what other layers were asked before
        separate(report, shares)
        report.note("nothing else was looked at, for the same reason")
        return False
    if not runs(report, layer):
        return False
    ranks = [r for r in (4, 2) if not {(r, True), (r, False)} & set(layer.failures)]
    if not ranks:
        training, prediction = ({r: topics.output(layer, r, t) for r in (4, 2)}
                                for t in (True, False))
        topics.say(report, "Y in training", training)
        topics.say(report, "Y in prediction", prediction)
        return False
    found = starts(report, layer, ranks[0])
    if "gamma and beta are one" in report.mistakes:
        report.note("nothing else was looked at until they are two")
        return False
    if layer.extra:
        report.not_yet("what forward returns", "More than one value comes back. The layer behind "
                       "this one expects Y alone.", ("more than Y returned",))
    settle_eps(layer, ranks)
    some = [r for r in (4, 2) if not {(r, True), (r, False)} <= set(layer.failures)]
    training = {r: topics.output(layer, r, True) for r in some}
    prediction = {r: topics.output(layer, r, False) for r in some}
    inverted(training, prediction)
    one_rank(training)
    in_place(report, layer)
    topics.say(report, "Y in training", training)
    topics.say(report, "Y in prediction", prediction)
    if all(v.ok for v in (*training.values(), *prediction.values())):
        scopes(report, layer, ranks)
    if {"moving_mean", "moving_var"} <= set(found):
        weight_of_the_past(report, layer, ranks)
        if plain_average(layer, ranks[0]):
            report.note("the statistics are plain averages over all batches, each with the same "
                        "weight; a layer with a momentum forgets old ones")
        else:
            topics.say_statistics(report, {r: topics.statistics(layer, r) for r in ranks})
        topics.say(report, "statistics stay in prediction", {r: kept(layer, r) for r in ranks})
    else:
        unseen_statistics(report, layer, ranks[0])
    gradients(report, layer, training)
    remembers(report, layer, ranks[0])
    trained(report, layer, ranks[0])
    spare(report, layer, ranks[0])
    saved(report, layer, ranks[0])
    separate(report, shares_state(layer, ranks[0]) if shares is None else shares)
    hybridized(report, layer, ranks[0])
    if set(NAMES) == {r for r, h in found.items() if h.parameter is not None}:
        types_and_shapes(report, layer, ranks)
    if all(v.ok for v in training.values()):
        precision(report, layer, ranks)
    return True


def settle_eps(layer, ranks):
    """The epsilon of a layer that does not say it: the one that explains its output, if any."""
    for rank, training in [(r, t) for r in ranks for t in (True, False)]:
        try:
            s = layer.adapt(probes.battery(rank, training, layer.labels)[1])
            got = layer.run(s, recording=training).Y
        except Failure:
            continue
        if layer.eps_said:
            return
        for eps in (1e-5, 1e-3, 1e-12, 2e-5, 1e-6, 1e-8, 1e-4, 1e-2):
            if same(got, forward(s.but(eps=eps))):
                layer.eps, layer.eps_said = eps, True
                for own in layer.assumed.values():
                    own["eps"] = eps
                return


def weight_of_the_past(report, layer, ranks):
    """The momentum of a layer that does not say it, or that counts it from the other side."""
    s = layer.adapt(probes.ordinary(ranks[0], labels=layer.labels))
    try:
        out = layer.run(s, upstream=upstream(s))
    except Failure:
        return
    batch = statistics(s, {})[0].ravel()
    if out.moving_mean.size != batch.size:
        return
    with np.errstate(all="ignore"):
        weights = (out.moving_mean.ravel() - batch) / (s.moving_mean.ravel() - batch)
    weight = float(np.median(weights))
    if not np.allclose(weights, weight, atol=1e-4) or not 0.5 <= weight < 0.99999:
        return
    weight = round(weight, 4)
    said = layer.momentum if layer.momentum_said else None
    if said is not None and not np.isclose(weight, 1 - said, atol=1e-4):
        return
    for own in layer.assumed.values():
        own["momentum"] = weight
    layer.momentum = weight
    if said is not None and not np.isclose(weight, said):
        report.note(f"momentum={said:g} is the weight of the new batch here, as in PyTorch and the "
                    f"newer d2l; in Gluon the same layer has momentum={weight:g}")


def plain_average(layer, rank):
    """Whether two steps leave the average of two batches: a layer that forgets nothing."""
    s = layer.adapt(probes.ordinary(rank, labels=layer.labels))
    t = s.but(X=s.X[::-1] * 1.5 + 1)
    try:
        with layer.at_work():
            net, found = layer.prepared(s)
            layer.step(net, s)
            layer.step(net, t)
            got = [found[role].get() for role in ("moving_mean", "moving_var")]
    except Failure:
        return False
    return all(same(g, (a + b) / 2) for g, a, b in zip(got, statistics(s, {}), statistics(t, {})))


def unseen_statistics(report, layer, rank):
    """Statistics under no name that is known: does prediction change after training?"""
    s = layer.adapt(probes.ordinary(rank, labels=layer.labels))
    try:
        with layer.at_work():
            net = layer.prepared(s)[0]
            before = layer.predict(net, s)
            layer.step(net, s)
            after = layer.predict(net, s)
    except Failure as problem:
        report.not_yet("running statistics", f"It fails: {problem}.", (problem.mistake,))
        return
    if same(before, after):
        report.not_yet("running statistics", "After a step of training the predictions are what "
                       "they were, and no array of the layer has mean or var in its name: where "
                       "is kept what the batches were like?", ("moving statistics not updated",))
    else:
        report.note("no arrays were found that have mean and var in their names, so the running "
                    "statistics could not be compared one by one")
