"""Counts what a solver asks for, from outside, and notes when it was there.

Every solver, ours and others', reaches the same derivatives through this file: the library's
NumPy tape. Work is in gradient-equivalents: a gradient (with its value) 1, a Hessian product 2,
a value 1/3 (and 2/3 to complete it to a gradient, where the forward pass is kept), a Jacobian
product and a transposed one 2/3 each; a dense Hessian is n Hessian products and a dense
Jacobian is min(m, n) Jacobian products. What anybody spends on dense matrices, which is several
products at once, is in the work but does not count towards the limit.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

import osculant
from osculant.core.oracle import Oracle
from osculant.problems import sum_of_squares
from osculant.testing import Wrapped, WrappedPoint

COST = {
    "value": 1 / 3,
    "gradient": 1.0,
    "backward": 2 / 3,
    "hvp": 2.0,
    "jvp": 2 / 3,
    "vjp": 2 / 3,
}

#: What each product of a point is charged as; those of third order have no price here.
CHARGES = {
    "hvp": ("hvp",),
    "vhv": ("hvp",),
    "ggn": ("jvp", "vjp"),
    "vgv": ("jvp",),
    "jvp": ("jvp",),
    "vjp": ("vjp",),
    "loss_hvp": (),  # of the sum of squares: 2 U
}


class LimitReached(Exception):
    """The work or the time of one instance is spent."""


@dataclass(frozen=True)
class Instance:
    """One function from one start; ``residual`` where f is the sum of its squares."""

    name: str
    fun: Any
    residual: Any
    x0: np.ndarray
    lowest: float


class Ledger:
    """The account of one run: what was evaluated, and the work when B and C first held.

    B, stationary: |g|_inf <= 1e-6 max(1, |f|) at the best point seen so far, or C.
    C, the lowest known value: f - f* <= 1e-8 max(1, |f*|).
    """

    def __init__(self, lowest: float, *, gradients: float = 2000, seconds: float = 60) -> None:
        self.lowest, self.limit = lowest, gradients
        self.deadline = time.perf_counter() + seconds
        self.counts: Counter[str] = Counter()
        self.work = 0.0
        self.unlimited = 0.0  # part of the work that the limit does not know
        self.best = math.inf
        self.stationary = math.inf  # work when B first held
        self.solved = math.inf  # work when C first held
        self.exhausted = False

    def spend(self, kind: str, number: int = 1, *, dense: bool = False) -> None:
        """Charge evaluations before they are made; ``dense``, beside the limit."""
        if self.work - self.unlimited >= self.limit or time.perf_counter() > self.deadline:
            self.exhausted = True
            raise LimitReached
        self.counts[kind] += number
        self.work += number * COST[kind]
        if dense:
            self.unlimited += number * COST[kind]

    def see(self, f: float, g: np.ndarray | None = None) -> None:
        """Judge a point that has been evaluated."""
        if not math.isfinite(f) or f > self.best:
            return
        self.best = f
        if self.is_solved(f):
            self.solved = min(self.solved, self.work)
            self.stationary = min(self.stationary, self.work)
        elif g is not None and self.is_stationary(f, g):
            self.stationary = min(self.stationary, self.work)

    def is_solved(self, f: float) -> bool:
        return f - self.lowest <= 1e-8 * max(1.0, abs(self.lowest))

    def is_stationary(self, f: float, g: np.ndarray) -> bool:
        return self.is_solved(f) or bool(np.max(np.abs(g)) <= 1e-6 * max(1.0, abs(f)))


class CountingPoint(WrappedPoint):
    """A point of a :class:`CountingOracle`; k products at once are k products, for a matrix."""

    oracle: CountingOracle

    def ask(self, product: str, *args: Any) -> Any:
        V = args[0]
        columns = 1 if V.ndim == 1 else V.shape[1]
        for kind in CHARGES[product]:
            # As many columns as rows: a dense matrix, as those that peers ask for.
            self.oracle.ledger.spend(kind, columns, dense=1 < columns == V.shape[0])
        return super().ask(product, *args)


class CountingOracle(Wrapped):
    """An oracle that charges a ledger for what another one answers."""

    point = CountingPoint

    def __init__(self, inner: Oracle, ledger: Ledger) -> None:
        super().__init__(inner)
        self.ledger = ledger

    def at(self, x: Any, *data: Any) -> WrappedPoint:
        self.ledger.spend("gradient")
        point = super().at(x, *data)
        self.ledger.see(float(point.value), np.asarray(point.grad))
        return point

    def value(self, x: Any, *data: Any) -> Any:
        self.ledger.spend("value")
        value = super().value(x, *data)
        self.ledger.see(float(value))
        return value


class Problem:
    """One instance as a solver sees it: the functions that it may call, all on the ledger.

    ``oracle`` and ``composite`` (with residuals) are for solvers written against the contract;
    the methods are for those that take functions of NumPy arrays.
    """

    def __init__(self, instance: Instance, ledger: Ledger) -> None:
        self.instance, self.ledger = instance, ledger
        self.x0, self.residuals = instance.x0, instance.residual is not None
        self._plain = osculant.oracle(instance.fun, instance.x0)
        self._composite = (
            osculant.oracle(model=instance.residual, loss=sum_of_squares, params=instance.x0)
            if self.residuals
            else None
        )
        self._last: tuple[Oracle, np.ndarray, Any] | None = None

    @property
    def oracle(self) -> CountingOracle:
        return CountingOracle(self._plain, self.ledger)

    @property
    def composite(self) -> CountingOracle:
        assert self._composite is not None
        return CountingOracle(self._composite, self.ledger)

    def _point(self, x: np.ndarray, oracle: Oracle) -> Any:
        """Linearise, unless that was done here a moment ago."""
        last = self._last
        if last is None or last[0] is not oracle or not np.array_equal(last[1], x):
            last = self._last = (oracle, np.array(x), oracle.at(np.array(x)))
        return last[2]

    def fun(self, x: np.ndarray) -> float:
        self.ledger.spend("value")
        f = float(self._plain.value(np.asarray(x)))
        self.ledger.see(f)
        return f

    def grad(self, x: np.ndarray) -> np.ndarray:
        return self.fun_and_grad(x)[1]

    def fun_and_grad(self, x: np.ndarray, kind: str = "gradient") -> tuple[float, np.ndarray]:
        self.ledger.spend(kind)
        pt = self._point(x, self._plain)
        f, g = float(pt.value), np.array(pt.grad)
        self.ledger.see(f, g)
        return f, g

    def hvp(self, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        self.ledger.spend("hvp")
        return np.array(self._point(x, self._plain).hvp(np.asarray(v)))

    def hessian(self, x: np.ndarray) -> np.ndarray:
        self.ledger.spend("hvp", x.size, dense=True)
        return np.array(self._point(x, self._plain).hvp(np.eye(x.size)))

    def residual(self, x: np.ndarray) -> np.ndarray:
        self.ledger.spend("value")
        r = np.asarray(self.instance.residual(np.asarray(x)))
        self.ledger.see(float(r @ r))
        return r

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        assert self._composite is not None
        pt = self._point(x, self._composite)
        m, n = pt.outputs.size, x.size
        self.ledger.spend("jvp", min(m, n), dense=True)
        self.ledger.see(float(pt.value), pt.grad)
        return np.array(pt.jvp(np.eye(n)) if n <= m else pt.vjp(np.eye(m)).T)

    def settle(self, x: np.ndarray) -> bool:
        """Judge the point that a solver returned, at no charge, and return whether B holds.

        It may have been evaluated in pieces only (a value without its gradient), so that it
        has not been seen as a whole.
        """
        pt = self._plain.at(np.array(x, dtype=float))
        f, g = float(pt.value), np.asarray(pt.grad)
        self.ledger.see(f, g)
        return self.ledger.is_stationary(f, g)
