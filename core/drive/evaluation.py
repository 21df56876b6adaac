"""What is measured along a training run, and when it has stopped improving."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..arrays import Array
from .run import Run


@dataclass(frozen=True)
class Evaluation:
    """Measure something along a run, such as loss and accuracy on held-out data.

    Parameters
    ----------
    function : callable
        ``function(params)``, called with a copy in the user's own structure, returns a number or
        a mapping of numbers by name: columns of the history. A single number is called
        ``"evaluation"``.
    every : int, optional
        Steps between evaluations; by default they follow each epoch.
    patience : int, optional
        End the run after this many evaluations in a row that did not improve on the best one, and
        return the parameters of that one (Prechelt 1998, "Early stopping - but when?", the
        criterion UP_s with strips of one evaluation, counted from the best).
    monitor : str, optional
        Which number is to improve; by default the first.
    maximize : bool
        Whether improving is rising, as for an accuracy.
    """

    function: Callable[[Any], float | Mapping[str, float]]
    every: int | None = None
    patience: int | None = None
    monitor: str | None = None
    maximize: bool = False

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(
                f"the evaluation is a {type(self.function).__name__}; it must be a function of "
                "the parameters"
            )
        for name in ("every", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")


class Monitor:
    """Evaluates along one run, and remembers where it was best.

    Attributes
    ----------
    best : float
        Best value so far, with its sign changed if it is to be maximised.
    best_x : array of shape (n,) or None
        Where that was; kept only if there is a patience.
    waited : int
        Evaluations since.
    """

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation = evaluation
        self.best, self.waited = math.inf, 0
        self.best_x: Array | None = None

    def due(self, nit: int) -> bool:
        """Whether step ``nit`` is followed by an evaluation."""
        return self.evaluation.every is not None and nit % self.evaluation.every == 0

    @property
    def impatient(self) -> bool:
        """Whether the run is to end."""
        patience = self.evaluation.patience
        return patience is not None and self.waited >= patience

    def evaluate(self, run: Run) -> None:
        """Evaluate, and enter the result beside the last step."""
        result = self.evaluation.function(run.oracle.unravel(run.state.x))
        row = dict(result) if isinstance(result, Mapping) else {"evaluation": result}
        self._check(row, run)
        run.history.amend(row)
        watched = float(row[self.evaluation.monitor or next(iter(row))])
        if self.evaluation.patience is not None:  # it may end the run, on all processes alike
            watched = run.oracle.agreed(watched)
        value = -watched if self.evaluation.maximize else watched
        if value < self.best:
            self.best, self.waited = value, 0
            self.best_x = None if self.evaluation.patience is None else run.state.x
        else:
            self.waited += 1

    def _check(self, row: Mapping[str, float], run: Run) -> None:
        for name, value in row.items():
            try:
                float(value)
            except (TypeError, ValueError) as error:
                raise TypeError(
                    f"the evaluation returned a {type(value).__name__} as its {name}; it must "
                    "return a number, or a mapping of numbers by name"
                ) from error
        monitor = self.evaluation.monitor
        if not row or (monitor is not None and monitor not in row):
            raise ValueError(
                f"the evaluation returned {', '.join(row) or 'nothing'}; "
                f"{monitor or 'a number'} was to be monitored"
            )
        taken = set(row) & run.reserved
        if taken:
            raise ValueError(
                f"the evaluation returned {', '.join(sorted(taken))}, which the history already "
                "has of each step: choose another name"
            )
