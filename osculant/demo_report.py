"""What ``osculant demo`` shows: a table, a verdict, how far the backends agree, and curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from osculant.demo import METHODS, Run


def _best_adam(runs: Sequence[Run], backend: str) -> Run:
    adams = [run for run in runs if run.method.is_adam and run.backend == backend]
    return min(adams, key=lambda run: run.loss)


def table(runs: Sequence[Run]) -> Any:
    """Return the table of losses, accuracies, costs and times."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title="At the same cost (* best Adam)", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("\nBackend", no_wrap=True)
    table.add_column("\nMethod", no_wrap=True)
    for heading in ("Training\nloss", "Training\naccuracy", "Held-out\naccuracy"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("\nGradients", "\nSeconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    previous = runs[0].backend
    for run in runs:
        if run.backend != previous:
            table.add_section()
        previous = run.backend
        star = " *" if run is _best_adam(runs, run.backend) else ""
        table.add_row(
            run.backend,
            run.method.name + star,
            f"{run.loss:.3e}",
            f"{run.train_accuracy:.2%}",
            f"{run.held_out_accuracy:.2%}",
            f"{run.costs[-1]:.0f}",
            f"{run.seconds:.1f}",
        )
    return table


def verdict(runs: Sequence[Run], backend: str) -> str:
    """Return the sentence that compares the curvature methods with the best Adam."""
    best = _best_adam(runs, backend)
    ratios = [
        f"{run.method.name} {run.loss / best.loss:.1e}"
        for run in runs
        if run.backend == backend and not run.method.is_adam
    ]
    return f"{backend}: final loss as a multiple of the best Adam's: {', '.join(ratios)}"


def agreement(runs: Sequence[Run], tolerance: float) -> Any:
    """Return a table of how far the backends agree.

    Rounding differs between them. A Krylov method away from a minimum amplifies that, so that
    the paths part some time after they agreed to many digits; what they lead to must agree.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table("Method", title="Between the backends", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("Final losses differ by at most", justify="right")
    table.add_column(f"Curves agree to {tolerance:.0e} until", justify="right")
    for method in METHODS:
        same = [run for run in runs if run.method is method]
        losses = [run.loss for run in same]
        table.add_row(
            method.name, f"{max(losses) - min(losses):.1e}", f"{agreed_until(same, tolerance):.0f}"
        )
    return table


def agreed_until(runs: Sequence[Run], tolerance: float) -> float:
    """Return the cost up to which the losses of ``runs`` differ by no more than ``tolerance``.

    The difference is relative to the loss.
    """
    agreed = 0.0
    for points in zip(*(zip(run.costs, run.losses, strict=True) for run in runs), strict=False):
        costs, losses = zip(*points, strict=True)
        if len(set(costs)) > 1 or max(losses) - min(losses) > tolerance * min(losses):
            break
        agreed = costs[0]
    return agreed


#: Okabe and Ito's colours, which colour-blind readers can tell apart; dashes do so in print.
LOOKS: dict[str, dict[str, Any]] = {
    "NewtonKrylov": {"color": "#0072B2", "linewidth": 2.2},
    "TrustRegion": {"color": "#D55E00", "linewidth": 2.2},
    "Adam 0.01": {"color": "#009E73", "linewidth": 1.4, "linestyle": "--"},
    "Adam 0.003": {"color": "#CC79A7", "linewidth": 1.4, "linestyle": "-."},
    "Adam 0.001": {"color": "#56B4E9", "linewidth": 1.4, "linestyle": ":"},
}


#: Losses below this are rounding; the axis ends here.
FLOOR = 1e-16


def plot(runs: Sequence[Run], title: str, output: Path) -> None:
    """Draw the full training loss against the cost, one panel for each backend."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(run.backend for run in runs))
    figure = Figure(figsize=(1.5 + 5.0 * len(names), 4.6), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
    for name, axes in zip(names, panels, strict=True):
        best = _best_adam(runs, name)
        for run in runs:
            if run.backend == name:
                label = run.method.name + (" (best Adam)" if run is best else "")
                axes.semilogy(run.costs, run.losses, label=label, **LOOKS[run.method.name])
        axes.set_ylim(bottom=max(axes.get_ylim()[0], FLOOR))
        axes.set_title(name)
        axes.set_xlabel("gradient-equivalents")
        axes.grid(which="major", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("full training loss")
    panels[0].legend(frameon=False)
    figure.suptitle(title)
    figure.savefig(output)
