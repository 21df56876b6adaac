"""What each step of a training run is given."""

from __future__ import annotations

from typing import Any

from ..sampler import Batched, Epochs, Sampler
from ..samples import Samples
from ..solvers.base import Solver


class Feed:
    """The batches of the gradient, and apart from them those of the curvature and the ratio.

    Parameters
    ----------
    solver : Solver
    gradient : iterable or callable
        Its epochs are those of the run.
    curvature, ratio : iterable or callable, optional
        Gone through over and over, a batch each step.

    Raises
    ------
    ValueError
        If the solver takes no such samples.
    """

    def __init__(
        self,
        solver: Solver,
        gradient: Batched,
        curvature: Batched | None = None,
        ratio: Batched | None = None,
    ) -> None:
        self.main = Sampler(gradient)
        apart = {"curvature": curvature, "ratio": ratio}
        self._apart = {name: Sampler(s, name) for name, s in apart.items() if s is not None}
        for name in self._apart:
            if name not in solver.samples:
                takes = " and ".join(sorted(solver.samples)) or "one batch for all of its parts"
                raise ValueError(
                    f"{type(solver).__name__} has no use for {name} samples of their own; it takes "
                    f"{takes}"
                )

    def draw(self) -> tuple[Any, ...] | None:
        """Return the data arguments of the next step, and None where an epoch ends."""
        batch = self.main.draw()
        if batch is None or not self._apart:
            return batch
        return (Samples(batch, **{name: s.cycle() for name, s in self._apart.items()}),)

    @property
    def _samplers(self) -> dict[str, Sampler]:
        return {"gradient": self.main, **self._apart}

    def description(self) -> dict[str, Any]:
        """Return what decides which batches these are, as plain values."""
        return {
            name: s.source.description() if isinstance(s.source, Epochs) else "the caller's"
            for name, s in self._samplers.items()
        }

    def position(self) -> dict[str, list[int]]:
        """Return the epoch, and the batches drawn in it, of each sampler."""
        return {name: [s.epoch, s.index] for name, s in self._samplers.items()}

    def seek(self, position: dict[str, list[int]]) -> None:
        """Go to a position."""
        for name, sampler in self._samplers.items():
            sampler.seek(*position[name])
