"""Matrix-free diagnostics against dense linear algebra; errors against what they promise."""

from __future__ import annotations

import math
import re
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

import osculant
from osculant import diagnostics
from osculant.core.arrays import Array, namespace
from osculant.core.diagnostics.probes import sign_blocks, signs
from osculant.testing.subject import to_numpy
from osculant.testing.support import BACKENDS, Support

PRESENT = [support for support in BACKENDS if support.missing() is None]


def symmetric(n: int, seed: int = 0, decay: float = 0.0) -> np.ndarray:
    """Return a matrix with eigenvalues of both signs that fall off as i^-decay."""
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    values = np.arange(1.0, n + 1) ** -decay * np.where(np.arange(n) % 3, 1.0, -1.0)
    A = Q * values @ Q.T
    return (A + A.T) / 2


def covered(estimates: Any, truth: float) -> float:
    """Return how often the truth lies within 1.96 standard errors."""
    return float(np.mean([abs(e.value - truth) <= 1.96 * e.standard_error for e in estimates]))


# One seed, every framework -----------------------------------------------------------------

FUNCTIONS = {
    "trace": lambda A: diagnostics.trace(A, seed=3),
    "diagonal": lambda A: diagnostics.diagonal(A, seed=3),
    "frobenius_norm": lambda A: diagnostics.frobenius_norm(A, seed=3),
    "hutchpp": lambda A: diagnostics.hutchpp(A, samples=3, seed=3),
    "diagonal_mass": lambda A: diagnostics.diagonal_mass(A, columns=5, seed=3),
    "eigenvalues": lambda A: diagnostics.eigenpairs(A, 4, seed=3).values,
    "spectral_density": lambda A: diagnostics.spectral_density(A, steps=3, samples=3)[:3],
}


def quartic(x: Array, B: Array) -> Array:
    """Return sum (B x)^4 / 12, with the Hessian B' diag(B x)^2 B."""
    xp = namespace(x)
    return xp.sum(xp.matmul(B, x) ** 4) / 12.0


@pytest.mark.parametrize("support", PRESENT, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_seed_gives_the_same_everywhere(support: Support, dtype: str, name: str) -> None:
    rng = np.random.default_rng(5)
    B, x = rng.standard_normal((8, 8)), rng.standard_normal(8)
    expected = FUNCTIONS[name](B.T * (B @ x) ** 2 @ B)
    with support.context():
        own_B, own_x = (support.convert(a.astype(dtype)) for a in (B, x))
        point = osculant.oracle(quartic, own_x).at(own_x, own_B)
        found = FUNCTIONS[name](point.H)
        if not isinstance(expected, tuple):
            found, expected = (found,), (expected,)
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == own_x.dtype
            scale = float(np.max(np.abs(other)))
            tolerance = 2e-4 if dtype == "float32" else 1e-9
            np.testing.assert_allclose(to_numpy(one), other, rtol=tolerance, atol=tolerance * scale)


def test_signs_do_not_depend_on_the_blocks() -> None:
    A = np.eye(13)
    whole = np.concatenate(list(sign_blocks(A, 10, 0, 10)), axis=1)
    parts = np.concatenate(list(sign_blocks(A, 10, 0, 3)), axis=1)
    np.testing.assert_array_equal(whole, parts)
    assert whole.shape == (13, 10)
    assert not np.array_equal(whole, next(sign_blocks(A, 10, 1, 10)))


def test_signs_are_independent() -> None:
    V = signs(np.zeros(0), 4000, 3, Random(0))
    assert set(np.unique(V)) == {-1.0, 1.0}
    assert np.max(np.abs(V.T @ V / 4000 - np.eye(3))) < 4 / math.sqrt(4000)
    assert np.max(np.abs(V.mean(axis=0))) < 4 / math.sqrt(4000)


# Standard errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimate", "truth"),
    [
        (diagnostics.trace, np.trace),
        (diagnostics.frobenius_norm, np.linalg.norm),
        (lambda A, seed: diagnostics.hutchpp(A, samples=16, seed=seed), np.trace),
        (lambda A, seed: diagnostics.diagonal_mass(A, columns=20, seed=seed),
         lambda A: np.sum(np.abs(np.diag(A))) / np.sum(np.abs(A))),
    ],
    ids=["trace", "frobenius_norm", "hutchpp", "diagonal_mass"],
)  # fmt: skip
def test_errors_are_calibrated(estimate: Any, truth: Any) -> None:
    """Over 200 seeds: 95 % within 1.96 errors, and no bias."""
    A = symmetric(50, decay=0.5) + np.diag(np.linspace(0, 0.2, 50))
    estimates = [estimate(A, seed=seed) for seed in range(200)]
    values = np.array([e.value for e in estimates])
    assert 0.88 <= covered(estimates, truth(A)) <= 0.99
    spread = np.std(values)
    assert abs(values.mean() - truth(A)) < 3 * spread / math.sqrt(200)
    np.testing.assert_allclose(np.mean([e.standard_error for e in estimates]), spread, rtol=0.2)


def test_errors_of_the_diagonal_are_calibrated() -> None:
    A = symmetric(40)
    estimates = [diagnostics.diagonal(A, seed=seed) for seed in range(200)]
    for i in (0, 17, 39):
        entries = [diagnostics.Estimate(e.value[i], e.standard_error[i]) for e in estimates]
        assert 0.88 <= covered(entries, A[i, i]) <= 0.99
    blocks = diagnostics.diagonal(A, seed=0, at_once=5)
    for one, other in zip(estimates[0], blocks, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_errors_of_the_density_are_calibrated() -> None:
    A = symmetric(60, decay=0.3)
    values = np.linalg.eigvalsh(A)
    places, width = np.array([-0.5, 0.3, 0.7]), 0.15
    truth = np.mean(
        np.exp(-0.5 * ((places[:, None] - values) / width) ** 2), axis=1
    ) / (width * math.sqrt(2 * math.pi))  # fmt: skip
    runs = [
        diagnostics.spectral_density(A, steps=30, samples=16, seed=seed, points=places, width=width)
        for seed in range(200)
    ]
    for i in range(3):
        estimates = [diagnostics.Estimate(r.value[i], r.standard_error[i]) for r in runs]
        assert 0.86 <= covered(estimates, truth[i]) <= 0.99


# Closed forms ------------------------------------------------------------------------------


def test_a_diagonal_matrix_has_no_error() -> None:
    d = np.array([3.0, -1.0, 0.5])
    np.testing.assert_allclose(diagnostics.trace(np.diag(d)), (2.5, 0.0), atol=1e-15)
    np.testing.assert_allclose(diagnostics.diagonal(np.diag(d)), (d, 0 * d), atol=1e-15)
    np.testing.assert_allclose(diagnostics.diagonal_mass(np.diag(d)), (1.0, 0.0), atol=1e-15)


def test_hutchpp_is_exact_for_low_rank() -> None:
    B = np.random.default_rng(0).standard_normal((40, 5))
    A = B * [1.0, -2, 3, 4, 5] @ B.T
    value, error = diagnostics.hutchpp(A, samples=8)
    np.testing.assert_allclose(value, np.trace(A), rtol=1e-10)
    assert error < 1e-9 * abs(value)
    assert diagnostics.hutchpp(np.zeros((4, 4)), samples=3) == (0.0, 0.0)


def test_hutchpp_beats_hutchinson_at_equal_cost_where_the_spectrum_falls_off() -> None:
    A = symmetric(100, decay=2.0)
    errors = [
        np.sqrt(np.mean([(e(seed) - np.trace(A)) ** 2 for seed in range(20)]))
        for e in (
            lambda seed: diagnostics.hutchpp(A, samples=11, seed=seed).value,
            lambda seed: diagnostics.trace(A, samples=33, seed=seed).value,
        )
    ]
    assert errors[0] < errors[1] / 10


# Spectra -----------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["magnitude", "largest", "smallest"])
@pytest.mark.parametrize("k", [1, 4])
def test_eigenpairs(which: str, k: int) -> None:
    A = symmetric(80, decay=0.7)
    values = np.linalg.eigvalsh(A)
    key = {"magnitude": -np.abs(values), "largest": -values, "smallest": values}[which]
    found = diagnostics.eigenpairs(A, k, which=which)
    np.testing.assert_allclose(found.values, values[np.argsort(key)][:k], rtol=1e-12)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(k), atol=1e-12)
    true = np.linalg.norm(A @ found.vectors - found.vectors * found.values, axis=0)
    np.testing.assert_allclose(found.residuals, true, rtol=1e-3, atol=1e-13)
    assert np.max(found.residuals) <= 1.5e-8 * np.max(np.abs(values))
    assert found.products <= 80


def test_eigenvalues_that_are_repeated_are_found_as_often() -> None:
    Q, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((30, 30)))
    A = Q * np.array([5.0, 5.0, 5.0] + [1.0] * 27) @ Q.T
    found = diagnostics.eigenpairs(A, 4)
    np.testing.assert_allclose(found.values, [5, 5, 5, 1], rtol=1e-12)


def test_eigenpairs_of_a_small_budget_say_how_far_off_they_are() -> None:
    A = symmetric(200, decay=0.2)
    found = diagnostics.eigenpairs(A, 2, products=11)
    assert found.products == 11
    values = np.linalg.eigvalsh(A)
    assert np.max(found.residuals) > 1e-3
    for value, residual in zip(found.values, found.residuals, strict=True):
        assert np.min(np.abs(values - value)) <= residual


@pytest.mark.parametrize("A", [np.zeros((5, 5)), 3.0 * np.eye(5), np.ones((5, 5))])
def test_degenerate_matrices(A: np.ndarray) -> None:
    values = np.linalg.eigvalsh(A)
    found = diagnostics.eigenpairs(A, 5, which="smallest")
    np.testing.assert_allclose(found.values, values, atol=1e-13)
    density = diagnostics.spectral_density(A, samples=4)
    assert all(np.all(np.isfinite(each)) for each in density)
    held = density.weights > 1e-12
    nearest = np.min(np.abs(density.nodes[held][:, None] - values), axis=1)
    np.testing.assert_allclose(nearest, 0.0, atol=1e-12)
    np.testing.assert_allclose(density.weights.sum(axis=1), 1.0)


@pytest.mark.parametrize("m", [1, 5])
def test_lanczos_quadrature_is_exact_for_polynomials(m: int) -> None:
    A = symmetric(30)
    density = diagnostics.spectral_density(A, steps=m, samples=3, seed=2)
    V = next(sign_blocks(A, 3, 2, 3)) / math.sqrt(30)
    for power in range(2 * m):
        moments = np.sum(density.weights * density.nodes**power, axis=1)
        exact = np.sum(V * (np.linalg.matrix_power(A, power) @ V), axis=0)
        np.testing.assert_allclose(moments, exact, rtol=1e-11, atol=1e-12)


def test_a_density_has_the_integral_one() -> None:
    density = diagnostics.spectral_density(symmetric(40), points=400)
    total = np.sum((density.value[1:] + density.value[:-1]) / 2 * np.diff(density.points))
    np.testing.assert_allclose(total, 1.0, rtol=1e-3)


# Diagonal mass -----------------------------------------------------------------------------


def test_diagonal_mass_is_that_of_the_dense_matrix() -> None:
    A = symmetric(30)
    expected = np.sum(np.abs(np.diag(A))) / np.sum(np.abs(A))
    for at_once in (1, 7, 64):
        value, error = diagnostics.diagonal_mass(A, at_once=at_once)
        np.testing.assert_allclose(value, expected, rtol=1e-13)
        assert error == 0
    assert diagnostics.diagonal_mass(np.zeros((3, 3))).value == 0


@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_proposition_1(ratio: float) -> None:
    """The Hessians of w'Ww / 2 for Gaussian Wigner matrices W."""
    d, draws, rng = 24, 300, np.random.default_rng(0)
    oracle = osculant.oracle(lambda w, W: w @ (W @ w) / 2, np.zeros(d))
    expected_absolute = np.zeros((d, d))
    for _ in range(draws):
        upper = np.triu(ratio * rng.standard_normal((d, d)), 1)
        W = upper + upper.T + np.diag(rng.standard_normal(d))
        expected_absolute += np.abs(oracle.at(np.zeros(d), W).hvp(np.eye(d))) / draws
    found = diagnostics.diagonal_mass(expected_absolute).value
    np.testing.assert_allclose(found, diagnostics.wigner_diagonal_mass(d, ratio), rtol=0.02)


def test_proposition_2() -> None:
    """The Hessians of least squares with random inputs of any distribution."""
    d, n, draws, rng = 16, 256, 100, np.random.default_rng(0)

    def half_squares(w: Array, X: Array) -> Array:
        return np.sum((X.T @ w) ** 2) / 2

    oracle = osculant.oracle(half_squares, np.zeros(d))
    expected_absolute = np.zeros((d, d))
    for _ in range(draws):
        X = rng.uniform(-1, 1, (d, n))
        expected_absolute += np.abs(oracle.at(np.zeros(d), X).hvp(np.eye(d))) / draws
    found = diagnostics.diagonal_mass(expected_absolute).value
    np.testing.assert_allclose(found, diagnostics.ols_diagonal_mass(d, n), rtol=0.01)


def test_the_mass_of_a_hessian_falls_with_its_size_as_the_propositions_say() -> None:
    rng = np.random.default_rng(1)
    for d in (50, 200):
        upper = np.triu(rng.standard_normal((d, d)), 1)
        H = osculant.oracle(lambda w, W: w @ (W @ w) / 2, np.zeros(d)).at(
            np.zeros(d), upper + upper.T + np.diag(rng.standard_normal(d))
        ).H  # fmt: skip
        value, error = diagnostics.diagonal_mass(H, columns=d // 2)
        assert abs(value - diagnostics.wigner_diagonal_mass(d)) < 4 * error


# Fisher ------------------------------------------------------------------------------------

N, C, D = 7, 3, 4


def network(params: Any, inputs: Array) -> Array:
    xp = namespace(params["W"])
    return xp.matmul(xp.tanh(xp.matmul(inputs, params["W"])), params["V"])


def cross_entropy(logits: Array, targets: Array) -> Array:
    xp = namespace(logits)
    shifted = logits - xp.max(logits, axis=1, keepdims=True)
    logs = shifted - xp.log(xp.sum(xp.exp(shifted), axis=1, keepdims=True))
    return -xp.mean(xp.sum(logs * targets, axis=1))


def half_square(z: Array, y: Array) -> Array:
    xp = namespace(z)
    return xp.sum((z - y) ** 2) / (2.0 * z.shape[0])


def example(
    convert: Any = np.asarray, loss: Any = cross_entropy, products: str = "autodiff"
) -> tuple[Any, Array, Any]:
    rng = np.random.default_rng(0)
    params = {
        "V": convert(rng.standard_normal((2, C))),
        "W": convert(rng.standard_normal((D, 2))),
    }
    data = [convert(rng.standard_normal((N, D))), convert(np.eye(C)[rng.integers(0, C, N)])]
    oracle = osculant.oracle(model=network, loss=loss, params=params, products=products)
    return oracle, oracle.ravel(params), data


def gradients() -> np.ndarray:
    """Return the gradient of each sample's loss, as rows."""
    oracle, x, data = example()
    return np.stack([oracle.at(x, *(a[i : i + 1] for a in data)).grad for i in range(N)])


@pytest.mark.parametrize("products", ["autodiff", "complex-step"])
def test_the_empirical_fisher_is_the_mean_of_outer_products(backend: Any, products: str) -> None:
    oracle, x, data = example(backend.from_numpy, products=products)
    g = gradients()
    point = oracle.at(x, *data)
    np.testing.assert_allclose(
        backend.to_numpy(point.vjp(point.loss_grad)), backend.to_numpy(point.grad), rtol=1e-12
    )
    V = np.random.default_rng(1).standard_normal((g.shape[1], 3))
    own = backend.from_numpy(V)
    F = diagnostics.empirical_fisher(point)
    np.testing.assert_allclose(backend.to_numpy(F @ own), g.T @ g @ V / N, rtol=1e-11, atol=1e-13)
    one = backend.to_numpy((F + 0.5) @ own[:, 0])
    np.testing.assert_allclose(one, g.T @ g @ V[:, 0] / N + 0.5 * V[:, 0], rtol=1e-11)


def test_the_trace_of_a_fisher() -> None:
    oracle, x, data = example()
    F = diagnostics.empirical_fisher(oracle.at(x, *data))
    estimate = diagnostics.trace(F, samples=200)
    assert abs(estimate.value - np.sum(gradients() ** 2) / N) < 3 * estimate.standard_error


def test_reductions() -> None:
    oracle, x, data = example()
    total = osculant.oracle(
        model=network, loss=lambda z, y: N * cross_entropy(z, y), params=oracle.unravel(x)
    )
    v = np.cos(np.arange(x.size))
    np.testing.assert_allclose(
        diagnostics.empirical_fisher(total.at(x, *data), reduction="sum") @ v,
        N * (diagnostics.empirical_fisher(oracle.at(x, *data)) @ v),
        rtol=1e-12,
    )


@pytest.mark.parametrize(
    ("loss", "draw"),
    [(cross_entropy, diagnostics.categorical), (half_square, diagnostics.gaussian)],
)
def test_the_monte_carlo_fisher_is_unbiased_for_gauss_newton(loss: Any, draw: Any) -> None:
    oracle, x, data = example(loss=loss)
    eye = np.eye(x.size)
    G = oracle.at(x, *data).ggn(eye)
    samples = [
        diagnostics.monte_carlo_fisher(oracle, x, *data, draw=draw, seed=seed) @ eye
        for seed in range(300)
    ]
    error = np.std(samples, axis=0, ddof=1) / math.sqrt(300)
    assert np.max(np.abs(np.mean(samples, axis=0) - G) / (error + 1e-12)) < 4
    many = diagnostics.monte_carlo_fisher(oracle, x, *data, draw=draw, draws=300) @ eye
    assert np.max(np.abs(many - G) / (error + 1e-12)) < 4.5
    empirical = diagnostics.empirical_fisher(oracle.at(x, *data)) @ eye
    assert np.max(np.abs(empirical - G) / (error + 1e-12)) > 6  # which it is not


def test_the_monte_carlo_fisher_is_the_same_on_every_framework(backend: Any) -> None:
    results = []
    for convert in (np.asarray, backend.from_numpy):
        oracle, x, data = example(convert)
        F = diagnostics.monte_carlo_fisher(oracle, x, *data, draw=diagnostics.categorical, draws=3)
        v = convert(np.cos(np.arange(14.0)))
        results.append(np.asarray(F @ v))
    np.testing.assert_allclose(*results, rtol=1e-11)


def test_draws_have_the_distribution_of_the_outputs() -> None:
    logits = np.tile(np.log([[0.1, 0.6, 0.3]]) + 5.0, (4000, 1))
    targets = diagnostics.categorical(logits, 0)
    np.testing.assert_array_equal(targets.sum(axis=1), 1.0)
    p = np.array([0.1, 0.6, 0.3])
    assert np.all(np.abs(targets.mean(axis=0) - p) < 4 * np.sqrt(p * (1 - p) / 4000))
    noise = diagnostics.gaussian(np.full((2000, 2), 3.0), 1) - 3.0
    assert abs(noise.mean()) < 4 / math.sqrt(4000)
    assert abs(np.mean(noise**2) - 1) < 4 * math.sqrt(2 / 4000)


# Errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda A: diagnostics.trace(A, samples=1), ValueError, "samples is 1; an integer of at"),
        (lambda A: diagnostics.trace(A, at_once=0), ValueError, "at_once is 0"),
        (lambda A: diagnostics.trace(A[:2]), ValueError, r"shape \(2, 3\); a symmetric one"),
        (lambda A: diagnostics.trace("A"), TypeError, "matrix is a str"),
        (lambda A: diagnostics.trace(A.astype(int)), TypeError, "real floating point"),
        (lambda A: diagnostics.hutchpp(A, samples=4), ValueError, "at least 2 and at most 3"),
        (lambda A: diagnostics.eigenpairs(A, 4), ValueError, "k is 4"),
        (lambda A: diagnostics.eigenpairs(A, 2, products=1), ValueError, "products is 1"),
        (lambda A: diagnostics.eigenpairs(A, which="LM"), ValueError, "which is 'LM'"),
        (lambda A: diagnostics.spectral_density(A, samples=1), ValueError, "samples is 1"),
        (lambda A: diagnostics.diagonal_mass(A, columns=1), ValueError, "columns is 1"),
    ],
)
def test_bad_arguments(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(np.eye(3))


def test_a_fisher_needs_a_composition_with_samples() -> None:
    x = np.ones(3)
    plain = osculant.oracle(lambda x: (x**2).sum(), x).at(x)
    with pytest.raises(osculant.ProductUnavailable, match="model="):
        diagnostics.empirical_fisher(plain)
    single = osculant.oracle(model=lambda x: (x**2).sum(), loss=lambda z: z**2, params=x).at(x)
    with pytest.raises(ValueError, match="first axis must count the samples"):
        diagnostics.empirical_fisher(single)
    oracle, x, data = example()
    with pytest.raises(ValueError, match="reduction is 'none'"):
        diagnostics.empirical_fisher(oracle.at(x, *data), reduction="none")


def test_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parent.parent / "docs" / "reference" / "diagnostics.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    exec(compile("\n".join(blocks), str(page), "exec"), {"__name__": "page"})
    assert "trace of the Hessian" in capsys.readouterr().out
