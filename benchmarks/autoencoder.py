"""The deep autoencoder: training loss of each method after the same time on one thread.

784-1000-500-250-30 and back, sigmoid units, linear code, 8000 images; the squared error of sigmoid
outputs, or the cross-entropy of their logits. The methods take turns of a few seconds, so that
whatever else the machine does falls on all of them alike; a turn ends with a step, and measuring
does not count. The figure is the squared error per image on all the images, |z - x|^2, which both
losses are reported by (Martens 2010).

    python benchmarks/autoencoder.py FOLDER [--initialise sparse|glorot] [--seconds 120]
        [--loss squared-error|cross-entropy] [--clock wall|cpu] [--backend torch]
        [--only NAME ...] [--out FILE]
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when the frameworks are loaded
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import optree

import osculant
from osculant import backends
from osculant.core.samples import Samples
from osculant.problems import autoencoder, glorot, sparse
from osculant.problems.datasets import load_mnist

IMAGES, TURN, MARKS = 8000, 5.0, 3
INITIALISERS = {"sparse": sparse, "glorot": glorot}
RATES = (1e-3, 3e-3, 1e-2)
BLOCKS = osculant.Kronecker(examples=250)
#: How lambda begins and follows the ratio: KFAC's factor, the bounds of Martens (2010).
FOLLOW = {"damping": 3e-4, "factor": 0.95, "poor": 0.25, "good": 0.75}
#: One preconditioned direction a batch and the last one. Momentum makes the gradients of
#: successive batches oppose each other, which is no noise to be screened.
PLANE = {
    "preconditioner": BLOCKS,
    "momentum": True,
    "max_inner": 1,
    "global_gradient": "batch",
}

#: Name, samples of a batch and of its products, and solver.
OURS: list[tuple[str, int, int, osculant.Solver]] = [
    ("KFAC", 500, 500, osculant.KFAC(damping=3e-4, factor=0.95, blocks=BLOCKS)),
    (
        "CurveBall, KFAC's blocks",
        500,
        125,
        osculant.CurveBall(preconditioner=BLOCKS, residual_at="line", **FOLLOW),
    ),
    ("CurveBall", 250, 250, osculant.CurveBall()),
    ("NewtonKrylov", 1000, 1000, osculant.NewtonKrylov()),
    ("NewtonKrylov, KFAC's blocks", 1000, 250, osculant.NewtonKrylov(**PLANE)),
    (
        "NewtonKrylov, KFAC's blocks, Gauss-Newton",
        1000,
        250,
        osculant.NewtonKrylov(curvature="gauss-newton", **PLANE),
    ),
    (
        "TrustRegion, Adam's norm",
        1000,
        1000,
        osculant.TrustRegion(
            curvature="gauss-newton", norm=osculant.norms.Adam(epsilon=1e-4), max_inner=10
        ),
    ),
    ("SecondOrderAdam", 250, 250, osculant.SecondOrderAdam(learning_rate=1e-3)),
    (
        "NewtonSummary",
        250,
        250,
        osculant.NewtonSummary(curvature="gauss-newton", lam_int=0.0),
    ),
    ("HessianFree", 1000, 1000, osculant.HessianFree(damping=0.1, max_inner=30)),
]


class Problem:
    """The autoencoder on one backend."""

    def __init__(self, folder: str, backend: str, initialise: str, loss: str) -> None:
        module = backends.get(backend)
        build = partial(autoencoder, initialise=INITIALISERS[initialise], dtype=np.float32)
        shown = build(loss="squared-error", outputs="sigmoid")
        problem = shown if loss == "squared-error" else build(loss=loss)
        pixels = load_mnist(folder, split="test", dtype=np.float32).inputs[:IMAGES]
        self.images = module.from_numpy(pixels)
        self.params = optree.tree_map(module.from_numpy, problem.params)
        self.oracle = osculant.oracle(model=problem.model, loss=problem.loss, params=self.params)
        self.model, self.loss = problem.model, problem.loss
        self._shown = osculant.oracle(model=shown.model, loss=shown.loss, params=self.params)
        self.backend = backend

    def batches(self, size: int) -> osculant.Batches:
        return osculant.Batches((self.images, self.images), size, seed=0)

    def error(self, x: Any) -> float:
        parts = (self.images[i : i + 1000] for i in range(0, IMAGES, 1000))
        return 2 * float(np.mean([float(self._shown.value(x, part, part)) for part in parts]))


def solver_steps(problem: Problem, solver: osculant.Solver, size: int, part: int) -> Iterator[Any]:
    """Yield the parameters after each step, with products on the first ``part`` of each batch."""
    oracle, batches = problem.oracle, problem.batches(size)
    state = solver.init(oracle, oracle.ravel(problem.params))
    step = oracle.flow.jit(type(solver).step, static=(0, 1))
    while True:
        for index, batch in enumerate(batches):
            if solver.refresh_due(index):
                state = solver.refresh(oracle, state, batches)
            if part < size:
                batch = (Samples(batch, tuple(array[:part] for array in batch), batch),)
            state = step(solver, oracle, state, *batch)
            yield state.x


def torch_steps(problem: Problem, make: Callable[[Any], Any], size: int) -> Iterator[Any]:
    """Yield the parameters after each step of an optimiser of PyTorch."""
    import torch

    leaves = [p.clone().requires_grad_() for p in optree.tree_leaves(problem.params)]
    optimizer = make(leaves)

    def closure(batch: Any) -> Any:
        optimizer.zero_grad()
        params = problem.oracle.structure.build(leaves)
        value = problem.loss(problem.model(params, batch), batch)
        value.backward()
        return value

    while True:
        for batch, _ in problem.batches(size):
            optimizer.step(lambda batch=batch: closure(batch))
            yield torch.cat([p.detach().reshape(-1) for p in leaves])


class Entry:
    """A method, the time that it has had, and its errors at the marks."""

    def __init__(self, name: str, size: int, steps: Iterator[Any]) -> None:
        self.name, self.size, self._steps = name, size, steps
        self.count, self.spent, self.errors = 0, 0.0, []

    def take_turn(self, clock: Callable[[], float], until: float) -> Any:
        """Step for a turn, or until this much has been spent; return the parameters."""
        began, x = clock(), None
        end = min(until - self.spent, TURN)
        while x is None or clock() - began < end:
            x = next(self._steps)
            self.count += 1
            float(x[0])  # waits for the device
        self.spent += clock() - began
        return x


def entries(problem: Problem) -> list[Entry]:
    """Return all methods."""
    found = [
        Entry(name, size, solver_steps(problem, solver, size, part))
        for name, size, part, solver in OURS
    ]
    if problem.backend != "torch":
        for rate in RATES:
            solver = osculant.Adam(learning_rate=rate)
            found.append(Entry(f"Adam, {rate:g}", 250, solver_steps(problem, solver, 250, 250)))
        return found
    import torch

    torch.set_num_threads(1)
    for rate in RATES:
        steps = torch_steps(problem, lambda p, rate=rate: torch.optim.Adam(p, lr=rate), 250)
        found.append(Entry(f"torch.optim.Adam, {rate:g}", 250, steps))
    steps = torch_steps(
        problem,
        lambda p: torch.optim.LBFGS(p, max_iter=1, history_size=20, line_search_fn="strong_wolfe"),
        IMAGES,
    )
    found.append(Entry("torch.optim.LBFGS", IMAGES, steps))
    return found


def race(problem: Problem, racers: list[Entry], seconds: float, clock: Any) -> None:
    """Let all methods spend their time, a turn after the other."""
    for mark in range(1, MARKS + 1):
        until, waiting = seconds * mark / MARKS, list(racers)
        while waiting:
            for entry in list(waiting):
                x = entry.take_turn(clock, until)
                if entry.spent >= until:
                    entry.errors.append(problem.error(x))
                    waiting.remove(entry)
                    print(
                        f"{entry.name:42} {entry.spent:6.1f} s {entry.count:6} steps "
                        f"{entry.errors[-1]:8.3f}",
                        flush=True,
                    )


def report(racers: list[Entry], arguments: argparse.Namespace) -> str:
    """Return a section of the report, in Markdown."""
    marks = [f"{arguments.seconds * k / MARKS:.3g} s" for k in range(1, MARKS + 1)]
    kind = {"wall": "wall-clock", "cpu": "processor time of the process"}[arguments.clock]
    lines = [
        f"## {arguments.initialise}, {arguments.loss}",
        "",
        f"The squared error per image on all images after equal time: {arguments.seconds:g} s of",
        f"{kind} for each method; {arguments.backend} backend, float32, one thread. Methods took",
        f"turns of {TURN:g} s.",
        "",
        "| method | batch | steps | " + " | ".join(marks) + " |",
        "| --- | ---: | ---: |" + " ---: |" * MARKS,
    ]
    for entry in sorted(racers, key=lambda entry: entry.errors[-1]):
        errors = " | ".join(f"{error:.2f}" for error in entry.errors)
        lines.append(f"| {entry.name} | {entry.size} | {entry.count} | {errors} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="where MNIST's test files are")
    parser.add_argument("--initialise", choices=tuple(INITIALISERS), default="sparse")
    parser.add_argument(
        "--loss", choices=("squared-error", "cross-entropy"), default="squared-error"
    )
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--backend", choices=("torch", "numpy", "jax"), default="torch")
    parser.add_argument("--only", nargs="*", help="parts of the names of the methods to run")
    parser.add_argument("--out", help="file for the section of the report")
    arguments = parser.parse_args()
    problem = Problem(arguments.folder, arguments.backend, arguments.initialise, arguments.loss)
    racers = [
        entry
        for entry in entries(problem)
        if not arguments.only or any(part in entry.name for part in arguments.only)
    ]
    clock = {"wall": time.monotonic, "cpu": time.process_time}[arguments.clock]
    race(problem, racers, arguments.seconds, clock)
    text = report(racers, arguments)
    print(text)
    if arguments.out:
        with open(arguments.out, "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
