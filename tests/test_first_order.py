"""First-order methods: PyTorch's own as reference, one proposal interface, what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import osculant
from osculant.core.arrays import namespace
from osculant.core.result import Status
from osculant.core.solvers.first_order import SGD, Adagrad, Adam, FirstOrder, RMSProp

METHODS = {
    "sgd": (SGD(learning_rate=1e-3), "SGD", {}),
    "momentum": (SGD(learning_rate=1e-3, momentum=0.9), "SGD", {"momentum": 0.9}),
    "dampening": (
        SGD(learning_rate=1e-2, momentum=0.9, dampening=0.8),
        "SGD",
        {"momentum": 0.9, "dampening": 0.8},
    ),
    "nesterov": (
        SGD(learning_rate=1e-3, momentum=0.9, nesterov=True),
        "SGD",
        {"momentum": 0.9, "nesterov": True},
    ),
    "adagrad": (Adagrad(learning_rate=0.1, epsilon=1e-10), "Adagrad", {"eps": 1e-10}),
    "rmsprop": (
        RMSProp(learning_rate=0.02, decay=0.99, epsilon=1e-6),
        "RMSprop",
        {"alpha": 0.99, "eps": 1e-6},
    ),
    "adam": (
        Adam(learning_rate=0.05, beta1=0.8, beta2=0.99, epsilon=1e-7),
        "Adam",
        {"betas": (0.8, 0.99), "eps": 1e-7},
    ),
}
START = np.array([-1.2, 1.0, 0.7])


def fun(x: Any, a: Any) -> Any:
    """Return Rosenbrock's function plus a'x, so that every step has data of its own."""
    xp = namespace(x)
    return xp.sum(10 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2) + xp.sum(a * x)


def slopes(n: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 3))


def trajectory(solver: FirstOrder, backend: Any, n: int, jit: bool = False) -> np.ndarray:
    x = backend.from_numpy(START)
    oracle = osculant.oracle(fun, x)
    step = oracle.flow.jit(type(solver).step, static=(0, 1)) if jit else type(solver).step
    state, places = solver.init(oracle, x), []
    for a in slopes(n):
        state = step(solver, oracle, state, backend.from_numpy(a))
        places.append(backend.to_numpy(state.x))
    return np.array(places)


@pytest.mark.parametrize("jit", [True, False], ids=["jit", "eager"])
@pytest.mark.parametrize("name", METHODS)
def test_fifty_steps_are_those_of_torch_optim(backend: Any, name: str, jit: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the reference")
    solver, theirs, options = METHODS[name]
    x = torch.tensor(START, requires_grad=True)
    optimizer = getattr(torch.optim, theirs)([x], lr=solver.learning_rate, **options)
    expected = []
    for a in slopes(50):
        optimizer.zero_grad()
        fun(x, torch.tensor(a)).backward()
        optimizer.step()
        expected.append(x.detach().numpy().copy())
    np.testing.assert_allclose(
        trajectory(solver, backend, 50, jit), expected, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_proposal_is_pure_and_is_what_the_step_takes(name: str) -> None:
    solver, *_ = METHODS[name]
    oracle = osculant.oracle(fun, START)
    state = solver.init(oracle, START)
    for a in slopes(3):
        g = oracle.at(state.x, a).grad
        u, slots = solver.propose(state.slots, g.copy())
        again, _ = solver.propose(state.slots, g)
        np.testing.assert_array_equal(u, again)
        after = solver.step(oracle, state, a)
        np.testing.assert_array_equal(after.x, state.x - solver.learning_rate * u)
        for mine, its in zip(_leaves(slots), _leaves(after.slots), strict=True):
            np.testing.assert_array_equal(mine, its)
        state = after


def _leaves(tree: Any) -> list[Any]:
    return [leaf for t in tree for leaf in _leaves(t)] if isinstance(tree, tuple) else [tree]


@pytest.mark.parametrize("name", METHODS)
def test_a_gradient_that_is_not_finite_changes_nothing(backend: Any, name: str) -> None:
    solver, *_ = METHODS[name]
    x = backend.from_numpy(START)
    oracle = osculant.oracle(fun, x)
    before = solver.step(oracle, solver.init(oracle, x), backend.from_numpy(slopes(1)[0]))
    after = solver.step(oracle, before, backend.from_numpy(np.array([1.0, np.nan, 0.0])))
    assert int(after.status) == Status.NOT_FINITE and int(after.counts.gradients) == 2
    for old, new in zip(_leaves(before.slots), _leaves(after.slots), strict=True):
        np.testing.assert_array_equal(backend.to_numpy(old), backend.to_numpy(new))
    np.testing.assert_array_equal(backend.to_numpy(before.x), backend.to_numpy(after.x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(learning_rate=0.0), "learning_rate is 0.0; it must be positive"),
        (lambda: SGD(momentum=1.0), "momentum is 1.0"),
        (lambda: SGD(momentum=0.5, dampening=2.0), "dampening 2.0"),
        (lambda: SGD(nesterov=True), "needs a momentum above 0"),
        (lambda: Adam(beta1=1.0), "beta1 is 1.0"),
        (lambda: Adam(beta2=1.0), "beta2 is 1.0"),
        (lambda: RMSProp(decay=-0.1), "decay is -0.1"),
        (lambda: Adagrad(epsilon=0.0), "epsilon is 0.0"),
    ],
)
def test_options_out_of_range_say_what_is_allowed(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
