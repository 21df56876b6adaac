"""The comparison that ``osculant demo`` makes: every method on every backend, at equal cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import optree

import osculant
from osculant import backends
from osculant.core.drive import Intermediate
from osculant.core.oracle import Oracle
from osculant.core.solvers import Solver
from osculant.problems import Dataset, Problem, Samples, batches

#: The full training loss is measured this many times along each curve.
POINTS = 100


def widths(features: int) -> list[int]:
    """Return the widths of the network that the demo trains."""
    return [features, 32, 10]


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
