"""The derivative of a function of a vector along a direction, by evaluating it a step away."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ...core.arrays import (
    Array,
    eps,
    guarded_divide,
    is_complex,
    join_parts,
    like,
    max_abs,
    namespace,
    smallest,
)
from ...core.errors import NotAnalytic

Function = Callable[[Array], Array]


class Step(Protocol):
    """A way to differentiate along a direction."""

    def along(self, F: Function, x: Array, v: Array) -> Array:
        """Return F'(x) v, for x and v of shape (n,)."""

    def nested(self) -> Step | None:
        """Return the step for a derivative of a derivative, None if there cannot be one."""


@dataclass(frozen=True)
class ComplexStep:
    """F'(x) v = Im F(x + ihv) / h + O(h^2): nothing is subtracted, so that h may be tiny.

    Parameters
    ----------
    h : float, optional
        Length of the step in the maximum norm. By default the fourth root of the smallest
        normal number, as a power of two: 2^-256 in float64, 2^-32 in float32. Its square is far
        below rounding error, and still does not underflow.

    Notes
    -----
    W. Squire, G. Trapp, "Using complex variables to estimate derivatives of real functions", SIAM
    Review 40 (1998); J. R. R. A. Martins, P. Sturdza, J. J. Alonso, "The complex-step derivative
    approximation", ACM Transactions on Mathematical Software 29 (2003).
    """

    h: float | None = None

    def along(self, F: Function, x: Array, v: Array) -> Array:
        """Return F'(x) v, for x and v of shape (n,).

        Raises
        ------
        NotAnalytic
            If F returns a real array.
        """
        h = 2.0 ** round(math.log2(smallest(x)) / 4) if self.h is None else self.h
        length = max_abs(v)
        unit = guarded_divide(v, length)
        result = F(join_parts(x, unit * h))
        if not is_complex(result):
            raise NotAnalytic(
                f"a function of {namespace(x).__name__} arrays returned {result.dtype} for complex "
                "arguments, so that its derivative is lost: compute without abs, real, conj or a "
                "cast to real dtypes, or use products='autodiff' or 'finite-difference'"
            )
        return namespace(x).imag(result) / h * length

    def nested(self) -> None:
        """Return nothing: a second imaginary unit is what multicomplex arrays are for."""
        return None


_POWERS = {"forward": (1 / 2, 1 / 3), "central": (1 / 3, 1 / 4)}


@dataclass(frozen=True)
class FiniteDifference:
    """F'(x) v = (F(x + hv) - F(x)) / h + O(h), or (F(x + hv) - F(x - hv)) / 2h + O(h^2).

    The step balances truncation and rounding: h |v_i| <= eps^p max(1, |x_i|) for every i, with
    p = 1/2 forward and p = 1/3 central, and one part less for a derivative of a derivative.

    Parameters
    ----------
    scheme : str
        ``"central"`` or ``"forward"``, which takes half the evaluations for half the digits.
    power : float, optional
        p.

    Notes
    -----
    J. Nocedal, S. Wright, "Numerical Optimization", 2nd edition, section 8.1; J. E. Dennis,
    R. B. Schnabel, "Numerical Methods for Unconstrained Optimization", section 5.4 and 5.6.
    """

    scheme: str = "central"
    power: float | None = None

    def __post_init__(self) -> None:
        if self.scheme not in _POWERS:
            raise ValueError(f"no scheme is called {self.scheme!r}; there are: forward, central")

    def along(self, F: Function, x: Array, v: Array) -> Array:
        """Return F'(x) v, for x and v of shape (n,)."""
        h = self._length(x, v)
        if self.scheme == "forward":
            return (F(x + h * v) - F(x)) / h
        return (F(x + h * v) - F(x - h * v)) / (2.0 * h)

    def nested(self) -> FiniteDifference:
        """Return the step for a derivative of a derivative."""
        return replace(self, power=_POWERS[self.scheme][1])

    def _length(self, x: Array, v: Array) -> Any:
        xp = namespace(x)
        power = _POWERS[self.scheme][0] if self.power is None else self.power
        longest = max_abs(v / xp.maximum(xp.abs(x), like(x, 1.0)))
        return guarded_divide(like(x, eps(x) ** power), longest, otherwise=1.0)
