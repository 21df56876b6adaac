"""The ``osculant`` command: ``osculant info``, ``osculant demo`` and ``osculant bench``.

It is an application on top of the library: what it needs beyond it (the extra ``demo``) is
imported inside functions, here and in ``demo.py``, ``demo_report.py`` and ``bench.py``, so that a
missing package is one sentence and not a traceback; and it alone may set a framework's global
option, in :func:`_set_precision`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np

import osculant
from osculant import backends
from osculant.bench import subjects, tables
from osculant.core.arrays import namespace
from osculant.core.errors import BackendUnavailable, OsculantError
from osculant.demo import compare, widths
from osculant.demo_report import agreement, plot, table, verdict
from osculant.problems import digits, mlp, mnist
from osculant.testing import time_products


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
    app.command(bench)
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

    listing = Table(
        "Backend", "Version", "Devices", "Precision", title=f"osculant {osculant.__version__}"
    )
    for name, reason in backends.available().items():
        if reason is not None:
            listing.add_row(name, "-", "-", reason, style="dim")
            continue
        backend = backends.get(name)
        devices = ", ".join(map(str, backend.devices()))
        listing.add_row(name, backend.version(), devices, _precision(backend))
    Console(markup=False, highlight=False).print(listing)


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
    console.print(table(runs))
    for name in names:
        console.print(verdict(runs, name))
    if len(names) > 1:
        console.print(agreement(runs, tolerance=float(np.finfo(dtype).eps) ** 0.5))
    plot(runs, title, output)
    console.print(f"Curves: {output}")


# osculant bench ----------------------------------------------------------------------------


def bench(
    *,
    backend: str = "all",
    network: Literal["mlp", "lenet5", "resnet18", "transformer"] = "mlp",
    products: str = "autodiff",
    batch_size: int = 256,
    repeats: int = 10,
    seed: int = 0,
    dtype: Literal["float64", "float32"] = "float32",
) -> None:
    """Time the gradient and each product of the same network on every backend, in turns.

    A product is one more at the same point. What is compiled is compiled before. For functions of
    your own there is osculant.testing.time_products.

    Parameters
    ----------
    backend
        numpy, torch, jax, ... (see `osculant info`), or all.
    network
        mlp (784-120-50-10), lenet5, resnet18 of a quarter of the width, or a transformer block.
    products
        autodiff, complex-step, finite-difference, or several of them by commas.
    batch_size
        Samples in the batch, which is random.
    repeats
        The medians of so many are shown.
    seed
        Of the parameters and the batch.
    dtype
        Precision. On JAX, float64 turns x64 on for this process.
    """
    names, strategies = _backends(backend), products.split(",")
    for strategy in strategies:
        if strategy not in ("autodiff", "complex-step", "finite-difference"):
            raise UsageError(
                f"--products {strategy}: choose among autodiff, complex-step, finite-difference"
            )
    for option, number in (("--batch-size", batch_size), ("--repeats", repeats)):
        if number < 1:
            raise UsageError(f"{option} {number} is not a positive number")
    if seed < 0:
        raise UsageError(f"--seed {seed} is negative")

    from rich.console import Console

    for name in names:
        _set_precision(name, dtype)
    timed = subjects(network, names, strategies, samples=batch_size, seed=seed, dtype=dtype)
    size = next(iter(timed.values()))[0].size
    console = Console(markup=False, highlight=False)
    console.print(f"{network}: {size:,} parameters, {batch_size} samples, {dtype}")
    for part in tables(time_products(timed, repeats=repeats, seed=seed)):
        console.print(part)


# What the commands share -------------------------------------------------------------------


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
