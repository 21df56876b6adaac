"""Natural gradients with a Kronecker-factored curvature, and momentum from the quadratic."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple

from ..arrays import Array, dot, integer_like, like, namespace, norm
from ..globalize.damping import look, rescale
from ..globalize.plane import Plane, minimiser
from ..kronecker import Kronecker, KroneckerState
from ..oracle import Oracle, Point, Product
from ..result import Counts, Status
from ..samples import split
from .base import Solver, unevaluated, verdict


class KFACState(NamedTuple):
    """State of :class:`KFAC`."""

    x: Array
    value: Array
    grad: Array
    status: Array
    counts: Counts
    z: Array
    """The last step, of shape (n,)."""
    damping: Array
    """lambda."""
    blocks: KroneckerState
    p: Array
    """What the last step took of the direction and of the step before it, of shape (2,)."""
    t: Array
    """Steps so far."""


@dataclass(frozen=True, kw_only=True)
class KFAC(Solver):
    """Kronecker-factored approximate curvature (Martens and Grosse 2015, Algorithm 2).

    Each batch gives a direction d = -K^-1 g, with K the Kronecker-factored Gauss-Newton matrix.
    The step p_0 d + p_1 z, z being the last step, minimises the quadratic with the exact
    Gauss-Newton matrix, g's + s'(G + lambda)s/2, over the plane of the two (sections 6.4 and 7).
    lambda follows how well that quadratic foretells the function.

    Parameters
    ----------
    blocks : Kronecker
        How K is estimated, and how often.
    damping : float
        lambda to begin with; the paper's 150.
    period : int
        Steps between two looks at the ratio, T1; the paper's 5. 0 never looks: lambda stays.
    factor : float
        lambda is multiplied by factor^period where the ratio is above 3/4, divided by it where it
        is below 1/4 (section 6.5); the paper's 19/20.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops.

    Raises
    ------
    ValueError
        If an option is out of range; in a step, if the model has no dense or convolution layer.

    Notes
    -----
    Layers are found as :mod:`~osculant.core.layers` says. For parameters of none, such as those of
    a normalisation, K is the identity. One step costs a gradient and two products J v (counted as
    Gauss-Newton products, which overstates them); every ``period`` steps a forward pass; an
    estimate of the factors, about a gradient of the samples that it sees.

    Deviations beside those of :class:`~osculant.core.kronecker.Kronecker`: (1) the paper's
    block-tridiagonal variant is left out, and its adaption of gamma apart from lambda; (2) lambda
    covers the l2 penalty's part of gamma only by growing with it; (3) a step that is found to be
    not finite is not taken, z starts again at 0, and lambda grows tenfold.
    """

    blocks: Kronecker = field(default_factory=Kronecker)
    damping: float = 150.0
    period: int = 5
    factor: float = 19 / 20

    samples: ClassVar[frozenset[str]] = frozenset({"curvature", "ratio"})

    def __post_init__(self) -> None:
        for name, holds, range_ in (
            ("damping", self.damping > 0, "positive"),
            ("period", self.period >= 0, "zero or positive"),
            ("factor", 0 < self.factor <= 1, "in (0, 1]"),
        ):
            if not holds:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {range_}")

    def needs(self) -> frozenset[Product]:
        """Products that the oracle must offer."""
        return frozenset({Product.JVP, Product.LOSS_HVP})

    def init(self, oracle: Oracle, x: Array, *data: Any) -> KFACState:
        """Return the state to start from ``x``, of shape (n,)."""
        zero, zeros = like(x, 0.0), namespace(x).zeros_like(x)
        return KFACState(
            **unevaluated(x),
            z=zeros,
            damping=like(x, self.damping),
            blocks=self.blocks.init(oracle, x),
            p=namespace(x).stack([zero, zero]),
            t=integer_like(x, 0),
        )

    def step(self, oracle: Oracle, state: KFACState, *data: Any) -> KFACState:
        """Return the state after one batch."""
        s = split(data)
        pt = oracle.at(state.x, *s.gradient)
        curved = s.curved(oracle, state.x, pt)
        f, g, z, damping = pt.value, pt.grad, state.z, state.damping
        xp = namespace(g)
        status = verdict(f, g, self.gtol)
        moves = status == Status.RUNNING.value

        estimates = self.blocks.due(state.blocks)
        blocks = self.blocks.update(oracle, state.blocks, state.x, damping, s.curvature)
        d = -self.blocks.solve(oracle, blocks, state.x, g, s.curvature)
        plane = _plane(curved, g, d, z, damping)
        p = minimiser(plane, norm(d), norm(z))
        step = p[0] * d + p[1] * z
        x = state.x + step

        looks = moves & (state.t % max(self.period, 1) == 0) & (self.period > 0)
        change = partial(s.change, oracle, state.x, f)
        ratio = look(looks, change, x, plane.at(p), oracle.flow)
        finite = xp.isfinite(ratio)
        taken = moves & finite
        integer = state.t.dtype
        return KFACState(
            x=xp.where(taken, x, state.x),
            value=f,
            grad=g,
            status=status,
            counts=state.counts.add(
                gradients=(1 if curved is pt else 2) + xp.astype(estimates, integer),
                values=xp.astype(looks, integer) * (1 if s.ratio is s.gradient else 2),
                ggns=2,
            ),
            z=xp.where(taken, step, xp.where(moves, xp.zeros_like(z), z)),
            damping=xp.where(looks | (moves & ~finite), self._rescaled(damping, ratio), damping),
            blocks=blocks,
            p=xp.where(moves, p, state.p),
            t=state.t + xp.astype(moves, integer),
        )

    def _rescaled(self, damping: Array, ratio: Array) -> Array:
        factor = self.factor ** max(self.period, 1)
        return rescale(damping, ratio, poor=0.25, good=0.75, factor=factor)

    def report(self, state: KFACState) -> dict[str, Array]:
        """Return lambda, and what the step took of the direction and of the last step."""
        return {"damping": state.damping, "rate": state.p[0], "momentum": state.p[1]}


def _plane(pt: Point, g: Array, d: Array, z: Array, damping: Array) -> Plane:
    """Return the damped quadratic on the plane of d and z, from two products with J."""
    xp = namespace(g)
    Jd, Jz = pt.jvp(d), pt.jvp(z)
    HJd, HJz = pt.loss_hvp(Jd), pt.loss_hvp(Jz)
    across = dot(Jz, HJd) + damping * dot(d, z)
    M = [
        xp.stack([dot(Jd, HJd) + damping * dot(d, d), across]),
        xp.stack([across, dot(Jz, HJz) + damping * dot(z, z)]),
    ]
    return Plane(xp.stack(M), xp.stack([dot(g, d), dot(g, z)]))
