"""What a complex-step Hessian product costs, in gradients, on a 784-1000-500-250-10 tanh network.

    python benchmarks/complex_step.py [--repeats 20] [--batch 256] [--dtype float32]

The tape, one thread, medians of interleaved repeats. A gradient is ``at`` and ``grad``; a
product is one more at the same point. Goal: 3.2 gradients.
"""

from __future__ import annotations

import argparse
from itertools import pairwise

# First: it sets the number of threads before NumPy loads its BLAS.
from tape import WIDTHS, cross_entropy, network, seconds

import numpy as np  # isort: skip

import osculant


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    dtype = np.dtype(options.dtype)
    params = [
        {
            "weight": (rng.standard_normal((m, n)) / np.sqrt(m)).astype(dtype),
            "bias": np.zeros(n, dtype),
        }
        for m, n in pairwise(WIDTHS)
    ]
    inputs = rng.standard_normal((options.batch, WIDTHS[0])).astype(dtype)
    targets = np.eye(WIDTHS[-1], dtype=dtype)[rng.integers(WIDTHS[-1], size=options.batch)]
    composition = {"model": network, "loss": cross_entropy, "params": params}
    exact = osculant.oracle(**composition)
    stepped = osculant.oracle(**composition, products="complex-step")
    x = exact.ravel(params)
    v = rng.standard_normal(x.shape).astype(dtype)
    exact_point, stepped_point = (o.at(x, inputs, targets) for o in (exact, stepped))
    difference = np.linalg.norm(exact_point.hvp(v) - stepped_point.hvp(v))
    difference /= np.linalg.norm(exact_point.hvp(v))

    medians = seconds(
        {
            "gradient": lambda: exact.at(x, inputs, targets).grad,
            "hvp, tape": lambda: exact_point.hvp(v),
            "hvp, complex step": lambda: stepped_point.hvp(v),
        },
        options.repeats,
    )
    print(f"{'-'.join(map(str, WIDTHS))}, batch {options.batch}, {dtype}, n = {exact.size}")
    for name, median in medians.items():
        print(f"{name:>18} {1e3 * median:9.2f} ms {median / medians['gradient']:7.2f} gradients")
    print(f"relative difference of the two products: {difference:.1e}")


if __name__ == "__main__":
    main()
