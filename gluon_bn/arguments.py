"""What an argument has to be, and what to say when it is not.

No mathematics here. Every function either returns the argument in the form the mathematics wants,
or raises a `TypeError` or `ValueError` that says what was wrong, what was expected and what to try.
It runs before anything is computed, so a refused call changes nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from numbers import Integral, Real
from typing import Optional, Union

import mxnet as mx
import numpy as np
from mxnet import nd
from mxnet.ndarray import NDArray as Array  # of which mx.np.ndarray is a subclass

OptArray = Optional[Array]
Axes = Union[int, Sequence[int]]

BFLOAT16 = np.dtype([("bfloat16", np.uint16)])  # MXNet's own name for it
HALVES = (np.dtype("float16"), BFLOAT16)
FLOATS = (*HALVES, np.dtype("float32"), np.dtype("float64"))
# What to say of one value per channel in training.
ONE_VALUE = (
    "its variance is 0 and the output is beta whatever X is, so nothing can be learned "
    "(PyTorch refuses, Gluon says nothing). Use a larger batch, or leave this layer out "
    "of training with use_global_stats=True"
)
ACTIVATIONS = ("relu", "sigmoid", "softrelu", "softsign", "tanh")


def as_nd(value):
    """The `mx.nd` face of an array of either kind; anything else as it is."""
    return value.as_nd_ndarray() if isinstance(value, nd.NDArray) else value


def dense(value):
    """A sparse array (csr, row_sparse) with its zeros written out; anything else as it is."""
    return value.tostype("default") if getattr(value, "stype", "default") != "default" else value


def either_kind(function):
    """Let a function written with `mx.nd` take `mx.np` arrays too, and return what it was given.

    The two kinds are two faces of one array: the change of face copies nothing and gradients flow
    through it.

    Raises
    ------
    TypeError: the first argument is no array, or the two kinds are mixed in one call.
    """

    @wraps(function)
    def wrapper(X, *args, **kwargs):
        check_kind("X", X)
        arrays = [a for a in (X, *args, *kwargs.values()) if isinstance(a, nd.NDArray)]
        numpy_like = [isinstance(a, mx.np.ndarray) for a in arrays]
        if len(set(numpy_like)) > 1:
            raise TypeError(
                "mx.nd and mx.np arrays are mixed in one call: convert with "
                ".as_np_ndarray() or .as_nd_ndarray() so that all are of one kind"
            )
        given = {}  # by id, the face that was handed on and the array as it came

        def face(value):
            handed = dense(as_nd(value))
            given[id(handed)] = handed, value
            return handed

        def back(a):
            handed, value = given.get(id(a), (None, a))
            if handed is not None and handed.stype == getattr(value, "stype", None):
                return value
            return a.as_np_ndarray() if numpy_like[0] and isinstance(a, nd.NDArray) else a

        result = function(face(X), *map(face, args), **{k: face(v) for k, v in kwargs.items()})
        return tuple(map(back, result)) if isinstance(result, tuple) else back(result)

    return wrapper


def check_kind(name, value):
    """An array of MXNet's, of either kind."""
    if not isinstance(value, nd.NDArray):
        raise TypeError(
            f"{name} must be an mx.nd.NDArray or an mx.np.ndarray, got "
            f"{type(value).__name__}; mx.nd.array({name}) makes one"
        )


def cast(X, dtype):
    """X in `dtype`; X itself where it already is.

    `nd.cast`, not the method `X.astype`: that one is a copy outside the graph of MXNet 1.9.1, and
    the gradients of a parameter with grad_req='add' would not add up.
    """
    if X.dtype == dtype:
        return X
    return (nd.amp_cast if BFLOAT16 in (X.dtype, dtype) else nd.cast)(X, dtype=dtype)


def compute_dtype(X):
    """The type that the statistics of X are computed in: float32 for 16 bits, its own otherwise."""
    return np.float32 if np.dtype(X.dtype) in HALVES else X.dtype


def compute_type(X):
    """X in the type its statistics are computed in."""
    return cast(X, compute_dtype(X))


def same_device(one, other):
    """True for two names of one place: cpu(0), cpu_pinned(0) and cpu_shared(0), as Gluon has it."""
    return (one.device_typeid & 1, one.device_id) == (other.device_typeid & 1, other.device_id)


def check_inputs(X, inputs, parameters):
    """X an array, and everything it meets in a Block on its device."""
    check_kind("X", X)
    here = X.context  # MXNet is asked anew each time
    for value in inputs:
        if isinstance(value, nd.NDArray) and not same_device(value.context, here):
            raise ValueError(
                f"the inputs are on different devices: X on {here}, another on "
                f"{value.context}; try .as_in_context({here})"
            )
    for parameter in parameters.values():
        try:
            places = parameter.list_ctx()
        except RuntimeError:
            raise RuntimeError(
                f"{parameter.name} has no value yet: call .initialize() on the "
                "layer, or on the network it is in, before the first batch"
            ) from None
        if not any(same_device(place, here) for place in places):
            raise ValueError(
                f"X is on {here}, but {parameter.name} was initialized on "
                f"{', '.join(map(str, places))}; move X with .as_in_context, or the "
                f"network with net.collect_params().reset_ctx({here})"
            )


def check_array(name, value, like=None):
    """An array with a floating type, at least one element, on the device of `like`."""
    if not isinstance(value, nd.NDArray):
        hint = "; pass its .data()" if hasattr(value, "list_data") else ""
        raise TypeError(f"{name} must be an array, got {type(value).__name__}{hint}")
    if np.dtype(value.dtype) not in FLOATS:
        raise TypeError(
            f"{name} must be of type float16, float32, float64, got "
            f"{np.dtype(value.dtype).name}; try {name}.astype('float32')"
        )
    if 0 in value.shape:
        raise ValueError(
            f"{name} is empty: its shape is {value.shape}, so there is nothing to average"
        )
    if like is not None and not same_device(value.context, like.context):
        raise ValueError(
            f"{name} is on {value.context} but X is on {like.context}; "
            f"try {name}.as_in_context({like.context})"
        )
    return value


def check_axis(axis, ndim):
    """One axis of an array of rank `ndim`, counted from the front."""
    if not isinstance(axis, Integral) or isinstance(axis, bool):
        raise TypeError(f"axis must be an integer, got {axis!r}")
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis {axis} is out of range for X of rank {ndim}")
    return int(axis) % ndim


def check_channel_axis(axis, num_dims=None, per_example=False):
    """The axis of a layer that has not seen X yet, though it may know its rank."""
    _not_the_batch(check_axis(axis, num_dims or 32), per_example)  # 32: MXNet's highest rank


def _not_the_batch(axis, per_example, got=""):
    if per_example and axis == 0:
        raise ValueError(
            "axis 0 is the batch here: each example is treated by itself, so the channels must be "
            f"on another axis, axis=1 for (N, C, ...) or axis=-1 for (N, ..., C){got}"
        )


def check_axes(axis, ndim):
    """One axis or several, counted from the front, in order, none twice."""
    axes = tuple(axis) if isinstance(axis, (tuple, list, range)) else (axis,)
    found = sorted(check_axis(a, ndim) for a in axes)
    if len(set(found)) != len(found) or not found:
        raise ValueError(f"axis must name each axis once, and at least one, got {axis!r}")
    return tuple(found)


def check_batch(X, axis, num_dims=None, channels=None, per_example=False):
    """A batch with channels: rank 2 or more, `num_dims` and `channels` if given.

    The channels may be on axis 0, as Gluon has it, unless something is done `per_example`.
    Returns the channel axis counted from the front.
    """
    shape = X.shape  # MXNet is asked anew each time
    rank = len(shape)
    if rank < 2:
        raise ValueError(
            "X must have a batch axis and a channel axis, so rank 2 or more; got "
            f"rank {rank}, shape {shape}" + ("; try X.reshape((-1, 1))" if rank == 1 else "")
        )
    check_rank(shape, num_dims)
    check_array("X", X)
    axis = check_axis(axis, rank)
    _not_the_batch(axis, per_example, f"; got axis=0 for shape {shape}")
    if channels and shape[axis] != channels:
        raise ValueError(
            f"this layer has {channels} channels, but X has {shape[axis]} on axis "
            f"{axis}: its shape is {shape}"
        )
    return axis


def check_rank(shape, num_dims):
    """The rank that a layer was built for, if it was for one."""
    if num_dims is not None and len(shape) != num_dims:
        raise ValueError(
            f"this layer was built for X of rank num_dims={num_dims}, got rank "
            f"{len(shape)}, shape {shape}"
        )


def check_spatial(X):
    """Positions to average over, besides batch and channels."""
    if X.ndim < 3:
        raise ValueError(
            "instance normalization averages over the positions of an image or a "
            f"sequence, so X must have rank 3 or more; got shape {X.shape}"
        )


def check_groups(num_groups, X):
    """A number of groups that divides the channels of X."""
    check_count("num_groups", num_groups, least=1)
    if X.shape[1] % num_groups:
        raise ValueError(
            f"num_groups must divide the number of channels: {X.shape[1]} channels of "
            f"X of shape {X.shape} do not split into {num_groups} equal groups"
        )


def check_number(name, value):
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")


def check_eps(eps, name="eps"):
    check_number(name, eps)
    if not 0 < eps < float("inf"):
        raise ValueError(
            f"{name} must be greater than 0: it keeps a constant channel from a "
            f"division by zero; got {eps}, usual is 1e-5"
        )


def check_momentum(momentum, name="momentum"):
    check_number(name, momentum)
    if not 0 <= momentum <= 1:
        raise ValueError(
            f"{name} must be in [0, 1]: it is the weight of the past in the moving "
            f"average, usual is 0.9; got {momentum}"
        )


def check_broadcast(name, value, X, axis=None):
    """`value` with the rank of X, ready to be broadcast against it, in the type of computation.

    A vector of one value per channel is laid along `axis` where that is given. Otherwise axes are
    matched from the right, as NumPy does.
    """
    check_array(name, value, like=X)
    shape = value.shape
    if axis is not None and shape == (X.shape[axis],):
        shape = tuple(n if a == axis else 1 for a, n in enumerate(X.shape))
    elif axis is None or len(shape) != 1:  # a vector of another length is a mistake, not a row
        shape = (1,) * (X.ndim - len(shape)) + shape
    if len(shape) != X.ndim or any(v not in (1, n) for v, n in zip(shape, X.shape)):
        expected = "a shape that broadcasts against X"
        if axis is not None:
            per_channel = tuple(n if a == axis else 1 for a, n in enumerate(X.shape))
            expected = f"{per_channel} or ({X.shape[axis]},), one value per channel"
        raise ValueError(
            f"{name} has shape {value.shape}, which does not fit X of shape "
            f"{X.shape}: expected {expected}"
        )
    value = cast(value, compute_dtype(X))
    return value if value.shape == shape else value.reshape(shape)


def check_per_channel(name, value, X, axis):
    """As `check_broadcast`, for what must be one value per channel: the moving statistics."""
    laid = check_broadcast(name, value, X, axis)
    if laid.size != X.shape[axis]:
        raise ValueError(
            f"{name} must hold one value per channel, {X.shape[axis]} in all, got "
            f"shape {value.shape}"
        )
    return laid


def lay_along(axis, v, X):
    """A vector (C,) along the channel axis of X; what has the rank of X already as it is."""
    if v.ndim == X.ndim:
        return v
    return v.reshape((1,) * axis + (-1,) + (1,) * (X.ndim - axis - 1))


def lay_weights(weights, X):
    """Weights that have been checked, as `check_weights` returns them."""
    weights = cast(weights, compute_dtype(X))
    if weights.ndim == 1:
        return lay_along(0, weights, X)
    return weights.reshape((1,) * (X.ndim - weights.ndim) + weights.shape)


def check_weights(weights, X, axes, channel_axis=None):
    """Weights for averages of X over `axes`, laid out against X; a vector has one per example."""
    if weights is None:
        return None
    if channel_axis == 0:
        raise ValueError(
            "weights are given to examples, on axis 0, and with axis=0 the channels "
            "are there: leave the weights out, or put the channels on axis 1"
        )
    if not isinstance(weights, nd.NDArray):
        raise TypeError(f"weights must be an array, got {type(weights).__name__}")
    if np.dtype(weights.dtype).kind in "iu":
        weights = nd.cast(weights, "float32")
    given = weights.asnumpy()
    if weights.ndim == 1 and X.ndim > 1:
        if weights.shape != X.shape[:1]:
            raise ValueError(
                f"weights must have one value per example, {X.shape[0]} in all, got "
                f"shape {weights.shape}"
            )
        weights = weights.reshape((-1,) + (1,) * (X.ndim - 1))
    weights = check_broadcast("weights", weights, X)
    bad = np.argwhere(~((given >= 0) & (given < np.inf)))
    if len(bad):
        index = tuple(int(i) for i in bad[0])
        raise ValueError(
            f"weights must be finite and none negative, got {given[index]} at index "
            + ", ".join(map(str, index))
        )
    # What is left after summing over the averaged axes is a divisor.
    if not (weights.asnumpy().sum(axis=tuple(axes)) > 0).all():
        raise ValueError(
            "weights are all zero where an average is taken: at least one must be positive"
        )
    return weights


def check_labels(labels, X, num_classes):
    """Class labels, (N,), integral and in [0, num_classes), as a NumPy int64 vector.

    MXNet's own `take` clips a bad label silently: the class next door would be trained.
    """
    if not isinstance(labels, nd.NDArray):
        raise TypeError(f"labels must be an array of shape (N,), got {type(labels).__name__}")
    if labels.shape != X.shape[:1]:
        raise ValueError(
            f"labels must have shape ({X.shape[0]},), one for each example of X of "
            f"shape {X.shape}, got {labels.shape}"
        )
    values = labels.asnumpy()
    fractional = values != np.floor(values.astype("float64"))
    bad = fractional | ~((values >= 0) & (values < num_classes))
    if bad.any():
        first = int(np.argmax(bad))
        problem = "not an integer" if fractional[first] else f"not in [0, {num_classes})"
        raise ValueError(
            f"label {values[first]} at index {first} is {problem}: labels are "
            f"integers from 0 to {num_classes - 1}"
        )
    return values.astype("int64")


def check_data(name, data, passes):
    """Batches that can be gone over `passes` times."""
    if not hasattr(data, "__iter__") and not hasattr(data, "__getitem__"):
        raise TypeError(
            f"{name} must yield batches (X, y), as a list of them or a DataLoader "
            f"does, got {type(data).__name__}"
        )
    if isinstance(data, Iterator) and passes > 1:
        raise TypeError(
            f"{name} can be gone over once only, being a {type(data).__name__}, and is "
            f"needed {passes} times: make a list of it, list({name})"
        )


def check_pair(batch):
    """One batch of examples and their classes: arrays X, (N, ...), and y, (N,)."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        got = (
            f"{type(batch).__name__} of {len(batch)}"
            if hasattr(batch, "__len__")
            else (type(batch).__name__)
        )
        raise TypeError(f"a batch must be a pair (X, y), examples and their classes, got {got}")
    X, y = batch
    check_kind("X", X)
    check_kind("y", y)
    if y.shape != X.shape[:1]:
        hint = ""
        if y.shape[:1] == X.shape[:1]:
            hint = "; try y.argmax(axis=1)" if y.size > len(X) else "; try y.reshape(-1)"
        raise ValueError(
            f"y must have shape ({X.shape[0]},), the class of each example of X of "
            f"shape {X.shape}, got {y.shape}{hint}"
        )
    return X, y


def check_scores(scores, X):
    """What a classifier says of X: a score for each example and class, (N, classes)."""
    shape = getattr(scores, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != len(X):
        got = f"an array of shape {shape}" if shape else type(scores).__name__
        raise ValueError(
            f"the network must return scores of shape ({len(X)}, classes) for X of "
            f"shape {X.shape}, got {got}"
        )
    return scores


@contextmanager
def accepting(*inputs):
    """In here a network is given its inputs. If MXNet refuses them, say which, and its reason."""
    try:
        yield
    except mx.MXNetError as error:
        given = " and ".join(f"{np.dtype(X.dtype).name} of shape {X.shape}" for X in inputs)
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(
            f"the network does not take {given}. MXNet says: {reason} (A network "
            "whose sizes were found from a first batch takes that kind of batch only.)"
        ) from None


def check_count(name, value, least=0):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def check_seed(seed):
    check_count("seed", seed)
    if seed >= 2**32:
        raise ValueError(f"seed must be in 0 .. 2**32 - 1, got {seed}")
    return int(seed)


def check_options(layer):
    """The options of a `BatchNorm`: refuse at construction what could never work."""
    check_count("num_features", layer.num_features)
    if layer.num_dims is not None:
        check_count("num_dims", layer.num_dims, least=2)
    check_channel_axis(layer.axis, layer.num_dims, layer._per_example)
    if layer.momentum is not None:
        check_momentum(layer.momentum)
    check_eps(layer.epsilon, "epsilon")
    if layer.activation is not None and layer.activation not in ACTIVATIONS:
        raise ValueError(
            f"unknown activation {layer.activation!r}: choose None or one of "
            + ", ".join(map(repr, ACTIVATIONS))
        )
    if layer.zero_debias and layer.momentum in (None, 1):
        raise ValueError(
            f"zero_debias divides by 1 - momentum^t and needs a momentum below 1, got "
            f"{layer.momentum}; the average of momentum=None has no bias to remove"
        )


def check_renorm(r_min, r_max, d_max, renorm_momentum, options):
    """The options of a `BatchRenorm`."""
    for name, bound in (("r_min", r_min), ("r_max", r_max), ("d_max", d_max)):
        if bound is not None:
            check_number(name, bound)
            if not bound >= 0:
                raise ValueError(f"{name} must be None or at least 0, got {bound}")
    if r_min is not None and r_max is not None and r_min > r_max:
        raise ValueError(f"r_min must not exceed r_max, got {r_min} and {r_max}")
    check_momentum(renorm_momentum, "renorm_momentum")
    if options.get("momentum", 0.9) is None or options.get("zero_debias"):
        raise ValueError(
            "batch renormalization has moving averages of its own: momentum=None and "
            "zero_debias do not go with it"
        )
