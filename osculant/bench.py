"""What ``osculant bench`` times, and how it shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optree

import osculant
from osculant import backends
from osculant.problems import Problem, lenet5, mlp, one_hot, resnet18, transformer
from osculant.testing import Timing

#: Of the transformer: how many tokens there are, and how many a sample has.
TOKENS, LENGTH = 64, 32
#: By name a function of the dtype, and the shape of one input; images are of 10 classes.
NETWORKS: dict[str, tuple[Callable[..., Problem], tuple[int, ...]]] = {
    "mlp": (lambda **options: mlp([784, 120, 50, 10], **options), (784,)),
    "lenet5": (lenet5, (1, 28, 28)),
    "resnet18": (lambda **options: resnet18(width=0.25, **options), (3, 32, 32)),
    "transformer": (lambda **options: transformer(TOKENS, LENGTH, **options), (LENGTH,)),
}


def subjects(
    network: str,
    names: Sequence[str],
    strategies: Sequence[Any],
    *,
    samples: int,
    seed: int,
    dtype: str,
) -> dict[str, tuple[Any, ...]]:
    """Return what :func:`~osculant.testing.time_products` takes: all see the same numbers."""
    make, shape = NETWORKS[network]
    problem, rng = make(seed=seed, dtype=dtype), np.random.default_rng(seed)
    inputs: Any = rng.standard_normal((samples, *shape)).astype(dtype)
    targets: Any = one_hot(rng.integers(10, size=samples), 10, dtype=dtype)
    if network == "transformer":
        inputs, targets = rng.integers(TOKENS, size=(2, samples, LENGTH))
    result = {}
    for name in names:
        arrays = (problem.params, inputs, targets)
        params, *data = optree.tree_map(backends.get(name).from_numpy, arrays)
        for strategy in strategies:
            oracle = osculant.oracle(
                model=problem.model, loss=problem.loss, params=params, products=strategy
            )
            title = name if strategy == "autodiff" else f"{name}, {strategy}"
            result[title] = (oracle, params, *data)
    return result


def tables(timings: Mapping[str, Mapping[str, Timing]]) -> list[Any]:
    """Return a table of times and one of ratios: a column an oracle, a row a product."""
    milliseconds = _table("Milliseconds", timings, lambda timing: f"{1e3 * timing.seconds:.2f}")
    gradients = _table(
        "In gradients of the same oracle", timings, lambda timing: f"{timing.gradients:.2f}"
    )
    worst = (max(timing.difference for timing in own.values()) for own in timings.values())
    gradients.add_section()
    gradients.add_row("differs by", *(f"{difference:.0e}" for difference in worst))
    return [milliseconds, gradients]


def _table(
    title: str, timings: Mapping[str, Mapping[str, Timing]], cell: Callable[[Timing], str]
) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in timings:
        table.add_column(name.replace(", ", "\n").replace("-", "\n"), justify="right")
    for product in dict.fromkeys(product for own in timings.values() for product in own):
        cells = (cell(own[product]) if product in own else "-" for own in timings.values())
        table.add_row(product, *cells)
    return table
