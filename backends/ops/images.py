"""Convolution, pooling and padding of images of shape (N, C, H, W)."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.arrays import Array, is_complex
from ...core.layers import recorder
from .dispatch import version
from .generic import columns
from .geometry import Size, check_images, window


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Array:
    """Return the cross-correlation of images with kernels, as neural networks call convolution.

    y[n, o, i, j] = bias[o] + sum_cpq weight[o, c, p, q] x[n, c, i s + p d, j s + q d], with x
    padded, s the stride and d the dilation, over the channels c of the group of o.

    Parameters
    ----------
    x : array of shape (N, C, H, W)
    weight : array of shape (O, C / groups, k_h, k_w)
    bias : array of shape (O,), optional
    stride, dilation : int or pair of int
        Of rows and of columns.
    padding : int, pair of int, "same" or "valid"
        Zeros on each side. "same" gives ceil(H / stride) rows, as TensorFlow and JAX do, with
        the odd zero at the end; "valid" is 0.
    groups : int
        Kernels of the i-th of so many groups see the i-th group of channels.

    Returns
    -------
    array of shape (N, O, H', W')

    Raises
    ------
    ValueError
        If shapes, groups and window do not fit one another.
    TypeError
        If the dtypes differ.
    """
    check_images(x, "conv2d")
    _check_kernels(x, weight, bias, groups)
    shape = window(x.shape, tuple(weight.shape[2:]), stride, padding, dilation)
    y = version("conv2d", x, weight)(x, weight, bias, shape, groups)
    listener = recorder()
    if listener is None or groups > 1:
        return y
    return listener.report(
        weight, bias, lambda: columns(x, shape), y, outputs_first=True, convolution=True
    )


def avg_pool2d(
    x: Array, size: Size, *, stride: Size | None = None, padding: Size | str = 0
) -> Array:
    """Return the means over windows, in which padding counts as zeros.

    Parameters
    ----------
    x : array of shape (N, C, H, W)
    size : int or pair of int
        Of the windows.
    stride : int or pair of int, optional
        By default the size.
    padding : int, pair of int, "same" or "valid"
        As in :func:`conv2d`.

    Returns
    -------
    array of shape (N, C, H', W')

    Raises
    ------
    ValueError
        If the shape and the window do not fit.
    """
    check_images(x, "avg_pool2d")
    shape = window(x.shape, size, size if stride is None else stride, padding)
    return version("avg_pool2d", x)(x, shape)


def max_pool2d(
    x: Array, size: Size, *, stride: Size | None = None, padding: Size | str = 0
) -> Array:
    """Return the maxima over windows, padded with minus infinity.

    The derivative goes to the entry that is chosen: by its real part, and at a tie the first in
    row-major order. The other arguments, the result and the errors are those of
    :func:`avg_pool2d`; padding is at most half the size, so that no window is all padding.
    """
    check_images(x, "max_pool2d")
    shape = window(x.shape, size, size if stride is None else stride, padding)
    if any(2 * max(p) > k for p, k in zip(shape.padding, shape.size, strict=True)):
        raise ValueError(
            f"padding of {shape.padding} is more than half a window of {shape.size}, so that a "
            "window could hold nothing else: use less"
        )
    return version("max_pool2d", x)(x, shape)


def pad(x: Array, widths: Sequence[tuple[int, int]], *, value: float = 0.0) -> Array:
    """Return an array with a constant before and after it along each axis.

    Parameters
    ----------
    x : array
    widths : sequence of pairs of int
        How many entries before and after, for every axis.
    value : float

    Raises
    ------
    ValueError
        If there is not one pair for each axis, or a width is negative.
    """
    pairs = tuple((before, after) for before, after in widths)
    if len(pairs) != x.ndim or any(min(pair) < 0 for pair in pairs):
        raise ValueError(
            f"widths are {pairs} for an array of {x.ndim} axes; give a pair of numbers of at least "
            "0 for each axis"
        )
    return version("pad", x)(x, pairs, value)


def _check_kernels(x: Array, weight: Array, bias: Array | None, groups: int) -> None:
    if weight.ndim != 4:
        raise ValueError(f"kernels have shape (O, C, k_h, k_w); these have {tuple(weight.shape)}")
    channels, outputs = x.shape[1], weight.shape[0]
    if groups < 1 or channels % groups or outputs % groups:
        raise ValueError(
            f"groups is {groups}; it must divide the {channels} channels and the {outputs} kernels"
        )
    if weight.shape[1] * groups != channels:
        raise ValueError(
            f"kernels of shape {tuple(weight.shape)} in {groups} group(s) take "
            f"{weight.shape[1] * groups} channels; the images have {channels}"
        )
    if bias is not None and tuple(bias.shape) != (outputs,):
        raise ValueError(f"the bias has shape {tuple(bias.shape)} for {outputs} kernels")
    if x.dtype != weight.dtype and not is_complex(x) and not is_complex(weight):
        raise TypeError(
            f"images of {x.dtype} meet kernels of {weight.dtype}: convert one of them, nothing is "
            "promoted silently"
        )
