"""Small degenerate problems with known solutions, on which CurveBall was tried."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from ..core.arrays import Array, namespace
from .models import Problem


def noisy_squares(r: Array, noise: Array) -> Array:
    """Return noise r_1^2 + r_2^2, for r of shape (2,).

    The ``loss`` of :func:`~osculant.problems.functions.rosenbrock_residuals` that makes the
    stochastic Rosenbrock function (1 - u)^2 + 100 noise (v - u^2)^2 (Henriques et al. 2018,
    eq. 20); noise = 1 is the deterministic one. Whatever the noise, (1, 1) is its minimum.
    """
    return noise * r[0] ** 2 + r[1] ** 2


def rahimi_recht(
    seed: int,
    *,
    spectrum: Literal["geometric", "linear", "rows"] = "geometric",
    condition: float = 1e5,
    samples: int = 1000,
    dtype: Any = np.float64,
) -> tuple[Problem, tuple[np.ndarray, np.ndarray]]:
    """Return the two-layer linear network of Rahimi and Recht, and its inputs and targets.

    The mean of |W_2 W_1 x - A x|^2 over standard normal x, for an ill-conditioned A of shape
    (10, 6). W_1, of shape (6, 6), and W_2, (10, 6), start standard normal. The minimum, 0, is not
    isolated.

    Parameters
    ----------
    seed : int
    spectrum : {"geometric", "linear", "rows"}
        The singular values of A, between random bases, in geometric or linear progression from 1
        to 1/condition; or the authors' notebook: the rows of a uniform matrix, scaled linearly
        from 1 to 1/condition, which gives a condition number of about 20.
    condition : float
    samples : int
        Number N of the inputs.
    dtype : numpy dtype

    Returns
    -------
    problem : Problem
    data : tuple of numpy.ndarray
        Inputs of shape (6, 6) and targets of shape (10, 6). The loss knows the N inputs X by
        X X'/N alone, so that its Cholesky factor stands for them.

    References
    ----------
    A. Rahimi and B. Recht, "Reflections on random kitchen sinks" (2017), argmin.net.
    """
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(6, samples))
    A = _ill_conditioned(rng, spectrum, condition)
    params = {"W1": rng.normal(size=(6, 6)), "W2": rng.normal(size=(10, 6))}
    inputs = np.linalg.cholesky(X @ X.T / samples)
    problem = Problem(
        name="Rahimi-Recht",
        model=_two_linear_layers,
        loss=_squared_distance,
        params={name: W.astype(dtype) for name, W in params.items()},
        predict=_two_linear_layers,
    )
    return problem, (inputs.astype(dtype), (A @ inputs).astype(dtype))


def _ill_conditioned(rng: np.random.Generator, spectrum: str, condition: float) -> np.ndarray:
    if spectrum == "rows":
        return np.linspace(1, 1 / condition, 10)[:, None] * rng.random((10, 6))
    if spectrum not in ("geometric", "linear"):
        raise ValueError(f"spectrum is {spectrum!r}; it must be 'geometric', 'linear' or 'rows'")
    geometric = spectrum == "geometric"
    sizes = np.geomspace(1, 1 / condition, 6) if geometric else np.linspace(1, 1 / condition, 6)
    left, _ = np.linalg.qr(rng.normal(size=(10, 6)))
    right, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    return left * sizes @ right.T


def _two_linear_layers(params: Any, inputs: Array) -> Array:
    return params["W2"] @ (params["W1"] @ inputs)


def _squared_distance(outputs: Array, targets: Array) -> Array:
    return namespace(outputs).sum((outputs - targets) ** 2)
