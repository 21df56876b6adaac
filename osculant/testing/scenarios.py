"""Scenarios: functions with closed-form derivatives, each written once with the array API.

A function takes its namespace from its parameters; the closed form beside it is NumPy in
float64, derived by hand. Values, curvatures and parameters are all of a size near one, so that
one tolerance fits. Dictionaries list their keys in sorted order, which is the order of the
vector on every backend.

In ``data * x`` a plain array meets a traced one on its right. Most namespaces then let the traced
one decide, but the standard does not ask for it, so that only ``left_operands`` does it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.arrays import Array, namespace
from .derivatives import Derivatives, compose
from .scenario import Scenario


def _diagonal(entries: np.ndarray) -> np.ndarray:
    """Return the tensor of third derivatives of a sum of functions of one entry each."""
    tensor = np.zeros((entries.size,) * 3)
    np.einsum("iii->i", tensor)[...] = entries
    return tensor


def _random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1.0, 1.0, shape)


# Functions ---------------------------------------------------------------------------------


def _scalar() -> Scenario:
    """f(x) = 3 (x - 2)^2 / 2 of a 0-d parameter."""

    def fun(x: Array) -> Array:
        return 1.5 * (x - 2.0) ** 2

    def closed_form(x: np.ndarray) -> Derivatives:
        return Derivatives(
            float(1.5 * (x - 2.0) ** 2),
            np.array([3.0 * (x - 2.0)]),
            np.array([[3.0]]),
            third=np.zeros((1, 1, 1)),
        )

    return Scenario("scalar", np.array(0.7), fun=fun, closed_form=closed_form)


def _quadratic() -> Scenario:
    """f(x) = x'Ax/2 - b'x, where A is not symmetric, so that H = (A + A')/2."""

    def fun(x: Array, A: Array, b: Array) -> Array:
        xp = namespace(x)
        return 0.5 * xp.sum(x * xp.matmul(A, x)) - xp.sum(x * b)

    def closed_form(x: np.ndarray, A: np.ndarray, b: np.ndarray) -> Derivatives:
        H = (A + A.T) / 2
        return Derivatives(x @ H @ x / 2 - b @ x, H @ x - b, H, third=np.zeros((x.size,) * 3))

    data = (_random(1, 5, 5), _random(2, 5))
    return Scenario("quadratic", _random(0, 5), data, fun=fun, closed_form=closed_form)


def _linear() -> Scenario:
    """f(x) = c'x, whose Hessian is zero."""

    def fun(x: Array, c: Array) -> Array:
        return namespace(x).sum(x * c)

    def closed_form(x: np.ndarray, c: np.ndarray) -> Derivatives:
        n = x.size
        return Derivatives(c @ x, c, np.zeros((n, n)), third=np.zeros((n, n, n)))

    return Scenario("linear", _random(0, 4), (_random(1, 4),), fun=fun, closed_form=closed_form)


def _rosenbrock() -> Scenario:
    """f(x) = sum_i 5 (x_{i+1} - x_i^2)^2 + (1 - x_i)^2, by slices that overlap."""

    def fun(x: Array) -> Array:
        return namespace(x).sum(5.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)

    def closed_form(x: np.ndarray) -> Derivatives:
        a, b = x[:-1], x[1:]
        r = b - a**2
        grad = np.zeros_like(x)
        grad[:-1] += -20.0 * a * r - 2.0 * (1.0 - a)
        grad[1:] += 10.0 * r
        diagonal = np.zeros_like(x)
        diagonal[:-1] += -20.0 * r + 40.0 * a**2 + 2.0
        diagonal[1:] += 10.0
        off = np.diag(-20.0 * a, 1)
        value = np.sum(5.0 * r**2 + (1.0 - a) ** 2)
        third = _diagonal(np.append(120.0 * a, 0.0))
        for i in range(a.size):
            third[i, i, i + 1] = third[i, i + 1, i] = third[i + 1, i, i] = -20.0
        return Derivatives(value, grad, np.diag(diagonal) + off + off.T, third=third)

    x = np.array([-0.6, 0.5, 0.8, -0.2])
    return Scenario("rosenbrock", x, fun=fun, closed_form=closed_form)


def _cubic() -> Scenario:
    """f(x) = (a'x)^3 / 6, whose third derivative is not zero and whose Hessian has rank one."""

    def fun(x: Array, a: Array) -> Array:
        return namespace(x).sum(x * a) ** 3 / 6.0

    def closed_form(x: np.ndarray, a: np.ndarray) -> Derivatives:
        s = a @ x
        third = np.einsum("i,j,k->ijk", a, a, a)
        return Derivatives(s**3 / 6.0, s**2 / 2.0 * a, s * np.outer(a, a), third=third)

    data = (_random(1, 3),)
    return Scenario("cubic", 1.0 + _random(0, 3), data, fun=fun, closed_form=closed_form)


def _elementwise() -> Scenario:
    """Elementwise functions of each entry, summed: every branch, away from the kinks."""

    def fun(x: Array) -> Array:
        xp = namespace(x)
        y = x + 2.0
        smooth = xp.exp(x) + xp.sin(x) * xp.cos(x) + xp.tanh(x)
        roots = xp.log(y) + xp.sqrt(y) + 1.0 / y
        pieces = xp.where(x > 1.0, x**3, -x) + xp.maximum(x, 1.0 - x) * xp.abs(x)
        return xp.sum(smooth + roots + pieces)

    def closed_form(x: np.ndarray) -> Derivatives:
        y, t, s, above, wide = x + 2, np.tanh(x), np.sign(x), x > 1, x > 0.5
        f = np.exp(x) + np.sin(2 * x) / 2 + t
        df = np.exp(x) + np.cos(2 * x) + 1 - t**2
        ddf = np.exp(x) - 2 * np.sin(2 * x) - 2 * t * (1 - t**2)
        dddf = np.exp(x) - 4 * np.cos(2 * x) + (1 - t**2) * (6 * t**2 - 2)
        f += np.log(y) + np.sqrt(y) + 1 / y
        df += 1 / y + 0.5 / np.sqrt(y) - 1 / y**2
        ddf += -1 / y**2 - 0.25 / y**1.5 + 2 / y**3
        dddf += 2 / y**3 + 0.375 / y**2.5 - 6 / y**4
        f += np.where(above, x**3, -x) + s * np.where(wide, x**2, x - x**2)
        df += np.where(above, 3 * x**2, -1) + s * np.where(wide, 2 * x, 1 - 2 * x)
        ddf += np.where(above, 6 * x, 0) + s * np.where(wide, 2, -2)
        dddf += np.where(above, 6, 0)
        return Derivatives(f.sum(), df, np.diag(ddf), third=_diagonal(dddf))

    x = np.array([-0.4, 0.22, 0.75, 1.5])
    return Scenario("elementwise", x, fun=fun, closed_form=closed_form)


def _left_operands() -> Scenario:
    """f(x) = b'Ax - sum c / (3 + x), where each operator has a plain array on its left."""

    def fun(x: Array, A: Array, b: Array, c: Array) -> Array:
        return namespace(x).sum(b * (A @ x) - c / (c * 0 + 3.0 + x))

    def closed_form(x: np.ndarray, A: np.ndarray, b: np.ndarray, c: np.ndarray) -> Derivatives:
        y = 3.0 + x
        return Derivatives(
            b @ A @ x - np.sum(c / y),
            A.T @ b + c / y**2,
            np.diag(-2 * c / y**3),
            third=_diagonal(6 * c / y**4),
        )

    data = (_random(1, 3, 3), _random(2, 3), _random(3, 3))
    return Scenario("left_operands", _random(0, 3), data, fun=fun, closed_form=closed_form)


def _reductions() -> Scenario:
    """f(X) = sum_j s_j^3 / 6 + log mean exp X, where s = sum of the rows of X."""

    def fun(X: Array) -> Array:
        xp = namespace(X)
        return xp.sum(xp.sum(X, axis=0) ** 3) / 6.0 + xp.log(xp.mean(xp.exp(X)))

    def closed_form(X: np.ndarray) -> Derivatives:
        s, p = X.sum(axis=0), np.exp(X) / np.exp(X).sum()
        grad = np.broadcast_to(s**2 / 2, X.shape) + p
        same_column = np.tile(np.eye(X.shape[1]), (X.shape[0], X.shape[0]))
        hess = same_column * np.tile(s, X.shape[0]) + np.diag(p.ravel())
        hess -= np.outer(p.ravel(), p.ravel())
        return Derivatives(np.sum(s**3) / 6 + np.log(np.exp(X).mean()), grad.ravel(), hess)

    return Scenario("reductions", _random(0, 3, 2), fun=fun, closed_form=closed_form)


def _broadcasting() -> Scenario:
    """f(c, r) = sum_ij w_ij exp(c_i r_j), for c of shape (3, 1) and r of shape (1, 2)."""

    def fun(params: Any, w: Array) -> Array:
        c, r = params["column"], params["row"]
        xp = namespace(c)
        return xp.sum(xp.exp(c * r) * w)

    def closed_form(params: Any, w: np.ndarray) -> Derivatives:
        c, r = params["column"], params["row"]
        e = w * np.exp(c * r)
        grad = np.concatenate([np.sum(e * r, axis=1), np.sum(e * c, axis=0)])
        mixed = e * (1 + c * r)
        hess = np.block(
            [
                [np.diag(np.sum(e * r**2, axis=1)), mixed],
                [mixed.T, np.diag(np.sum(e * c**2, axis=0))],
            ]
        )
        return Derivatives(e.sum(), grad, hess)

    params = {"column": _random(0, 3, 1), "row": _random(1, 1, 2)}
    return Scenario("broadcasting", params, (_random(2, 3, 2),), fun=fun, closed_form=closed_form)


def _indexing() -> Scenario:
    """f(x) = sum_k w_k x[i_k]^3 / 3, where some i_k repeat and some entries of x are unused."""

    def fun(x: Array, i: Array, w: Array) -> Array:
        xp = namespace(x)
        return xp.sum(xp.take(x, i, axis=0) ** 3 * w) / 3.0

    def closed_form(x: np.ndarray, i: np.ndarray, w: np.ndarray) -> Derivatives:
        total = np.bincount(i, weights=w, minlength=x.size)
        return Derivatives(
            total @ x**3 / 3, total * x**2, np.diag(2 * total * x), third=_diagonal(2 * total)
        )

    data = (np.array([2, 0, 2, 4, 2], dtype=np.int32), _random(1, 5))
    return Scenario("indexing", _random(0, 6), data, fun=fun, closed_form=closed_form)


def _tree() -> Scenario:
    """f(a, b, c) = a |b|^2 + exp(a) sum sin c, on a tree of awkward shapes."""

    def fun(params: Any) -> Array:
        a, (b, inner) = params["a"], params["rest"]
        c = inner["c"]
        xp = namespace(a)
        return a * xp.sum(b**2) + xp.exp(a) * xp.sum(xp.sin(c))

    def closed_form(params: Any) -> Derivatives:
        a, (b, inner) = params["a"], params["rest"]
        b, c, e = b.ravel(), inner["c"].ravel(), np.exp(a)
        grad = np.concatenate([[b @ b + e * np.sin(c).sum()], 2 * a * b, e * np.cos(c)])
        hess = np.diag(
            np.concatenate([[e * np.sin(c).sum()], np.full(b.size, 2 * a), -e * np.sin(c)])
        )
        hess[0, 1:] = hess[1:, 0] = np.concatenate([2 * b, e * np.cos(c)])
        return Derivatives(a * (b @ b) + e * np.sin(c).sum(), grad, hess)

    params = {"a": np.array(0.6), "rest": [_random(0, 1, 3), {"c": _random(1, 2, 1, 2)}]}
    return Scenario("tree", params, fun=fun, closed_form=closed_form)


def _unused() -> Scenario:
    """f(used, idle) = sum tanh(used): the derivatives of ``idle`` are zero, not missing."""

    def fun(params: Any) -> Array:
        xp = namespace(params["used"])
        return xp.sum(xp.tanh(params["used"]))

    def closed_form(params: Any) -> Derivatives:
        t, idle = np.tanh(params["used"]), np.zeros(params["idle"].size)
        slope = 1 - t**2
        return Derivatives(
            t.sum(),
            np.concatenate([idle, slope]),
            np.diag(np.concatenate([idle, -2 * t * slope])),
            third=_diagonal(np.concatenate([idle, slope * (6 * t**2 - 2)])),
        )

    params = {"idle": _random(0, 2, 2), "used": _random(1, 3)}
    return Scenario("unused", params, fun=fun, closed_form=closed_form)


# Compositions -------------------------------------------------------------------------------


def _weighted(z: Array, W: Array) -> Array:
    """Return z'Wz/2 - sum z, whose Hessian W is neither diagonal nor the identity."""
    xp = namespace(z)
    return 0.5 * xp.sum(z * xp.matmul(W, z)) - xp.sum(z)


def _weights(seed: int, m: int) -> np.ndarray:
    root = _random(seed, m, m)
    return root @ root.T + 0.2 * np.eye(m)


def _tall() -> Scenario:
    """tanh(Ax) of more outputs than parameters, under a weighted loss."""

    def model(x: Array, A: Array) -> Array:
        xp = namespace(x)
        return xp.tanh(xp.matmul(A, x))

    def closed_form(x: np.ndarray, A: np.ndarray, W: np.ndarray) -> Derivatives:
        z = np.tanh(A @ x)
        slope, g = 1 - z**2, W @ z - 1
        second = A.T @ np.diag(g * -2 * z * slope) @ A
        dense = compose(z @ W @ z / 2 - z.sum(), slope[:, None] * A, g, W, second)
        # g weights the third derivatives of tanh, and W couples first with second ones, in
        # three orders.
        third = np.einsum("m,mi,mj,mk->ijk", g * slope * (6 * z**2 - 2), A, A, A)
        bend = (-2 * z * slope)[:, None] * A
        mixed = np.einsum("mn,mi,nj,nk->ijk", W, slope[:, None] * A, bend, A)
        third += mixed + mixed.transpose(1, 0, 2) + mixed.transpose(1, 2, 0)
        return dense._replace(third=third)

    data = (_random(1, 5, 3), _weights(2, 5))
    return Scenario(
        "tall", _random(0, 3), data, model=model, loss=_weighted, closed_form=closed_form
    )


def _wide() -> Scenario:
    """(Ax)^2 of fewer outputs than parameters, under a weighted loss."""

    def model(x: Array, A: Array) -> Array:
        return namespace(x).matmul(A, x) ** 2

    def closed_form(x: np.ndarray, A: np.ndarray, W: np.ndarray) -> Derivatives:
        y = A @ x
        z = y**2
        g = W @ z - 1
        second = A.T @ np.diag(2 * g) @ A
        return compose(z @ W @ z / 2 - z.sum(), 2 * y[:, None] * A, g, W, second)

    data = (_random(1, 2, 4), _weights(2, 2))
    return Scenario(
        "wide", _random(0, 4), data, model=model, loss=_weighted, closed_form=closed_form
    )


def _residuals() -> Scenario:
    """Rosenbrock's function as half a sum of squares, without data: H is far from G."""

    def model(x: Array) -> Array:
        xp = namespace(x)
        return xp.stack([3.0 * (x[1] - x[0] ** 2), 1.0 - x[0]])

    def loss(r: Array) -> Array:
        return 0.5 * namespace(r).sum(r**2)

    def closed_form(x: np.ndarray) -> Derivatives:
        r = np.array([3.0 * (x[1] - x[0] ** 2), 1.0 - x[0]])
        jac = np.array([[-6.0 * x[0], 3.0], [-1.0, 0.0]])
        return compose(r @ r / 2, jac, r, np.eye(2), np.diag([-6.0 * r[0], 0.0]))

    x = np.array([-0.6, 1.0])
    return Scenario("residuals", x, model=model, loss=loss, closed_form=closed_form)


def _factorisation() -> Scenario:
    """|LR - M|^2 / 2 for matrices L and R: outputs that are a matrix, bilinear in a tree."""

    def model(params: Any) -> Array:
        return params["left"] @ params["right"]

    def loss(Z: Array, M: Array) -> Array:
        return 0.5 * namespace(Z).sum((Z - M) ** 2)

    def closed_form(params: Any, M: np.ndarray) -> Derivatives:
        L, R = params["left"], params["right"]
        E = L @ R - M
        # vec(LR) by rows: dLR/dL = I kron R', dLR/dR = L kron I
        jac = np.hstack(
            [np.kron(np.eye(L.shape[0]), R.T), np.kron(L, np.eye(R.shape[1]))],
        )
        # sum_ij E_ij d^2 (LR)_ij / dL_ik dR_lj is E_ij where k = l
        mixed = np.einsum("ij,kl->iklj", E, np.eye(R.shape[0])).reshape(L.size, R.size)
        second = np.block(
            [
                [np.zeros((L.size, L.size)), mixed],
                [mixed.T, np.zeros((R.size, R.size))],
            ]
        )
        return compose(np.sum(E**2) / 2, jac, E.ravel(), np.eye(E.size), second)

    params = {"left": _random(0, 3, 2), "right": _random(1, 2, 2)}
    data = (_random(2, 3, 2),)
    return Scenario("factorisation", params, data, model=model, loss=loss, closed_form=closed_form)


def _cross_entropy(Z: Array, T: Array) -> Array:
    """Return the mean over rows of -sum_c T_c log softmax(Z)_c."""
    xp = namespace(Z)
    Z = Z - xp.max(Z, axis=1, keepdims=True)
    log_p = Z - xp.log(xp.sum(xp.exp(Z), axis=1, keepdims=True))
    return -xp.sum(log_p * T) / T.shape[0]


def _softmax() -> Scenario:
    """Softmax regression: the Hessian of the loss is a block diag(p) - pp' for each sample."""

    def model(params: Any, X: Array) -> Array:
        xp = namespace(params["weight"])
        return xp.matmul(X, params["weight"]) + params["bias"]

    def closed_form(params: Any, X: np.ndarray, T: np.ndarray) -> Derivatives:
        N, C = T.shape
        Z = X @ params["weight"] + params["bias"]
        p = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
        mass = T.sum(axis=1)
        loss_hess = np.zeros((N, C, N, C))
        for i in range(N):
            loss_hess[i, :, i] = mass[i] * (np.diag(p[i]) - np.outer(p[i], p[i])) / N
        jac = np.hstack([np.tile(np.eye(C), (N, 1)), np.kron(X, np.eye(C))])
        g = (mass[:, None] * p - T) / N
        value = -np.sum(T * np.log(p)) / N
        return compose(value, jac, g.ravel(), loss_hess.reshape(N * C, N * C))

    params = {"bias": _random(0, 3), "weight": _random(1, 2, 3)}
    data = (_random(2, 4, 2), np.eye(3)[[0, 2, 1, 2]])
    return Scenario(
        "softmax", params, data, model=model, loss=_cross_entropy, closed_form=closed_form
    )


def _mlp() -> Scenario:
    """Network of tanh layers with cross-entropy; central differences, for want of a closed form."""

    def model(params: Any, X: Array) -> Array:
        xp = namespace(params[0]["weight"])
        for layer in params[:-1]:
            X = xp.tanh(xp.matmul(X, layer["weight"]) + layer["bias"])
        return xp.matmul(X, params[-1]["weight"]) + params[-1]["bias"]

    params = [
        {"bias": _random(0, 3), "weight": _random(1, 2, 3)},
        {"bias": _random(2, 2), "weight": _random(3, 3, 2)},
    ]
    data = (_random(4, 4, 2), np.eye(2)[[0, 1, 1, 0]])
    return Scenario("mlp", params, data, model=model, loss=_cross_entropy)


def _indefinite_loss() -> Scenario:
    """tanh(Ax) under the loss z_0 z_1: Gauss-Newton is indefinite."""

    def model(x: Array, A: Array) -> Array:
        xp = namespace(x)
        return xp.tanh(xp.matmul(A, x))

    def loss(z: Array, scale: Array) -> Array:
        return z[0] * z[1] * scale

    def closed_form(x: np.ndarray, A: np.ndarray, scale: np.ndarray) -> Derivatives:
        z = np.tanh(A @ x)
        slope, W = 1 - z**2, scale * np.array([[0.0, 1.0], [1.0, 0.0]])
        g = W @ z
        second = A.T @ np.diag(g * -2 * z * slope) @ A
        return compose(scale * z[0] * z[1], slope[:, None] * A, g, W, second)

    return Scenario(
        "indefinite_loss",
        _random(0, 3),
        (_random(1, 2, 3), np.array(0.8)),
        model=model,
        loss=loss,
        closed_form=closed_form,
        convex_loss=False,
    )


def _linear_loss() -> Scenario:
    """sin(x) under the loss c'z: Gauss-Newton is zero and the Hessian is not."""

    def model(x: Array) -> Array:
        return namespace(x).sin(x)

    def loss(z: Array, c: Array) -> Array:
        return namespace(z).sum(z * c)

    def closed_form(x: np.ndarray, c: np.ndarray) -> Derivatives:
        z = np.sin(x)
        zero, bend = np.zeros((x.size, x.size)), np.diag(-c * z)
        dense = compose(c @ z, np.diag(np.cos(x)), c, zero, bend)
        return dense._replace(third=_diagonal(-c * np.cos(x)))

    data = (_random(1, 3),)
    return Scenario(
        "linear_loss", _random(0, 3), data, model=model, loss=loss, closed_form=closed_form
    )


#: Every scenario, by name.
SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        _scalar(),
        _quadratic(),
        _linear(),
        _rosenbrock(),
        _cubic(),
        _elementwise(),
        _left_operands(),
        _reductions(),
        _broadcasting(),
        _indexing(),
        _tree(),
        _unused(),
        _tall(),
        _wide(),
        _residuals(),
        _factorisation(),
        _softmax(),
        _mlp(),
        _indefinite_loss(),
        _linear_loss(),
    )
}
