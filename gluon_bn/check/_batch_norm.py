"""Exercise: the function batch_norm, training and prediction, with its moving statistics."""

from gluon_bn.check import moving, probes, topics
from gluon_bn.check.calling import KINDS, Failure
from gluon_bn.check.conduct import in_place, precision, remembers, types_and_shapes
from gluon_bn.check.report import Report
from gluon_bn.check.student import BatchNormFunction, upstream
from gluon_bn.check.suspects import forward, same


def batch_norm(f):
    """Check f(X, gamma, beta, moving_mean, moving_var, eps, momentum) -> (Y, moving_mean,
    moving_var), the signature of d2l and of `gluon_bn.batch_norm`.

    X has shape (N, C) or (N, C, H, W); gamma, beta and the moving statistics (1, C) or
    (1, C, 1, 1), or (C,) for a function that wants vectors. f asks `autograd.is_training()`, or
    takes an argument `training` of that name. The statistics may be new arrays or the given ones
    changed in place, moved in the forward pass or (MXNet's own operator) in the backward pass.

    Returns a `Report`, true when all is right.
    """
    report = Report("batch_norm")
    try:
        subject = Subject(f)
    except Failure as problem:
        report.not_yet("it can be called", f"{problem}.", (problem.mistake,))
        return report
    to_the_end(report, examine, subject)
    return report


def to_the_end(report, examination, subject):
    """Examine; what fails now and then (by state of its own, say) must not end in a traceback."""
    try:
        return examination(report, subject)
    except Failure as problem:
        report.not_yet("it runs every time", f"It ran at first, and then it failed: {problem}. "
                       "Is something kept between calls?", (problem.mistake,))
        return False


def examine(report, subject):
    """Everything that is asked of a function, conditional or not; False if it does not run."""
    if not runs(report, subject):
        return False
    ranks = [r for r in (4, 2) if not {(r, True), (r, False)} <= set(subject.failures)]
    training = {r: topics.output(subject, r, True) for r in ranks}
    prediction = {r: topics.output(subject, r, False) for r in ranks}
    inverted(training, prediction)
    one_rank(training)
    in_place(report, subject)
    topics.say(report, "Y in training", training)
    topics.say(report, "Y in prediction", prediction)
    if all(v.ok for v in (*training.values(), *prediction.values())):
        scopes(report, subject, ranks)
    moving_statistics(report, subject, ranks)
    gradients(report, subject, training)
    types_and_shapes(report, subject, ranks)
    if all(v.ok for v in training.values()):
        precision(report, subject, ranks)
    remembers(report, subject, ranks[0])
    return True


class Subject(BatchNormFunction):
    """A function; it takes every situation as it comes."""

    def adapt(self, s):
        return s


def runs(report, subject):
    """Whether it runs at all, on which ranks, and with which arrays."""
    works = subject.settle()
    if not works:
        problem = subject.first_failures[4, True]
        shape = probes.ordinary(4, labels=subject.labels).X.shape
        verdict = topics.failure(problem, f"With X of shape {shape}, in training,")
        if "broadcast" in verdict.why:
            verdict = topics.laid_wrong(subject, 4, True, verdict)
        report.not_yet("it runs", verdict.why, verdict.names)
        return False
    for rank in (4, 2):
        if {(rank, True), (rank, False)} <= set(subject.failures):
            shape = probes.ordinary(rank, labels=subject.labels).X.shape
            verdict = topics.failure(subject.failures[rank, True], f"With X of shape {shape}")
            if "broadcast" in verdict.why:
                verdict = topics.laid_wrong(subject, rank, True, verdict)
            if getattr(subject, "instance", None) is not None:  # it may be made for one rank
                report.note(f"checked with X of rank {6 - rank}; it does not take rank {rank}")
                continue
            report.not_yet(f"X of rank {rank}", verdict.why,
                           (f"only rank {6 - rank} works", *(verdict.names if verdict.names !=
                                                             ("error",) else ())))
    if not subject.failures:
        report.ok("it runs on X of shape (N, C) and (N, C, H, W)")
    if subject.kind == "numpy":
        report.not_yet("it works on MXNet's arrays", "It runs on NumPy arrays only, so autograd "
                       "cannot follow it and a network could not be trained with it "
                       f"({subject.first_failures[4, True]}).", ("NumPy only",))
    elif subject.kind == "np" and subject.first_failures:
        said = next(iter(subject.first_failures.values()))
        if subject.numpy_style:
            report.note(f"checked with arrays of {KINDS['np']}, for which it is written")
        else:
            report.not_yet("it works on arrays of mx.nd", "It runs on arrays of mx.np, but not on "
                           f"those of mx.nd: {said}.", ("mx.np only",))
    if subject.layout == "vector":
        report.note("gamma, beta and the statistics were passed as vectors (C,): with d2l's "
                    "shapes, (1, C) and (1, C, 1, 1), it does not run")
    if getattr(subject, "reordered", False):
        wanted = ", ".join(subject.names)
        report.not_yet("the order of the arguments", f"Your arguments are in another order than "
                       f"({wanted}). They were passed by name here, but whoever calls it as d2l's "
                       "layer does, by position, mixes them up.", ("order of the arguments",))
    return True


def inverted(training, prediction):
    """The two modes exchanged: one mistake, not two."""
    verdicts = [*training.values(), *prediction.values()]
    if all(v.faults == {"source": "the other"} for v in verdicts):
        for v in verdicts:
            v.names = ("training and prediction exchanged",)
            v.why = ("Training and prediction have changed places: the moving statistics are used "
                     "in training, those of the batch in prediction. Look at the condition.")


def one_rank(training):
    """It fails for one rank and is right for the other."""
    for rank, v in training.items():
        other = training.get(6 - rank)
        if v.faults is None and v.names == ("error",) and other is not None and other.ok:
            v.names = (f"only rank {6 - rank} works",)


def scopes(report, subject, ranks):
    """is_training() is what counts, not is_recording()."""
    s = subject.adapt(probes.ordinary(ranks[0], labels=subject.labels))
    try:
        trained = subject.run(s, recording=False).Y
        predicted = subject.run(s.but(training=False), recording=True).Y
    except Failure as problem:
        report.not_yet("train_mode() and record(train_mode=False)", f"There it fails: {problem}.",
                       (problem.mistake,))
        return
    if same(trained, forward(s)) and same(predicted, forward(s.but(training=False))):
        return
    report.not_yet(
        "train_mode() and record(train_mode=False)", "Whether autograd records and whether the "
        "network trains are two questions. Inside autograd.train_mode() without record(), and "
        "inside record(train_mode=False), yours takes the wrong one for the other.",
        ("is_recording for is_training",))


def moving_statistics(report, subject, ranks):
    """After training: one step. After prediction: where they were."""
    s = subject.adapt(probes.ordinary(ranks[0], labels=subject.labels))
    try:
        returned = subject.run(s, recording=False).returned
    except Failure:
        returned = subject.run(s.but(training=False), recording=False).returned
    if returned == "reordered":
        report.not_yet("what it returns", "Y comes first, then the moving mean and the moving "
                       "variance; yours come in another order.", ("return order",))
    if returned == "Y alone":
        where = ("They were changed in place, but " if
                 any(n.startswith("moving") for n, t in subject.changed if t) else "")
        report.not_yet("moving statistics", f"Only one array comes back. {where}the function "
                       "returns three: Y, the moving mean and the moving variance.".replace(
                           ". the", ". The"), ("statistics not returned",))
        return
    pairs = {}
    for r in ranks:
        try:
            pairs[r] = topics.statistics(subject, r)
        except Failure:
            continue  # said where Y in training was looked at
    topics.say_statistics(report, pairs)
    topics.say(report, "moving statistics stay in prediction",
               {r: kept(subject, r) for r in ranks})
    if pairs and all(pair and pair[0].ok and pair[1].ok for pair in pairs.values()):
        two_steps(report, subject, next(r for r in ranks if (r, True) not in subject.failures))


def kept(subject, rank):
    """The statistics that come back in prediction."""
    s = subject.adapt(probes.ordinary(rank, labels=subject.labels).but(training=False))
    try:
        out = subject.run(s, recording=False)
    except Failure:
        return None  # said where Y in prediction was looked at
    if out.moving_mean is None:
        return None
    if same(out.moving_mean, s.moving_var) and same(out.moving_var, s.moving_mean):
        return topics.Verdict(False, *topics.SWAPPED)
    for name in ("moving_mean", "moving_var"):
        got, want = getattr(out, name), getattr(s, name)
        if same(got, want):
            continue
        return changed_in_prediction(subject, rank, name, s, got)
    return topics.Verdict(True)


def changed_in_prediction(subject, rank, name, s, got):
    example = probes.smallest(
        lambda t: getattr(subject.run(t, recording=False), name), rank, False,
        ("X", "momentum", name), subject, want=lambda t: getattr(t, name), what=name, last=s)
    moved = same(got, moving.moved(s, which=name[len("moving_"):]))
    kind, does = ("updated", "moves towards the batch") if moved else ("changed", "changes")
    return topics.Verdict(
        False, (f"moving statistics {kind} in prediction",), f"In prediction {name} {does}. There "
        "the statistics are read, never written: an answer must not change the next one.",
        example, None)


def two_steps(report, subject, rank):
    """What came back is what goes in next."""
    s = subject.adapt(probes.ordinary(rank, labels=subject.labels))
    try:
        first = subject.run(s, upstream=upstream(s))
    except Failure:
        return  # said with the gradients
    try:
        second = subject.run(s, upstream=upstream(s), statistics=first.returned_arrays[1:3])
    except Failure as problem:
        reshaped = problem.mistake == "error"
        report.not_yet("a second step with the statistics that came back", f"It fails: {problem}."
                       + " Did their shape change?" * reshaped,
                       ("statistics change shape",) if reshaped else (problem.mistake,))
        return
    t = s.but(moving_mean=first.moving_mean.ravel(), moving_var=first.moving_var.ravel())
    right = all(same(got, moving.moved(t, which=w)) for got, w in
                ((second.moving_mean, "mean"), (second.moving_var, "var")))
    gap = subject.kind != "numpy" and not right
    went, came = subject.layout_of(s), first.moving_mean.shape
    if gap and went != came:
        report.not_yet("a second step with the statistics that came back", "The moving statistics "
                       f"go in with shape {went} and come back with shape {came}, so the next step "
                       "meets them in another shape.", ("statistics change shape",))
    elif gap and not same(second.Y, forward(s)):
        report.not_yet("a second step with the statistics that came back", "The second call in a "
                       "row gives another Y than the first.", ("remembers",))
    elif gap:
        report.not_yet("a second step with the statistics that came back", "The first step is "
                       "right, the second is not: something else than the statistics that were "
                       "passed in takes part.", ("remembers",))


def gradients(report, subject, training):
    """Only where the Y that comes out is understood, for they are those of that Y."""
    if subject.kind == "numpy":
        return
    understood = {r: v for r, v in training.items() if v.ok or v.faults}
    if not understood:
        report.note("the gradients were not looked at: they can be once Y in training is "
                    "understood")
        return
    topics.say(report, "gradients of X, gamma and beta",
               {r: topics.gradients(subject, r, v.faults) for r, v in understood.items()})
