"""Activation functions, entry by entry. Each takes and returns an array of any shape."""

from __future__ import annotations

from typing import Literal

from ...core.arrays import Array
from .dispatch import version


def relu(x: Array) -> Array:
    """Return max(x, 0), whose derivative at 0 is 0."""
    return version("relu", x)(x)


def elu(x: Array, alpha: float = 1.0) -> Array:
    """Return x where it is positive, and alpha (exp(x) - 1) elsewhere.

    D.-A. Clevert, T. Unterthiner, S. Hochreiter, "Fast and accurate deep network learning by
    exponential linear units (ELUs)", ICLR 2016.
    """
    return version("elu", x)(x, alpha)


def gelu(x: Array, approximate: Literal["none", "tanh"] = "none") -> Array:
    """Return x times the normal distribution's probability of less than x.

    With ``approximate="tanh"`` it is x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.

    D. Hendrycks, K. Gimpel, "Gaussian error linear units (GELUs)", arXiv:1606.08415 (2016).

    Raises
    ------
    ValueError
        If ``approximate`` is neither.
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate is {approximate!r}; it is 'none' or 'tanh'")
    return version("gelu", x)(x, approximate)


def erf(x: Array) -> Array:
    """Return the error function, 2/sqrt(pi) int_0^x exp(-t^2) dt."""
    return version("erf", x)(x)


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)), without overflow."""
    return version("sigmoid", x)(x)


def softplus(x: Array) -> Array:
    """Return log(1 + exp(x)), without overflow."""
    return version("softplus", x)(x)
