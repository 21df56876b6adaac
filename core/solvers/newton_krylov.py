"""Stochastic Newton-Krylov with early termination and Taylor-ratio steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

from ..arrays import Array, dot, eps, guarded_divide, integer_like, like, namespace
from ..flow import Flow
from ..globalize.damping import rescale
from ..globalize.direction import Direction, screened, with_momentum
from ..globalize.taylor_ratio import StepLength, taylor_step
from ..kronecker import Kronecker, prepared
from ..krylov.early_cg import Search, early_cg, start
from ..oracle import Oracle, Point, Product
from ..result import Counts, Status
from ..samples import Samples, split
from .base import PRODUCTS, Solver, unevaluated, verdict

#: What the preconditioner's damping is multiplied or divided by; KFAC's 19/20.
FOLLOW = 19 / 20


class NewtonKrylovState(NamedTuple):
    """State of :class:`NewtonKrylov`."""

    x: Array
    value: Array
    grad: Array
    status: Array
    counts: Counts
    global_grad: Array
    """gbar, of shape (n,); zero before there is one, which screens nothing."""
    d: Array
    """The last direction, of shape (n,)."""
    carried: Array
    """Residual of a search carried to the next batch, of shape (n,); zero if there is none."""
    step_length: Array
    """s of the last step; 0 if no step was taken."""
    screened: Array
    """Batches skipped so far because their gradient opposed the global one."""
    refreshed: Array
    """Gradients counted when gbar was last made of a whole epoch."""
    damping: Array
    """Of the preconditioner."""
    blocks: Any = ()
    """What the preconditioner has seen."""


class _Quadratic(NamedTuple):
    """g's + s'H s/2 of one batch."""

    g: Array
    product: Callable[[Array], Array]  # v -> H v
    form: Callable[[Array], Array]  # v -> v'H v
    solve: Callable[[Array], Array]  # v -> K^-1 v
    flow: Flow


class _Found(NamedTuple):
    """A Krylov search on one batch."""

    search: Search
    barred: Array  # by negative curvature, with nothing gathered
    carries_on: Array  # with the next batch's Hessian; no step now
    products: Array


@dataclass(frozen=True, kw_only=True)
class NewtonKrylov(Solver):
    """Stochastic Newton-Krylov (Shen et al. 2020, Algorithm 1).

    On each batch: skip it if its gradient opposes the global gradient gbar; run CG on
    H d = -g until it converges or meets negative curvature; remove from d what would climb
    along gbar; choose the step length by the Taylor ratio. Nothing damps or alters H.

    A deep network wants ``preconditioner=Kronecker(), momentum=True, max_inner=1`` and
    ``global_gradient="batch"``: by itself CG ends there after two or three products, at negative
    curvature (``docs/reports/autoencoder.md``).

    Parameters
    ----------
    max_inner : int
        Most iterations of CG per step; the paper: "seldom iterates more than 20".
    forcing : float
        CG stops at |r| <= forcing |g|, in the norm of K^-1 (calibrated as ``interval`` is).
    interval : tuple of float
        Taylor ratios accepted as they are, the method's one hyper-parameter (the paper's value
        is lost; ours is calibrated in ``docs/reports/newton_krylov.md``).
    attempts : int
        Most step lengths tried per step; each costs one forward pass.
    global_gradient : {"mean", "full", "batch"}
        gbar: a decayed mean of the batches' gradients; or the full gradient, which
        :func:`osculant.fit` refreshes through :meth:`refresh`; or the batch's own gradient,
        which screens nothing, as fits a deterministic function.
    decay : float
        Decay rate of the mean.
    refresh_period : int, optional
        The full gradient is refreshed at the start of each epoch, and with this option also
        after each ``refresh_period`` batches within it.
    negative_curvature : {"gradient", "carry"}
        What to do where the first direction has negative curvature, so that the search has
        gathered nothing: step along -g, scaled by that curvature's size; or carry the search on
        with the next batch's Hessian (the paper's words), once, and then step along -g.
    warm_start : float
        Start each search from this times the last direction, "splitting the full set of
        global CG iterations over multiple local Hessian samples", at the price of a product;
        unless the quadratic is not lower there than at 0. 0 starts at 0.
    curvature : {"hessian", "gauss-newton"}
        What H is: the paper's, or Gauss-Newton's, which bars no search and needs an oracle built
        from a model and a loss.
    momentum : bool
        Whether the quadratic is minimised over the plane of where the search ended and the last
        direction, at the price of a product. It makes gradients of successive batches oppose each
        other: use ``global_gradient="batch"`` with it.
    preconditioner : Kronecker, optional
        K of a model's dense and convolution layers, which preconditions CG.
    damping : float
        Of K, and not of H, to begin with. It is divided by 19/20 where the function fell by less
        than 1/4 of what the quadratic promised of s = 1, multiplied by it above 3/4.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    One step costs a gradient, a product for each CG iteration and one for a start that is not
    0, and a forward pass per step length tried; a screened batch costs its gradient. Estimates of
    K count as gradients. The products are the oracle's:
    ``osculant.oracle(..., products="complex-step")`` makes them by the paper's complex step.

    The mechanisms of the text, and where they are: complex-step products (the oracle); pre-batch
    screening by g'gbar < 0 (:meth:`step`); early termination and the temporary momentum in flat
    directions (:func:`~osculant.core.krylov.early_cg.early_cg`); another Hessian sample at the next
    reliable batch (``negative_curvature="carry"``, ``warm_start``, ``momentum``); post-batch
    screening (:func:`~osculant.core.globalize.direction.screened`); step sizes from the Taylor
    ratio of eq. 13 (:func:`~osculant.core.globalize.taylor_ratio.taylor_step`).

    Deviations and what the text leaves open: (1) what the step length does where no ratio fits
    is listed in ``taylor_step``; (2) gbar may be a decayed mean, for where a full pass is not
    affordable; (3) a search that has gathered a direction when it meets negative curvature goes
    that way at once, and is not carried on before there is a step: that was measured to waste
    batches; (4) what is carried is scaled, and starts a new sequence of conjugate directions,
    as conjugacy belongs to one Hessian; (5) a direction from which the component along gbar was
    removed costs one more product, for its d'Hd; (6) Gauss-Newton, momentum and preconditioner are
    no part of the text; the plane is that of Martens and Grosse (2015, section 7).
    """

    max_inner: int = 20
    forcing: float = 0.3
    interval: tuple[float, float] = (0.05, 1.0)
    attempts: int = 8
    global_gradient: Literal["mean", "full", "batch"] = "mean"
    decay: float = 0.9
    refresh_period: int | None = None
    negative_curvature: Literal["gradient", "carry"] = "gradient"
    curvature: Literal["hessian", "gauss-newton"] = "hessian"
    warm_start: float = 0.0
    momentum: bool = False
    preconditioner: Kronecker | None = None
    damping: float = 3e-4

    samples: ClassVar[frozenset[str]] = frozenset({"curvature", "ratio"})

    def __post_init__(self) -> None:
        low, high = self.interval
        if not 0 <= low < high:
            raise ValueError(
                f"interval is {self.interval}; it must be (low, high), 0 <= low < high"
            )
        for name, allowed in (
            ("global_gradient", ("mean", "full", "batch")),
            ("negative_curvature", ("gradient", "carry")),
            ("curvature", tuple(PRODUCTS)),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {allowed}")
        for name, holds, range_ in (
            ("max_inner", self.max_inner >= 1, "at least 1"),
            ("attempts", self.attempts >= 1, "at least 1"),
            ("forcing", 0 < self.forcing < 1, "in (0, 1)"),
            ("decay", 0 <= self.decay < 1, "in [0, 1)"),
            ("warm_start", 0 <= self.warm_start <= 1, "in [0, 1]"),
            ("damping", self.damping > 0, "positive"),
        ):
            if not holds:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {range_}")
        if self.refresh_period is not None and (
            self.refresh_period < 1 or self.global_gradient != "full"
        ):
            raise ValueError(
                f"refresh_period is {self.refresh_period}; it must be at least 1, and needs "
                "global_gradient='full'"
            )

    def needs(self) -> frozenset[Product]:
        """Products that the oracle must offer."""
        return frozenset({Product(PRODUCTS[self.curvature].product)})

    def deterministic(self) -> NewtonKrylov:
        """Return this solver for one fixed function, whose batch gradient is the global one."""
        return replace(self, global_gradient="batch", refresh_period=None)

    def init(self, oracle: Oracle, x: Array, *data: Any) -> NewtonKrylovState:
        """Return the state to start from ``x``, of shape (n,)."""
        zeros, none = namespace(x).zeros_like(x), integer_like(x, 0)
        return NewtonKrylovState(
            **unevaluated(x),
            global_grad=zeros,
            d=zeros,
            carried=zeros,
            step_length=like(x, 0.0),
            screened=none,
            refreshed=none,
            damping=like(x, self.damping),
            blocks=self.preconditioner.init(oracle, x) if self.preconditioner else (),
        )

    def refresh_due(self, index: int) -> bool:
        """Whether gbar is to be refreshed before the batch ``index`` of an epoch."""
        period = self.refresh_period
        return index == 0 or (period is not None and index % period == 0)

    def refresh(self, oracle: Oracle, state: NewtonKrylovState, batches: Any) -> NewtonKrylovState:
        """Return the state with gbar the mean gradient over ``batches``, of equal size each.

        Nothing is evaluated if there has been no step since the last time.
        """
        gradients = int(state.counts.gradients)
        if self.global_gradient != "full" or 0 < gradients == int(state.refreshed):
            return state
        total, number = namespace(state.x).zeros_like(state.x), 0
        for batch in batches:
            total, number = total + oracle.at(state.x, *batch).grad, number + 1
        if number == 0:
            return state
        return state._replace(
            global_grad=total / number,
            counts=state.counts.add(gradients=number),
            refreshed=state.counts.gradients + number,
        )

    def step(self, oracle: Oracle, state: NewtonKrylovState, *data: Any) -> NewtonKrylovState:
        """Return the state after one batch."""
        s = split(data)
        pt = oracle.at(state.x, *s.gradient)
        curved = s.curved(oracle, state.x, pt)
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

        blocks, solve, estimates = prepared(
            self.preconditioner, oracle, state.blocks, state.x, state.damping, s.curvature
        )
        names = PRODUCTS[self.curvature]
        product, form = getattr(curved, names.product), getattr(curved, names.form)
        q = _Quadratic(g, product, form, solve, oracle.flow)
        found = self._search(q, state, active)
        steps = active & ~found.carries_on
        direction = self._direction(q, gbar, state, found, steps)
        length = self._length(oracle, state, pt, s, direction, steps)
        stuck = steps & (length.best == 0)
        return NewtonKrylovState(
            x=xp.where(length.best > 0, state.x + length.best * direction.d, state.x),
            value=f,
            grad=g,
            status=xp.where(stuck, integer_like(status, Status.STALLED), status),
            counts=state.counts.add(
                gradients=(1 if curved is pt else 2) + length.gradients + estimates,
                values=length.tries,
                **{names.counted: found.products + direction.products},
            ),
            global_grad=gbar,
            d=xp.where(steps, direction.d, state.d),
            carried=xp.where(
                active,
                xp.where(found.carries_on, found.search.r, xp.zeros_like(g)),
                state.carried,
            ),
            step_length=length.best,
            screened=state.screened + xp.astype(opposed, state.screened.dtype),
            refreshed=state.refreshed,
            damping=self._rescaled(state.damping, direction, length, steps),
            blocks=blocks,
        )

    def _search(self, q: _Quadratic, state: NewtonKrylovState, active: Array) -> _Found:
        """Run CG on H d = -g, from where it is to start."""
        g, xp, flow = q.g, namespace(q.g), q.flow
        carrying = xp.any(state.carried != 0)
        d = xp.where(carrying, xp.zeros_like(g), self.warm_start * state.d)
        starts_away = active & xp.any(d != 0)
        Hd = flow.cond(starts_away, q.product, xp.zeros_like, d)
        kept = dot(g, d) + dot(d, Hd) / 2 < 0
        d, Hd = (xp.where(kept, v, xp.zeros_like(v)) for v in (d, Hd))
        first = start(xp.where(carrying, state.carried, -g - Hd), d, Hd, q.solve)
        size = dot(g, q.solve(g)) if self.warm_start else first.rr
        search = early_cg(
            q.product,
            first,
            tolerance=self.forcing * xp.sqrt(size),
            maxiter=xp.where(active, integer_like(g, self.max_inner), integer_like(g, 0)),
            flatness=eps(g) ** 0.5,
            flow=flow,
            precondition=q.solve,
        )
        barred = active & search.negative & ~xp.any(search.d != 0)
        return _Found(
            search=search,
            barred=barred,
            carries_on=barred & ~carrying & (self.negative_curvature == "carry"),
            products=search.iterations + xp.astype(starts_away, search.iterations.dtype),
        )

    def _direction(
        self, q: _Quadratic, gbar: Array, state: NewtonKrylovState, found: _Found, steps: Array
    ) -> Direction:
        """Return where the search ended, with momentum and without what would climb along gbar."""
        g, xp, search = q.g, namespace(q.g), found.search
        # Barred at once: -K^-1 g over the size of the curvature that barred the way.
        back = q.flow.cond(found.barred, lambda g: -q.solve(g), xp.zeros_like, g)
        bend = xp.abs(xp.where(xp.isfinite(search.curvature), search.curvature, like(g, 0.0)))
        scale = guarded_divide(-dot(g, back), bend * dot(back, back), otherwise=1.0)
        d = xp.where(found.barred, scale * back, search.d)
        curvature = xp.where(found.barred, -bend * dot(d, d), dot(d, search.Hd))
        direction = Direction(d, dot(g, d), curvature, integer_like(g, 0))
        if self.momentum:
            z = state.d
            direction = with_momentum(direction, z, q.product, g, active=steps, flow=q.flow)
        return screened(direction, gbar, q.form, g, active=steps, flow=q.flow)

    def _rescaled(
        self, damping: Array, direction: Direction, length: StepLength, steps: Array
    ) -> Array:
        """Return the preconditioner's damping after a step, by the decrease that it foretold."""
        foretold = -(direction.slope + direction.curvature / 2)
        ratio = guarded_divide(length.decrease, foretold)
        new = rescale(damping, ratio, poor=0.25, good=0.75, factor=FOLLOW)
        return namespace(damping).where(steps, new, damping)

    def _length(
        self,
        oracle: Oracle,
        state: NewtonKrylovState,
        pt: Point,
        s: Samples,
        direction: Direction,
        steps: Array,
    ) -> StepLength:
        """Choose the step length, on the ratio's sample."""
        x, d = state.x, direction.d
        apart = s.ratio is not s.gradient
        here = oracle.at(x, *s.ratio) if apart else pt
        length = taylor_step(
            lambda t: oracle.value(x + t * d, *s.ratio),
            lambda t: t * dot(d, here.grad + oracle.at(x + t * d, *s.ratio).grad),
            here.value,
            direction.slope,
            direction.curvature,
            interval=self.interval,
            attempts=self.attempts,
            active=steps & (direction.slope < 0),
            flow=oracle.flow,
        )
        return length._replace(gradients=length.gradients + 1) if apart else length

    def report(self, state: NewtonKrylovState) -> dict[str, Array]:
        """Return the last step length and the number of screened batches."""
        return {"step_length": state.step_length, "screened": state.screened}
