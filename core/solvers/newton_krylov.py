"""Stochastic Newton-Krylov with early termination and Taylor-ratio steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from ..arrays import Array, dot, eps, guarded_divide, integer_like, like, namespace, norm
from ..globalize.taylor_ratio import taylor_step
from ..krylov.early_cg import early_cg, start
from ..oracle import Oracle, Point, Product
from ..result import Counts, Status
from .base import Solver, verdict


class NewtonKrylovState(NamedTuple):
    """State of :class:`NewtonKrylov`."""

    x: Array
    value: Array
    grad: Array
    status: Array
    counts: Counts
    global_grad: Array
    """gbar, of shape (n,); zero before there is one, which screens nothing."""
    carried: Array
    """Residual of a search carried to the next batch, of shape (n,); zero if there is none."""
    step_length: Array
    """s of the last step; 0 if no step was taken."""
    screened: Array
    """Batches skipped so far because their gradient opposed the global one."""


class _Direction(NamedTuple):
    d: Array
    slope: Array  # g'd
    curvature: Array  # d'Hd
    carried: Array
    hvps: Array


@dataclass(frozen=True, kw_only=True)
class NewtonKrylov(Solver):
    """Stochastic Newton-Krylov (Shen et al. 2020, Algorithm 1).

    On each batch: skip it if its gradient opposes the global gradient gbar; run CG on
    H d = -g until it converges or meets negative curvature; remove from d what would climb
    along gbar; choose the step length by the Taylor ratio. Nothing damps or alters H.

    Parameters
    ----------
    max_inner : int
        Most Hessian products per step; the paper: "seldom iterates more than 20".
    forcing : float
        CG stops at |r| <= forcing |g| (calibrated as ``interval`` is).
    interval : tuple of float
        Taylor ratios accepted as they are, the method's one hyper-parameter (the paper's value
        is lost; ours is calibrated in ``docs/reports/newton_krylov.md``).
    attempts : int
        Most step lengths tried per step; each costs one forward pass.
    global_gradient : {"mean", "full", "batch"}
        gbar: a decayed mean of the batches' gradients; or the full gradient, which
        :func:`osculant.fit` refreshes at the start of each epoch through :meth:`refresh`; or
        the batch's own gradient, which screens nothing, as fits a deterministic function.
    decay : float
        Decay rate of the mean.
    negative_curvature : {"gradient", "carry"}
        What to do where the first direction has negative curvature: step along -g, scaled by
        that curvature's size; or carry the search on with the next batch's Hessian (the
        paper's words), once, and then step along -g.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops.

    Notes
    -----
    One step costs a gradient, the products of the search, and a forward pass per step length
    tried; a screened batch costs its gradient. Deviations are listed where they are made, in
    :func:`~osculant.core.krylov.early_cg.early_cg` and
    :func:`~osculant.core.globalize.taylor_ratio.taylor_step`; a direction from which the
    component along gbar was removed costs one more product, for its d'Hd.
    """

    max_inner: int = 20
    forcing: float = 0.3
    interval: tuple[float, float] = (0.05, 1.0)
    attempts: int = 8
    global_gradient: Literal["mean", "full", "batch"] = "mean"
    decay: float = 0.9
    negative_curvature: Literal["gradient", "carry"] = "gradient"

    def __post_init__(self) -> None:
        low, high = self.interval
        if not 0 <= low < high:
            raise ValueError(
                f"interval is {self.interval}; it must be (low, high), 0 <= low < high"
            )
        for name, allowed in (
            ("global_gradient", ("mean", "full", "batch")),
            ("negative_curvature", ("gradient", "carry")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {allowed}")

    def needs(self) -> frozenset[Product]:
        """Products that the oracle must offer."""
        return frozenset({Product.HVP})

    def deterministic(self) -> NewtonKrylov:
        """Return this solver for one fixed function, whose batch gradient is the global one."""
        return replace(self, global_gradient="batch")

    def init(self, oracle: Oracle, x: Array, *data: Any) -> NewtonKrylovState:
        """Return the state to start from ``x``, of shape (n,)."""
        zeros, none = namespace(x).zeros_like(x), integer_like(x, 0)
        return NewtonKrylovState(
            x=x,
            value=like(x, 0.0),
            grad=zeros,
            status=integer_like(x, Status.RUNNING),
            counts=Counts.zero(x),
            global_grad=zeros,
            carried=zeros,
            step_length=like(x, 0.0),
            screened=none,
        )

    def refresh(self, oracle: Oracle, state: NewtonKrylovState, batches: Any) -> NewtonKrylovState:
        """Return the state with gbar the mean gradient over ``batches``, of equal size each."""
        if self.global_gradient != "full":
            return state
        total, number = namespace(state.x).zeros_like(state.x), 0
        for batch in batches:
            total, number = total + oracle.at(state.x, *batch).grad, number + 1
        if number == 0:
            return state
        return state._replace(global_grad=total / number, counts=state.counts.add(gradients=number))

    def step(self, oracle: Oracle, state: NewtonKrylovState, *data: Any) -> NewtonKrylovState:
        """Return the state after one batch."""
        pt = oracle.at(state.x, *data)
        f, g = pt.value, pt.grad
        xp = namespace(g)
        status = verdict(f, g, self.gtol)
        running = status == Status.RUNNING.value
        gbar = g if self.global_gradient == "batch" else state.global_grad
        opposed = running & (dot(g, gbar) < 0)
        active = running & ~opposed
        if self.global_gradient == "mean":
            mixed = self.decay * gbar + (1 - self.decay) * g
            gbar = xp.where(running, mixed, gbar)
        direction = self._direction(oracle, pt, g, gbar, state.carried, active)
        length = taylor_step(
            lambda s: oracle.value(state.x + s * direction.d, *data),
            lambda s: s * dot(direction.d, g + oracle.at(state.x + s * direction.d, *data).grad),
            f,
            direction.slope,
            direction.curvature,
            interval=self.interval,
            attempts=self.attempts,
            active=active & (direction.slope < 0),
            flow=oracle.flow,
        )
        return NewtonKrylovState(
            x=xp.where(length.best > 0, state.x + length.best * direction.d, state.x),
            value=f,
            grad=g,
            status=self._stalled(status, active, state, direction, length.best),
            counts=state.counts.add(
                gradients=1 + length.gradients, hvps=direction.hvps, values=length.tries
            ),
            global_grad=gbar,
            carried=xp.where(active, direction.carried, state.carried),
            step_length=length.best,
            screened=state.screened + xp.astype(opposed, state.screened.dtype),
        )

    def _direction(
        self, oracle: Oracle, pt: Point, g: Array, gbar: Array, carried: Array, active: Array
    ) -> _Direction:
        """Run the Krylov search and screen what it found."""
        xp = namespace(g)
        has_carried = xp.any(carried != 0)
        search = early_cg(
            pt.hvp,
            start(xp.where(has_carried, carried, -g)),
            tolerance=self.forcing * norm(g),
            maxiter=xp.where(active, integer_like(g, self.max_inner), integer_like(g, 0)),
            flatness=eps(g) ** 0.5,
            flow=oracle.flow,
        )
        d, Hd, next_carried = search.d, search.Hd, xp.zeros_like(g)
        barred = search.negative & (search.iterations == 1)
        if self.negative_curvature == "carry":
            next_carried = xp.where(barred & ~has_carried, search.r, next_carried)
        # -g over the size of the curvature that barred the way; d'Hd follows where it was H's own.
        bend = xp.abs(xp.where(xp.isfinite(search.curvature), search.curvature, like(g, 0.0)))
        scale = guarded_divide(like(g, 1.0), bend, otherwise=1.0)
        steps_back = barred & ~xp.any(next_carried != 0)
        d = xp.where(steps_back, -scale * g, d)
        curvature = xp.where(steps_back, -bend * dot(d, d), dot(d, Hd))

        climb = dot(d, gbar)
        screened = active & (climb > 0)
        d = xp.where(screened, d - guarded_divide(climb, dot(gbar, gbar)) * gbar, d)
        curvature = oracle.flow.cond(screened, pt.vhv, lambda _: curvature, d)
        return _Direction(
            d=d,
            slope=dot(g, d),
            curvature=curvature,
            carried=next_carried,
            hvps=search.iterations + xp.astype(screened, search.iterations.dtype),
        )

    def _stalled(
        self,
        status: Array,
        active: Array,
        state: NewtonKrylovState,
        direction: _Direction,
        length: Array,
    ) -> Array:
        """Return STALLED where a search that descends to first order found no step at all."""
        xp = namespace(length)
        stuck = active & (length == 0) & ~xp.any(direction.carried != 0)
        return xp.where(stuck, integer_like(status, Status.STALLED), status)

    def report(self, state: NewtonKrylovState) -> dict[str, Array]:
        """Return the last step length."""
        return {"step_length": state.step_length}
