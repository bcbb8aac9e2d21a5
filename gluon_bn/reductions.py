"""Summing over axes, and its mirror image, repeating along them, by matrix products.

No mathematics of normalization here, only a trick for speed. MXNet 1.9.1 reduces over axes an order
of magnitude slower than it multiplies matrices, and the gradient of every broadcast is such a
reduction. A product with a vector of ones does the same sum at the speed of memory. And counting:
over how many values.
"""

from math import prod

from mxnet import nd


def sum_over(X, axes):
    """Sum of X over `axes`, which stay as ones."""
    shape = X.shape
    summed = tuple(1 if a in axes else n for a, n in enumerate(shape))
    first, last = _inner_range(summed, shape)
    head, inner, tail = prod(shape[:first]), prod(shape[first:last]), prod(shape[last:])
    if tail > 1:
        X = nd.dot(_reshaped(X, (head * inner, tail)), _ones((tail, 1), X))
    if head > 1:
        X = nd.dot(_ones((1, head), X), _reshaped(X, (head, inner)))
    between = tuple(a for a in axes if first <= a < last)
    if not between:
        return _reshaped(X, summed)
    X = X.reshape((1,) * first + shape[first:last] + (1,) * (len(shape) - last))
    return X.sum(axis=between, keepdims=True)


def broadcast_like(v, X):
    """v, of X's rank with ones where it is to be repeated, repeated to the shape of X."""
    shape = X.shape
    first, last = _inner_range(v.shape, shape)
    head, inner, tail = prod(shape[:first]), prod(shape[first:last]), prod(shape[last:])
    between = (1,) * first + shape[first:last] + (1,) * (len(shape) - last)
    if v.shape != between:
        v = v.broadcast_to(between)
    if head > 1:
        v = nd.dot(_ones((head, 1), v), _reshaped(v, (1, inner)))
    if tail > 1:
        v = nd.dot(_reshaped(v, (head * inner, 1)), _ones((1, tail), v))
    return _reshaped(v, shape)


def _ones(shape, like):
    return nd.ones(shape, ctx=like.context, dtype=like.dtype)


def _reshaped(X, shape):
    return X if X.shape == shape else X.reshape(shape)


def count(X, axes, weights=None):
    """How many values are averaged over `axes`, or the sum of their weights."""
    if weights is None:
        return prod(X.shape[a] for a in axes)
    return sum_over(broadcast_like(weights, X), axes)


def bessel(X, axes, weights=None):
    """n / (n - 1), from the biased to the unbiased variance of n values (1 for a single value)."""
    n = count(X, axes, weights)
    return n / max(n - 1, 1) if weights is None else n / nd.maximum(n - 1, 1)


def average(X, axes, weights=None):
    """Mean of X over `axes`, which stay as ones; weighted, if there are weights."""
    weighted = X if weights is None else broadcast_like(weights, X) * X
    return sum_over(weighted, axes) / count(X, axes, weights)


def squeeze(X, axes):
    """X without `axes`, where it has ones. (`mx.nd` has no arrays of rank 0.)"""
    kept = tuple(n for a, n in enumerate(X.shape) if a not in axes)
    return X.reshape(kept or (1,))


def _inner_range(small, shape):
    """[first, last): the axes of `small` between its leading and its trailing ones."""
    last = len(shape)
    while last and small[last - 1] == 1:
        last -= 1
    first = 0
    while first < last and small[first] == 1:
        first += 1
    return first, last
