"""Logistic regression and the squared-hinge SVM on a9a: passes over the data, and seconds.

    python benchmarks/linear_models.py FOLDER [--repeats 15] [--only lbfgs,trust]

FOLDER holds LIBSVM's a9a (a9a or a9a.gz, from the page "LIBSVM Data: Classification (Binary
Class)"). Writes docs/reports/linear-models.md and .png.

A run ends at the first evaluation whose value is within 1e-8 of the minimum, relatively. One
pass is one product with the design matrix or its transpose. Passes are counted in runs of their
own, on an operator that counts; the timed runs work on SciPy's sparse array. Everyone is given the
same derivatives, in two kinds: those of the library's tape, and hand-written ones.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import sklearn
from linear_contenders import Contender, Reached, Task, contenders
from scipy import __version__ as scipy_version

import osculant
from osculant.problems import libsvm
from osculant.problems.models import logistic_regression, squared_hinge_svm

REPORT = Path(__file__).parents[1] / "docs" / "reports" / "linear-models"


class Counted:
    """A design matrix that counts its products."""

    def __init__(self, X: Any) -> None:
        self.X, self.XT, self.shape, self.passes = X, X.T, X.shape, 0

    def matvec(self, v: np.ndarray) -> np.ndarray:
        self.passes += 1
        return self.X @ v

    def rmatvec(self, u: np.ndarray) -> np.ndarray:
        self.passes += 1
        return self.XT @ u

    def operator(self) -> Any:
        return osculant.linear_operator((self.matvec, self.rmatvec), shape=self.shape)


class Transposable:
    """The same for hand-written code, which writes ``X @ v`` and ``X.T @ u``."""

    def __init__(self, matvec: Any, rmatvec: Any) -> None:
        self._matvec, self._rmatvec = matvec, rmatvec

    def __matmul__(self, v: np.ndarray) -> np.ndarray:
        return self._matvec(v)

    @property
    def T(self) -> Transposable:
        return Transposable(self._rmatvec, self._matvec)


def passes(contender: Contender, X: Any) -> float:
    """Return the products with the data that it takes; infinity if it stops before."""
    counted = Counted(X)
    tape = contender.kind == "tape"
    design = counted.operator() if tape else Transposable(counted.matvec, counted.rmatvec)
    try:
        contender.run(design)
    except Reached:
        return counted.passes
    return math.inf


class Seconds(NamedTuple):
    """What a run took: on the clock, and of the processor, which a shared machine disturbs less."""

    wall: float
    cpu: float


def seconds(work: Callable[[], Any]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    with suppress(Reached):
        work()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def measure(
    task: Task, rows: list[Contender], repeats: int
) -> tuple[list[list[Seconds]], list[Seconds]]:
    """Return what each contender took in each round, and 100 products A x after each round."""
    times: list[list[Seconds]] = [[] for _ in rows]
    probes = []
    rng = np.random.default_rng(0)
    for _ in range(repeats):
        for i in rng.permutation(len(rows)):
            times[i].append(seconds(partial(rows[i].run, task.X)))
        probes.append(seconds(lambda: [task.X @ task.x0 for _ in range(100)]))
    return times, probes


#: Room for a letter of a name in the figure, and for a line of it, in pixels.
WIDE, HIGH = 5, 10


class Result(NamedTuple):
    """One loss: the rows of its table."""

    name: str
    shape: tuple[int, int]
    lowest: float
    rows: list[tuple[str, str, float, list[Seconds]]]  # name, derivatives, passes, seconds
    probes: list[Seconds]


def compare(task: Task, wanted: list[str], repeats: int) -> Result:
    rows = [c for c in contenders(task) if any(part in c.name for part in wanted)]
    counted = [passes(c, task.X) if c.counts else math.nan for c in rows]
    times, probes = measure(task, rows, repeats)
    table = [
        (c.name, c.kind, count, spent) for c, count, spent in zip(rows, counted, times, strict=True)
    ]
    return Result(task.name, task.X.shape, task.lowest, table, probes)


def markdown(result: Result) -> str:
    """Return a section of the report."""
    samples, features = result.shape
    lines = [
        f"## {result.name}",
        "",
        f"{samples} samples, {features} features, f* = {result.lowest:.12g}.",
        "",
        "| | derivatives | passes | seconds | quartiles | of the processor |",
        "|---|---|---|---|---|---|",
    ]
    for name, kind, count, spent in result.rows:
        low, middle, high = statistics.quantiles([each.wall for each in spent], n=4)
        cpu = statistics.median(each.cpu for each in spent)
        shown = "" if math.isnan(count) else f"{count:.0f}"
        cells = f"{middle:.3f} | {low:.3f} to {high:.3f} | {cpu:.3f}"
        lines.append(f"| {name} | {kind} | {shown} | {cells} |")
    low, middle, high = (
        10 * q for q in statistics.quantiles([each.wall for each in result.probes], n=4)
    )
    noise = f"One product A x took {middle:.2f} ms (quartiles {low:.2f} to {high:.2f})"
    return "\n".join([*lines, "", f"{noise} in between the rounds.", ""])


def draw(results: list[Result], path: Path) -> None:
    """Draw seconds against passes, for those whose passes are counted."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(13, 5.5), layout="constrained")
    for axis, result in zip(axes, results, strict=True):
        named = []
        for name, kind, count, spent in result.rows:
            if math.isnan(count):
                continue
            mine = name.startswith("osculant")
            y = statistics.median(each.cpu for each in spent)
            axis.plot(
                count,
                y,
                "o" if mine else "s",
                color="C0" if mine else "C1",
                fillstyle="full" if kind == "tape" else "none",
            )
            named.append((y, count, name.partition(" ")[2]))
        axis.set(
            title=result.name,
            xlabel="passes over the data",
            ylabel="seconds of the processor, median",
        )
        axis.set(xscale="log", yscale="log")
        axis.margins(x=0.2, y=0.1)  # room for the names
        label(axis, sorted(named))
    axes[0].plot([], [], "oC0", label="osculant")
    axes[0].plot([], [], "sC1", label="SciPy")
    axes[0].plot([], [], "ok", fillstyle="none", label="hollow: hand-written derivatives")
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def label(axis: Any, named: list[tuple[float, float, str]]) -> None:
    """Write names beside their points, from the lowest up, each above those in its way."""
    axis.autoscale_view()
    taken: list[tuple[float, float, float]] = []
    for y, x, name in named:
        left, bottom = axis.transData.transform((x, y))
        right = left + WIDE * len(name)
        while any(left < b and a < right and abs(bottom - c) < HIGH for a, b, c in taken):
            bottom += 1
        taken.append((left, right, bottom))
        place = axis.transData.inverted().transform((left + 5, bottom))
        axis.annotate(name, place, fontsize=7, va="center")


def write(results: list[Result], repeats: int) -> None:
    """Write the report and its figure."""
    versions = f"NumPy {np.__version__}, SciPy {scipy_version}, scikit-learn {sklearn.__version__}"
    sections = "\n".join(markdown(result) for result in results)
    text = TEXT.format(repeats=repeats, versions=versions, sections=sections)
    REPORT.with_suffix(".md").write_text(text)
    draw(results, REPORT.with_suffix(".png"))


TEXT = """# Linear models on a9a

Passes over the data and seconds until the value is within 1e-8 of the minimum, relatively; written
by `python benchmarks/linear_models.py FOLDER`, with LIBSVM's a9a in FOLDER (a9a or a9a.gz, from
"LIBSVM Data: Classification (Binary Class)"). {repeats} rounds, one thread;
{versions}.

What came out, in passes and in seconds of the processor:

- **Passes.** The trust region by products alone (`quasi_newton=False`) takes the fewest of all that
  were counted, Newton-CG by products as many on the hinge with hand-written derivatives: two
  thirds of SciPy's Newton-CG on the logistic loss and less than half on the hinge, about a third
  and a quarter of L-BFGS-B.
- **Seconds.** It is ahead of SciPy's trust-ncg and L-BFGS-B with either kind of derivatives and on
  both problems, by factors of 1.7 to 4.7, and of SciPy's Newton-CG, which was the fastest before;
  but with hand-written derivatives on the logistic loss, where these two are level.
- **The defaults** of the trust region, of cubic regularisation and of Newton-CG step by pairs in
  between, which pays where valleys curve. On these convex problems, where a Hessian product costs
  no more passes than a gradient, it does not: they take as many passes as our L-BFGS, and up to
  2.4 times the time of products alone. They and our L-BFGS are still well ahead of L-BFGS-B, and of
  trust-ncg with hand-written derivatives on the logistic loss.

{sections}
![Seconds against passes](linear-models.png)

## How it was measured

- **Problems.** mean_i loss(y_i w'x_i) + |w|^2 / (2 N), which is scikit-learn's and LIBLINEAR's
  objective with C = 1, divided by N; without intercept, from w = 0. The inputs are SciPy's sparse
  array, 11 % full.
- **Passes.** One is one product with the inputs or their transpose: a value 1, a gradient 2, a
  Hessian product 2. They are counted by an operator in place of the inputs, in a run of its own,
  whose rounding may differ: by a few per cent for the quasi-Newton methods.
- **The end of a run** is the first evaluation whose value is on target, whoever asks for it; no
  method's own tolerance plays a part. scikit-learn's solvers cannot be stopped so: they are given
  the largest tolerance 10^-k at which they reach the target, and their passes are not counted.
- **Derivatives.** "tape": the library's own, of the loss as it stands in `osculant.problems`.
  SciPy gets them through one object that keeps the last point, so that the gradient reuses the
  forward pass of the value, and Hessian products the gradient's. "hand": hand-written NumPy, which
  keeps the margins of the last point; SciPy is given it as it is, and ours by
  `osculant.oracle(fun, grad=, hvp=)`.
- **Noise.** The contenders take turns in a random order, and medians are shown. The machine is
  shared, and was busy, so that seconds on the clock are several times those of the processor; the
  latter are what an idle machine would show. One and the same product with the inputs was timed
  after each round, to show by how much the clock varies.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--only", default="", help="parts of names, separated by commas")
    options = parser.parse_args()
    data = libsvm(options.folder, "a9a").train
    results = []
    for make in (logistic_regression, squared_hinge_svm):
        result = compare(Task(make, data), options.only.split(","), options.repeats)
        print(markdown(result), flush=True)
        results.append(result)
    if not options.only:
        write(results, options.repeats)


if __name__ == "__main__":
    main()
