"""What the tape's products cost, in gradients, on a 784-1000-500-250-10 tanh network.

    python benchmarks/tape.py [--repeats 20] [--batch 256] [--dtype float32]

One thread. Medians of interleaved repeats; a gradient is ``at`` and ``grad``, and a product is
one more at the same point. Targets: hvp 1.7, ggn 1.2.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # before NumPy loads its BLAS

import numpy as np  # noqa: E402

from osculant.backends.numpy_backend import make_oracle  # noqa: E402
from osculant.core.oracle import Objective  # noqa: E402

WIDTHS = (784, 1000, 500, 250, 10)


def network(params: Sequence[dict[str, Any]], inputs: Any) -> Any:
    *hidden, last = params
    for layer in hidden:
        inputs = np.tanh(inputs @ layer["weight"] + layer["bias"])
    return inputs @ last["weight"] + last["bias"]


def cross_entropy(logits: Any, targets: Any) -> Any:
    shifted = logits - np.max(logits, axis=1, keepdims=True)
    log_sum = np.log(np.sum(np.exp(shifted), axis=1))
    return np.mean(log_sum - np.sum(shifted * targets, axis=1))


def seconds(
    functions: dict[str, Callable[[], Any]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return medians; the repeats are interleaved, so that a busy machine slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            start = clock()
            function()
            if repeat:  # the first is a warm-up
                times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def arguments(description: str) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    return parser.parse_args()


def problem(batch: int, dtype: str) -> tuple[Any, Any, Any, np.random.Generator]:
    """Return parameters, inputs and targets of the network, and the generator that made them."""
    rng = np.random.default_rng(0)
    params = [
        {
            "weight": (rng.standard_normal((m, n)) / np.sqrt(m)).astype(dtype),
            "bias": np.zeros(n, dtype),
        }
        for m, n in pairwise(WIDTHS)
    ]
    inputs = rng.standard_normal((batch, WIDTHS[0])).astype(dtype)
    targets = np.eye(WIDTHS[-1], dtype=dtype)[rng.integers(WIDTHS[-1], size=batch)]
    return params, inputs, targets, rng


def report(medians: dict[str, float], options: argparse.Namespace) -> None:
    """Print the times, and as multiples of the gradient's."""
    print(f"{'-'.join(map(str, WIDTHS))}, batch {options.batch}, {options.dtype}")
    for name, median in medians.items():
        print(f"{name:>18} {1e3 * median:9.2f} ms {median / medians['gradient']:7.2f} gradients")


def main() -> None:
    options = arguments(__doc__)
    params, inputs, targets, rng = problem(options.batch, options.dtype)
    oracle = make_oracle(Objective(model=network, loss=cross_entropy), params)
    x = oracle.ravel(params)
    v = rng.standard_normal(x.shape).astype(options.dtype)
    point = oracle.at(x, inputs, targets)
    point.hvp(v)

    medians = seconds(
        {
            "value": lambda: oracle.value(x, inputs, targets),
            "gradient": lambda: oracle.at(x, inputs, targets).grad,
            "hvp": lambda: point.hvp(v),
            "ggn": lambda: point.ggn(v),
            "vgv": lambda: point.vgv(v),
        },
        options.repeats,
    )
    report(medians, options)


if __name__ == "__main__":
    main()
