"""Linear algebra on traced arrays.

A factorisation is not elementwise, linear or bilinear. But only the first few derivatives are
taken, ``A.order`` of them, and at one point, so that a function may be replaced by anything that
has the same value and the same such derivatives there: its expansion in the displacement dA from
the point A. That is a polynomial of matrix products, where only dA is traced. Its value is zero,
so the function's value is unchanged to the last bit or two.

    (A + dA)^-1 = A^-1 - A^-1 dA A^-1 + A^-1 dA A^-1 dA A^-1 - ...

G. W. Stewart, J.-g. Sun, "Matrix Perturbation Theory", 1990, section III.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ...core.arrays import Array, join_parts
from ...core.errors import NotDifferentiable
from .contraction import diagonal, matmul, with_common_stack
from .functions import max_, min_, root, sum_, where
from .linear import LINEAR, Axis, axes_of
from .record import (
    FUNCTIONS,
    apply,
    differentiable_linalg,
    is_traced,
    namespace_of,
    plain,
    real_value,
    with_value,
)
from .shaping import expand_dims, matrix_transpose, squeeze

FUNCTIONS["linalg.matrix_transpose"] = matrix_transpose


class Slogdet(NamedTuple):
    """What :func:`slogdet` returns."""

    sign: Array
    logabsdet: Array


# By expansion --------------------------------------------------------------------------------


@differentiable_linalg
def inv(A: Any) -> Array:
    """Return the inverse: A^-1 (I - E + E E - ...), where E = dA A^-1."""
    if not is_traced(A):
        return namespace_of(A).linalg.inv(A)
    inverse = namespace_of(A).linalg.inv(plain(A))
    E = _displacement(A) @ inverse
    series = -E
    for _ in range(A.order - 1):
        series = -(E + E @ series)
    return with_value(matmul(inverse, series), inverse)


@differentiable_linalg
def solve(A: Any, B: Any) -> Array:
    """Return X with A X = B, whose change R is A^-1 (dB - dA X - dA R), from R = 0 on."""
    if B.ndim == 1:
        return squeeze(solve(A, expand_dims(B, 1)), -1)
    A, B = with_common_stack(A, B)
    if not is_traced(A):
        return _solver(A)(B)
    X = namespace_of(A).linalg.solve(plain(A), plain(B))
    dA = _displacement(A)
    change = -(dA @ X)
    if is_traced(B):
        change = change + _displacement(B)
    R = _solver(A)(change)
    for _ in range(A.order - 1):
        R = _solver(A)(change - dA @ R)
    return with_value(R, X)


@differentiable_linalg
def det(A: Any) -> Array:
    """Return the determinant: |A| exp s, with s the change of its logarithm.

    Where A is singular the expansion does not exist, and the namespace's error says so.
    """
    value = namespace_of(A).linalg.det(plain(A))
    if not is_traced(A):
        return value
    return with_value(FUNCTIONS["expm1"](_log_change(A)) * value, value)


@differentiable_linalg
def slogdet(A: Any) -> Slogdet:
    """Return the sign and log ||A||."""
    xp = namespace_of(A)
    sign, logabsdet = xp.linalg.slogdet(plain(A))
    if xp.isdtype(A.dtype, "complex floating"):
        # |det| is not holomorphic. Next to the real axis, +-det is: keep the sign, move the
        # rest of the phase into the logarithm.
        real_sign = xp.astype(xp.sign(xp.real(sign)), A.dtype)
        logabsdet, sign = logabsdet + xp.log(sign * real_sign), real_sign
    if not is_traced(A):
        return Slogdet(sign, logabsdet)
    return Slogdet(sign, with_value(_log_change(A), logabsdet))


@differentiable_linalg
def cholesky(A: Any, upper: bool = False) -> Array:
    """Return the factor L of A = L L'; of the symmetric part, if A is traced.

    With E = L^-1 dA L^-T and P(X) the lower triangle of X with half its diagonal, the factor of
    I + E is I + F, where F = P(E - F F'), from F = 0 on. Next to the real axis, where the
    namespace's own factor would conjugate, L comes from that of the real part in the same way, to
    first order in the imaginary part.
    """
    L = _cholesky(plain(A))
    if is_traced(A):
        half = _half_lower(L)
        E = _congruent(L, _displacement(A))
        F = E * half
        for _ in range(A.order - 1):
            F = (E - F @ matrix_transpose(F)) * half
        L = with_value(matmul(L, F), L)
    return matrix_transpose(L) if upper else L


def _cholesky(A: Array) -> Array:
    xp = namespace_of(A)
    if not xp.isdtype(A.dtype, "complex floating"):
        return xp.linalg.cholesky(A)
    L = xp.linalg.cholesky(xp.real(A))
    return join_parts(L, L @ (_congruent(L, xp.imag(A)) * _half_lower(L)))


def _congruent(L: Array, X: Any) -> Any:
    """Return L^-1 S L^-T, with S the symmetric part of X."""
    to_left = _solver(L)
    return to_left(matrix_transpose(to_left(0.5 * (X + matrix_transpose(X)))))


def _half_lower(L: Array) -> Array:
    """Return the mask whose product with X is P(X)."""
    xp = namespace_of(L)
    below = xp.tril(xp.ones(L.shape[-2:], dtype=L.dtype, device=L.device))
    return below - 0.5 * xp.eye(L.shape[-1], dtype=L.dtype, device=L.device)


# Norms, traces -------------------------------------------------------------------------------


@differentiable_linalg
def vector_norm(x: Any, axis: Axis = None, keepdims: bool = False, ord: float = 2) -> Array:
    """Return the norm (sum |x|^ord)^(1/ord); its derivatives are 0 where it is 0."""
    xp = namespace_of(x)
    if ord == math.inf:
        return max_(abs(x), axis, keepdims)
    if ord == -math.inf:
        return min_(abs(x), axis, keepdims)
    if ord == 1:
        return sum_(abs(x), axis, keepdims=keepdims)
    if ord <= 0:
        raise NotDifferentiable(f"linalg.vector_norm with ord={ord} has no derivative: use ord > 0")
    # A constant scale changes no derivative, and keeps the powers from over- and underflow.
    scale = xp.max(xp.abs(real_value(x)), axis=axis, keepdims=True)
    scale = xp.where((scale > 0) & xp.isfinite(scale), scale, xp.ones_like(scale))
    if ord == 2:
        unit = x / scale
        norm = root(sum_(unit * unit, axis, keepdims=True)) * scale
    else:
        total = sum_(abs(x / scale) ** float(ord), axis, keepdims=True)
        zero = real_value(total) == 0
        one = xp.ones((), dtype=x.dtype, device=x.device)
        norm = where(zero, 0.0 * one, where(zero, one, total) ** (1.0 / ord)) * scale
    return norm if keepdims else squeeze(norm, axes_of(axis, x.ndim))


@differentiable_linalg
def matrix_norm(x: Any, keepdims: bool = False, ord: Any = "fro") -> Array:
    """Return the Frobenius norm of matrices."""
    if ord != "fro":
        raise NotDifferentiable(
            f"linalg.matrix_norm with ord={ord!r} has no derivative rule on the tape: use 'fro'"
        )
    return vector_norm(x, (-2, -1), keepdims)


@differentiable_linalg
def trace(x: Any, offset: int = 0, dtype: Any = None) -> Array:
    """Return the sums of matrices' diagonals."""
    return sum_(diagonal(x, offset, -2, -1), -1, dtype)


FUNCTIONS["linalg.diagonal"] = partial(diagonal, axis1=-2, axis2=-1)


# ---------------------------------------------------------------------------------------------


def _displacement(A: Any) -> Any:
    """Return dA: zero here, and it moves as A does."""
    return with_value(A, namespace_of(A).zeros_like(plain(A)))


def _solver(A: Any) -> Callable[[Any], Any]:
    """Return the linear map X -> A^-1 X for A a constant."""
    return partial(apply, LINEAR["solve"], A=plain(A))


def _log_change(A: Any) -> Any:
    """Return tr E - tr E^2 / 2 + tr E^3 / 3 - ..., where E = A^-1 dA: what log |A| changes by."""
    E = power = _solver(A)(_displacement(A))
    change = trace(E)
    for j in range(2, A.order + 1):
        change = change + sum_(power * matrix_transpose(E), (-2, -1)) * ((-1) ** (j + 1) / j)
        power = power @ E if j < A.order else power
    return change
