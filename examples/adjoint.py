"""Exact Hessian products from a hand-written adjoint gradient, without automatic differentiation.

    python examples/adjoint.py

A rod of length 1 is heated by u(t) at points inside it so that its temperature follows a target.
The state y solves the semilinear problem  -y'' + y^3 = u,  y(0) = y(1) = 0,  and

    f(u) = 1/2 |y - y_target|^2 + alpha/2 |u|^2        (sums times the mesh width).

Its gradient is  alpha u + p  with the adjoint state p of  -p'' + 3 y^2 p = y - y_target.
The code below computes both as one would in any simulation code: Newton's method and linear
solves. It is not traced by anything. It asks one thing of the code: that work arrays take their
dtype from u, so that it runs on complex arrays as it stands. Then Im grad(u + i h v) / h is H v
to machine precision, and every second-order solver of osculant runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import osculant

POINTS = 63
WIDTH = 1.0 / (POINTS + 1)
ALPHA = 1e-4

PLACES = np.linspace(WIDTH, 1.0 - WIDTH, POINTS)
TARGET = np.sin(np.pi * PLACES) * np.where(PLACES < 0.5, 1.0, 0.5)
LAPLACIAN = (2.0 * np.eye(POINTS) - np.eye(POINTS, k=1) - np.eye(POINTS, k=-1)) / WIDTH**2


def state(u: Any) -> Any:
    """Solve -y'' + y^3 = u by Newton's method."""
    y = np.zeros_like(u)
    for _ in range(50):
        residual = LAPLACIAN @ y + y**3 - u
        correction = np.linalg.solve(linearised(y), residual)
        y = y - correction
        if np.max(abs(correction)) < 1e-13:
            # One step more: the imaginary part of a complex step lags behind by one.
            return y - np.linalg.solve(linearised(y), LAPLACIAN @ y + y**3 - u)
    raise RuntimeError("Newton's method for the state has not converged")


def linearised(y: Any) -> Any:
    """Return the derivative of the state equation."""
    return LAPLACIAN + np.diag(3.0 * y**2)


def objective(u: Any) -> Any:
    """Return f(u)."""
    misfit = state(u) - TARGET
    return 0.5 * WIDTH * (misfit @ misfit + ALPHA * (u @ u))


def gradient(u: Any) -> Any:
    """Return the gradient of f by the adjoint equation, whose matrix is symmetric."""
    y = state(u)
    adjoint = np.linalg.solve(linearised(y), y - TARGET)
    return WIDTH * (ALPHA * u + adjoint)


def solve() -> osculant.Solution:
    """Return the optimal heating, by a Hessian product or more in each step."""
    start = np.zeros(POINTS)
    oracle = osculant.oracle(objective, start, grad=gradient, products="complex-step")
    oracle.check_analytic(start)  # raises, naming the entry, if the code loses a derivative
    method = osculant.TrustRegion(quasi_newton=False)
    return osculant.minimize(oracle, start, method=method, tol=1e-10)


def main() -> None:
    solution = solve()
    print(solution.message)
    print(f"f = {solution.fun:.6e} in {solution.nit} steps, {solution.nhev} Hessian products")
    print(f"largest error of the temperature: {np.max(abs(state(solution.x) - TARGET)):.3f}")


if __name__ == "__main__":
    main()
