"""Partitions, and summaries of derivatives over them, against contractions of dense tensors."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import osculant
from osculant.core.arrays import namespace
from osculant.core.partition import Partition, by_depth, canonical, discrete, trivial
from osculant.core.structure import Structure
from osculant.core.summary import summary, third_diagonal
from osculant.testing.subject import to_numpy
from osculant.testing.support import BACKENDS, Support

PRESENT = [support for support in BACKENDS if support.missing() is None]
PARAMS = {
    "bias": np.array([0.3, -0.2]),
    "scale": np.array(0.7),
    "weight": np.array([[0.5, 0.1], [-0.4, 0.9]]),
}
A = np.array([0.4, -0.8, 1.1, 0.3, -0.5, 0.6, 0.2])
U = np.array([1.0, -0.5, 2.0, 0.3, 0.8, -1.2, 0.4])


def fun(params: Any, a: Any) -> Any:
    """Return (a'x)^4 / 24 + sum exp(a x), whose derivatives are dense."""
    xp = namespace(params["bias"])
    x = xp.concat([xp.reshape(params[name], (-1,)) for name in ("bias", "scale", "weight")])
    return xp.sum(x * a) ** 4 / 24.0 + xp.sum(xp.exp(x * a))


def dense(order: int) -> np.ndarray:
    x = Structure(PARAMS).ravel(PARAMS)
    outer = np.array((A @ x) ** (4 - order) / [24, 6, 2, 1][order])
    for _ in range(order):
        outer = np.multiply.outer(outer, A)
    np.einsum("i" * order + "->i", outer)[...] += A**order * np.exp(A * x)
    return outer


GROUPS = {
    "canonical": [[0, 1], [2], [3, 4, 5, 6]],
    "trivial": [[0, 1, 2, 3, 4, 5, 6]],
    "discrete": [[i] for i in range(7)],
    "by_depth": [[3, 4, 5, 6], [0, 1], [2]],
    "own": [[0, 1, 3, 4], [2, 5, 6]],
}


def partition_of(name: str, structure: Structure) -> Partition:
    if name == "own":
        return Partition({"a": [slice(3, 5), slice(0, 2)], "b": [slice(2, 3), slice(5, None)]}, 7)
    if name == "by_depth":
        return by_depth(structure, 2)
    return {"canonical": canonical, "trivial": trivial, "discrete": discrete}[name](structure)


def at(support: Support, dtype: str) -> SimpleNamespace:
    def own(array: np.ndarray) -> Any:
        return support.convert(np.asarray(array, dtype))

    oracle = osculant.oracle(fun, {name: own(leaf) for name, leaf in PARAMS.items()})
    x = own(Structure(PARAMS).ravel(PARAMS))
    return SimpleNamespace(point=oracle.at(x, own(A)), u=own(U), structure=oracle.structure)


@pytest.mark.parametrize("support", PRESENT, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", GROUPS)
def test_summaries_are_contractions(support: Support, dtype: str, name: str) -> None:
    groups = GROUPS[name]
    P = np.array([[i in group for group in groups] for i in range(7)]) * U[:, None]
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    with support.context():
        here = at(support, dtype)
        partition = partition_of(name, here.structure)
        contractions = ["i,ia->a", "ij,ia,jb->ab", "ijk,ia,jb,kc->abc"]
        for order, contraction in enumerate(contractions, 1):
            expected = np.einsum(contraction, dense(order), *[P] * order)
            found = summary(here.point, here.u, partition, order)
            assert found.shape == (len(groups),) * order and found.dtype == here.u.dtype
            np.testing.assert_allclose(to_numpy(found), expected, rtol=tolerance, atol=tolerance)
        diagonal = third_diagonal(here.point, here.u, partition)
        np.testing.assert_allclose(
            to_numpy(diagonal), np.einsum("aaa->a", expected), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("support", PRESENT, ids=str)
def test_products_along_single_tensors_are_those_of_any_vector(support: Support) -> None:
    """One along which nothing moves included: what is left out of a sweep is zero."""
    with support.context():

        def own(array: np.ndarray) -> Any:
            return support.convert(np.asarray(array, "float64"))

        def model(params: Any, inputs: Any) -> Any:
            xp = namespace(params["w"])
            return xp.tanh(xp.matmul(inputs, params["w"]) + params["b"]) * params["c"]

        def loss(outputs: Any, targets: Any) -> Any:
            return namespace(outputs).sum((outputs - targets) ** 4)

        params = {"b": own([0.3, -0.2]), "c": own([1.5, 0.4]), "w": own([[0.5, 0.1], [-0.4, 0.9]])}
        oracle = osculant.oracle(model=model, loss=loss, params=params)
        x, u = oracle.ravel(params), own([1.0, -0.5, 2.0, 0.3, 0.0, 0.0, 0.0, 0.0])
        point = oracle.at(x, own([[1.0, 2.0], [0.5, -1.0]]), own([[0.1, 0.4], [0.2, -0.3]]))
        U = canonical(oracle.structure).restrictions(u)
        for product in (point.hvp, point.jvp):
            expected = [to_numpy(product(U[:, s])) for s in range(3)]
            np.testing.assert_allclose(to_numpy(product(U)).T, expected, rtol=1e-13, atol=1e-14)
        T = [to_numpy(U[:, s]) @ to_numpy(point.dhvp(U[:, s], U[:, s])) for s in range(3)]
        np.testing.assert_allclose(to_numpy(point.third(U)), T, rtol=1e-11)
        assert T[0] and T[1] and not T[2]


@pytest.mark.parametrize("name", GROUPS)
def test_a_summary_adds_up_to_the_taylor_term(name: str) -> None:
    here = at(BACKENDS[0], "float64")
    partition = partition_of(name, here.structure)
    _, *terms = here.point.taylor(here.u, 3)
    totals = [np.sum(summary(here.point, here.u, partition, k)) for k in (1, 2, 3)]
    np.testing.assert_allclose(totals, terms, rtol=1e-13)


def test_restrictions_add_up_and_stay_finite() -> None:
    u = np.array([1.0, np.inf, 3.0, 4.0, 5.0, 6.0, 7.0])
    restricted = canonical(Structure(PARAMS)).restrictions(u)
    np.testing.assert_array_equal(restricted.sum(axis=1), u)
    assert restricted[1, 1] == restricted[1, 2] == 0


def test_names() -> None:
    structure = Structure(PARAMS)
    assert canonical(structure).names == ("bias", "scale", "weight")
    assert trivial(structure).names == ("all",)
    assert discrete(structure).names[:3] == ("bias[0]", "bias[1]", "scale[0]")
    assert by_depth(structure, 2).names == ("weights 1/1", "biases 1/2", "biases 2/2")


def test_depth_is_cut_evenly() -> None:
    layers = [{"b": np.zeros(1), "w": np.zeros((1, 1))} for _ in range(5)]
    partition = by_depth(Structure(layers), 3)
    sizes = partition.restrictions(np.ones(10)).sum(axis=0)
    np.testing.assert_array_equal(sizes, [1, 2, 2, 1, 2, 2])


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": [slice(0, 2)], "b": [slice(1, 3)]}, "after entry 2 comes the piece 1:3 of 'b'"),
        ({"a": [slice(0, 1)], "b": [slice(2, 3)]}, "after entry 1 comes the piece 2:3 of 'b'"),
        ({"a": [slice(0, 2)]}, "entries 2 to 2 of the vector are in no group"),
    ],
)
def test_groups_that_do_not_cover_are_refused(groups: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Partition(groups, 3)


def test_bad_arguments() -> None:
    here = at(BACKENDS[0], "float64")
    with pytest.raises(ValueError, match="order 4 is not implemented"):
        summary(here.point, here.u, trivial(here.structure), 4)
    with pytest.raises(ValueError, match="the direction has shape"):
        summary(here.point, here.u[:-1], trivial(here.structure), 1)
    with pytest.raises(ValueError, match="partition is of 3 parameters, and the point has 7"):
        third_diagonal(here.point, here.u, Partition({"all": [slice(0, 3)]}, 3))
    with pytest.raises(ValueError, match="chunks is 0"):
        by_depth(here.structure, 0)
