"""The exercises whose answer is a layer: block, and conditional, which may be a function, too."""

import inspect

import numpy as np
from mxnet import gluon

from gluon_bn.check.calling import Failure
from gluon_bn.check.exercise import Student
from gluon_bn.check.exercises import (
    BATCH_NORM,
    CONDITIONAL,
    outputs_and_statistics,
    questions_of_batch_norm,
)
from gluon_bn.check.layer import Layer
from gluon_bn.check.life import BIRTH, HIDDEN, LIFE, NAMES, SHARED, Life
from gluon_bn.check.matching import same
from gluon_bn.check.report import Report
from gluon_bn.check.session import examine


def block(made):
    """Check a batch normalization layer: a Block class called as MyBlock(num_features, num_dims),
    as d2l's, or with Gluon's arguments; a function that makes one; or a Block.

    Parameters and statistics are found by their names: gamma (or scale, weight), beta (shift,
    bias), and anything with mean and var in it. Epsilon and momentum are read from attributes of
    these names, else found out. Statistics are read after a whole step, forward and backward, so
    layers that move them in either pass are right: `gluon.nn.BatchNorm` passes.

    Returns a `Report`, true when all is right.
    """
    return examine(Report("block"), lambda: Layer(made, BATCH_NORM), questions_of_layers)


def conditional(f):
    """Check conditional batch normalization.

    f is a Block class called as MyBlock(num_features, num_classes) (and num_dims, if it has it),
    or a Block, whose forward takes (X, labels); its gamma and beta have shape (num_classes, C), or
    are Embeddings. Or f is a function f(X, labels, gamma, beta, moving_mean, moving_var, eps,
    momentum) -> (Y, moving_mean, moving_var), gamma and beta of shape (num_classes, C). labels is
    of shape (N,), whole numbers from 0 to num_classes - 1; anything else is refused. The
    statistics are those of the whole batch, shared by the classes.

    Returns a `Report`, true when all is right.
    """
    is_layer = isinstance(f, (type, gluon.Block))
    if not is_layer and callable(f):
        try:  # a function of few arguments must be a factory
            is_layer = len(inspect.signature(f).parameters) <= 3
        except (TypeError, ValueError):
            pass

    def questions(session):
        if (questions_of_layers if is_layer else questions_of_batch_norm)(session):
            out_of_range(session)
            float_labels(session)

    return examine(
        Report("conditional"), lambda: (Layer if is_layer else Student)(f, CONDITIONAL), questions
    )


def questions_of_layers(session):
    """Everything that is asked of a layer, conditional or not."""
    report, layer = session.report, session.student
    first = layer.fit(session.exercise.cases()[4][0])
    Life(report, layer, first).run(SHARED)
    if "state shared between layers" in report.mistakes:
        report.note(
            "nothing else was looked at: every answer depends on what other layers were "
            "asked before"
        )
        return False
    apart = [report.lines.pop() for line in report.lines[-1:] if "keep their" in line.what]
    if not session.runs():
        return False
    ranks = [r for r in session.ranks if not any(rank == r for rank, _ in layer.failures)]
    life = Life(report, layer, session.cases[(ranks or session.ranks)[0]][0])
    session.say_kind()
    life.run(BIRTH)
    if "gamma and beta are one" in report.mistakes:
        report.note("nothing else was looked at until they are two")
        return False
    if layer.extra:
        report.not_yet(
            "what forward returns",
            "More than one value comes back. The layer behind this one expects Y alone.",
            ("more than Y returned",),
        )
    settle_eps(session)
    weight_of_the_past(session)
    average = plain_average(life)
    outputs_and_statistics(session, average)
    found = getattr(life, "found", {})
    if not {"moving_mean", "moving_var"} <= set(found):
        life.run(HIDDEN)
    for line in LIFE if ranks else ():
        if line in SHARED:
            report.lines += apart
        else:
            life.run([line])
    if set(NAMES) == {r for r, array in found.items() if array.parameter is not None}:
        session.say_types("Y has the shape and the type of X", shapes=True)
    if session.right_in_training:
        session.say_precision()
    return True


def settle_eps(session):
    """The epsilon of a layer that does not say it: the one that explains its output, if any."""
    layer = session.student
    for some in [cases[i : i + 2] for cases in session.cases.values() for i in (1, 4)]:
        evidence = session.evidence(some, ("Y",))
        for eps in (1e-5, 1e-3, 1e-12, 2e-5, 1e-6, 1e-8, 1e-4, 1e-2):
            if (
                "eps" not in layer.said
                and not isinstance(evidence, Failure)
                and all(same(got["Y"], session.answers(c.but(eps=eps))["Y"]) for c, got in evidence)
            ):
                layer.eps = eps
                layer.said.add("eps")
    adapted_again(session)


def weight_of_the_past(session):
    """The momentum of a layer that does not say it, or that counts it from the other side."""
    layer, case = session.student, session.cases[session.ranks[0]][0]
    try:
        came = layer.run(case).values.get("moving_mean")
    except Failure:
        return
    batch = case["X"].mean(tuple(a for a in range(len(case.shape)) if a != 1))
    if came is None or came.size != batch.size:
        return
    with np.errstate(all="ignore"):
        weights = (came.ravel() - batch) / (case["moving_mean"] - batch)
    weight = round(float(np.median(weights)), 4)
    said = layer.momentum if "momentum" in layer.said else None
    if (
        not np.allclose(weights, weight, atol=2e-4)
        or not 0.5 <= weight < 0.99999
        or (said is not None and not np.isclose(weight, 1 - said, atol=1e-4))
    ):
        return
    layer.momentum = weight
    if said is not None and not np.isclose(weight, said):
        session.report.note(
            f"momentum={said:g} is the weight of the new batch here, as in PyTorch "
            f"and the newer d2l; in Gluon the same layer has momentum={weight:g}"
        )
    adapted_again(session)


def adapted_again(session):
    layer = session.student
    session.cases = {
        rank: [c.but(eps=layer.eps, momentum=layer.momentum) for c in cases]
        for rank, cases in session.cases.items()
    }


def plain_average(life):
    """Whether two steps leave the average of two batches: a layer that forgets nothing."""
    try:
        with life.layer.at_work():
            net, found = life.layer.prepared(life.case)
            life.step(net, life.case)
            life.step(net, life.other)
            got = [found[role].get() for role in ("moving_mean", "moving_var")]
    except (Failure, KeyError):
        return False
    axes = tuple(a for a in range(len(life.case.shape)) if a != 1)
    return all(
        same(g, (f(life.case["X"], axes) + f(life.other["X"], axes)) / 2)
        for g, f in zip(got, (np.mean, np.var))
    )


# ----------------------------------------------------------------------------------- the labels


def out_of_range(session):
    """A label that no class has must not be some other class's."""
    student, case = session.student, session.cases[session.ranks[0]][0].silent
    K, accepted, rows = len(case["gamma"]), [], 0
    for label in (K, -1):
        labels = case["labels"].copy()
        labels[1] = label
        try:
            got = student.run(case.but(labels=labels)).values["Y"]
        except Failure:
            continue
        takes = ", which comes out as zeros" * (not got.reshape(case.shape)[1].any())
        for row in range(K):
            if same(
                got, session.answers(case.but(labels=np.where(labels == label, row, labels)))["Y"]
            ):
                takes, rows = f" as if it were {row}", rows + 1
        accepted.append(f"label {label}{takes}")
    if not accepted:
        session.report.ok("labels that no class has are refused")
        return
    why = (
        "MXNet's take and Embedding clip an index that is out of range, so a wrong label trains "
        "the class next door."
        if rows
        else "Such a label is a mistake in the data, and nobody hears of it."
    )
    session.report.not_yet(
        "labels that no class has",
        f"With {K} classes, it takes "
        f"{' and '.join(accepted)}, without a word. {why} Look at the labels "
        "before you use them.",
        ("labels clipped" if rows else "labels not checked",),
    )


def float_labels(session):
    """Gluon's data loaders often give labels as float32."""
    student, case = session.student, session.cases[session.ranks[0]][0].silent
    try:
        want = student.run(case).values["Y"]
        got = student.run(case.but(labels=case["labels"].astype("float32"))).values["Y"]
    except Failure as problem:
        session.report.note(f"labels of type float32: {problem}")
        return
    if not same(got, want):
        session.report.not_yet(
            "labels of type float32",
            "They give another Y than the same labels as integers.",
            ("type of the labels",),
        )
