"""What happens inside a network: the signal on its way up, the gradient on its way down.

::

    report = activation_report(net, X, y)
    print(report)                      # a table, one line for each layer
    report.only("Activation").plot()   # a picture
    report["3"].std                    # one number; report.column("gradient") a list of them

It works for any Gluon network, built with our layers, Gluon's or your own, hybridized or not, and
leaves it as it was.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon, nd
from mxnet.gluon import Block, HybridBlock, nn

from gluon_bn.arguments import (
    Array,
    OptArray,
    accepting,
    as_nd,
    cast,
    check_kind,
    check_labels,
    check_scores,
)
from gluon_bn.inference.networks import all_blocks

__all__ = ["ActivationReport", "LayerReport", "activation_report"]

# Where an activation is flat: its slope is less than a tenth of its largest, told from its output.
FLAT = {
    "sigmoid": lambda y: y * (1 - y) < 0.1 / 4,
    "tanh": lambda y: 1 - y**2 < 0.1,
    "softsign": lambda y: (1 - abs(y)) ** 2 < 0.1,
    "relu": lambda y: y <= 0,
    "softrelu": lambda y: np.exp(-y) > 0.9,  # log(1 + e^x) has the slope 1 - e^-y
}


def activation_report(
    net: Block,
    X: Array,
    y: OptArray = None,
    loss: Callable | None = None,
    *,
    trainer: gluon.Trainer | None = None,
    training: bool = True,
    keep: int = 10_000,
) -> ActivationReport:
    """Run one batch through `net`, forward and backward, and measure what leaves each layer.

    A layer that computes twice has two rows. Containers such as HybridSequential have none, and a
    Dense with an activation is one layer. All numbers are float64, whatever the net computes in.

    The network is left as it was, also after an error: parameters, running statistics, gradients,
    attributes, hybridization. No random numbers are used (unless a Block of yours draws some).

    Parameters
    ----------
    net : Block, initialized, whose shapes are known (it has seen a batch)
    X : array, its input, with the examples on axis 0
    y : array (N,), labels; the gradients are then those of the mean loss of the batch
    loss : function loss(output, y), by default the softmax cross entropy; without y, loss(output)
        Without both, a gradient of length 1 in a random but always the same direction is sent back
        from the output: enough to see how it grows or shrinks on its way.
    trainer : gluon.Trainer, for the column `update`: how far its next step, after this batch, would
        move the weights of a layer. With any optimizer, and with the state that it has by now.
    training : bool; True normalizes by the statistics of the batch, False by the running ones
        Dropout drops nothing in either case, because it would use up random numbers.
    keep : int, how many values of each layer are kept for histograms

    Returns
    -------
    ActivationReport, a row for each layer in the order in which they computed

    Raises
    ------
    TypeError : net is no Block, X no array, or trainer no gluon.Trainer
    ValueError : the network has no values or shapes yet, the labels do not fit, or the trainer has
        several devices

    Examples
    --------
    >>> net = nn.Sequential()
    >>> net.add(nn.Dense(2, in_units=2, weight_initializer="ones"), nn.Activation("relu"))
    >>> net.initialize()
    >>> report = inspection.activation_report(net, nd.array([[1, 3], [-2, -2]]))
    >>> report["0"].mean, report["1"].flat
    (0.0, 0.5)
    """
    _check(net, X, y, trainer)
    calls: list = []
    with _left_as_it_was(net), autograd.pause():
        for block in all_blocks(net):
            if isinstance(block, nn.Dropout):
                block.forward = lambda X: X
        for name, block in _rows(net):
            _listen(name, block, calls)
        with autograd.record(train_mode=training):
            with warnings.catch_warnings(record=True) as caught, accepting(X):
                output = net(X)
            _warn_once(caught)
            if not calls:
                raise ValueError(
                    f"no layer of {type(net).__name__} returned an array, so there is "
                    "nothing to measure"
                )
            weights = _weights(net, X.context)
            wanted = [probe for *_, probe in calls] + [array for array, _ in weights]
            head = _reaching(_head(output, X, y, loss), wanted)
        gradients = autograd.grad(head, wanted, train_mode=training)
        slopes = [_length(g) for g in gradients]
        steps = _next_step(trainer, weights, gradients[len(calls) :]) if trainer else {}
    by_parameter = {id(p): slope for (_, p), slope in zip(weights, slopes[len(calls) :])}
    return ActivationReport(
        [
            _row(name, block, values, slope, by_parameter, steps, keep)
            for (name, block, values, _), slope in zip(calls, slopes)
        ]
    )


@dataclass
class LayerReport:
    """What left one layer, and the gradient that arrived there; a row of an `ActivationReport`.

    Parameters
    ----------
    name : str, as in `save_parameters` files: '3' or '2.0.norm1'
    kind : str, the class of the Block
    shape : tuple, of its output
    mean, std : float, of all its values
    between : float, how much a unit differs between examples
        The root mean square, over the units, of its standard deviation over the batch; NaN for a
        batch of one.
    flat : float, the share of values where the activation is flat; None without activation
        Its slope is below a tenth of the largest, 0 for relu.
    dead : float, the share of units (entries of axis 1) that are flat for the whole batch, or None
    gradient : float, length (Euclidean norm) of dL/dy, y what left this layer; 0 if none arrives
    weight_gradient : float, length of dL/dw, w all weights of this layer, or None
    update : float, length of the next step of w over the length of w; None without trainer or w
        The update-to-weight ratio: about 1/1000 is usual (Karpathy, "Building makemore", part 4).
    values : NumPy array in float64, some of the values, evenly picked

    Examples
    --------
    >>> inspection.ActivationReport.COLUMNS[:4]
    ('name', 'kind', 'shape', 'mean')
    """

    name: str
    kind: str
    shape: tuple
    mean: float
    std: float
    between: float
    flat: float | None
    dead: float | None
    gradient: float
    weight_gradient: float | None
    update: float | None
    values: np.ndarray = field(repr=False)


class ActivationReport:
    """The rows of `activation_report`; printing it gives a table.

    Parameters
    ----------
    rows : iterable of LayerReport

    Examples
    --------
    >>> net = nn.Dense(2, in_units=2, weight_initializer="ones")
    >>> net.initialize()
    >>> inspection.activation_report(net, nd.array([[1, 3], [-2, -2]])).column("kind")
    ['Dense']
    """

    COLUMNS = tuple(column.name for column in fields(LayerReport) if column.name != "values")

    def __init__(self, rows: Iterable[LayerReport]) -> None:
        self.rows = list(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[LayerReport]:
        return iter(self.rows)

    def __getitem__(self, which: int | str) -> LayerReport:
        """The row of a name, '3', or of a position, 3."""
        if isinstance(which, int):
            return self.rows[which]
        for row in self.rows:
            if row.name == which:
                return row
        raise KeyError(
            f"there is no layer {which!r}; there are "
            + ", ".join(repr(row.name) for row in self.rows)
        )

    def only(self, *kinds: str) -> ActivationReport:
        """A report of the layers of these kinds, such as 'Activation' or 'Dense'."""
        found = [row for row in self.rows if row.kind in kinds]
        if not found:
            raise ValueError(
                f"there is no layer of kind {' or '.join(map(repr, kinds))}; there "
                f"are {', '.join(sorted({row.kind for row in self.rows}))}"
            )
        return ActivationReport(found)

    def column(self, name: str) -> list:
        """One column as a list, from the first layer to the last; `name` is one of COLUMNS."""
        if name not in self.COLUMNS:
            raise ValueError(f"there is no column {name!r}; there are {', '.join(self.COLUMNS)}")
        return [getattr(row, name) for row in self.rows]

    def plot(self, title: str | None = None):
        """A picture of the table: see `gluon_bn.plotting.plot_report`."""
        from gluon_bn.plotting import plot_report

        return plot_report(self, title)

    def __repr__(self):
        moves = any(row.update is not None for row in self.rows)
        head = ("layer", "kind", "output", *self.COLUMNS[3:-2], "weights'", "update")
        table = [head if moves else head[:-1]]
        for row in self.rows:
            table.append(
                [row.name or "(net)", row.kind, str(row.shape)]
                + [_number(v) for v in (row.mean, row.std, row.between)]
                + [_percent(v) for v in (row.flat, row.dead)]
                + [_number(v) for v in (row.gradient, row.weight_gradient, row.update)][: 2 + moves]
            )
        widths = [max(map(len, column)) for column in zip(*table)]
        align = [str.ljust] * 3 + [str.rjust] * (len(widths) - 3)
        lines = ("  ".join(f(c, w) for f, c, w in zip(align, line, widths)) for line in table)
        return "\n".join(line.rstrip() for line in lines)


# What the user gave -------------------------------------------------------------------------------


def _check(net, X, y, trainer):
    if not isinstance(net, Block):
        raise TypeError(f"net must be a Gluon Block, got {type(net).__name__}")
    check_kind("X", X)
    if trainer is not None and not isinstance(trainer, gluon.Trainer):
        raise TypeError(
            f"trainer must be a gluon.Trainer, got {type(trainer).__name__}; make one with "
            "gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 0.1})"
        )
    if trainer is not None and len(trainer._updaters) != 1:
        raise ValueError(
            f"the trainer has {len(trainer._updaters)} devices, and the report shows one: train "
            "on one device, or leave trainer= out"
        )
    if y is not None and (not isinstance(y, nd.NDArray) or y.shape[:1] != X.shape[:1]):
        got = y.shape if isinstance(y, nd.NDArray) else type(y).__name__
        raise ValueError(
            f"y must be an array with one label for each of the {len(X)} examples of X, got {got}"
        )
    for parameter in net.collect_params().values():
        try:
            parameter.list_ctx()
            parameter.list_data()
        except gluon.parameter.DeferredInitializationError:
            raise ValueError(
                f"the shape of {parameter.name} is not known yet. Call net(X[:1]) once, which "
                "draws the weights, and ask for the report then"
            ) from None
        except RuntimeError:
            raise ValueError(
                f"{parameter.name} has no values yet: call net.initialize() and net(X[:1]) first"
            ) from None


def _head(output, X, y, loss):
    """The number whose gradient is taken."""
    if loss is None and y is not None:
        check_scores(output, X)
        check_labels(y, output, output.shape[1])
        loss = gluon.loss.SoftmaxCrossEntropyLoss()
    if loss is not None:
        found = loss(output) if y is None else loss(output, y)
        return as_nd(found).mean()
    if not isinstance(output, nd.NDArray):
        raise ValueError(
            f"the network returns a {type(output).__name__}: say what its gradient "
            "should be taken of, with loss=function(output)"
        )
    direction = np.random.RandomState(0).normal(size=output.shape)  # MXNet's numbers stay unused
    direction = nd.array(
        direction / np.linalg.norm(direction), dtype=output.dtype, ctx=output.context
    )
    return (as_nd(output) * direction).sum()


def _reaching(head, wanted):
    """`head` plus zeros that depend on every array of `wanted`.

    `autograd.grad` refuses an array that the head does not depend on, such as the weights of a
    layer that is not used; its gradient is 0.
    """
    for array in wanted:
        head = head + cast(as_nd(array).zeros_like().sum(), head.dtype)
    return head


# Listening ----------------------------------------------------------------------------------------


def _rows(net, name=""):
    """(name, Block) of what gets a row."""
    children = {
        key: child for key, child in net._children.items() if child is not getattr(net, "act", None)
    }  # Dense(..., activation=) is one layer
    whole = not name and children  # a network of your own class is no layer of itself
    computes = getattr(type(net), "hybrid_forward", type(net).forward)
    in_a_row = computes in (nn.Sequential.forward, nn.HybridSequential.hybrid_forward)
    if not in_a_row and not whole:
        yield name, net
    for key, child in children.items():
        yield from _rows(child, f"{name}.{key}" if name else key)


def _warn_once(caught):
    """What the layers warned of, once each: twenty layers say the same of a batch of one."""
    alike = {}
    for warning in caught:
        alike.setdefault(re.sub(r"\d+", "", str(warning.message)), []).append(warning)
    for first, *others in alike.values():
        more = f" (and {len(others)} more like this)" if others else ""
        warnings.warn(f"{first.message}{more}", first.category, stacklevel=3)


def _listen(name, block, calls):
    """Let `block` note what it returns, and add a zero to it: its gradient is that of the output.

    (MXNet 1.9.1 can take gradients only with respect to arrays that were marked before.)
    """
    computes = block.forward

    def forward(*inputs):
        output = computes(*inputs)
        if not isinstance(output, nd.NDArray):
            return output
        with autograd.pause():
            times = sum(known is block for _, known, *_ in calls) + 1
            label = name if times == 1 else f"{name} (call {times})"
            probe = nd.zeros(output.shape, ctx=output.context, dtype=output.dtype)
            probe.attach_grad()
            calls.append((label, block, as_nd(output).asnumpy().astype("float64"), probe))
        return output + (probe.as_np_ndarray() if isinstance(output, mx.np.ndarray) else probe)

    block.forward = forward


@contextlib.contextmanager
def _left_as_it_was(net):
    """What the Blocks hold at the start of this, they hold at its end; graphs are off meanwhile."""
    blocks = all_blocks(net)
    attributes = [(block, dict(vars(block))) for block in blocks]
    # Running statistics are parameters here and in Gluon, plain attributes in the layers of d2l.
    arrays = {
        id(array): array
        for block in blocks
        for array in vars(block).values()
        if isinstance(array, nd.NDArray)
    }
    for parameter in net.collect_params().values():
        arrays.update((id(array), array) for array in parameter.list_data())
    before = [(array, array.copy()) for array in arrays.values()]
    try:
        for block in blocks:
            if isinstance(block, HybridBlock):
                block.__dict__["_active"] = False
        yield
    finally:
        for block, values in attributes:
            vars(block).clear()
            vars(block).update(values)
        with autograd.pause():
            for array, value in before:
                array[:] = value


def _weights(net, place):
    """(array, parameter) of what is trained, on the device where X is."""
    return [
        (parameter.data(place), parameter)
        for parameter in net.collect_params().values()
        if parameter.grad_req != "null"
    ]


# Measuring ----------------------------------------------------------------------------------------


def _next_step(trainer, weights, gradients):
    """{id of a parameter: (length of its next step, its length)}; the trainer is left as it was."""
    twin = mx.optimizer.Updater(trainer.optimizer)
    twin.set_states(trainer._updaters[0].get_states(dump_optimizer=True))  # copies, by pickle
    twin.optimizer.param_dict = trainer.optimizer.param_dict  # lr_mult and wd_mult
    twin.optimizer.rescale_grad = trainer._scale  # ours are gradients of a mean already
    places = {id(parameter): place for place, parameter in enumerate(trainer._params)}
    steps = {}
    for (weight, parameter), gradient in zip(weights, gradients):
        moved = weight.copy()
        if id(parameter) in places:
            twin(places[id(parameter)], gradient, moved)
        steps[id(parameter)] = _length(moved - weight), _length(weight)
    return steps


def _row(name, block, values, gradient, by_parameter, steps, keep):
    with np.errstate(all="ignore"):  # a network that has run away is reported, not complained about
        flat = FLAT.get(_activation(block), lambda y: None)(values)
        dead = None
        if flat is not None and values.ndim > 1:
            dead = float(flat.all(axis=tuple(a for a in range(values.ndim) if a != 1)).mean())
        between = float("nan")  # a number, so that a table of a batch of one can be formatted
        if values.ndim > 1 and len(values) > 1:
            between = float(np.sqrt(values.var(axis=0).mean()))
        own = [by_parameter[id(p)] for p in block._reg_params.values() if id(p) in by_parameter]
        moves = [steps[id(p)] for p in block._reg_params.values() if id(p) in steps]
        step, length = np.sqrt(np.square(moves).sum(axis=0)) if moves else (0.0, 0.0)
        picked = values.reshape(-1)[:: max(1, values.size // max(keep, 1))]
        return LayerReport(
            name,
            type(block).__name__,
            values.shape,
            float(values.mean()),
            float(values.std()),
            between,
            None if flat is None else float(flat.mean()),
            dead,
            gradient,
            float(np.sqrt(sum(length**2 for length in own))) if own else None,
            float(np.divide(step, length)) if moves else None,
            picked,
        )


def _activation(block):
    """The name of the activation whose output leaves this Block, or None."""
    if isinstance(block, nn.Activation):
        return block._act_type
    if isinstance(block, nn.BatchNormReLU):
        return "relu"
    inner = getattr(block, "act", None) or getattr(block, "activation", None)
    if isinstance(inner, nn.Activation):
        return inner._act_type
    return inner if isinstance(inner, str) else getattr(block, "_func_name", None)


def _length(array):
    return float(np.linalg.norm(as_nd(array).asnumpy().astype("float64")))


def _number(value):
    return "-" if value is None else f"{value:.3g}"


def _percent(value):
    return "-" if value is None else f"{100 * value:.0f}%"
