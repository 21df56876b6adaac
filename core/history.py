"""The record of a run: a table with one row per step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class History(dict[str, list[float]]):
    """Columns of equal length, by name; NaN where a step had nothing to say.

    A ``dict`` of lists, so that ``pandas.DataFrame(history)`` is the same table.

    Examples
    --------
    >>> history = History()
    >>> history.append({"fun": 2.0})
    >>> history.append({"fun": 1.0, "accuracy": 0.5})
    >>> history["accuracy"]
    [nan, 0.5]
    >>> print(history.to_csv())
    fun,accuracy
    2.0,nan
    1.0,0.5
    """

    @property
    def rows(self) -> int:
        """How many steps there are."""
        return len(next(iter(self.values()), []))

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        for column in self.values():
            column.append(math.nan)
        self.amend(row, rows=max(self.rows, 1))

    def amend(self, row: Mapping[str, Any], rows: int | None = None) -> None:
        """Write into the last row."""
        rows = self.rows if rows is None else rows
        for name, value in row.items():
            self.setdefault(name, [math.nan] * rows)[-1] = float(value)

    def to_csv(self) -> str:
        """Return the table as text: a line of names, then a line per step, comma-separated."""
        lines = (",".join(map(repr, row)) for row in zip(*self.values(), strict=True))
        return "\n".join([",".join(self), *lines])
