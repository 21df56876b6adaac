"""What trust regions and cubic regularisation have in common: a model, a norm, a size."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, Self

from ..arrays import (
    Array,
    boolean_like,
    dot,
    eps,
    indices_like,
    integer_like,
    like,
    namespace,
    norm,
)
from ..flow import Flow
from ..globalize.trial import Proposal, Trial, search
from ..globalize.trust_radius import stretch
from ..krylov.lanczos import Minimiser, Subspace, lanczos, minimise, ritz_pairs
from ..krylov.secular import Reach
from ..norms import Norm, Spherical, length
from ..oracle import Oracle, Point, Product
from ..pairs import Memory, Pairs
from ..result import Counts, Status
from ..samples import split
from .base import PRODUCTS, Solver, unevaluated, verdict
from .enriched import arrived, quasi_newton
from .lbfgs import affordable

#: Most directions of a Lanczos subspace, if not told otherwise: each keeps two vectors.
SUBSPACE = 30


class RegularizedNewtonState(NamedTuple):
    """State of :class:`TrustRegion` and :class:`CubicRegularization`."""

    x: Array
    value: Array
    grad: Array
    status: Array
    counts: Counts
    radius: Array
    """Trust radius, or 1/sigma; 0 before the first step where it is chosen automatically."""
    step_norm: Array
    """Length of the last step; 0 if it was rejected."""
    rejected: Array
    """Steps rejected so far."""
    secant: Array
    """Whether the next step goes by the pairs; ``value`` and ``grad`` are then those of ``x``."""
    memory: Memory
    """What the preconditioner is made from."""
    norm: Any
    """State of the norm."""


class Model(NamedTuple):
    """The model at a point, solved for any size at no cost."""

    propose: Callable[[Array], Proposal]
    products: Array
    """What it took."""
    memory: Memory


@dataclass(frozen=True, kw_only=True)
class RegularizedNewton(Solver):
    """Base of :class:`TrustRegion` and :class:`CubicRegularization`."""

    samples: ClassVar[frozenset[str]] = frozenset({"curvature", "ratio"})

    curvature: Literal["hessian", "gauss-newton"] = "hessian"
    norm: Norm = field(default_factory=Spherical)
    max_inner: int | None = None
    memory: int | None = None
    forcing: float = 0.5
    attempts: int = 10
    quasi_newton: bool = True
    second_order: bool | None = None
    fixed: bool = False

    def __post_init__(self) -> None:
        if self.curvature not in PRODUCTS:
            raise ValueError(
                f"curvature is {self.curvature!r}; it must be 'hessian' or 'gauss-newton'"
            )
        if not isinstance(self.norm, Norm):
            raise TypeError(
                f"norm is {self.norm!r}; it must be one of osculant.norms, such as RMSProp()"
            )
        if self.max_inner is not None and self.max_inner < 1:
            raise ValueError(f"max_inner is {self.max_inner}; at least one product is needed")
        if self.memory is not None and self.memory < 0:
            raise ValueError(f"memory is {self.memory}; it must be zero or positive")
        if not 0 < self.forcing < 1:
            raise ValueError(f"forcing is {self.forcing}; it must lie between 0 and 1")
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}; at least one trial step is needed")

    @abstractmethod
    def _first(self, size: Array, g_norm: Array) -> Array:
        """Return ``size``, or the one to start with where that is 0; |g| is that of A^-1."""

    @abstractmethod
    def _reach(self, size: Array) -> Reach:
        """Return how long steps of a ``size`` are."""

    @abstractmethod
    def _proposal(self, step: Array, best: Minimiser, size: Array) -> Proposal:
        """Return ``best``, the minimiser for ``size``, as a proposal."""

    @abstractmethod
    def _resized(self, trial: Trial, factor: Array) -> Array:
        """Return the size for the next step, given how far ``trial`` was stretched."""

    def needs(self) -> frozenset[Product]:
        """Products that the oracle must offer."""
        return frozenset({Product(PRODUCTS[self.curvature].product)})

    def deterministic(self) -> Self:
        """Return this solver for one fixed function."""
        confirms = self._keeps() if self.second_order is None else self.second_order
        return replace(self, fixed=True, second_order=confirms)

    def init(self, oracle: Oracle, x: Array, *data: Any) -> RegularizedNewtonState:
        """Return the state to start from ``x``, of shape (n,)."""
        zero = like(x, 0.0)
        pairs = (self.memory or affordable(x.shape[0])) if self._learns() else 0
        return RegularizedNewtonState(
            **unevaluated(x),
            radius=zero,
            step_norm=zero,
            rejected=integer_like(x, 0),
            secant=boolean_like(x, False),
            memory=Memory.none(x, pairs),
            norm=self.norm.init(x),
        )

    def step(
        self, oracle: Oracle, state: RegularizedNewtonState, *data: Any
    ) -> RegularizedNewtonState:
        """Return the state after one model and its trial steps, or after a step by the pairs."""
        if not self._enriched():
            return self._newton(oracle, state, *data)
        settled = verdict(state.value, state.grad, self.gtol) == Status.CONVERGED.value
        secant, flow = state.secant & ~(settled & bool(self.second_order)), oracle.flow

        def by_pairs(old: RegularizedNewtonState) -> RegularizedNewtonState:
            new, _ = quasi_newton(oracle, old, self.gtol, *data)
            return new._replace(step_norm=norm(new.x - old.x))

        def by_products(old: RegularizedNewtonState) -> RegularizedNewtonState:
            new = self._newton(oracle, old, *data)
            return arrived(oracle, old.x, new, new.step_norm > 0, *data)

        return flow.when(~secant, by_products, flow.when(secant, by_pairs, state))

    def _newton(
        self, oracle: Oracle, state: RegularizedNewtonState, *data: Any
    ) -> RegularizedNewtonState:
        """Return the state after one model and its trial steps."""
        x, flow, sample = state.x, oracle.flow, split(data)
        pt = oracle.at(x, *sample.gradient)
        f, g = pt.value, pt.grad
        xp = namespace(g)
        status = verdict(f, g, self.gtol)
        flat = (status == Status.CONVERGED.value) & bool(self.second_order)
        active = (status == Status.RUNNING.value) | flat
        apart = sample.curvature is not sample.gradient
        curved = sample.curved(oracle, x, pt)
        judged_apart = sample.ratio is not sample.gradient
        start = sample.judged(oracle, x, f)

        def value_at(s: Array) -> Array:
            return oracle.value(x + s, *sample.ratio)

        norm_state = self.norm.update(state.norm, g)
        size = self._first(state.radius, self._dual_length(norm_state, g))
        model = self._model(curved, g, size, state.memory, norm_state, active, flat, flow)
        if self.second_order:
            promised = flow.cond(
                flat, lambda size: model.propose(size).predicted, xp.zeros_like, size
            )
            status = xp.where(
                flat & (promised > self._negligible(f)), integer_like(g, Status.RUNNING), status
            )
            active = status == Status.RUNNING.value
        trial = search(
            model.propose,
            value_at,
            lambda s: dot(s, g + oracle.at(x + s, *sample.gradient).grad),
            x,
            start,
            size=size,
            attempts=self.attempts,
            active=active,
            flow=flow,
        )
        longer = stretch(value_at, trial, start, active=active, flow=flow)
        s = longer.factor * trial.step
        tiny = trial.length <= eps(g) * xp.maximum(
            length(self.norm, norm_state, x), like(g, eps(g))
        )
        stalled = active & ~trial.accepted & (tiny | (trial.size == 0))
        stop = xp.where(flat, integer_like(g, Status.CONVERGED), integer_like(g, Status.STALLED))
        return RegularizedNewtonState(
            x=xp.where(trial.accepted, x + s, x),
            value=f,
            grad=g,
            status=xp.where(stalled, stop, status),
            counts=state.counts.add(
                gradients=1 + int(apart) + trial.gradients,
                values=int(judged_apart) + trial.tries + longer.tries,
                **{PRODUCTS[self.curvature].counted: model.products},
            ),
            radius=xp.where(active, self._resized(trial, longer.factor), state.radius),
            step_norm=norm(s),
            rejected=state.rejected + trial.tries - xp.astype(trial.accepted, trial.tries.dtype),
            secant=boolean_like(g, False),
            memory=model.memory,
            norm=norm_state,
        )

    def _model(
        self,
        pt: Point,
        g: Array,
        size: Array,
        memory: Memory,
        norm_state: Any,
        active: Array,
        flat: Array,
        flow: Flow,
    ) -> Model:
        """Return the model of a Lanczos subspace, and the pairs that it teaches."""
        learns = self._learns()
        inverse = memory.inverse(like(g, 1.0)) if learns else partial(self.norm.solve, norm_state)
        space = lanczos(
            self._matvec(pt),
            g,
            self._reach(size),
            metric=lambda v: self.norm.apply(norm_state, v),
            precondition=inverse,
            rtol=self._rtol(g),
            memory=self.max_inner or SUBSPACE,
            active=active,
            flow=flow,
            probing=flat,
        )
        propose = self._proposals(space, flow)
        if not learns:
            return Model(propose, space.size, memory)
        newest = _newest(memory, ritz_pairs(space, memory.pairs.S.shape[0]))
        return Model(propose, space.size, newest)

    def _proposals(self, space: Subspace, flow: Flow) -> Callable[[Array], Proposal]:
        """Return what solves the model in ``space`` for a size, by no product."""

        def propose(size: Array) -> Proposal:
            best = minimise(space, self._reach(size), flow)
            return self._proposal(namespace(best.y).matmul(best.y, space.V), best, size)

        return propose

    def _keeps(self) -> bool:
        """Whether there is a subspace to confirm a minimum on."""
        return True

    def _learns(self) -> bool:
        """Whether pairs precondition; any norm but the spherical one does so itself."""
        return self.memory != 0 and isinstance(self.norm, Spherical)

    def _enriched(self) -> bool:
        """Whether steps by the pairs, which those of one fixed function teach, take turns."""
        exact = self.curvature == "hessian"
        return self.quasi_newton and self.fixed and exact and self._learns()

    def _negligible(self, f: Array) -> Array:
        """Return the decrease that a converged run may leave undone."""
        xp = namespace(f)
        least = like(f, eps(f) ** (2 / 3))
        tolerance = xp.maximum(least, like(f, 1.0) * self.gtol**1.5)
        return tolerance * xp.maximum(xp.abs(f), like(f, 1.0))

    def _matvec(self, pt: Point) -> Callable[[Array], Array]:
        return getattr(pt, PRODUCTS[self.curvature].product)

    def _rtol(self, g: Array) -> Array:
        xp = namespace(g)
        return xp.minimum(like(g, self.forcing), xp.sqrt(norm(g)))

    def _dual_length(self, norm_state: Any, g: Array) -> Array:
        """Return |g| in the norm of A^-1."""
        xp, size = namespace(g), norm(g)
        unit = g / xp.where(size > 0, size, like(size, 1.0))
        return size * xp.sqrt(dot(unit, self.norm.solve(norm_state, unit)))


def _newest(old: Memory, new: Pairs) -> Memory:
    """Return ``new``, with the newest of ``old`` where its first rows are empty."""
    xp, memory = namespace(new.S), new.S.shape[0]
    empty = xp.vecdot(new.S, new.Y) == 0
    moved = indices_like(new.S, memory) - xp.sum(xp.astype(empty, xp.int32), dtype=xp.int32)
    rows = (old.oldest + moved) % memory
    merged = (
        xp.where(empty[:, None], xp.take(rows_of_old, rows, axis=0), rows_of_new)
        for rows_of_old, rows_of_new in zip(old.pairs, new, strict=True)
    )
    return Memory.of(Pairs(*merged))
