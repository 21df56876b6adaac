"""What a complex-step Hessian product costs, in gradients, on a 784-1000-500-250-10 tanh network.

    python benchmarks/complex_step.py [--repeats 20] [--batch 256] [--dtype float32]

The tape, one thread, medians of interleaved repeats. A gradient is ``at`` and ``grad``; a
product is one more at the same point. Goal: 3.2 gradients.
"""

from __future__ import annotations

# First: it sets the number of threads before NumPy loads its BLAS.
from tape import arguments, cross_entropy, network, problem, report, seconds

import numpy as np  # isort: skip

import osculant


def main() -> None:
    options = arguments(__doc__)
    params, inputs, targets, rng = problem(options.batch, options.dtype)
    composition = {"model": network, "loss": cross_entropy, "params": params}
    exact = osculant.oracle(**composition)
    stepped = osculant.oracle(**composition, products="complex-step")
    x = exact.ravel(params)
    v = rng.standard_normal(x.shape).astype(options.dtype)
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
    report(medians, options)
    print(f"relative difference of the two products: {difference:.1e}")


if __name__ == "__main__":
    main()
