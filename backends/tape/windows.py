"""Images and the windows that slide over them: what convolution and pooling are made of.

An image batch has the shape (N, C, H, W). Windows of k_h x k_w taps are laid out as columns,
(C, k_h, k_w, N, H', W'), so that a convolution is one product of matrices over a whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ...core.arrays import Array, Namespace
from .graph import Spec

#: What belongs to the rows and to the columns of an image.
Pair = tuple[int, int]


def extent(length: int, size: int, stride: int, dilation: int) -> int:
    """Return how many windows of ``size`` taps fit into ``length``."""
    return (length - dilation * (size - 1) - 1) // stride + 1


def patches(xp: Namespace, x: Array, size: Pair, stride: Pair, dilation: Pair) -> Array:
    """Return what lies under each tap of each window (im2col)."""
    C, N = x.shape[1], x.shape[0]
    images = xp.permute_dims(x, (1, 0, 2, 3))
    taps = xp.stack([images[key] for key in _taps(x.shape, size, stride, dilation)], axis=1)
    return xp.reshape(taps, (C, *size, N, *taps.shape[3:]))


def overlapped(
    xp: Namespace, g: Array, spec: Spec, size: Pair, stride: Pair, dilation: Pair
) -> Array:
    """Undo :func:`patches`: add what each window holds to where it came from (col2im)."""
    N, C, H, W = spec.shape
    taps = xp.reshape(g, (C, size[0] * size[1], N, *g.shape[4:]))
    total = spec._replace(shape=(C, N, H, W)).zeros(xp)
    for k, key in enumerate(_taps(spec.shape, size, stride, dilation)):
        total[key] += taps[:, k, ...]
    return xp.permute_dims(total, (1, 0, 2, 3))


def _taps(shape: Sequence[int], size: Pair, stride: Pair, dilation: Pair) -> Iterator[Any]:
    """Yield, for each tap, the key of the pixels that it meets as the window slides."""
    rows, columns = (_slices(*each) for each in zip(shape[2:], size, stride, dilation, strict=True))
    return ((..., i, j) for i in rows for j in columns)


def _slices(length: int, size: int, stride: int, dilation: int) -> list[slice]:
    reach = stride * (extent(length, size, stride, dilation) - 1) + 1
    return [slice(k * dilation, k * dilation + reach, stride) for k in range(size)]


def padded(xp: Namespace, x: Array, widths: Sequence[Pair]) -> Array:
    """Return ``x`` with so many zeros before and after it along each axis."""
    for axis, (before, after) in enumerate(widths):
        shape = list(x.shape)
        pieces = [x]
        for width, place in ((before, 0), (after, len(pieces) + 1)):
            shape[axis] = width
            if width:
                pieces.insert(place, Spec.of(x)._replace(shape=tuple(shape)).zeros(xp))
        x = xp.concat(pieces, axis=axis) if len(pieces) > 1 else x
    return x


def cropped(xp: Namespace, g: Array, spec: Spec, widths: Sequence[Pair]) -> Array:
    """Undo :func:`padded`."""
    return g[tuple(slice(b, b + n) for (b, _), n in zip(widths, spec.shape, strict=True))]
