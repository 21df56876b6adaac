"""What a solver costs beside the oracle's products, on a network of 1e5 parameters.

    python benchmarks/overhead.py --batch 1000 --steps 10

NumPy and PyTorch: every call of the oracle is timed from outside; the rest of the run is the
solver's own. It is divided by the products and gradients that the run took, and given in units of
one Hessian product. JAX: the compiled step against the same evaluations, compiled one by one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import Counter
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import optree

import osculant
from osculant.core.oracle import Oracle
from osculant.problems import mlp
from osculant.testing import Wrapped, WrappedPoint

WIDTHS = (784, 120, 50, 10)  # 100,760 parameters

SOLVERS: dict[str, Any] = {
    "newton-krylov": osculant.NewtonKrylov(),
    "trust-region, steihaug": osculant.TrustRegion(subproblem="steihaug", max_inner=20),
    "trust-region": osculant.TrustRegion(max_inner=20),
    "newton-cg": osculant.NewtonCG(max_inner=20),
    "newton-cg, no pairs": osculant.NewtonCG(max_inner=20, memory=0),
    "nonlinear-cg": osculant.NonlinearCG(),
    "lbfgs": osculant.LBFGS(),
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
        began = time.perf_counter()
        result = call(*args)
        self.seconds += time.perf_counter() - began
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


def eager(backend: str, solver: Any, batch: int, steps: int) -> tuple[float, float]:
    """Return the solver's own seconds per evaluation, and those of one Hessian product."""
    oracle, x, data = problem(backend, batch)
    timed = Timed(oracle)
    state = solver.deterministic().step(timed, solver.deterministic().init(timed, x), *data)
    timed.seconds, timed.calls = 0.0, Counter()
    began = time.perf_counter()
    for _ in range(steps):
        state = solver.deterministic().step(timed, state, *data)
    own = time.perf_counter() - began - timed.seconds
    pt, v = oracle.at(x, *data), oracle.ravel(oracle.unravel(x)) * 0 + 1
    pt.hvp(v)
    products = []
    for _ in range(10):
        began = time.perf_counter()
        pt.hvp(v)
        products.append(time.perf_counter() - began)
    return own / timed.calls.total(), statistics.median(products)


def compiled(solver: Any, batch: int, steps: int) -> tuple[float, float]:
    """Return the seconds of a compiled step, and of its evaluations compiled one by one."""
    import jax

    oracle, x, data = problem("jax", batch)
    solver = solver.deterministic()
    step = jax.jit(lambda s, *d: solver.step(oracle, s, *d))
    state = step(solver.init(oracle, x), *data)
    before = state.counts
    jax.block_until_ready(state)
    began = time.perf_counter()
    for _ in range(steps):
        state = step(state, *data)
    jax.block_until_ready(state)
    whole = (time.perf_counter() - began) / steps
    n = {k: int(b) - int(a) for k, a, b in zip(before._fields, before, state.counts, strict=True)}

    def clock(call: Any) -> float:
        jax.block_until_ready(call())
        seconds = []
        for _ in range(10):
            began = time.perf_counter()
            jax.block_until_ready(call())
            seconds.append(time.perf_counter() - began)
        return statistics.median(seconds)

    value = jax.jit(lambda x, *d: oracle.value(x, *d))
    grad = jax.jit(lambda x, *d: oracle.at(x, *d).grad)

    # k products on one linearisation, as a step has them: their difference leaves it out.
    def products(k: int) -> Any:
        def chain(x: Any, *d: Any) -> Any:
            pt = oracle.at(x, *d)
            return jax.lax.fori_loop(0, k, lambda _, v: pt.hvp(v), pt.grad)

        return jax.jit(chain)

    chains = {k: products(k) for k in (1, 11)}
    one, eleven = clock(lambda: chains[1](x, *data)), clock(lambda: chains[11](x, *data))
    parts = (
        n["values"] * clock(lambda: value(x, *data))
        + n["gradients"] * clock(lambda: grad(x, *data))
        + n["hvps"] * (eleven - one) / 10
    )
    return whole, parts / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--backends", default="numpy,torch,jax")
    parser.add_argument("--solvers", default="", help="parts of names, by commas; all by default")
    args = parser.parse_args()
    wanted = [part for part in args.solvers.split(",") if part]
    names = [n for n in SOLVERS if not wanted or any(part in n for part in wanted)]
    print(f"{'-'.join(map(str, WIDTHS))}, float32, batch {args.batch}, {args.steps} steps\n")
    print("| backend | solver | own time per evaluation / HVP |\n|---|---|---|")
    for backend in args.backends.split(","):
        for name in names if backend != "jax" else ():
            own, product = eager(backend, SOLVERS[name], args.batch, args.steps)
            print(f"| {backend} | {name} | {own / product:.2f} |", flush=True)
    if "jax" in args.backends.split(","):
        print("\n| solver | compiled step / its evaluations |\n|---|---|")
        for name in names:
            whole, parts = compiled(SOLVERS[name], args.batch, args.steps)
            print(f"| {name} | {whole / parts:.2f} |", flush=True)


if __name__ == "__main__":
    main()
