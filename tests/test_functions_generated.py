"""Functions made at random of the tape's primitives: every backend and strategy must agree on them.

A program is a list of steps on a 3 x 3 matrix. Each step takes one row of the tables under
``backends/tape``, so that a new row is tried here without being named.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import osculant
from osculant.backends.tape.bilinear import BILINEAR
from osculant.backends.tape.elementwise import ELEMENTWISE
from osculant.backends.tape.linear import LINEAR
from osculant.core.arrays import namespace
from osculant.testing.subject import to_numpy
from osculant.testing.support import BACKENDS

SUPPORT = {support.name: support for support in BACKENDS}

#: Linear rows with a function of the same name that maps matrices to matrices, and its options.
OPTIONS: dict[str, dict[str, Any]] = {
    "cumulative_sum": {"axis": 0},
    "flip": {"axis": 1},
    "roll": {"shift": 1, "axis": 0},
    "tril": {},
    "triu": {},
}
#: Arguments lie in [0.1, 0.7], or above one where that is the domain.
SHIFT = {"acosh": 1.0}

Step = Callable[[Any, Any, Any], Any]


def elementwise(name: str) -> Step:
    """Return a step that applies a row to one matrix or two, brought into its domain."""

    def squashed(xp: Any, z: Any) -> Any:
        return SHIFT.get(name, 0.0) + 0.4 + 0.3 * xp.sin(z)

    def step(xp: Any, z: Any, x: Any) -> Any:
        args = [squashed(xp, z), squashed(xp, x * x + 0.5)][: len(ELEMENTWISE[name].d1)]
        return getattr(xp, name)(*args)

    return step


def linear(name: str) -> Step:
    return lambda xp, z, x: getattr(xp, name)(z, **OPTIONS[name])


def bilinear(name: str) -> Step:
    return lambda xp, z, x: getattr(xp, name)(z, x)


def _public(name: str) -> bool:
    return hasattr(namespace(np.ones(1)), name)


STEPS: dict[str, Step] = {
    **{name: elementwise(name) for name in ELEMENTWISE if _public(name)},
    **{name: linear(name) for name in OPTIONS if name in LINEAR},
    **{name: bilinear(name) for name in BILINEAR},
}
programs = st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=4)


def function(program: list[str]) -> Callable[[Any], Any]:
    """Return the program as a scalar function of nine parameters."""

    def fun(x: Any) -> Any:
        xp = namespace(x)
        z = x = xp.reshape(x, (3, 3))
        for name in program:
            z = STEPS[name](xp, z, x)
        return xp.sum(xp.sin(z) * x)

    return fun


X = np.cos(1.0 + np.arange(9.0))
V = np.sin(2.0 * np.arange(9.0))


def derivatives(program: list[str], support: Any, products: str = "autodiff") -> list[np.ndarray]:
    """Return value, gradient, H v and v'H v."""
    with support.context():
        x, v = support.convert(X), support.convert(V)
        point = osculant.oracle(function(program), x, products=products).at(x)
        return [to_numpy(a) for a in (point.value, point.grad, point.hvp(v), point.vhv(v))]


def check(program: list[str], name: str, products: str, rtol: float) -> None:
    expected = derivatives(program, SUPPORT["NumPy"])
    found = derivatives(program, SUPPORT[name], products)
    scale = max(1.0, *(float(np.max(np.abs(a))) for a in expected))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * scale, err_msg=" ".join(program))


#: Backend, strategy, how far it may be off, how many programs: compiling takes long.
WAYS = [
    ("NumPy", "complex-step", 1e-12, 60),
    ("NumPy", "finite-difference", 1e-4, 30),
    ("PyTorch", "autodiff", 1e-12, 40),
    ("PyTorch", "complex-step", 1e-12, 20),
    ("JAX", "autodiff", 1e-12, 3),
    ("JAX", "complex-step", 1e-12, 2),
]


@pytest.mark.parametrize(("name", "products", "rtol", "examples"), WAYS)
def test_backends_and_strategies_agree(
    name: str, products: str, rtol: float, examples: int
) -> None:
    if reason := SUPPORT[name].missing():
        pytest.skip(reason)

    @settings(max_examples=examples, derandomize=True, deadline=None, database=None)
    @given(programs)
    def agree(program: list[str]) -> None:
        check(program, name, products, rtol)

    agree()


@pytest.mark.parametrize("step", sorted(STEPS))
def test_every_step_by_itself(step: str) -> None:
    check([step], "NumPy", "complex-step", 1e-12)
    check([step], "NumPy", "finite-difference", 1e-4)


@pytest.mark.parametrize("part", ["d1", "d2"])
def test_a_wrong_rule_is_found(part: str) -> None:
    """A formula that is one percent off makes the strategies disagree."""
    row = ELEMENTWISE["exp"]
    right, wrong = getattr(row, part), lambda xp, y, x: 1.01 * y
    object.__setattr__(row, part, (wrong,) if part == "d1" else ((wrong,),))
    try:
        with pytest.raises(AssertionError, match="exp"):
            check(["exp"], "NumPy", "finite-difference", 1e-4)
    finally:
        object.__setattr__(row, part, right)
