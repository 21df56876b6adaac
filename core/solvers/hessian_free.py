"""Hessian-free optimisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from ..arrays import Array, boolean_like, dot, guarded_divide, integer_like, like, namespace
from ..flow import Flow
from ..globalize.damping import rescale
from ..krylov.cg import Path, cg_path, entry, storage
from ..oracle import Oracle, Product
from ..result import Counts, Status
from ..samples import Samples, split
from .base import Solver, unevaluated, verdict

#: Sufficient decrease, factor and most trials of the line search, as in Martens' own code.
ARMIJO, SHORTER, TRIALS = 1e-2, 0.8, 60


class HessianFreeState(NamedTuple):
    """State of :class:`HessianFree`."""

    x: Array
    value: Array
    grad: Array
    status: Array
    counts: Counts
    damping: Array
    """lambda."""
    search: Array
    """Where CG ended, of shape (n,): the next one starts from ``decay`` times it."""
    iterations: Array
    """CG iterations of the last step."""
    step_length: Array
    """What the line search left of the last step; 0 if it was not taken."""


class _Candidate(NamedTuple):
    p: Array
    value: Array
    phi: Array  # the damped quadratic at p
    row: Array  # of the path's store, to be tried next
    tries: Array
    done: Array


class _Length(NamedTuple):
    rate: Array
    value: Array
    tries: Array
    done: Array


@dataclass(frozen=True, kw_only=True)
class HessianFree(Solver):
    """Hessian-free optimisation with the Gauss-Newton matrix (Martens 2010).

    On each batch: minimise q(p) = g'p + p'(G + lambda)p/2 by preconditioned CG, started from
    0.95 times the last solution, until q stops making progress; go back along the iterates for
    as long as the function falls; shorten by a line search; and let lambda follow how well the
    quadratic foretold the function.

    Parameters
    ----------
    damping : float
        lambda to begin with. It has the unit of curvature: 1 is calibrated for losses that are
        means over the samples (``docs/decisions.md``), and a sum over N needs N times as much.
        Martens' code begins his autoencoders at 45.
    tolerance : float
        CG stops once the relative progress of q over the last max(10, i/10) iterations is below
        this for each; Martens' 5e-4.
    max_inner : int
        Most CG iterations a step; Martens' code: 250.
    decay : float
        CG starts from this times the last solution; 0 starts anew. 0.95 is Martens and
        Sutskever's (2012).
    exponent : float
        Of the preconditioner (D + lambda)^exponent; Martens' 0.75. 0 preconditions nothing.
    chunks : int
        D, the diagonal of the empirical Fisher matrix, is estimated from the gradients of this
        many parts of the batch; 0 leaves D out.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops.

    Raises
    ------
    ValueError
        If an option is out of range; in a step, if the batch cannot be cut into ``chunks``.

    Notes
    -----
    J. Martens, "Deep learning via Hessian-free optimization" (ICML 2010); J. Martens and
    I. Sutskever, "Training deep and recurrent networks with Hessian-free optimization" (2012).
    lambda is multiplied by 3/2 where the ratio of the function's change to that of the
    undamped quadratic is below 1/4, and by 2/3 where it is above 3/4 (2010, section 4.1).

    One step costs a gradient, a product for each CG iteration and one for the residual at its
    start, a forward pass for each iterate and length tried, and with ``chunks`` another
    gradient. The store of iterates takes 20 vectors for 250 iterations, and grows with their
    logarithm.

    Deviations: (1) D = mean_i (grad f_i)^2 needs the gradients of single samples; it is estimated
    from those of ``chunks`` parts of m samples, g_c, as gbar^2 + m var_c(g_c), whose expectation
    over samples is D up to 1/N of their variance. The function must be a mean over the first
    axis of its data. (2) The line search starts from the iterate that was chosen, and lambda is
    judged there. (3) A step that is not finite counts as a bad one: lambda grows tenfold.
    """

    damping: float = 1.0
    tolerance: float = 5e-4
    max_inner: int = 250
    decay: float = 0.95
    exponent: float = 0.75
    chunks: int = 8

    samples: ClassVar[frozenset[str]] = frozenset({"curvature", "ratio"})

    def __post_init__(self) -> None:
        for name, holds, range_ in (
            ("damping", self.damping > 0, "positive"),
            ("tolerance", self.tolerance >= 0, "zero or positive"),
            ("max_inner", self.max_inner >= 1, "at least 1"),
            ("decay", 0 <= self.decay <= 1, "in [0, 1]"),
            ("exponent", 0 <= self.exponent <= 1, "in [0, 1]"),
            ("chunks", self.chunks == 0 or self.chunks >= 2, "0, or 2 or more"),
        ):
            if not holds:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {range_}")

    def needs(self) -> frozenset[Product]:
        """Products that the oracle must offer."""
        return frozenset({Product.GGN})

    def deterministic(self) -> HessianFree:
        """Return this solver for one fixed function, whose data need not be samples."""
        return replace(self, chunks=0)

    def init(self, oracle: Oracle, x: Array, *data: Any) -> HessianFreeState:
        """Return the state to start from ``x``, of shape (n,)."""
        zeros, zero, none = namespace(x).zeros_like(x), like(x, 0.0), integer_like(x, 0)
        return HessianFreeState(
            **unevaluated(x),
            damping=like(x, self.damping),
            search=zeros,
            iterations=none,
            step_length=zero,
        )

    def step(self, oracle: Oracle, state: HessianFreeState, *data: Any) -> HessianFreeState:
        """Return the state after one batch."""
        flow, s = oracle.flow, split(data)
        pt = oracle.at(state.x, *s.gradient)
        curved = s.curved(oracle, state.x, pt)
        f, g, damping = pt.value, pt.grad, state.damping
        xp = namespace(g)
        status = verdict(f, g, self.gtol)
        active = status == Status.RUNNING.value

        path = cg_path(
            lambda v: curved.ggn(v) + damping * v,
            -g,
            self.decay * state.search,
            precondition=self._preconditioner(oracle, state, s),
            tolerance=self.tolerance,
            maxiter=self.max_inner,
            active=active,
            flow=flow,
        )
        start = s.judged(oracle, state.x, f)

        def value_at(p: Array) -> Array:
            return oracle.value(state.x + p, *s.ratio)

        chosen = backtrack(value_at, path, self.max_inner, active=active, flow=flow)
        length = shorten(
            lambda rate: value_at(rate * chosen.p),
            start,
            dot(g, chosen.p),
            chosen.value,
            active=active,
            flow=flow,
        )
        undamped = chosen.phi - damping * dot(chosen.p, chosen.p) / 2
        ratio = guarded_divide(chosen.value - start, undamped)
        return HessianFreeState(
            x=xp.where(length.rate > 0, state.x + length.rate * chosen.p, state.x),
            value=f,
            grad=g,
            status=status,
            counts=state.counts.add(
                gradients=1 + int(curved is not pt) + int(self.chunks > 0 < self.exponent),
                values=chosen.tries + length.tries + int(s.ratio is not s.gradient),
                ggns=path.products,
            ),
            damping=xp.where(
                active, rescale(damping, ratio, poor=0.25, good=0.75, factor=2 / 3), damping
            ),
            search=xp.where(active & xp.all(xp.isfinite(path.x)), path.x, xp.zeros_like(g)),
            iterations=path.iterations,
            step_length=length.rate,
        )

    def _preconditioner(
        self, oracle: Oracle, state: HessianFreeState, s: Samples
    ) -> Callable[[Array], Array]:
        """Return v -> (D + lambda)^-exponent v."""
        if self.exponent == 0:
            return lambda v: v
        D = like(state.x, 0.0)
        if self.chunks:
            D = fisher_diagonal(oracle, state.x, s.curvature, self.chunks)
        P = (D + state.damping) ** self.exponent
        return lambda v: v / P

    def report(self, state: HessianFreeState) -> dict[str, Array]:
        """Return lambda, the CG iterations and the step length."""
        return {
            "damping": state.damping,
            "iterations": state.iterations,
            "step_length": state.step_length,
        }


def fisher_diagonal(oracle: Oracle, x: Array, batch: tuple[Any, ...], chunks: int) -> Array:
    """Return an estimate of mean_i (grad f_i)^2, of shape (n,), at the price of one gradient.

    Parameters
    ----------
    oracle : Oracle
        Of a function that is the mean of f_i over the first axis of its data.
    x : array of shape (n,)
    batch : tuple of arrays
    chunks : int
        How many parts to take gradients of, at least 2; samples beyond a multiple of it are
        left out.

    Raises
    ------
    ValueError
        If the data are not arrays with a common first axis of at least ``chunks``.
    """
    sizes = {a.shape[0] if getattr(a, "shape", ()) else 0 for a in batch}
    size = sizes.pop() // chunks if len(sizes) == 1 else 0
    if size == 0:
        raise ValueError(
            f"the batch cannot be cut into {chunks} chunks: that needs arrays with a common first "
            "axis of samples; pass chunks=0 to precondition without the empirical Fisher matrix"
        )
    parts = [tuple(a[c * size : (c + 1) * size, ...] for a in batch) for c in range(chunks)]
    xp = namespace(x)
    gradients = xp.stack([oracle.at(x, *part).grad for part in parts])
    mean = xp.mean(gradients, axis=0)
    return mean**2 + size * xp.var(gradients, axis=0, correction=1)


def backtrack(
    value_at: Callable[[Array], Array], path: Path, maxiter: int, *, active: Array, flow: Flow
) -> _Candidate:
    """Go back along the stored iterates of CG for as long as the function falls.

    Martens 2010, section 4.6: from the last iterate to the first; a value that is not finite
    is no reason to stop.
    """
    xp = namespace(path.x)
    indices = storage(maxiter)
    of_row = xp.stack([integer_like(path.x, i) for i in indices])

    def attempt(c: _Candidate) -> _Candidate:
        row = xp.maximum(c.row, integer_like(c.row, 0))
        p = entry(path.stored, row)
        value = value_at(p)
        falls = (value < c.value) | ~xp.isfinite(c.value)
        return _Candidate(
            p=xp.where(falls, p, c.p),
            value=xp.where(falls, value, c.value),
            phi=xp.where(falls, entry(path.phi, entry(of_row, row)), c.phi),
            row=c.row - 1,
            tries=c.tries + 1,
            done=~falls,
        )

    def keep_going(c: _Candidate) -> Array:
        return active & ~c.done & (c.row >= 0)

    earlier = xp.sum(xp.astype(of_row < path.iterations, path.iterations.dtype))
    last = _Candidate(
        p=path.x,
        value=flow.cond(active, value_at, lambda p: like(p, 0.0), path.x),
        phi=entry(path.phi, path.iterations),
        row=xp.astype(earlier, path.iterations.dtype) - 1,
        tries=xp.astype(active, path.iterations.dtype),
        done=boolean_like(path.x, False),
    )
    return flow.while_loop(keep_going, attempt, last)


def shorten(
    value_at: Callable[[Array], Array],
    f: Array,
    slope: Array,
    value: Array,
    *,
    active: Array,
    flow: Flow,
) -> _Length:
    """Return the first length of 1, 0.8, 0.64, ... that decreases the function sufficiently.

    ``value`` is the function at length 1, which has been evaluated; the rate is 0 if none does.
    """
    xp = namespace(f)

    def suffices(rate: Array, value: Array) -> Array:
        return (value <= f + ARMIJO * rate * slope) & xp.isfinite(value) & (slope < 0)

    def attempt(c: _Length) -> _Length:
        rate = SHORTER * c.rate
        value = value_at(rate)
        return _Length(rate, value, c.tries + 1, suffices(rate, value))

    def keep_going(c: _Length) -> Array:
        return active & (slope < 0) & ~c.done & (c.tries < TRIALS)

    whole = _Length(like(f, 1.0), value, integer_like(f, 0), suffices(like(f, 1.0), value))
    end = flow.while_loop(keep_going, attempt, whole)
    return end._replace(rate=xp.where(active & end.done, end.rate, like(f, 0.0)))
