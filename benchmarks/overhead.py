"""What a solver costs beside the oracle's products, on a network of 1e5 parameters.

    python benchmarks/overhead.py --batch 1000 --steps 10

NumPy and PyTorch: every call of the oracle is timed from outside; the rest of the run is the
solver's own. It is divided by the products and gradients that the run took, and given in units of
one Hessian product. JAX: the compiled step, which takes the memory of the last state as in the
host loops, against the same evaluations, compiled one by one. Where a step takes products its
gradients are linearisations that they can be taken from, which keep more than a gradient does.

Processor time on one core; medians of rounds in which what is compared takes turns. glibc is told
to keep freed memory (``memory.py``; ``--fresh`` leaves it alone): a step needs more than one of its
evaluations does, and where only the step is above glibc's limit, its pages would be what is timed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import Counter
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
if hasattr(os, "sched_setaffinity"):  # XLA starts as many threads as there are cores
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import memory
import numpy as np
import optree

import osculant
from osculant.core.oracle import Oracle
from osculant.problems import mlp
from osculant.testing import Wrapped, WrappedPoint

WIDTHS = (784, 120, 50, 10)  # 100,760 parameters
ROUNDS = 5

SOLVERS: dict[str, Any] = {
    "newton-krylov": osculant.NewtonKrylov(),
    "trust-region, steihaug": osculant.TrustRegion(subproblem="steihaug", max_inner=20),
    "trust-region": osculant.TrustRegion(max_inner=20),
    "newton-cg": osculant.NewtonCG(max_inner=20),
    "newton-cg, no pairs": osculant.NewtonCG(max_inner=20, memory=0),
    "nonlinear-cg": osculant.NonlinearCG(),
    "lbfgs": osculant.LBFGS(),
    "auto": osculant.Auto(),
}


class TimedPoint(WrappedPoint):
    """A point of a :class:`Timed` oracle."""

    oracle: Timed

    def ask(self, product: str, *args: Any) -> Any:
        return self.oracle.measure(product, super().ask, product, *args)


class Timed(Wrapped):
    """An oracle that notes how long another one takes, and how often it is asked."""

    point = TimedPoint

    def __init__(self, inner: Oracle) -> None:
        super().__init__(inner)
        self.seconds, self.calls = 0.0, Counter[str]()

    def measure(self, kind: str, call: Any, *args: Any) -> Any:
        began = time.process_time()
        result = call(*args)
        self.seconds += time.process_time() - began
        self.calls[kind] += 1
        return result

    def at(self, x: Any, *data: Any) -> WrappedPoint:
        def linearise() -> WrappedPoint:
            pt = super(Timed, self).at(x, *data)
            pt.grad  # noqa: B018  (it may be made on demand)
            return pt

        return self.measure("gradient", linearise)

    def value(self, x: Any, *data: Any) -> Any:
        return self.measure("value", super().value, x, *data)


def problem(backend: str, batch: int) -> tuple[Oracle, Any, tuple[Any, ...]]:
    """Return an oracle of float32, its start and its data, as arrays of a backend."""
    net = mlp(WIDTHS, dtype=np.float32)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(batch, WIDTHS[0])).astype(np.float32)
    targets = np.eye(WIDTHS[-1], dtype=np.float32)[rng.integers(WIDTHS[-1], size=batch)]
    make = osculant.backends.get(backend).from_numpy
    params = optree.tree_map(make, net.params)
    oracle = osculant.oracle(model=net.model, loss=net.loss, params=params)
    return oracle, oracle.ravel(params), (make(inputs), make(targets))


def clock(call: Any, number: int = 1) -> float:
    """Return the seconds of processor time of one of ``number`` calls."""
    began = time.process_time()
    for _ in range(number):
        call()
    return (time.process_time() - began) / number


def eager(backend: str, solver: Any, batch: int, steps: int) -> float:
    """Return the solver's own time per evaluation, over that of one Hessian product."""
    oracle, x, data = problem(backend, batch)
    timed, solver = Timed(oracle), solver.deterministic()
    start = solver.step(timed, solver.init(timed, x), *data)
    pt, v = oracle.at(x, *data), oracle.ravel(oracle.unravel(x)) * 0 + 1
    pt.hvp(v)

    def ratio() -> float:
        timed.seconds, timed.calls, state = 0.0, Counter(), start
        began = time.process_time()
        for _ in range(steps):
            state = solver.step(timed, state, *data)
        own = time.process_time() - began - timed.seconds
        return own / timed.calls.total() / clock(lambda: pt.hvp(v), 10)

    return statistics.median(ratio() for _ in range(ROUNDS))


def compiled(solver: Any, batch: int, steps: int) -> float:
    """Return the time of a compiled step over that of its evaluations, compiled one by one."""
    import jax

    oracle, x, data = problem("jax", batch)
    flow, solver = oracle.flow, solver.deterministic()
    step = jax.jit(lambda s, *d: solver.step(oracle, s, *d), donate_argnums=0)
    start = step(flow.own(solver.init(oracle, x)), *data)

    def run(state: Any) -> Any:
        for _ in range(steps):
            state = step(state, *data)
        return jax.block_until_ready(state)

    end = run(flow.own(start)).counts
    n = {k: int(b) - int(a) for k, a, b in zip(end._fields, start.counts, end, strict=True)}

    # Products on one linearisation, as a step has them.
    def products(k: int) -> Any:
        def chain(x: Any, *d: Any) -> Any:
            pt = oracle.at(x, *d)
            return jax.lax.fori_loop(0, k, lambda _, v: pt.hvp(v), pt.grad)

        return chain

    calls = {
        "value": oracle.value,
        "gradient": lambda x, *d: (lambda pt: (pt.value, pt.grad))(oracle.at(x, *d)),
        "one": products(1),
        "six": products(6),
    }
    programs = {name: jax.jit(call) for name, call in calls.items()}

    def seconds(name: str) -> float:
        return clock(lambda: jax.block_until_ready(programs[name](x, *data)), 3)

    def ratio() -> float:
        state = jax.block_until_ready(flow.own(start))
        whole = clock(lambda: run(state))
        one, hvp, gradient = seconds("one"), 0.0, seconds("gradient")
        if n["hvps"]:
            hvp = (seconds("six") - one) / 5
            gradient = one - hvp
        parts = n["values"] * seconds("value") + n["gradients"] * gradient + n["hvps"] * hvp
        return whole / parts

    ratio()  # compiles
    return statistics.median(ratio() for _ in range(ROUNDS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--backends", default="numpy,torch,jax")
    parser.add_argument("--solvers", default="", help="parts of names, by commas; all by default")
    parser.add_argument("--fresh", action="store_true", help="leave freed memory to glibc")
    args = parser.parse_args()
    if not args.fresh:
        memory.keep()
    wanted = [part for part in args.solvers.split(",") if part]
    names = [n for n in SOLVERS if not wanted or any(part in n for part in wanted)]
    print(f"{'-'.join(map(str, WIDTHS))}, float32, batch {args.batch}, {args.steps} steps\n")
    print("| backend | solver | own time per evaluation / HVP |\n|---|---|---|")
    for backend in args.backends.split(","):
        for name in names if backend != "jax" else ():
            own = eager(backend, SOLVERS[name], args.batch, args.steps)
            print(f"| {backend} | {name} | {own:.2f} |", flush=True)
    if "jax" in args.backends.split(","):
        print("\n| solver | compiled step / its evaluations |\n|---|---|")
        for name in names:
            print(f"| {name} | {compiled(SOLVERS[name], args.batch, args.steps):.2f} |", flush=True)


if __name__ == "__main__":
    main()
