"""What the products of oracles cost in seconds, one beside the other."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from ..core.arrays import Array, as_like, device_of, namespace
from ..core.oracle import Oracle, Product
from .subject import to_numpy

#: Columns of the product that takes several at once.
COLUMNS = 8
#: The products that are timed, by what :class:`~osculant.Point` calls them.
PRODUCTS = ("hvp", "vhv", "ggn", "vgv", "jvp", "vjp", "third")


class Timing(NamedTuple):
    """What one product of one oracle costs."""

    seconds: float
    """Median of the repeats."""
    gradients: float
    """In units of the same oracle's ``at`` and ``grad``."""
    difference: float
    """Largest difference from the result of the first oracle, in units of its largest entry."""


def time_products(
    subjects: Mapping[str, tuple[Any, ...]],
    *,
    repeats: int = 10,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, dict[str, Timing]]:
    """Time the value, the gradient and each product of several oracles, in turns.

    A product is one more at a point that is linearised already. A call ends when its result is
    there, on a GPU, too; the first of each, which may compile, is not timed.

    Parameters
    ----------
    subjects : mapping of str to tuple
        By name ``(oracle, params, *data)``. To be compared they are to be the same function, of the
        same parameters in different arrays, or by different strategies.
    repeats : int
        Each of them times everything of every subject once: a busy machine slows all alike.
    seed : int
        Of the vectors, which are the same for all.
    clock : callable
        Returns seconds.

    Returns
    -------
    dict
        By name of subject, then ``"value"``, ``"gradient"``, ``"hvp"``, ``"hvp of 8"``, ``"vhv"``,
        and, if the oracle has them, ``"ggn"``, ``"vgv"``, ``"jvp"``, ``"vjp"``, ``"third"``.

    Raises
    ------
    TypeError
        If a subject is not such a tuple.
    ValueError
        If there is no subject, or ``repeats`` is less than 1.

    Examples
    --------
    >>> import numpy as np, osculant.testing
    >>> def fun(x):
    ...     return (x**4).sum()
    >>> x = np.ones(1000)
    >>> timings = osculant.testing.time_products(
    ...     {
    ...         "tape": (osculant.oracle(fun, x), x),
    ...         "complex step": (osculant.oracle(fun, x, products="complex-step"), x),
    ...     }
    ... )
    >>> timings["complex step"]["hvp"].difference < 1e-15
    True
    """
    if not subjects:
        raise ValueError("there is nothing to time: give subjects={name: (oracle, params, *data)}")
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}; it must be at least 1")
    for name, subject in subjects.items():
        if not isinstance(subject, tuple) or not isinstance(subject[0], Oracle):
            raise TypeError(f"{name!r} is no tuple (oracle, params, *data)")
    calls = {name: _calls(*subject, seed=seed) for name, subject in subjects.items()}
    results = {  # which compiles
        name: {product: to_numpy(call()) for product, call in own.items()}
        for name, own in calls.items()
    }
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(repeats):
        for name, own in calls.items():
            for product, call in own.items():
                began = clock()
                _wait_for(call())
                seconds[name, product].append(clock() - began)

    def timing(name: str, product: str) -> Timing:
        first = next(own[product] for own in results.values() if product in own)
        own, gradient = median(seconds[name, product]), median(seconds[name, "gradient"])
        return Timing(own, own / gradient, _difference(results[name][product], first))

    return {name: {product: timing(name, product) for product in calls[name]} for name in calls}


def _wait_for(result: Array) -> None:
    """Return when ``result`` is there: JAX and accelerators compute in the background."""
    if hasattr(result, "block_until_ready"):
        result.block_until_ready()
    elif "cpu" not in str(device_of(result)).lower():
        float(namespace(result).reshape(result, (-1,))[0])


def _difference(result: np.ndarray, first: np.ndarray) -> float:
    """Return the largest difference between two results, over the largest entry of the second."""
    scale = float(np.max(np.abs(first)))
    difference = float(np.max(np.abs(result - first)))
    return difference / scale if scale else difference


def _calls(oracle: Oracle, params: Any, *data: Any, seed: int) -> dict[str, Callable[[], Array]]:
    """Return what is timed, by name. The point of the products is linearised here."""
    rng = np.random.default_rng(seed)
    x = oracle.ravel(params)
    pt = oracle.at(x, *data)
    v, V = (as_like(x, rng.standard_normal((oracle.size, *k))) for k in ((), (COLUMNS,)))
    calls: dict[str, Callable[[], Array]] = {
        "value": lambda: oracle.value(x, *data),
        "gradient": lambda: oracle.at(x, *data).grad,
    }
    for name in PRODUCTS:
        if Product(name) in oracle.products:
            product = getattr(pt, name)
            u = as_like(x, rng.standard_normal(math.prod(pt.output_shape))) if name == "vjp" else v
            calls[name] = partial(product, u)
            if name == "hvp":
                calls[f"hvp of {COLUMNS}"] = partial(product, V)
    return calls
