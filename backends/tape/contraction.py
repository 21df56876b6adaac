"""Products of tensors, all brought to the two bilinear primitives multiply and matmul."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from itertools import chain
from typing import Any

import numpy

from ...core.arrays import Array
from .bilinear import BILINEAR
from .functions import sum_, where
from .record import apply, differentiable, differentiable_linalg, namespace_of, plain
from .shaping import (
    broadcast_to,
    concat,
    expand_dims,
    moveaxis,
    permute_dims,
    reshape,
    squeeze,
    take,
)

Labels = Sequence[Hashable]


@differentiable
@differentiable_linalg
def matmul(x: Any, y: Any) -> Array:
    """Return the matrix product, of vectors, matrices or stacks of them."""
    if x.ndim == 0 or y.ndim == 0 or x.shape[-1] != y.shape[max(y.ndim - 2, 0)]:
        namespace_of(x, y).matmul(plain(x), plain(y))  # raises, in the namespace's own words
    rows = expand_dims(x, 0) if x.ndim == 1 else x
    columns = expand_dims(y, 1) if y.ndim == 1 else y
    product = _matrix_product(rows, columns)
    if x.ndim == 1:
        product = squeeze(product, -2)
    return squeeze(product, -1) if y.ndim == 1 else product


def _matrix_product(x: Any, y: Any) -> Array:
    if x.ndim > 2 and y.ndim == 2:  # one product of matrices instead of a stack of them
        rows = reshape(x, (-1, x.shape[-1]))
        return reshape(_matrix_product(rows, y), (*x.shape[:-1], y.shape[1]))
    return apply(BILINEAR["matmul"], *with_common_stack(x, y))


def with_common_stack(x: Any, y: Any) -> tuple[Any, Any]:
    """Return two stacks of matrices, broadcast to stacks of the same shape."""
    if x.shape[:-2] == y.shape[:-2]:
        return x, y
    shape = numpy.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    return broadcast_to(x, shape + x.shape[-2:]), broadcast_to(y, shape + y.shape[-2:])


@differentiable
@differentiable_linalg
def vecdot(x: Any, y: Any, axis: int = -1) -> Array:
    """Return the inner products along an axis; nothing is conjugated."""
    return sum_(apply(BILINEAR["multiply"], x, y), axis)


@differentiable_linalg
def outer(x: Any, y: Any) -> Array:
    """Return the matrix of products of two vectors' entries."""
    return apply(BILINEAR["multiply"], expand_dims(x, 1), expand_dims(y, 0))


@differentiable
@differentiable_linalg
def tensordot(x: Any, y: Any, axes: int | Sequence[Any] = 2) -> Array:
    """Return the sum of products over pairs of axes: x's last with y's first, or as given."""
    if isinstance(axes, int):
        of_x: Any = range(x.ndim - axes, x.ndim)
        of_y: Any = range(axes)
    else:
        of_x, of_y = ((a,) if isinstance(a, int) else a for a in axes)
    X: list[Hashable] = [("x", i) for i in range(x.ndim)]
    Y: list[Hashable] = [("y", i) for i in range(y.ndim)]
    for i, j in zip(of_x, of_y, strict=True):
        Y[j] = X[i]
    free = set(X) ^ set(Y)
    product, labels = _contract(x, X, y, Y, free)
    return _arranged(product, labels, [label for label in chain(X, Y) if label in free])


@differentiable
def einsum(subscripts: str, *operands: Any) -> Array:
    """Return Einstein's sum, contracted pairwise from left to right."""
    inputs, output = _parse(subscripts, [x.ndim for x in operands])
    terms = list(zip(operands, inputs, strict=True))
    while len(terms) > 1:
        (x, X), (y, Y), *terms = terms
        needed = set(output).union(*(labels for _, labels in terms))
        terms.insert(0, _contract(x, X, y, Y, needed))
    (x, X) = terms[0]
    return _arranged(*_reduced(x, X, set(output)), output)


def _parse(subscripts: str, ndims: list[int]) -> tuple[list[Labels], Labels]:
    """Return the labels of the operands and of the result; an ellipsis becomes negative numbers."""
    left, arrow, right = subscripts.replace(" ", "").partition("->")
    words = left.split(",")
    if len(words) != len(ndims):
        raise ValueError(f"einsum {subscripts!r} has {len(words)} terms for {len(ndims)} operands")
    inputs = [_labels(w, n, subscripts) for w, n in zip(words, ndims, strict=True)]
    seen = list(chain.from_iterable(inputs))
    dots = sorted({label for label in seen if isinstance(label, int)})
    if arrow:
        output: list[Hashable] = []
        for letter in right.replace("...", "."):
            output += dots if letter == "." else [letter]
    else:
        letters = {label for label in seen if isinstance(label, str)}
        output = [*dots, *sorted(label for label in letters if seen.count(label) == 1)]
    if not set(output) <= set(seen) or len(set(output)) < len(output):
        raise ValueError(f"einsum {subscripts!r} has a letter in its result that no term has once")
    return inputs, output


def _labels(word: str, ndim: int, subscripts: str) -> Labels:
    before, dots, after = word.partition("...")
    rest = ndim - len(before) - len(after)
    if rest < 0 or (rest > 0 and not dots):
        raise ValueError(f"einsum {subscripts!r}: the term {word!r} is for an array of {ndim} axes")
    return [*before, *range(-rest, 0), *after]


def _contract(x: Any, X: Labels, y: Any, Y: Labels, needed: set[Hashable]) -> tuple[Any, Labels]:
    """Return the product of two labelled tensors, summed over the labels that are not needed."""
    x, X = _reduced(x, X, needed | set(Y))
    y, Y = _reduced(y, Y, needed | set(X))
    x, y = _with_common_lengths(x, X, y, Y)
    size = dict(zip(chain(X, Y), chain(x.shape, y.shape), strict=True))
    shared = [label for label in X if label in Y]
    batch = [label for label in shared if label in needed]
    summed = [label for label in shared if label not in needed]
    of_x = [label for label in X if label not in shared]
    of_y = [label for label in Y if label not in shared]
    x = _grouped(x, X, size, batch, of_x, summed)
    if of_x or of_y:
        product = matmul(x, _grouped(y, Y, size, batch, summed, of_y))
    else:  # no matrices: entries
        product = sum_(
            apply(BILINEAR["multiply"], x, _grouped(y, Y, size, batch, of_y, summed)), -1
        )
    labels = [*batch, *of_x, *of_y]
    return reshape(product, tuple(size[label] for label in labels)), labels


def _reduced(x: Any, X: Labels, needed: set[Hashable]) -> tuple[Any, Labels]:
    """Take diagonals of labels that ``x`` has twice, and sum over those that nobody else needs."""
    for label in dict.fromkeys(X):
        while X.count(label) > 1:
            first = X.index(label)
            second = X.index(label, first + 1)
            x = diagonal(x, 0, first, second)
            X = [*(a for i, a in enumerate(X) if i not in (first, second)), label]
    unneeded = tuple(i for i, label in enumerate(X) if label not in needed)
    if unneeded:
        x, X = sum_(x, unneeded), [label for label in X if label in needed]
    return x, X


def _with_common_lengths(x: Any, X: Labels, y: Any, Y: Labels) -> tuple[Any, Any]:
    """Broadcast axes of length 1 that share a label with a longer one."""
    of_x, of_y = dict(zip(X, x.shape, strict=True)), dict(zip(Y, y.shape, strict=True))
    for label in of_x.keys() & of_y.keys():
        m, n = of_x[label], of_y[label]
        if m != n and 1 not in (m, n):
            raise ValueError(f"two axes that are multiplied have lengths {m} and {n}")
        of_x[label] = of_y[label] = n if m == 1 else m
    return broadcast_to(x, tuple(of_x.values())), broadcast_to(y, tuple(of_y.values()))


def _grouped(x: Any, X: Labels, size: dict[Hashable, int], batch: Labels, *groups: Labels) -> Any:
    """Return ``x`` with the batch's axes first, then one axis for each group of labels."""
    lengths = (math.prod(size[label] for label in group) for group in groups)
    x = _arranged(x, X, [*batch, *chain.from_iterable(groups)])
    return reshape(x, (*(size[label] for label in batch), *lengths))


def _arranged(x: Any, X: Labels, order: Labels) -> Any:
    return x if list(X) == list(order) else permute_dims(x, [X.index(label) for label in order])


# Diagonals -------------------------------------------------------------------------------------


def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    """Return a diagonal of two axes, as the last axis."""
    x = moveaxis(x, (axis1, axis2), (-2, -1))
    n, m = x.shape[-2:]
    length = max(0, min(n + min(offset, 0), m - max(offset, 0)))
    start = offset if offset >= 0 else -offset * m
    xp = namespace_of(x)
    entries = xp.arange(length, device=x.device) * (m + 1) + start
    return take(reshape(x, (*x.shape[:-2], n * m)), entries, -1)


def diagonal_matrix(x: Any, offset: int = 0) -> Array:
    """Return the square matrix that has the vector ``x`` on a diagonal."""
    xp = namespace_of(x)
    n = x.shape[0] + abs(offset)
    places = xp.eye(n, k=offset, dtype=xp.bool, device=x.device)
    zero = xp.zeros((), dtype=x.dtype, device=x.device)
    pad = xp.zeros((abs(offset),), dtype=x.dtype, device=x.device)
    rows = concat([x, pad]) if offset >= 0 else concat([pad, x])
    return where(places, expand_dims(rows, 1), zero)
