"""Logits, probabilities and class labels."""

from __future__ import annotations

from typing import Any

from ...core.arrays import Array, device_of, namespace
from .dispatch import common_namespace, version


def logsumexp(x: Array, axis: int = -1, *, keepdims: bool = False) -> Array:
    """Return the logarithm of the sum of exp(x) along an axis, for x of any size."""
    return version("logsumexp", x)(x, axis, keepdims)


def log_softmax(x: Array, axis: int = -1) -> Array:
    """Return x - logsumexp(x), along an axis."""
    return version("log_softmax", x)(x, axis)


def softmax(x: Array, axis: int = -1) -> Array:
    """Return exp(x) divided by its sum along an axis, for x of any size."""
    return version("softmax", x)(x, axis)


def one_hot(labels: Array, classes: int, dtype: Any) -> Array:
    """Return an array of shape (..., classes) with a 1 in each row, at its label.

    Parameters
    ----------
    labels : array of int, of any shape
        A label that is not in 0, ..., classes - 1 gives a row of zeros.
    classes : int
    dtype : dtype
        Of the labels' namespace, such as that of the parameters.
    """
    xp = namespace(labels)
    numbers = xp.arange(classes, dtype=labels.dtype, device=device_of(labels))
    return xp.astype(xp.expand_dims(labels, axis=-1) == numbers, dtype)


def cross_entropy(logits: Array, targets: Array) -> Array:
    """Return the mean of -log softmax(logits)[class], as a 0-d array.

    Parameters
    ----------
    logits : array of shape (..., C)
        Of any size.
    targets : array of int of shape (...), or of shape (..., C)
        Labels in 0, ..., C - 1; or distributions over the classes, such as one-hot rows.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    xp = common_namespace(logits, targets)
    shape, given = tuple(logits.shape), tuple(targets.shape)
    if given not in (shape, shape[:-1]):
        raise ValueError(
            f"the targets have shape {given} for logits of shape {shape}: give labels of shape "
            f"{shape[:-1]}, or distributions of shape {shape}"
        )
    logs = log_softmax(logits)
    if given == shape:
        return -xp.mean(xp.sum(logs * targets, axis=-1))
    if not namespace(targets).isdtype(targets.dtype, "integral"):
        raise ValueError(f"the labels are {targets.dtype}; they are integers")
    rows, kind = xp.reshape(logs, (-1, shape[-1])), namespace(targets)
    indexing = kind.__array_namespace_info__().default_dtypes()["indexing"]  # torch has no other
    labels = kind.reshape(kind.astype(targets, indexing), (-1, 1))
    return -xp.mean(xp.take_along_axis(rows, labels, axis=1))
