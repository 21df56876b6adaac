"""The ``osculant`` command: ``osculant info`` and ``osculant demo``.

It is an application on top of the library: what it needs beyond it (the extra ``demo``) is
imported inside its functions, so that a missing package is one sentence and not a traceback;
and it alone may set a framework's global option, in :func:`_set_precision`.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
import optree

import osculant
from osculant import backends
from osculant.core.arrays import namespace
from osculant.core.drive import Intermediate
from osculant.core.errors import BackendUnavailable, OsculantError
from osculant.core.oracle import Oracle
from osculant.core.solvers import Solver
from osculant.problems import Dataset, Problem, Samples, batches, digits, mlp, mnist

#: The full training loss is measured this many times along each curve.
POINTS = 100


def widths(features: int) -> list[int]:
    """Return the widths of the network that the demo trains."""
    return [features, 32, 10]


class UsageError(Exception):
    """The command was called with options that do not fit; the message is one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 2 after a line that says what was wrong."""
    try:
        import cyclopts
        import matplotlib as _matplotlib  # noqa: F401
        import rich as _rich  # noqa: F401
    except ModuleNotFoundError as missing:
        return _fail(f'the command needs {missing.name}: pip install "osculant[demo]"')
    app = cyclopts.App(
        name="osculant",
        help="Second-order optimisation on any array framework.",
        version=osculant.__version__,
        result_action="return_value",
    )
    app.command(info)
    app.command(demo)
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except (UsageError, cyclopts.CycloptsError, OsculantError, ImportError, OSError) as error:
        return _fail(" ".join(str(error).split()))
    return 0


def _fail(message: str) -> int:
    print(f"osculant: {message}", file=sys.stderr)
    return 2


# osculant info -----------------------------------------------------------------------------


def info() -> None:
    """List the backends: versions, devices, precision, or why one is not available."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "Backend", "Version", "Devices", "Precision", title=f"osculant {osculant.__version__}"
    )
    for name, reason in backends.available().items():
        if reason is not None:
            table.add_row(name, "-", "-", reason, style="dim")
            continue
        backend = backends.get(name)
        devices = ", ".join(map(str, backend.devices()))
        table.add_row(name, backend.version(), devices, _precision(backend))
    Console(markup=False, highlight=False).print(table)


def _precision(backend: ModuleType) -> str:
    """Return the dtypes that the backend's namespace says it has at the moment."""
    report = namespace(backend.from_numpy(np.zeros(1, np.float32))).__array_namespace_info__()
    dtypes = report.dtypes(kind="real floating")
    if "float64" not in dtypes:
        return f"float32 only: {backend.X64_REMEDY}"
    default = {dtype: name for name, dtype in dtypes.items()}[
        report.default_dtypes()["real floating"]
    ]
    return f"float32, float64 (default {default})"


# osculant demo -----------------------------------------------------------------------------


class Method(NamedTuple):
    """A solver and its name in the table."""

    name: str
    solver: Solver

    @property
    def is_adam(self) -> bool:
        """Whether it is one of those of which the best is starred."""
        return isinstance(self.solver, osculant.Adam)


#: The trust region may use as many products a step as NewtonKrylov does. By default it solves
#: its subproblem as exactly as pays near the end of a smooth minimisation.
METHODS = (
    Method("NewtonKrylov", osculant.NewtonKrylov()),
    Method("TrustRegion", osculant.TrustRegion(curvature="gauss-newton", max_inner=20)),
    *(Method(f"Adam {lr:g}", osculant.Adam(learning_rate=lr)) for lr in (1e-2, 3e-3, 1e-3)),
)


@dataclass(frozen=True)
class Run:
    """What one method did on one backend."""

    backend: str
    method: Method
    costs: list[float]
    """Gradient-equivalents at which the loss was measured."""
    losses: list[float]
    """Full training loss there."""
    train_accuracy: float
    held_out_accuracy: float
    seconds: float
    """Wall time without the measurements, with compilation."""

    @property
    def loss(self) -> float:
        """The final full training loss."""
        return self.losses[-1]


def demo(
    *,
    backend: str = "numpy",
    data: Literal["digits", "mnist"] = "digits",
    folder: Path | None = None,
    budget: float = 1000,
    batch_size: int | Literal["full"] = "full",
    seed: int = 0,
    dtype: Literal["float64", "float32"] = "float64",
    output: Path = Path("osculant-demo.png"),
) -> None:
    """Train a network with NewtonKrylov, TrustRegion and Adam, at equal cost.

    All start from the same parameters, see the same batches and may spend the same number of
    gradient-equivalents: a forward pass counts 1/3, a gradient 1, a Hessian product 2, a
    Gauss-Newton product 4/3. A step that would end beyond the budget is not counted.

    Parameters
    ----------
    backend
        numpy, torch, jax, ... (see `osculant info`), or all.
    data
        digits comes with scikit-learn; mnist reads IDX files from the folder.
    folder
        Where the MNIST files are.
    budget
        Gradient-equivalents for each method.
    batch_size
        Samples in a batch, or full.
    seed
        Of the initial parameters, the batches and the split.
    dtype
        Precision. On JAX, float64 turns x64 on for this process.
    output
        Where the curves go, a PNG file.
    """
    names = _backends(backend)
    _check_options(data, folder, budget, seed, output)
    dataset = digits(seed=seed) if folder is None else mnist(folder, seed=seed)
    dataset = dataset.map(lambda array: array.astype(dtype))
    samples, features = dataset.train.inputs.shape
    size = None if batch_size == "full" else batch_size
    if size is not None and not 1 <= size <= samples:
        raise UsageError(f"--batch-size {size} does not fit {samples} training samples")
    problem = mlp(widths(features), seed=seed, dtype=dtype)
    batch = "full batch" if size is None else f"batches of {size}"
    title = f"{problem.name} on {dataset.name}, {batch}"

    from rich.console import Console

    console = Console(markup=False, highlight=False)
    console.print(
        f"{title}: {samples} samples, {dtype}, seed {seed}, {budget:g} gradient-equivalents each"
    )
    for name in names:
        _set_precision(name, dtype)
    runs = compare(names, problem, dataset, size=size, budget=budget, seed=seed, console=console)
    console.print(_table(runs))
    for name in names:
        console.print(_verdict(runs, name))
    if len(names) > 1:
        console.print(_agreement(runs, tolerance=float(np.finfo(dtype).eps) ** 0.5))
    _plot(runs, title, output)
    console.print(f"Curves: {output}")


def _backends(choice: str) -> list[str]:
    available = backends.available()
    if choice == "all":
        return [name for name, reason in available.items() if reason is None]
    if choice not in available:
        raise UsageError(f"there is no backend {choice!r}; choose {', '.join(available)} or all")
    if available[choice] is not None:
        raise BackendUnavailable(available[choice])
    return [choice]


def _check_options(data: str, folder: Path | None, budget: float, seed: int, output: Path) -> None:
    """Raise UsageError for what would otherwise fail later, after the training."""
    if (data == "mnist") != (folder is not None):
        raise UsageError("--data mnist and --folder go together")
    if folder is not None and not folder.is_dir():
        raise UsageError(f"--folder {folder} is not a folder")
    if not (budget > 0 and math.isfinite(budget)):
        raise UsageError(f"--budget {budget:g} is not a positive number")
    if seed < 0:
        raise UsageError(f"--seed {seed} is negative")
    if output.suffix.lower() != ".png":
        raise UsageError(f"--output {output} does not end in .png")
    if not output.absolute().parent.is_dir():
        raise UsageError(f"--output {output}: the folder {output.absolute().parent} is not there")


def _set_precision(backend: str, dtype: str) -> None:
    """Let JAX have float64 in this process, if that was asked for.

    The library never does this: the flag is global, and belongs to the application. Here the
    command is the application.
    """
    if backend == "jax" and dtype == "float64":
        import jax

        jax.config.update("jax_enable_x64", True)


def compare(
    names: Sequence[str],
    problem: Problem,
    dataset: Dataset,
    *,
    size: int | None,
    budget: float,
    seed: int,
    console: Any,
) -> list[Run]:
    """Run every method on every backend, behind a progress bar."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:>24}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} gradients"),
        TimeElapsedColumn(),
    )
    runs = []
    with Progress(*columns, console=console) as progress:
        for name in names:
            for method in METHODS:
                report = _bar(progress, f"{name}  {method.name}", budget)
                run = train(
                    name,
                    method,
                    problem,
                    dataset,
                    size=size,
                    budget=budget,
                    seed=seed,
                    report=report,
                )
                runs.append(run)
                report(budget)
    return runs


def _bar(progress: Any, description: str, total: float) -> Callable[[float], None]:
    task = progress.add_task(description, total=total)

    def report(cost: float) -> None:
        progress.update(task, completed=cost)

    return report


def train(
    name: str,
    method: Method,
    problem: Problem,
    dataset: Dataset,
    *,
    size: int | None,
    budget: float,
    seed: int,
    report: Callable[[float], None],
) -> Run:
    """Run one method on one backend; ``report`` is told the cost so far."""
    backend = backends.get(name)
    data = dataset.map(backend.from_numpy)
    params = optree.tree_map(backend.from_numpy, problem.params)
    oracle = osculant.oracle(model=problem.model, loss=problem.loss, params=params)
    monitor = Monitor(oracle, oracle.ravel(params), data.train, budget, report)
    began = time.perf_counter()
    osculant.fit(
        oracle,
        params,
        batches(data.train, size, seed=seed),
        solver=method.solver,
        budget=budget,
        callback=monitor,
    )
    seconds = time.perf_counter() - began - monitor.seconds
    monitor.measure()
    trained = oracle.unravel(monitor.x)
    return Run(
        backend=name,
        method=method,
        costs=monitor.costs,
        losses=monitor.losses,
        train_accuracy=_accuracy(backend, problem, trained, data.train),
        held_out_accuracy=_accuracy(backend, problem, trained, data.held_out),
        seconds=seconds,
    )


class Monitor:
    """Measures the full training loss along a run, outside of its budget and of its time."""

    def __init__(
        self,
        oracle: Oracle,
        x: Any,
        train: Samples,
        budget: float,
        report: Callable[[float], None],
    ) -> None:
        self.oracle, self.train, self.budget, self.report = oracle, train, budget, report
        self.x, self.cost = x, 0.0
        self.costs: list[float] = []
        self.losses: list[float] = []
        self.seconds = 0.0
        self.measure()
        self.seconds = 0.0

    def __call__(self, intermediate_result: Intermediate) -> None:
        """Take note of a step, unless it ended beyond the budget."""
        began = time.perf_counter()
        if intermediate_result.cost <= self.budget:
            self.x, self.cost = intermediate_result.state.x, intermediate_result.cost
            if self.cost >= self.costs[-1] + self.budget / POINTS:
                self.measure()
                self.report(self.cost)
        self.seconds += time.perf_counter() - began

    def measure(self) -> None:
        """Add a point to the curve, unless it is there."""
        if self.cost not in self.costs[-1:]:
            self.costs.append(self.cost)
            self.losses.append(float(self.oracle.value(self.x, *self.train)))


def _accuracy(backend: ModuleType, problem: Problem, params: Any, samples: Samples) -> float:
    outputs = backend.to_numpy(problem.model(params, samples.inputs))
    targets = backend.to_numpy(samples.targets)
    return float(np.mean(np.argmax(outputs, axis=1) == np.argmax(targets, axis=1)))


# What the demo shows -----------------------------------------------------------------------


def _best_adam(runs: Sequence[Run], backend: str) -> Run:
    adams = [run for run in runs if run.method.is_adam and run.backend == backend]
    return min(adams, key=lambda run: run.loss)


def _table(runs: Sequence[Run]) -> Any:
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


def _verdict(runs: Sequence[Run], backend: str) -> str:
    """Return the sentence that compares the curvature methods with the best Adam."""
    best = _best_adam(runs, backend)
    ratios = [
        f"{run.method.name} {run.loss / best.loss:.1e}"
        for run in runs
        if run.backend == backend and not run.method.is_adam
    ]
    return f"{backend}: final loss as a multiple of the best Adam's: {', '.join(ratios)}"


def _agreement(runs: Sequence[Run], tolerance: float) -> Any:
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


def _plot(runs: Sequence[Run], title: str, output: Path) -> None:
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
