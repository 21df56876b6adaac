"""A progress line for the host loops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .core.drive import Callback, Intermediate


@contextmanager
def reporting(
    callback: Callback | None,
    progress: bool,
    *,
    steps: float | None = None,
    budget: float | None = None,
) -> Iterator[Callback | None]:
    """Give ``callback``, joined by a progress line that ends with the block if ``progress``.

    Parameters
    ----------
    callback : callable or None
        The user's own; called first, so that it can still end the run.
    progress : bool
    steps, budget : float or None
        Where the bar ends, in steps or in gradient-equivalents; None if that is not known.

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
        BarColumn(),
        TextColumn("f {task.fields[fun]:.6g}  |g| {task.fields[grad_norm]:.1e}"),
        TextColumn("{task.fields[cost]:.0f} gradient-equivalents"),
        TimeElapsedColumn(),
    )
    with line:
        total = steps if budget is None else budget
        task = line.add_task("", total=total, nit=0, fun=float("nan"), grad_norm=0.0, cost=0.0)

        def report(intermediate_result: Intermediate) -> None:
            if callback is not None:
                callback(intermediate_result)
            line.update(
                task,
                completed=intermediate_result.nit if budget is None else intermediate_result.cost,
                nit=intermediate_result.nit,
                fun=intermediate_result.fun,
                grad_norm=intermediate_result.grad_norm,
                cost=intermediate_result.cost,
            )

        yield report
