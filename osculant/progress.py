"""A progress line for the host loops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from .core.drive import Callback, Intermediate

#: What solvers report that is worth a place on the line: the size of a step, and curvature.
_WORTH = ("step_length", "radius", "damping", "curvature")


@contextmanager
def reporting(
    callback: Callback | None, progress: bool, limits: Mapping[str, float | None]
) -> Iterator[Callback | None]:
    """Give ``callback``, joined by a progress line that ends with the block if ``progress``.

    Parameters
    ----------
    callback : callable or None
        The user's own; called last, as it may end the run.
    progress : bool
    limits : mapping
        Where the run ends, by what is limited: ``"nit"``, ``"cost"`` or ``"seconds"``; None where
        there is no limit. The bar shows the one that is nearest.

    Raises
    ------
    ImportError
        If rich is not installed.
    """
    if not progress:
        yield callback
        return
    try:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError as error:
        raise ImportError(
            'progress=True needs rich: pip install "osculant[demo]", or leave progress out'
        ) from error

    line = Progress(
        TextColumn("step {task.fields[nit]}"),
        BarColumn(bar_width=8),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
    )
    known = {name: limit for name, limit in limits.items() if limit}
    with line:
        task = line.add_task("", total=1.0 if known else None, nit=0, text="")

        def report(intermediate_result: Intermediate) -> None:
            record = {**intermediate_result.record, "nit": intermediate_result.nit}
            done = max((record[name] / limit for name, limit in known.items()), default=0.0)
            line.update(task, completed=done, nit=intermediate_result.nit, text=_text(record))
            if callback is not None:
                callback(intermediate_result)

        yield report


def _text(record: Mapping[str, float]) -> str:
    """Return the numbers of one step as a line."""
    parts = [f"f {record['fun']:.6g}", f"|g| {record['grad_norm']:.1e}"]
    parts += [f"{name.replace('_', ' ')} {record[name]:.1e}" for name in _WORTH if name in record]
    return "  ".join([*parts, f"cost {record['cost']:.0f}"])
