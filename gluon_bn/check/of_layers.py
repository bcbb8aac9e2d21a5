"""Exercises whose answer is a layer: the questions, in their order, and block and conditional."""

import inspect
from contextlib import suppress
from dataclasses import replace

import numpy as np
from mxnet import gluon

from gluon_bn.check.arrays import ROLES
from gluon_bn.check.calling import Failure
from gluon_bn.check.engine import same
from gluon_bn.check.exercises import BATCH_NORM, CONDITIONAL, asked
from gluon_bn.check.layers import Layer
from gluon_bn.check.life import LIFE, Life
from gluon_bn.check.questions import STATISTICS, of_batch_norm, outputs_and_statistics
from gluon_bn.check.student import Student

BLOCK = replace(BATCH_NORM, title="block")
# What a layer that does not say them may have.
EPSILONS = (1e-5, 1e-3, 1e-12, 2e-5, 1e-6, 1e-8, 1e-4, 1e-2)
MOMENTA = (0.9, 0.99, 0.999, 0.995, *np.arange(50, 100) / 100)


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
    outputs_and_statistics(session, plain_average(life))
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


def of_conditional(session):
    if (of_layers if session.student.is_layer else of_batch_norm)(session):
        out_of_range(session)
        float_labels(session)


def layer_or_function(f, exercise):
    is_layer = isinstance(f, (type, gluon.Block))
    if callable(f) and not is_layer:
        with suppress(TypeError, ValueError):  # a function of few arguments must be a factory
            is_layer = len(inspect.signature(f).parameters) <= 3
    return (Layer if is_layer else Student)(f, exercise)


# ---------------------------------------------------------------------------------- the exercises


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
    return asked(BLOCK, made, mistakes, Layer, of_layers)


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
    return asked(CONDITIONAL, f, mistakes, layer_or_function, of_conditional)
