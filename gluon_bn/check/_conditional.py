"""Exercise: batch normalization with a gamma and a beta for each class."""

import inspect

from mxnet import gluon

from gluon_bn.check import _batch_norm, _block, probes
from gluon_bn.check.calling import Failure
from gluon_bn.check.layer import Layer
from gluon_bn.check.report import Report
from gluon_bn.check.suspects import forward, same


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
    report = Report("conditional")
    try:
        subject = Layer(f, labels=True) if _is_layer(f) else _batch_norm.Subject(f, labels=True)
    except Failure as problem:
        report.not_yet("it can be called", f"{problem}.", (problem.mistake,))
        return report
    _batch_norm.to_the_end(report, examine, subject)
    return report


def examine(report, subject):
    inner = _block if isinstance(subject, Layer) else _batch_norm
    if inner.examine(report, subject):
        out_of_range(report, subject)
        float_labels(report, subject)


def _is_layer(f):
    """A class, a Block, or a function of few arguments, which must be a factory."""
    if isinstance(f, (type, gluon.Block)) or not callable(f):
        return isinstance(f, (type, gluon.Block))
    try:
        return len(inspect.signature(f).parameters) <= 3
    except (TypeError, ValueError):
        return False


def out_of_range(report, subject):
    """A label that no class has must not be some other class's."""
    rank = next(r for r in (4, 2) if (r, True) not in subject.failures)
    s = subject.adapt(probes.ordinary(rank, labels=True))
    K, accepted, rows = len(s.gamma), [], 0
    for label in (K, -1):
        labels = s.labels.copy()
        labels[1] = label
        try:
            got = subject.run(s.but(labels=labels), recording=False).Y
        except Failure:
            continue
        takes = ", which comes out as zeros" * (not got.reshape(s.X.shape)[1].any())
        for row in range(K):
            labels[1] = row
            if same(got, forward(s.but(labels=labels))):
                takes, rows = f" as if it were {row}", rows + 1
        accepted.append(f"label {label}{takes}")
    if not accepted:
        report.ok("labels that no class has are refused")
        return
    why = ("MXNet's take and Embedding clip an index that is out of range, so a wrong label trains "
           "the class next door." if rows else "Such a label is a mistake in the data, and nobody "
           "hears of it.")
    report.not_yet("labels that no class has", f"With {K} classes, it takes "
                   f"{' and '.join(accepted)}, without a word. {why} Look at the labels before you "
                   "use them.", ("labels clipped" if rows else "labels not checked",))


def float_labels(report, subject):
    """Gluon's data loaders often give labels as float32."""
    rank = next(r for r in (4, 2) if (r, True) not in subject.failures)
    s = subject.adapt(probes.ordinary(rank, labels=True))
    try:
        got = subject.run(s.but(labels=s.labels.astype("float32")), recording=False).Y
        want = subject.run(s, recording=False).Y
        if not same(got, want):
            report.not_yet("labels of type float32", "They give another Y than the same labels as "
                           "integers.", ("type of the labels",))
    except Failure as problem:
        report.note(f"labels of type float32: {problem}")
