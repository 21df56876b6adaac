"""CurveBall: a Newton step that is solved for while the parameters move."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

from ..arrays import (
    Array,
    boolean_like,
    dot,
    guarded_divide,
    integer_like,
    like,
    namespace,
    norm,
)
from ..globalize.damping import look, rescale
from ..globalize.plane import Plane, minimiser
from ..kronecker import Kronecker, prepared
from ..oracle import Oracle, Product
from ..result import Counts, Status
from ..samples import split
from .base import PRODUCTS, Solver, unevaluated, verdict


class CurveBallState(NamedTuple):
    """State of :class:`CurveBall`."""

    x: Array
    value: Array
    grad: Array
    status: Array
    counts: Counts
    z: Array
    """The running solution of (B + lambda) z = -g, of shape (n,)."""
    damping: Array
    """lambda."""
    rho: Array
    """Momentum of the last step."""
    beta: Array
    """Rate of the last step."""
    t: Array
    """Steps so far."""
    blocks: Any = ()
    """What the preconditioner has seen."""


@dataclass(frozen=True, kw_only=True)
class CurveBall(Solver):
    """CurveBall (Henriques et al. 2018, "Small steps and giant leaps", eq. 14-19).

    One gradient step a batch on the quadratic g'z + z'(B + lambda)z/2, where z stays from batch
    to batch as the momentum of SGD does:

        dz = (B + lambda) z + g;  z <- rho z - beta dz;  x <- x + alpha z

    rho and beta minimise the quadratic over the plane of z and dz (eq. 19). lambda follows
    gamma, the change of the function over that of the quadratic.

    Parameters
    ----------
    curvature : {"gauss-newton", "hessian"}
        What B is. Gauss-Newton, the paper's, needs an oracle built from a model and a loss.
    rho, beta : float, optional
        Fixed momentum and rate, both or neither. By default from eq. 19 at each step.
    learning_rate : float
        alpha; the paper's 1.
    damping : float
        lambda to begin with: the paper's is 10, and 1 with batch normalisation.
    period : int
        Steps between two looks at gamma; the paper's 5. 0 never looks: lambda stays.
    factor : float
        lambda is multiplied by factor^period where gamma is good, divided by it where it is poor;
        the paper's 0.999.
    poor, good : float
        gamma is poor below the one, good above the other: the paper's 1/2 and 3/2, by which lambda
        hardly ever falls. Martens' rule has 1/4 and 3/4 (2010, section 4.1).
    preconditioner : Kronecker, optional
        K of a model's dense and convolution layers: dz is multiplied by K^-1.
    residual_at : {"z", "line"}
        Where dz is the gradient of the quadratic: at z, the paper's, or at the quadratic's
        minimiser between 0 and z.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops.

    Raises
    ------
    ValueError
        If an option is out of range, or only one of ``rho`` and ``beta`` is given.

    Notes
    -----
    One step costs a gradient, one product B z (a JVP and a VJP) and one form dz'B dz (one more
    JVP): z'B z and z'B dz follow from B z. Every ``period`` steps it costs a forward pass, two
    where the ratio has a sample of its own. The form is counted as a product, which overstates
    Gauss-Newton's by a VJP. With fixed rho and beta and ``period=0`` there is no form.

    Deviations: (1) the gradient comes with the linearisation, so that the paper's sum of two
    cotangents before one VJP (eq. 18) saves nothing and is not made; (2) as in the authors' own
    code, lambda is part of the matrix of eq. 19, and ``factor`` is applied once per step that
    has passed; (3) where that matrix is singular (z starts at 0) the solution of least norm is
    taken, and where it is indefinite, which only a Hessian's can be, its eigenvalues count by
    their size, so that z descends (Dauphin et al. 2014); both are in the basis z/|z|, dz/|dz|;
    (4) a step that is found to be not finite is not taken, z starts again at 0, and lambda
    grows tenfold. A preconditioner is no part of the paper; its estimates count as gradients.
    """

    curvature: Literal["gauss-newton", "hessian"] = "gauss-newton"
    rho: float | None = None
    beta: float | None = None
    learning_rate: float = 1.0
    damping: float = 10.0
    period: int = 5
    factor: float = 0.999
    poor: float = 0.5
    good: float = 1.5
    preconditioner: Kronecker | None = None
    residual_at: Literal["z", "line"] = "z"

    samples: ClassVar[frozenset[str]] = frozenset({"curvature", "ratio"})

    def __post_init__(self) -> None:
        if self.curvature not in PRODUCTS:
            raise ValueError(
                f"curvature is {self.curvature!r}; it must be 'gauss-newton' or 'hessian'"
            )
        if self.residual_at not in ("z", "line"):
            raise ValueError(f"residual_at is {self.residual_at!r}; it must be 'z' or 'line'")
        if (self.rho is None) != (self.beta is None):
            raise ValueError(
                f"rho is {self.rho} and beta is {self.beta}; give both, or neither to have them "
                "chosen at each step"
            )
        for name, holds, range_ in (
            ("damping", self.damping >= 0, "zero or positive"),
            ("learning_rate", self.learning_rate > 0, "positive"),
            ("factor", 0 < self.factor <= 1, "in (0, 1]"),
            ("period", self.period >= 0, "zero or positive"),
            ("poor", self.poor <= self.good, f"at most good, which is {self.good}"),
        ):
            if not holds:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {range_}")

    def needs(self) -> frozenset[Product]:
        """Products that the oracle must offer."""
        return frozenset(Product(name) for name in PRODUCTS[self.curvature][:2])

    def init(self, oracle: Oracle, x: Array, *data: Any) -> CurveBallState:
        """Return the state to start from ``x``, of shape (n,)."""
        zeros, zero = namespace(x).zeros_like(x), like(x, 0.0)
        return CurveBallState(
            **unevaluated(x),
            z=zeros,
            damping=like(x, self.damping),
            rho=zero,
            beta=zero,
            t=integer_like(x, 0),
            blocks=self.preconditioner.init(oracle, x) if self.preconditioner else (),
        )

    def step(self, oracle: Oracle, state: CurveBallState, *data: Any) -> CurveBallState:
        """Return the state after one batch."""
        s = split(data)
        pt = oracle.at(state.x, *s.gradient)
        curved = s.curved(oracle, state.x, pt)
        f, g, z = pt.value, pt.grad, state.z
        xp = namespace(g)
        status = verdict(f, g, self.gtol)
        moves = status == Status.RUNNING.value

        product, form, counted = PRODUCTS[self.curvature]
        Bz = getattr(curved, product)(z) + state.damping * z
        r = self._reached(g, z, Bz) * Bz + g
        blocks, solve, estimates = prepared(
            self.preconditioner, oracle, state.blocks, state.x, state.damping, s.curvature
        )
        dz = solve(r)
        p, plane = self._fixed(f), None
        if p is None or self.period:
            dzBdz = getattr(curved, form)(dz) + state.damping * dot(dz, dz)
            plane = Plane.spanned(dz, z, Bz, dzBdz, g)
            p = minimiser(plane, norm(dz), norm(z)) if p is None else p
        new_z = p[0] * dz + p[1] * z
        x = state.x + self.learning_rate * new_z

        looks, ratio = boolean_like(f, False), like(f, 1.0)
        if plane is not None and self.period:
            looks = moves & (state.t % self.period == 0)
            change = partial(s.change, oracle, state.x, f)
            ratio = look(looks, change, x, plane.at(p, self.learning_rate), oracle.flow)
        ratio = xp.where(xp.isfinite(norm(new_z)), ratio, like(f, float("nan")))
        finite = xp.isfinite(ratio)
        taken = moves & finite
        return CurveBallState(
            x=xp.where(taken, x, state.x),
            value=f,
            grad=g,
            status=status,
            counts=state.counts.add(
                gradients=estimates + (1 if curved is pt else 2),
                values=xp.astype(looks, state.t.dtype) * (1 if s.ratio is s.gradient else 2),
                **{counted: 1 if plane is None else 2},
            ),
            z=xp.where(moves, xp.where(finite, new_z, xp.zeros_like(z)), z),
            damping=xp.where(
                looks | (moves & ~finite), self._rescaled(state.damping, ratio), state.damping
            ),
            rho=xp.where(moves, p[1], state.rho),
            beta=xp.where(moves, -p[0], state.beta),
            t=state.t + xp.astype(moves, state.t.dtype),
            blocks=blocks,
        )

    def _reached(self, g: Array, z: Array, Bz: Array) -> Array:
        """Return which part of z the residual is taken at."""
        if self.residual_at == "z":
            return like(g, 1.0)
        return namespace(g).clip(guarded_divide(-dot(g, z), dot(z, Bz)), 0.0, 1.0)

    def _fixed(self, f: Array) -> Array | None:
        """Return (-beta, rho) where they are fixed."""
        if self.rho is None or self.beta is None:
            return None
        return namespace(f).stack([like(f, -self.beta), like(f, self.rho)])

    def _rescaled(self, damping: Array, gamma: Array) -> Array:
        factor = self.factor ** max(self.period, 1)
        return rescale(damping, gamma, poor=self.poor, good=self.good, factor=factor)

    def report(self, state: CurveBallState) -> dict[str, Array]:
        """Return lambda, rho and beta."""
        return {"damping": state.damping, "rho": state.rho, "beta": state.beta}
