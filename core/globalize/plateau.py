"""Damping that is reduced when the loss reaches a plateau."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..arrays import Array, integer_like, like, namespace


class PlateauState(NamedTuple):
    """The damping and the losses since it was last judged."""

    damping: Array
    best: Array
    """Smallest mean loss of a window so far."""
    worse: Array
    """Windows since then."""
    total: Array
    """Sum of the losses in this window."""
    steps: Array
    """Their number."""


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """Multiply the damping by ``factor`` once the loss has not fallen for ``patience`` windows.

    The rule of ``torch.optim.lr_scheduler.ReduceLROnPlateau``, applied to the mean loss of each
    window of ``every`` steps.

    Parameters
    ----------
    every : int
        Steps in a window.
    patience : int
        Windows without progress that are let pass.
    factor : float
        In (0, 1].
    threshold : float
        A window's mean has fallen if it is below (1 - threshold sign(best)) best.
    """

    every: int = 100
    patience: int = 5
    factor: float = 0.5
    threshold: float = 1e-4

    def __post_init__(self) -> None:
        if self.every < 1 or self.patience < 0:
            raise ValueError(
                f"every is {self.every} and patience {self.patience}; a window has at least one "
                "step, and no fewer than 0 are let pass"
            )
        if not 0 < self.factor <= 1:
            raise ValueError(f"factor is {self.factor}; it must lie in (0, 1]")

    def init(self, x: Array, damping: float) -> PlateauState:
        """Return the state before the first loss."""
        none = integer_like(x, 0)
        return PlateauState(like(x, damping), like(x, float("inf")), none, like(x, 0.0), none)

    def update(self, state: PlateauState, loss: Array) -> PlateauState:
        """Return the state after another loss; one that is not finite counts as none."""
        xp = namespace(loss)
        finite = xp.isfinite(loss)
        total = state.total + xp.where(finite, loss, like(loss, 0.0))
        steps = state.steps + xp.astype(finite, state.steps.dtype)
        due = steps >= self.every
        mean = total / xp.astype(xp.maximum(steps, integer_like(loss, 1)), loss.dtype)
        # inf - inf is not a number: the first window always falls.
        slack = xp.where(xp.isfinite(state.best), self.threshold * xp.abs(state.best), 0 * total)
        fell = due & (mean < state.best - slack)
        worse = xp.where(due, xp.where(fell, 0 * state.worse, state.worse + 1), state.worse)
        reduce = worse > self.patience
        return PlateauState(
            damping=xp.where(reduce, self.factor * state.damping, state.damping),
            best=xp.where(fell, mean, state.best),
            worse=xp.where(reduce, 0 * worse, worse),
            total=xp.where(due, 0 * total, total),
            steps=xp.where(due, 0 * steps, steps),
        )
