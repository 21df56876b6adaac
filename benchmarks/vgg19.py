"""What a Hessian product of VGG-19 costs: the paper's speed test, each beside its own gradient.

    python benchmarks/vgg19.py [--batch 8] [--width 1.0] [--repeats 5] [--out docs/reports]

Random images of 3 x 32 x 32, float32, one thread, one process, medians of interleaved repeats of
the time that the process had. A gradient is ``at`` and ``grad``; a product is one more at the same
point. Writes vgg19.md.
"""

from __future__ import annotations

# First: it sets the number of threads before NumPy loads its BLAS.
from tape import seconds

import argparse  # isort: skip
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import memory
import numpy as np
import optree

import osculant
from osculant import backends
from osculant.core.oracle import Oracle
from osculant.problems.networks import vgg19

# before JAX is imported, with its first array
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

#: Backend, and what its own derivatives and its complex step are called in the report.
ROWS = {
    "numpy": ("tape", "exact", "complex step"),
    "torch": ("PyTorch", "double backward", "complex step"),
    "jax": ("JAX, jitted", "linearised gradient", "complex step"),
}
GRADIENT = "gradient"


def calls(options: argparse.Namespace) -> tuple[dict[str, Callable[[], Any]], dict[str, float]]:
    """Return what is timed, and how far each product is from the first."""
    network = vgg19(width=options.width, dtype=np.float32)
    rng = np.random.default_rng(0)
    n = sum(leaf.size for leaf in optree.tree_leaves(network.params))
    images = rng.standard_normal((options.batch, 3, 32, 32), dtype=np.float32)
    targets = np.eye(10, dtype=np.float32)[rng.integers(10, size=options.batch)]
    direction = rng.standard_normal(n, dtype=np.float32)

    timed: dict[str, Callable[[], Any]] = {}
    products: dict[str, np.ndarray] = {}
    for name, (title, exact, stepped) in ROWS.items():
        backend = backends.get(name)
        params = optree.tree_map(backend.from_numpy, network.params)
        v, *data = (backend.from_numpy(a) for a in (direction, images, targets))

        def oracle(products: str, params: Any = params) -> Oracle:
            return osculant.oracle(
                model=network.model, loss=network.loss, params=params, products=products
            )

        plain = oracle("autodiff")
        x = plain.ravel(params)
        timed[f"{title}: {GRADIENT}"] = lambda o=plain, x=x, d=data: _done(o.at(x, *d).grad)
        for way, made in ((exact, plain), (stepped, oracle("complex-step"))):
            point = made.at(x, *data)
            timed[f"{title}: {way}"] = lambda p=point, v=v: _done(p.hvp(v))
            products[f"{title}: {way}"] = backend.to_numpy(point.hvp(v))
    reference = next(iter(products.values()))
    size = np.linalg.norm(reference)
    return timed, {
        name: float(np.linalg.norm(Hv - reference) / size) for name, Hv in products.items()
    }


def _done(vector: Any) -> float:
    """Wait for the result: JAX computes in the background."""
    return float(vector[0])


def table(medians: dict[str, float], differences: dict[str, float]) -> str:
    lines = [
        "| | seconds | of its own gradient | of the tape's complex step | differs by |",
        "| --- | --: | --: | --: | --: |",
    ]
    for name, median in medians.items():
        own = medians[f"{name.partition(': ')[0]}: {GRADIENT}"]
        apart = f"{differences[name]:.0e}" if name in differences else ""
        ratios = f"{median / own:.2f} | {median / medians['tape: complex step']:.2f}"
        lines.append(f"| {name} | {median:.2f} | {ratios} | {apart} |")
    return "\n".join(lines)


def report(rows: str, medians: dict[str, float], options: argparse.Namespace) -> str:
    """Return the report, whose conclusion is read off the figures."""
    step = medians["tape: complex step"]

    def compared(name: str) -> str:
        ratio = medians[name] / step
        return (
            f"{ratio:.1f} times slower than" if ratio > 1 else f"{1 / ratio:.1f} times faster than"
        )

    return f"""# The time of a Hessian product of VGG-19

Written by `python benchmarks/vgg19.py`: width {options.width}, batch {options.batch} of random
images of 3 x 32 x 32, float32, one thread, medians of {options.repeats} interleaved repeats in one
process, of the time that it had on a shared machine, so that ratios mean more than seconds. glibc
is told to keep freed memory (`mallopt`). A gradient is `at` and `grad`; a product is one more at
the same point. *Differs by* is the relative distance from the tape's exact product.

{rows}

## What holds of the claim

Shen et al. (2020) time derivatives of VGG-19 by a naive complex step in
NumPy, on one thread, and report it to be faster than automatic differentiation by PyTorch 1.6 and
TensorFlow 2.3, whose second derivatives are called "not yet feasible". The formulas and figures are
lost from the text that we have, and with them which derivative it was and the size of the images.

- The claim that a complex step beats automatic differentiation is one about implementations. In
  this run PyTorch's double backward is {compared("PyTorch: double backward")} the complex step on
  the tape, and JAX's linearised gradient {compared("JAX, jitted: linearised gradient")} it.
- On the same tape, in the same arithmetic, the exact product is
  {compared("tape: exact")} the complex step: a complex step does the work of the gradient in
  complex numbers, forward pass included, and the exact product reuses the recorded point.
- That second derivatives by automatic differentiation are not feasible does not hold. In gradients
  they take {medians["PyTorch: double backward"] / medians["PyTorch: gradient"]:.1f} in PyTorch,
  {medians["JAX, jitted: linearised gradient"] / medians["JAX, jitted: gradient"]:.1f} in JAX and
  {medians["tape: exact"] / medians["tape: gradient"]:.1f} on the tape.
- Within PyTorch and within JAX the complex step takes
  {medians["PyTorch: complex step"] / medians["PyTorch: double backward"]:.1f} and
  {medians["JAX, jitted: complex step"] / medians["JAX, jitted: linearised gradient"]:.1f} times as
  long as their own second derivative.
- What holds is the accuracy: on each backend the complex step is as far from the tape's exact
  product as that backend's own. What exceeds rounding there we take for units and maxima that
  rounding tips over, which a network of ReLU and max pooling has.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--width", type=float, default=1.0, help="scales the channels")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/reports"))
    options = parser.parse_args()
    memory.keep()
    timed, differences = calls(options)
    medians = seconds(timed, options.repeats, time.process_time)
    rows = table(medians, differences)
    options.out.mkdir(parents=True, exist_ok=True)
    text = report(rows, medians, options)
    (options.out / "vgg19.md").write_text(text, encoding="utf-8")
    print(rows)


if __name__ == "__main__":
    main()
