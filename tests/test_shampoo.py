"""Shampoo against its formulas in NumPy, and on every backend."""

import numpy as np
import pytest

import osculant
from osculant.core.solvers.shampoo import _preconditioned, _root

RNG = np.random.default_rng(0)
SHAPES = {"bias": (4,), "kernel": (2, 3, 2), "scale": (), "weight": (3, 4)}
PARAMS = {name: RNG.normal(size=shape) for name, shape in SHAPES.items()}
A = RNG.normal(size=(5, 4 + 12 + 1 + 12))


@pytest.fixture(autouse=True)
def same_numbers():
    """The same numbers for a test whatever ran before it."""
    RNG.bit_generator.state = np.random.default_rng(1).bit_generator.state


def fun(tree, A):
    leaves = [tree["bias"], tree["kernel"], tree["scale"], tree["weight"]]
    total, start = 0.0, 0
    for leaf in leaves:
        size = int(np.prod(leaf.shape))
        total = total + A[:, start : start + size] @ leaf.reshape(-1)
        start += size
    return (total**2).mean()


def power(L, exponent):
    w, Q = np.linalg.eigh(L)
    return (Q * w**exponent) @ Q.T


def test_matrix_follows_algorithm_1():
    """L^(-1/4) G R^(-1/4), with L and R as of the gradient just seen."""
    solver = osculant.Shampoo(momentum=0.0, graft="none", period=1, epsilon=1e-2)
    slots = solver.slots(np.zeros(12), [(3, 4)])
    L, R = 1e-2 * np.eye(3), 1e-2 * np.eye(4)
    for _ in range(3):
        G = RNG.normal(size=(3, 4))
        u, slots = solver.propose(slots, G.reshape(-1))
        L, R = L + G @ G.T, R + G.T @ G
        expected = power(L, -1 / 4) @ G @ power(R, -1 / 4)
        np.testing.assert_allclose(u.reshape(3, 4), expected, rtol=1e-10)


def test_tensor_has_a_root_for_each_side():
    G = RNG.normal(size=(2, 3, 4))
    roots = [RNG.normal(size=(n, n)) for n in G.shape]
    expected = np.einsum("abc,ia,jb,kc->ijk", G, *roots)
    np.testing.assert_allclose(_preconditioned(G, tuple(roots)), expected)
    np.testing.assert_allclose(_root(np.diag([16.0, 81.0]), 4), np.diag([1 / 2, 1 / 3]))


def test_long_side_is_diagonal():
    G = RNG.normal(size=(3, 4))
    solver = osculant.Shampoo(momentum=0.0, graft="none", epsilon=1e-2, largest=3)
    u, slots = solver.propose(solver.slots(np.zeros(12), [(3, 4)]), G.reshape(-1))
    R = 1e-2 + (G**2).sum(axis=0)
    L = 1e-2 * np.eye(3) + G @ G.T
    np.testing.assert_allclose(u.reshape(3, 4), power(L, -1 / 4) @ G * R ** (-1 / 4), rtol=1e-10)
    assert [side.shape for side in slots.statistics[0]] == [(3, 3), (4,)]


def test_vector_is_full_matrix_adagrad():
    solver = osculant.Shampoo(momentum=0.0, graft="none", epsilon=1e-2, period=1)
    slots, V = solver.slots(np.zeros(3), [(3,)]), 1e-2 * np.eye(3)
    for g in RNG.normal(size=(3, 3)):
        u, slots = solver.propose(slots, g)
        V += np.outer(g, g)
        np.testing.assert_allclose(u, power(V, -1 / 2) @ g, rtol=1e-9)


@pytest.mark.parametrize(
    ("graft", "length"), [("sgd", lambda g, s: g), ("adagrad", lambda g, s: g / np.sqrt(s))]
)
def test_grafting_takes_the_length_of_the_other_step(graft, length):
    solver = osculant.Shampoo(momentum=0.0, graft=graft)
    slots, squares = solver.slots(np.zeros(16), [(3, 4), (4,)]), np.zeros(16)
    for g in RNG.normal(size=(3, 16)):
        u, slots = solver.propose(slots, g)
        squares += g**2
        for part in (slice(0, 12), slice(12, 16)):
            expected = np.linalg.norm(length(g, squares)[part])
            np.testing.assert_allclose(np.linalg.norm(u[part]), expected, rtol=1e-10)


def test_roots_are_taken_each_period_and_velocity_adds_up():
    solver = osculant.Shampoo(momentum=0.5, graft="none", period=2)
    slots = solver.slots(np.zeros(12), [(3, 4)])
    seen, v = [], np.zeros(12)
    plain = osculant.Shampoo(momentum=0.0, graft="none", period=2)
    bare = plain.slots(np.zeros(12), [(3, 4)])
    for g in RNG.normal(size=(4, 12)):
        u, slots = solver.propose(slots, g)
        w, bare = plain.propose(bare, g)
        v = 0.5 * v + w
        np.testing.assert_allclose(u, v)
        seen.append(slots.roots[0][0])
    assert (seen[0] == seen[1]).all() and (seen[2] == seen[3]).all() and (seen[1] != seen[2]).any()


def test_decayed_statistics():
    solver = osculant.Shampoo(decay=0.9, epsilon=1.0)
    G = RNG.normal(size=(3, 4))
    _, slots = solver.propose(solver.slots(np.zeros(12), [(3, 4)]), G.reshape(-1))
    np.testing.assert_allclose(slots.statistics[0][0], 0.9 * np.eye(3) + 0.1 * G @ G.T)


def test_backends_agree_and_a_zero_gradient_moves_nothing(backend):
    params = {name: backend.from_numpy(p) for name, p in PARAMS.items()}
    data = backend.from_numpy(A)
    runs = [
        osculant.fit(
            osculant.oracle(fun, tree), tree, [(batch,)] * 6, solver=osculant.Shampoo(period=2)
        )
        for tree, batch in ((PARAMS, A), (params, data))
    ]
    np.testing.assert_allclose(runs[1].history["fun"], runs[0].history["fun"], rtol=1e-9)
    assert runs[1].history["fun"][-1] < runs[1].history["fun"][0]
    zero = osculant.fit(osculant.oracle(fun, params), params, [(0 * data,)], solver="shampoo")
    for name, leaf in zero.x.items():
        np.testing.assert_array_equal(backend.to_numpy(leaf), PARAMS[name])


@pytest.mark.parametrize(
    ("name", "value"),
    [("momentum", 1.0), ("decay", 0.0), ("epsilon", 0.0), ("period", 0), ("graft", "adam")],
)
def test_bad_options(name, value):
    with pytest.raises(ValueError, match=name):
        osculant.Shampoo(**{name: value})
