"""Random vectors, and what a sample of them estimates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

from ..arrays import Array, device_of, is_array, like, namespace
from ..operators import Operator

#: A symmetric matrix of shape (n, n): an operator view, or a dense array.
Matrix = Operator | Array


class Estimate(NamedTuple):
    """A sample mean."""

    value: Array
    standard_error: Array
    """Of the same shape."""


def mean(samples: Array) -> Estimate:
    """Return the mean over the last axis, and its standard error."""
    xp = namespace(samples)
    deviation = xp.std(samples, axis=-1, correction=1)
    return Estimate(xp.mean(samples, axis=-1), deviation / math.sqrt(samples.shape[-1]))


def as_arrays(estimate: Estimate) -> Estimate:
    """Return arrays, which NumPy's scalars are not."""
    return Estimate(*(namespace(x).asarray(x) for x in estimate))


def vector_like(A: Matrix) -> Array:
    """Return an empty vector of the dtype, device and namespace of what ``A`` multiplies.

    Raises
    ------
    TypeError
        If ``A`` is neither an operator nor an array of real floating point.
    ValueError
        If it is not square.
    """
    if isinstance(A, Operator):
        structure = A.structure
        return structure.xp.zeros((0,), dtype=structure.dtype, device=structure.device)
    if not is_array(A) or not namespace(A).isdtype(A.dtype, "real floating"):
        raise TypeError(
            f"the matrix is a {type(A).__name__}; pass an operator such as pt.H or pt.G, or an "
            "array of real floating point"
        )
    if A.ndim != 2 or A.shape[0] != A.shape[1]:
        raise ValueError(f"the matrix has shape {tuple(A.shape)}; a symmetric one is needed")
    return A[0, :0]


def sign_blocks(A: Matrix, samples: int, seed: int, at_once: int) -> Iterator[Array]:
    """Yield blocks of shape (n, k), k <= at_once, of vectors of independent random signs.

    The vectors do not depend on how they are cut into blocks.
    """
    check_count("at_once", at_once, 1)
    vector, random = vector_like(A), Random(seed)
    for first in range(0, samples, at_once):
        k = min(at_once, samples - first)
        yield signs(vector, A.shape[0], k, random)


def signs(vector: Array, n: int, k: int, random: Random) -> Array:
    """Return an array of shape (n, k) of independent signs, like ``vector`` in all else."""
    xp = namespace(vector)
    draws = bytearray().join(random.randbytes(n) for _ in range(k))
    numbers = xp.asarray(draws, dtype=xp.uint8, device=device_of(vector))
    positive = xp.reshape(numbers < 128, (k, n)).T
    return xp.where(positive, like(vector, 1.0), like(vector, -1.0))


def check_count(name: str, value: Any, least: int, most: float = math.inf) -> None:
    """Raise unless ``value`` is an integer of this range."""
    if not isinstance(value, int) or not least <= value <= most:
        upper = "" if most == math.inf else f" and at most {int(most)}"
        raise ValueError(f"{name} is {value!r}; an integer of at least {least}{upper} is needed")
