"""The networks: the same on every backend, and what their papers say they are."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import optree
import pytest

import osculant
from osculant import backends
from osculant.problems import Problem, lenet5, resnet18, transformer, vgg11, vgg19

RNG = np.random.default_rng(0)
PHOTOS, LABELS = RNG.standard_normal((2, 3, 32, 32)), np.array([3, 7])
ONE_HOT = np.eye(10)[LABELS]

#: Each small enough for a test, with inputs and targets.
NETWORKS: dict[str, tuple[Problem, np.ndarray, np.ndarray]] = {
    "LeNet-5": (lenet5(width=0.5), RNG.standard_normal((2, 784)), ONE_HOT),
    "VGG-11": (vgg11(width=1 / 32), PHOTOS, ONE_HOT),
    "VGG-19": (vgg19(width=1 / 32), PHOTOS, LABELS),
    "ResNet-18": (resnet18(width=1 / 32), PHOTOS, LABELS),
    "transformer": (
        transformer(7, 6, width=8, heads=2, blocks=2),
        RNG.integers(0, 7, (3, 5)),
        RNG.integers(0, 7, (3, 5)),
    ),
}


@lru_cache
def products(name: str, backend: str, strategy: str = "autodiff") -> dict[str, np.ndarray]:
    problem, *data = NETWORKS[name]
    module = backends.get(backend)
    params = optree.tree_map(module.from_numpy, problem.params)
    oracle = osculant.oracle(
        model=problem.model, loss=problem.loss, params=params, products=strategy
    )
    v = np.random.default_rng(1).standard_normal(oracle.size)
    pt = oracle.at(oracle.ravel(params), *map(module.from_numpy, data))
    V = module.from_numpy(v)
    found = {"value": pt.value, "outputs": pt.outputs, "grad": pt.grad, "hvp": pt.hvp(V)}
    return {product: module.to_numpy(array) for product, array in found.items()}


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=tolerance * float(np.max(np.abs(expected)))
    )


# JAX takes a minute to compile the deeper ones; their parts are compared in test_ops.py.
PAIRS = [(name, "torch", s) for name in NETWORKS for s in ("autodiff", "complex-step")]
PAIRS += [(name, "numpy", "complex-step") for name in NETWORKS]
PAIRS += [(name, "jax", "autodiff") for name in ("LeNet-5", "transformer")]


@pytest.mark.parametrize(("name", "backend", "strategy"), PAIRS)
def test_backends_agree(name: str, backend: str, strategy: str) -> None:
    if reason := backends.available()[backend]:
        pytest.skip(reason)
    expected, found = products(name, "numpy"), products(name, backend, strategy)
    for product, array in found.items():
        assert_close(array, expected[product], 1e-10 if product == "hvp" else 1e-12)


@pytest.mark.parametrize("name", ["VGG-11", "VGG-19", "ResNet-18"])
def test_outputs_on_jax(name: str) -> None:
    pytest.importorskip("jax")
    problem, inputs, _ = NETWORKS[name]
    module = backends.get("jax")
    params = optree.tree_map(module.from_numpy, problem.params)
    outputs = module.to_numpy(problem.model(params, module.from_numpy(inputs)))
    assert_close(outputs.reshape(-1), products(name, "numpy")["outputs"], 1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_hessian_products_are_differences_of_gradients(name: str) -> None:
    """Of a network whose kinks a short step does not cross."""
    problem, *data = NETWORKS[name]
    oracle = osculant.oracle(model=problem.model, loss=problem.loss, params=problem.params)
    x = oracle.ravel(problem.params)
    v, h = np.random.default_rng(1).standard_normal(oracle.size), 1e-7
    ahead, behind = (oracle.at(x + t * v, *data).grad for t in (h, -h))
    assert_close((ahead - behind) / (2 * h), products(name, "numpy")["hvp"], 2e-6)


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (lambda: lenet5(), 61_706),
        (lambda: vgg11(), 9_228_362),
        (lambda: vgg19(), 20_029_514),
        (lambda: resnet18(), 11_173_962),
        (lambda: transformer(10, 6, width=8), 16 * 8 + 12 * 64 + 13 * 8 + 2 * 8 + 90),
    ],
)
def test_numbers_of_parameters(problem: Any, expected: int) -> None:
    """As published for CIFAR-10 variants, or counted by hand."""
    leaves = optree.tree_leaves(problem().params)
    assert sum(leaf.size for leaf in leaves) == expected


def test_torch_agrees_about_lenet() -> None:
    """The same network of PyTorch's own layers, given the same parameters."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    layers = {
        "conv1": nn.Conv2d(1, 3, 5, padding=2),
        "conv2": nn.Conv2d(3, 8, 5),
        "dense1": nn.Linear(200, 60),
        "dense2": nn.Linear(60, 42),
        "dense3": nn.Linear(42, 10),
    }
    problem, inputs, _ = NETWORKS["LeNet-5"]
    for name, layer in layers.items():
        weight = problem.params[name]["weight"]
        layer.weight.data = torch.tensor(weight if weight.ndim == 4 else weight.T)
        layer.bias.data = torch.tensor(problem.params[name]["bias"])
    conv1, conv2, *dense = layers.values()
    model = nn.Sequential(
        *(conv1, nn.Tanh(), nn.AvgPool2d(2), conv2, nn.Tanh(), nn.AvgPool2d(2), nn.Flatten()),
        *(dense[0], nn.Tanh(), dense[1], nn.Tanh(), dense[2]),
    )
    expected = model(torch.tensor(inputs.reshape(2, 1, 28, 28))).detach().numpy()
    assert_close(problem.model(problem.params, inputs), expected, 1e-13)


def test_the_transformer_is_causal() -> None:
    problem, tokens, _ = NETWORKS["transformer"]
    changed = tokens.copy()
    changed[:, 3] = (changed[:, 3] + 1) % 7
    before, after = (problem.model(problem.params, each) for each in (tokens, changed))
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert np.all(np.abs(before - after)[:, 3:].max(axis=(0, 2)) > 1e-6)


def test_rows_of_pixels_are_images() -> None:
    problem, inputs, _ = NETWORKS["VGG-11"]
    flat = problem.model(problem.params, inputs.reshape(2, -1))
    np.testing.assert_array_equal(flat, problem.model(problem.params, inputs))


def test_seeds_and_dtypes() -> None:
    first, again, other = (lenet5(seed=seed, dtype=np.float32) for seed in (1, 1, 2))
    same, different = (
        optree.tree_map(np.array_equal, first.params, each.params) for each in (again, other)
    )
    assert all(optree.tree_leaves(same)) and not all(optree.tree_leaves(different))
    assert {leaf.dtype for leaf in optree.tree_leaves(first.params)} == {np.dtype(np.float32)}
    assert first.model(first.params, np.ones((1, 784), np.float32)).dtype == np.float32


def test_lenet_learns_digits() -> None:
    data = osculant.problems.digits()
    problem = lenet5(image=(1, 12, 12), width=0.5)
    images = np.pad(data.train.inputs.reshape(-1, 8, 8), ((0, 0), (2, 2), (2, 2)))[:200]
    batch = (images.reshape(200, -1), data.train.targets[:200])
    oracle = osculant.oracle(model=problem.model, loss=problem.loss, params=problem.params)
    solution = osculant.minimize(oracle, problem.params, args=batch, maxiter=30)
    assert solution.fun < 0.5 < 2 < oracle.value(oracle.ravel(problem.params), *batch)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lenet5(image=(1, 8, 8)), "12 x 12 or more, not 8 x 8"),
        (lambda: vgg11(image=(3, 48, 32)), "48 x 32 is no multiple of 32"),
        (lambda: transformer(5, 5, width=10, heads=4), "4 heads do not divide a width of 10"),
    ],
)
def test_errors(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
