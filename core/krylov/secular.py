"""The secular equation: the shift of a spectrum that gives a step the length it is to have."""

from __future__ import annotations

from typing import NamedTuple

from ..arrays import (
    Array,
    boolean_like,
    dot,
    eps,
    guarded_divide,
    integer_like,
    like,
    namespace,
    norm,
    root,
)
from ..flow import Flow

#: Iterations after which the root is bracketed to rounding in any case.
ITERATIONS = 100


class Reach(NamedTuple):
    """How long a step of shift lambda is to be: |s|_A = radius + lambda * slope.

    (Delta, 0) is a trust region; (0, 1/sigma) is the cubic term sigma |s|_A^3 / 3.
    """

    radius: Array
    slope: Array


class _Root(NamedTuple):
    shift: Array
    low: Array
    high: Array
    k: Array
    done: Array


def secular(e: Array, c: Array, reach: Reach, flow: Flow) -> tuple[Array, Array]:
    """Return lambda and u, with (e + lambda) u = -c, for |c| = 1 and |e| <= 1 ascending."""
    xp, tiny = namespace(e), 4 * eps(e)
    zero = like(e, 0.0)
    floor = xp.where(e[0] > tiny, zero, xp.maximum(-e[0], zero) + tiny)
    u = _solution(e, c, floor)[0]
    longest = reach.radius + reach.slope * floor

    def inside() -> tuple[Array, Array]:
        # Hard case: no shift makes u long enough, the bottom eigenvector does.
        rest = xp.concat([xp.zeros_like(u[:1]), u[1:]])
        missing = root(longest * longest - dot(rest, rest))
        first = xp.where(c[:1] > 0, -missing, missing)
        return floor, xp.where(e[0] < -tiny, xp.concat([first, u[1:]]), u)

    def on_boundary() -> tuple[Array, Array]:
        shift = _shift_beyond(e, c, reach, floor, flow)
        return shift, _solution(e, c, shift)[0]

    return flow.cond(norm(u) <= longest, inside, on_boundary)


def _shift_beyond(e: Array, c: Array, reach: Reach, floor: Array, flow: Flow) -> Array:
    """Return the shift beyond ``floor`` at which u is as long as the target."""
    xp = namespace(e)

    def newton(at: _Root) -> _Root:
        u, gaps = _solution(e, c, at.shift)
        length, target = norm(u), reach.radius + reach.slope * at.shift
        long = length > target
        low, high = xp.where(long, at.shift, at.low), xp.where(long, at.high, at.shift)
        # Newton on 1/|u| - 1/target, both sides multiplied by target.
        part = guarded_divide(target, length)
        unit = guarded_divide(like(e, 1.0), length) * u
        bend = dot(unit, unit / gaps) * part
        step = (part - 1) / (bend + guarded_divide(reach.slope, target))
        trial = at.shift - step
        middle = floor + root((low - floor) * (high - floor))
        middle = xp.where(low > floor, middle, (low + high) / 2)
        trial = xp.where((trial > low) & (trial < high), trial, middle)
        close = xp.abs(length - target) <= 10 * eps(e) * target
        close = close | (xp.abs(step) <= 2 * eps(e) * at.shift)
        return _Root(
            shift=xp.where(close, at.shift, trial),
            low=low,
            high=high,
            k=at.k + 1,
            done=close | (high - low <= 2 * eps(e) * high) | (at.k >= ITERATIONS),
        )

    # The shift at which an entry of u alone is as long as the target is never beyond the root, and
    # from there Newton's iterates rise to it.
    region = xp.abs(guarded_divide(c, reach.radius)) - e
    weight = xp.abs(guarded_divide(c, reach.slope))
    hypotenuse = xp.sqrt(e * e / 4 + weight)
    cubic = xp.where(e > 0, guarded_divide(weight, e / 2 + hypotenuse), hypotenuse - e / 2)
    widest = xp.where(
        reach.radius > 0,
        guarded_divide(like(e, 1.0), reach.radius),
        root(guarded_divide(like(e, 1.0), reach.slope)),
    )
    first = xp.max(xp.where(reach.radius > 0, region, cubic))
    first = xp.minimum(xp.maximum(first, floor), floor + widest)
    start = _Root(first, floor, floor + widest, integer_like(e, 0), boolean_like(e, False))
    return flow.while_loop(lambda at: ~at.done, newton, start).shift


def _solution(e: Array, c: Array, shift: Array) -> tuple[Array, Array]:
    """Return u with (e + shift) u = -c, and e + shift, which is kept from 0."""
    gaps = namespace(e).maximum(e + shift, like(e, 2 * eps(e)))
    return -c / gaps, gaps
