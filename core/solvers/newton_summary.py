"""Newton's method on a summary of the derivatives: a step length for each group of parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

from .. import partition as partitions
from ..arrays import (
    Array,
    boolean_like,
    guarded_divide,
    integer_like,
    like,
    namespace,
    norm,
    widest,
)
from ..flow import Flow
from ..globalize.anisotropic import cubic_step, inverse, positive_cubic_step
from ..globalize.plateau import Plateau, PlateauState
from ..oracle import Oracle, Point, Product
from ..partition import Partition
from ..result import Counts, Status
from ..samples import split
from ..structure import Structure
from ..summary import gauss_newton_summary, summary, third_diagonal
from .base import Solver, unevaluated, verdict
from .first_order import SGD, Adam, FirstOrder, stay

#: The direction by default.
ADAM = Adam()
#: Names that ``NewtonSummary(partition=...)`` takes.
PARTITIONS = {
    "canonical": partitions.canonical,
    "trivial": partitions.trivial,
    "discrete": partitions.discrete,
    "weights-biases": partitions.by_depth,
}


class Summary(NamedTuple):
    """What was found out about the groups so far; in float64 where the device has it."""

    gbar: Array
    """Mean of g'u_s, of shape (S,)."""
    Hbar: Array
    """Mean of u_s'H u_t, of shape (S, S)."""
    Hbar_inverse: Array
    """Its inverse; zero where it has none."""
    D: Array
    """Mean of |D^3 f[u_s, u_s, u_s]|^(1/3), of shape (S,)."""
    eta: Array
    """The step length of each group, of shape (S,)."""
    solved: Array
    """Whether the last system had a solution."""
    solutions: Array
    """How many had one so far."""
    count: Array
    """How many summaries the means are of."""


class NewtonSummaryState(NamedTuple):
    """State of :class:`NewtonSummary`."""

    x: Array
    value: Array
    grad: Array
    status: Array
    counts: Counts
    slots: Any
    """What the direction keeps."""
    summary: Summary
    age: Array
    """Steps taken since the summary was computed."""
    plateau: PlateauState
    """The damping lam_1, and what it is reduced by."""


@dataclass(frozen=True, kw_only=True)
class NewtonSummary(Solver):
    """Newton's method on the summary of a partition (Wolinski 2023, Method 4.1 and Algorithm 1).

    With u a direction and u_s its restriction to group s of S, the step lengths eta are the
    solution of largest |D eta| of

        (Hbar + lam_int/2 |D eta| D^2) eta = gbar,
        gbar_s = g'u_s,  Hbar_st = u_s'H u_t,  D_s = |D^3 f[u_s, u_s, u_s]|^(1/3),

    that is, of the second-order model with an anisotropic cubic regularisation, and

        x <- x - lam_1 sum_s eta_s u_s.

    No interaction between groups is neglected. With ``lam_int=0`` the trivial partition gives
    Cauchy's steepest descent and the discrete one Newton's method. Scaling and shifting each group
    leaves the trajectory as it is, if it scales each u_s; Adam's does but for its epsilon.

    Parameters
    ----------
    partition : str or Partition
        ``"canonical"`` has a group for each tensor, ``"trivial"`` one, ``"discrete"`` one for each
        scalar, ``"weights-biases"`` two; or one of your own, for example
        ``by_depth(oracle.structure, chunks=5)`` of :mod:`osculant.core.partition`.
    direction : FirstOrder
        Its proposals are u: ``SGD()`` for the gradient, ``SGD(momentum=0.9, dampening=0.9)`` for a
        mean of gradients, ``Adam()``, ... Its learning rate has no part in this. As eta serves for
        a whole period, u should not grow meanwhile, as a momentum without dampening does at first.
    curvature : {"hessian", "gauss-newton"}
        What Hbar is made of. The Gauss-Newton matrix J'H_L J needs a composition, cannot be
        indefinite, and costs a third; with ``lam_int=0`` a summary of it is cheap.
    lam_int : float
        Strength of the cubic term; 0 leaves it out, and third derivatives with it.
    damping : float
        lam_1 at the start: 1 is Newton's own length.
    plateau : Plateau, optional
        How lam_1 is reduced when the loss no longer falls; by default it is not.
    period : int
        Steps from one summary to the next.
    averaging : float
        In [0, 1): gbar, Hbar and D are means of all summaries so far, where a new one counts
        1 - averaging, or 1/k as the k-th if that is more. 0 takes each by itself.
    momentum : float
        Of eta, in [0, 1): eta <- momentum eta + (1 - momentum) new, from the second on.
    positive : bool
        Whether eta >= 0; on one fixed function with a definite Hessian, Newton's method needs
        negative ones.
    gtol : float
        Largest absolute gradient entry at which to stop; 0 never stops.

    Notes
    -----
    A summary costs S Hessian products (or S Jacobian ones) and, with ``lam_int``, S third
    derivatives, all along vectors that are zero outside a group, which NumPy's, CuPy's and
    PyTorch's sweeps make use of; where the curvature has a sample of its own
    (:class:`~osculant.core.samples.Samples`), also a gradient, and gbar, Hbar and D are all of that
    sample. That is worth it on batches: along a u that has seen the batch, g'u is too large. Every
    step costs a gradient. S vectors of length n are held at a time.

    Deviations, measured in ``docs/reports/newton_summary.md``. (1) The paper replaces negative
    eta_s by 0 after the solution, which makes long steps of solutions that cancel; here the model
    is minimised with eta >= 0 (:func:`~osculant.core.globalize.anisotropic.positive_cubic_step`).
    (2) It has a momentum on eta alone, by default 0 here: the mean of the summaries of noisy
    batches gives better eta than the mean of their eta. (3) u is Adam's proposal by default.

    What the text leaves open, we fill in so. Where the system has no solution the last eta is kept;
    before the first, nothing moves. A group whose direction vanishes gets eta_s = 0. As in the
    paper nothing else guards the step, since clipping would break the invariance.

    Hbar, its inverse and eta are in ``state.summary``. To record them, copy them in a callback:

    >>> import numpy as np, osculant
    >>> solver = osculant.NewtonSummary()
    >>> x0 = {"a": np.array([1.0, 2.0]), "b": np.array([3.0])}
    >>> oracle = osculant.oracle(lambda x: (x["a"] ** 2).sum() * (1 + x["b"] ** 2).sum(), x0)
    >>> solver.groups(oracle.structure).names
    ('a', 'b')
    >>> etas = []
    >>> record = lambda intermediate_result: etas.append(
    ...     np.array(intermediate_result.state.summary.eta))
    >>> solution = osculant.minimize(oracle, x0, method=solver, callback=record)
    >>> len(etas) == solution.nit and etas[0].shape
    (2,)
    """

    partition: str | Partition = "canonical"
    direction: FirstOrder = ADAM
    curvature: Literal["hessian", "gauss-newton"] = "hessian"
    lam_int: float = 1.0
    damping: float = 1.0
    plateau: Plateau | None = None
    period: int = 20
    averaging: float = 0.8
    momentum: float = 0.0
    positive: bool = True

    samples: ClassVar[frozenset[str]] = frozenset({"curvature"})

    def __post_init__(self) -> None:
        if not isinstance(self.partition, Partition) and self.partition not in PARTITIONS:
            raise ValueError(
                f"partition is {self.partition!r}; it must be a Partition, or one of "
                f"{', '.join(PARTITIONS)}"
            )
        if not isinstance(self.direction, FirstOrder):
            raise TypeError(
                f"direction is {self.direction!r}; it must be a first-order method such as SGD()"
            )
        if self.curvature not in ("hessian", "gauss-newton"):
            raise ValueError(
                f"curvature is {self.curvature!r}; it must be 'hessian' or 'gauss-newton'"
            )
        if not isinstance(self.plateau, Plateau | None):
            raise TypeError(f"plateau is {self.plateau!r}; it must be a Plateau or None")
        if not self.lam_int >= 0 or not self.damping > 0:
            raise ValueError(
                f"lam_int is {self.lam_int} and damping {self.damping}; the first must not be "
                "negative, and the second must be positive"
            )
        if self.period < 1:
            raise ValueError(f"period is {self.period}; it must be at least 1")
        for name in ("averaging", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1)")

    def needs(self) -> frozenset[Product]:
        """Products that the oracle must offer."""
        second = {Product.HVP} if self.curvature == "hessian" else {Product.JVP, Product.LOSS_HVP}
        return frozenset(second | ({Product.THIRD} if self.lam_int else set()))

    def deterministic(self) -> NewtonSummary:
        """Return this solver for one fixed function: a summary at each step, and no means."""
        direction = SGD() if isinstance(self.direction, SGD | Adam) else self.direction
        return replace(
            self, period=1, averaging=0.0, momentum=0.0, damping=1.0, direction=direction
        )

    def groups(self, structure: Structure) -> Partition:
        """Return the partition of parameters of this structure."""
        if isinstance(self.partition, Partition):
            return self.partition
        return PARTITIONS[self.partition](structure)

    def init(self, oracle: Oracle, x: Array, *data: Any) -> NewtonSummaryState:
        """Return the state to start from ``x``, of shape (n,)."""
        xp = namespace(x)
        zero, none = widest(like(x, 0.0)), integer_like(x, 0)
        zeros = xp.stack([zero] * len(self.groups(oracle.structure)))
        matrix = zeros[:, None] * zeros
        nothing = boolean_like(x, False)
        return NewtonSummaryState(
            **unevaluated(x),
            slots=self.direction.slots(x, oracle.structure.shapes),
            summary=Summary(zeros, matrix, matrix, zeros, zeros, nothing, none, none),
            age=none,
            plateau=(self.plateau or Plateau()).init(x, self.damping),
        )

    def step(self, oracle: Oracle, state: NewtonSummaryState, *data: Any) -> NewtonSummaryState:
        """Return the state after one step; a gradient that is not finite moves nothing."""
        sample, flow = split(data), oracle.flow
        pt = oracle.at(state.x, *sample.gradient)
        g = pt.grad
        xp = namespace(g)
        status = verdict(pt.value, g, self.gtol)
        running = status == Status.RUNNING.value
        propose = partial(self.direction.propose, flow=flow)
        u, slots = flow.cond(running, propose, stay, state.slots, g)

        apart = sample.curvature is not sample.gradient
        hessian = self.curvature == "hessian"
        partition = self.groups(oracle.structure)

        def summarise(u: Array, last: Summary) -> Summary:
            here = sample.curved(oracle, state.x, pt)
            return self._summarise(here, u, partition, last, flow)

        due = running & (state.age == 0)
        found = flow.cond(due, summarise, lambda u, last: last, u, state.summary)
        products = xp.astype(due, xp.int32) * len(partition)
        eta = xp.astype(found.eta, g.dtype)
        stuck = running & ~xp.any(eta != 0)
        age = xp.where(state.age + 1 < self.period, state.age + 1, 0 * state.age)
        plateau = state.plateau
        if self.plateau is not None:
            plateau = self.plateau.update(plateau, pt.value)
        return NewtonSummaryState(
            x=state.x - state.plateau.damping * partition.spread(eta) * u,
            value=pt.value,
            grad=g,
            status=xp.where(stuck, integer_like(g, Status.STALLED), status),
            counts=state.counts.add(
                values=0 if hessian else 2 * products,  # forward passes of the Jacobian products
                gradients=1 + (xp.astype(due, xp.int32) if apart else 0),
                hvps=products if hessian else 0,
                thirds=products if self.lam_int else 0,
            ),
            slots=slots,
            summary=found,
            age=xp.where(running, age, state.age),
            plateau=plateau,
        )

    def _summarise(
        self, pt: Point, u: Array, partition: Partition, last: Summary, flow: Flow
    ) -> Summary:
        """Return the means with the summary at ``pt`` along ``u``, and eta as it follows."""
        xp = namespace(u)
        gbar = widest(summary(pt, u, partition, 1))
        if self.curvature == "hessian":
            Hbar = widest(summary(pt, u, partition, 2))
        else:
            Hbar = widest(gauss_newton_summary(pt, u, partition))
        D = xp.zeros_like(gbar)
        if self.lam_int:
            # Of a unit vector: the third power of a small direction would underflow.
            size = norm(u)
            third = third_diagonal(pt, guarded_divide(like(u, 1.0), size) * u, partition)
            D = widest(size) * xp.abs(widest(third)) ** (1 / 3)
        finite = xp.all(xp.isfinite(gbar)) & xp.all(xp.isfinite(Hbar)) & xp.all(xp.isfinite(D))

        seen = xp.astype(last.count + 1, gbar.dtype)
        weight = xp.maximum(1 / seen, like(gbar, 1 - self.averaging))

        def mixed(old: Array, new: Array) -> Array:
            return xp.where(finite, old + weight * (new - old), old)

        gbar, D = mixed(last.gbar, gbar), mixed(last.D, D)
        Hbar = mixed(last.Hbar, (Hbar + xp.matrix_transpose(Hbar)) / 2)
        Hbar_inverse, _ = inverse(Hbar)
        solve = positive_cubic_step if self.positive else cubic_step
        eta, _, solved = solve(Hbar, D, gbar, self.lam_int, flow)
        solved = solved & finite
        smooth = self.momentum * last.eta + (1 - self.momentum) * eta
        eta = xp.where(last.solutions > 0, smooth, eta)
        return Summary(
            gbar=gbar,
            Hbar=Hbar,
            Hbar_inverse=Hbar_inverse,
            D=D,
            eta=xp.where(solved, eta, last.eta),
            solved=solved,
            solutions=last.solutions + xp.astype(solved, last.solutions.dtype),
            count=last.count + xp.astype(finite, last.count.dtype),
        )

    def report(self, state: NewtonSummaryState) -> dict[str, Array]:
        """Return the least and largest step length, the damping, and the summaries solved."""
        xp, eta = namespace(state.x), state.summary.eta
        return {
            "eta_min": xp.min(eta),
            "eta_max": xp.max(eta),
            "damping": state.plateau.damping,
            "solutions": state.summary.solutions,
        }
