"""Normalisation, dropout and embedding: functions of all that a layer would keep.

These are written with the array API alone. PyTorch's own ``batch_norm`` and ``layer_norm`` are not
used, because their third derivatives are wrong (seen on 2.13) and they have no complex version.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...core.arrays import Array
from .dispatch import common_namespace


class Statistics(NamedTuple):
    """Of each channel, over samples and places."""

    mean: Array
    """Of shape (C,)."""
    variance: Array
    """Of shape (C,); the mean of the squared deviations, without Bessel's correction."""


def batch_statistics(x: Array) -> Statistics:
    """Return the mean and the variance of each channel of x, of shape (N, C) or (N, C, ...).

    Running averages of these are what :func:`batch_norm` is given where there is no batch.
    """
    axes, xp = _but_channels(x), common_namespace(x)
    mean, _, variance = _moments(x, axes)
    return Statistics(xp.reshape(mean, (-1,)), xp.reshape(variance, (-1,)))


def batch_norm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    statistics: Statistics | None = None,
    eps: float = 1e-5,
) -> Array:
    """Return weight (x - mean) / sqrt(variance + eps) + bias, channel by channel.

    Parameters
    ----------
    x : array of shape (N, C) or (N, C, ...)
    weight, bias : array of shape (C,), optional
        By default 1 and 0.
    statistics : Statistics, optional
        By default the batch's own, through which derivatives flow.
    eps : float

    Returns
    -------
    array
        Of the shape of ``x``.

    Raises
    ------
    ValueError
        If ``x`` has no channels, or an argument does not have one entry for each.

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch normalization: accelerating deep network training by reducing
    internal covariate shift", ICML 2015, algorithm 1.
    """
    axes = _but_channels(x)
    given = [a for a in (weight, bias, *(statistics or ())) if a is not None]
    if any(tuple(a.shape) != (x.shape[1],) for a in given):
        shapes = ", ".join(str(tuple(a.shape)) for a in given)
        raise ValueError(f"the arguments have shapes {shapes}; x has {x.shape[1]} channels")
    xp, shape = common_namespace(x, *given), (-1, *[1] * (x.ndim - 2))
    weight, bias = (None if a is None else xp.reshape(a, shape) for a in (weight, bias))
    if statistics is None:
        _, deviation, variance = _moments(x, axes)
    else:
        mean, variance = (xp.reshape(a, shape) for a in statistics)
        deviation = xp.subtract(x, mean)
    return _affine(deviation, variance, weight, bias, eps)


def layer_norm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    axes: int = 1,
    eps: float = 1e-5,
) -> Array:
    """Return weight (x - mean) / sqrt(variance + eps) + bias, over the last axes.

    Parameters
    ----------
    x : array
    weight, bias : array of the shape of the last axes, optional
        By default 1 and 0.
    axes : int
        How many of the last axes the mean and the variance are taken over.
    eps : float

    Raises
    ------
    ValueError
        If ``x`` has fewer axes, or ``weight`` or ``bias`` another shape.

    References
    ----------
    J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", arXiv:1607.06450 (2016), eq. 4.
    """
    if not 1 <= axes <= x.ndim:
        raise ValueError(f"axes is {axes}; x has {x.ndim}, of which some of the last are meant")
    shape = tuple(x.shape[x.ndim - axes :])
    given = [a for a in (weight, bias) if a is not None]
    if any(tuple(a.shape) != shape for a in given):
        shapes = ", ".join(str(tuple(a.shape)) for a in given)
        raise ValueError(f"the arguments have shapes {shapes}; the last axes of x have {shape}")
    _, deviation, variance = _moments(x, tuple(range(-axes, 0)))
    return _affine(deviation, variance, weight, bias, eps)


def dropout(x: Array, keep: Array, rate: float) -> Array:
    """Return x / (1 - rate) where ``keep`` is true, and 0 elsewhere.

    Parameters
    ----------
    x : array
    keep : array of bool that broadcasts to the shape of ``x``
        True with probability 1 - rate, drawn by the caller: the same mask gives the same function.
    rate : float
        In [0, 1).

    Raises
    ------
    ValueError
        If the rate is out of range.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate is {rate}; it is a probability below 1")
    xp = common_namespace(x)
    scaled = x * (1.0 / (1.0 - rate))
    return xp.where(keep, scaled, xp.zeros_like(scaled))


def embedding(table: Array, indices: Array) -> Array:
    """Return the rows of a table at these indices.

    Parameters
    ----------
    table : array of shape (V, d)
    indices : array of int, of any shape
        In 0, ..., V - 1, with repetitions or without.

    Returns
    -------
    array of shape (..., d)
    """
    xp = common_namespace(table)
    rows = xp.take(table, xp.reshape(indices, (-1,)), axis=0)
    return xp.reshape(rows, (*indices.shape, table.shape[1]))


def _moments(x: Array, axes: Sequence[int]) -> tuple[Array, Array, Array]:
    """Return mean, deviation from it and variance, with the axes that are reduced kept."""
    xp = common_namespace(x)
    mean = xp.mean(x, axis=axes, keepdims=True)
    deviation = x - mean
    return mean, deviation, xp.mean(deviation * deviation, axis=axes, keepdims=True)


def _affine(
    deviation: Array, variance: Array, weight: Array | None, bias: Array | None, eps: float
) -> Array:
    given = [a for a in (deviation, variance, weight, bias) if a is not None]
    xp = common_namespace(*given)
    scale = 1.0 / xp.sqrt(variance + eps)
    y = xp.multiply(deviation, scale if weight is None else xp.multiply(scale, weight))
    return y if bias is None else xp.add(y, bias)


def _but_channels(x: Array) -> tuple[int, ...]:
    if x.ndim < 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; it is (N, C) or (N, C, ...)")
    return (0, *range(2, x.ndim))
