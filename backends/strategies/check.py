"""Comparing two oracles of one function, to find where one of them has lost a derivative."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...core.arrays import Array, eps, max_abs, namespace
from ...core.errors import NotAnalytic
from ...core.oracle import Oracle, Product


class Discrepancy(NamedTuple):
    """Where two oracles differ most."""

    product: str
    """``"grad"`` or ``"hvp"``."""
    group: str
    """The user's name for the tensor."""
    entry: int
    """Of the entry in the flattened tensor."""
    error: float
    """In units of the largest entry of the product, or of 1."""


def check(
    oracle: Oracle, reference: Oracle, x: Array, data: tuple[Any, ...], rtol: float | None
) -> Discrepancy:
    """Return where the gradient and a Hessian product differ most.

    Raises
    ------
    NotAnalytic
        If that is by more than ``rtol``.
    """
    rtol = eps(x) ** 0.25 if rtol is None else rtol
    xp = namespace(x)
    point, other = oracle.at(x, *data), reference.at(x, *data)
    pairs = {"grad": (point.grad, other.grad)}
    if Product.HVP in oracle.products:
        places = xp.astype(xp.arange(x.shape[0]), x.dtype)
        v = xp.cos(places)  # no entry is zero, and no two are alike
        pairs["hvp"] = (point.hvp(v), other.hvp(v))
    worst = max((_worst(oracle, name, *pair) for name, pair in pairs.items()), key=_severity)
    if not worst.error <= rtol:
        raise NotAnalytic(
            f"the complex step and finite differences disagree about {worst.product}, most at "
            f"entry {worst.entry} of {worst.group!r}: off by {worst.error:.1e} of the largest "
            "entry. Look there for abs, real, conj, a cast to a real dtype, or a branch"
        )
    return worst


def _worst(oracle: Oracle, product: str, actual: Array, expected: Array) -> Discrepancy:
    xp = namespace(actual)
    errors = xp.abs(actual - expected)
    errors = xp.where(xp.isnan(errors), xp.full_like(errors, xp.inf), errors)
    at = int(xp.argmax(errors))
    group, where = next((g, s) for g, s in oracle.groups.items() if s.start <= at < s.stop)
    error = float(errors[at]) / max(1.0, float(max_abs(expected)))
    return Discrepancy(product, group, at - where.start, error)


def _severity(worst: Discrepancy) -> float:
    return worst.error
