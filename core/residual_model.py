"""The linear least-squares problem that Gauss-Newton methods solve at a point."""

from __future__ import annotations

from typing import NamedTuple

from .arrays import (
    Array,
    dot,
    eps,
    guarded_divide,
    identity_like,
    indices_like,
    integer_like,
    like,
    max_abs,
    namespace,
)
from .flow import Flow
from .krylov.lscg import lscg
from .oracle import Point


class Residuals(NamedTuple):
    """Residuals r and their Jacobian W^1/2 J, with gradient J'W^1/2 r and Gauss-Newton J'W J.

    W is the Hessian of the loss at the outputs, diagonal, and r = W^-1/2 u with u the gradient of
    the loss there: for the loss |z|^2 / 2 they are the outputs themselves.
    """

    r: Array
    """Shape (m,)."""
    root: Array
    """Diagonal of W^1/2, of shape (m,)."""
    separable: Array
    """Whether W is diagonal, as one product says."""


def residuals(pt: Point) -> Residuals:
    """Return the residuals of a point whose loss is a sum over the outputs; no model is run.

    An entry of W below sqrt(eps) of the largest size is raised to that: the gradient stays exact,
    and Gauss-Newton positive, where a robust loss is concave (as SciPy's ``least_squares``).
    """
    u = pt.loss_grad
    xp = namespace(u)
    w = pt.loss_hvp(xp.ones_like(u))
    error = max_abs(pt.loss_hvp(u) - w * u)
    largest = max_abs(w)
    floor = xp.where(largest > 0, eps(u) ** 0.5 * largest, like(u, 1.0))
    separable = error <= eps(u) ** 0.25 * max_abs(w * u)
    root = xp.sqrt(xp.maximum(w, floor))
    return Residuals(u / root, root, separable)


class ResidualModel(NamedTuple):
    """m(s) = |r + J s|^2 / 2 in the coordinates y in which it is separable, s = D^-1 V'y.

    With J D^-1 = U diag(sigma) V and b = U'r, it is sum_i (b_i + sigma_i y_i)^2 / 2 and a
    constant, and |D s| = |y|. On a Krylov space it is the same for the s in that space. What is
    asked of it takes no further product of J.
    """

    sigma: Array
    """Singular values, of shape (k,); 0 for those below rounding."""
    b: Array
    """U'r, of shape (k,)."""
    V: Array
    """Right singular vectors, of shape (k, n)."""
    D: Array
    """Scale of each variable, of shape (n,)."""
    products: Array
    """Gauss-Newton products that it took; a product of J or of J' is half of one."""

    def minimizer(self, damping: Array) -> Array:
        """Return y that minimises m + damping |y|^2 / 2; the shortest if there are several."""
        return -guarded_divide(self.sigma * self.b, self.sigma * self.sigma + damping)

    def step(self, y: Array) -> Array:
        """Return s of shape (n,)."""
        return namespace(y).matmul(y, self.V) / self.D

    def slope(self, y: Array) -> Array:
        """Return r'J s."""
        return dot(self.sigma * self.b, y)

    def curvature(self, y: Array) -> Array:
        """Return |J s|^2."""
        Js = self.sigma * y
        return dot(Js, Js)

    def solve(self, h: Array, damping: Array) -> Array:
        """Return s with (J'J + damping D^2) s = -h, for h of shape (n,), on the same space."""
        xp = namespace(h)
        y = guarded_divide(xp.matmul(self.V, h / self.D), self.sigma * self.sigma + damping)
        return -self.step(xp.where(self.sigma > 0, y, like(h, 0.0)))

    def damping(self, radius: Array, flow: Flow) -> Array:
        """Return the lambda >= 0 for which |y| is ``radius``, to a tenth; 0 where |y| is less.

        Newton's method on 1 / |y| (More 1978, section 5, with the same tolerance). It starts at 0,
        and rises to the solution without passing it.
        """
        xp = namespace(self.sigma)

        def newton(damping: Array) -> tuple[Array, Array, Array]:
            y = self.minimizer(damping)
            squared = dot(y, y)
            bend = xp.sum(guarded_divide(y * y, self.sigma * self.sigma + damping))
            ratio = xp.sqrt(squared) / radius
            return damping, ratio, damping + guarded_divide(squared, bend) * (ratio - 1)

        def keep_going(c: tuple[Array, ...]) -> Array:
            return (c[1] > 1.1) & (c[2] > c[0])

        return flow.while_loop(keep_going, lambda c: newton(c[2]), newton(like(radius, 0.0)))[0]


def dense_model(J: Array, r: Array, D: Array) -> ResidualModel:
    """Return the model of residuals r, of shape (m,), with the Jacobian J, of shape (m, n).

    By the singular value decomposition of J D^-1, which never squares its condition and takes
    fewer residuals than variables, or dependent ones, as they are.
    """
    xp = namespace(J)
    A = J / D
    # Some frameworks raise on what is not finite, others do not return.
    A = xp.where(xp.all(xp.isfinite(A)), A, xp.zeros_like(A))
    U, sigma, V = xp.linalg.svd(A, full_matrices=False)
    products = integer_like(r, (min(J.shape) + 1) // 2)
    return ResidualModel(_significant(sigma, J.shape), xp.matmul(r, U), V, D, products)


def krylov_model(
    pt: Point,
    residual: Residuals,
    D: Array,
    *,
    radius: Array,
    rtol: Array,
    maxiter: int,
    active: Array,
    flow: Flow,
) -> ResidualModel:
    """Return the model on a Krylov space; the options are those of :func:`~.krylov.lscg.lscg`."""
    r, root, _ = residual
    xp = namespace(r)
    space = lscg(
        lambda v: root * pt.jvp(v / D),
        lambda u: pt.vjp(root * u) / D,
        r,
        pt.grad / D,
        radius=radius,
        rtol=rtol,
        maxiter=min(maxiter, r.shape[0], D.shape[0]),
        active=active,
        flow=flow,
    )
    P, sigma, Q = xp.linalg.svd(space.B, full_matrices=False)
    sigma = _significant(sigma, space.B.shape)
    V = xp.matmul(Q, space.V)
    return ResidualModel(sigma, space.beta * P[0, :], V, D, space.iterations)


def jacobian(pt: Point) -> Array:
    """Return the Jacobian of the outputs, of shape (m, n), by min(m, n) products."""
    m, n = pt.loss_grad.shape[0], pt.oracle.size
    if n <= m or m == 0:  # no columns cannot be stacked
        return pt.jvp(identity_like(pt.grad, n))
    return namespace(pt.grad).matrix_transpose(pt.vjp(identity_like(pt.grad, m)))


def column_norms(J: Array) -> Array:
    """Return the Euclidean norm of each column, free of under- and overflow."""
    xp = namespace(J)
    largest = xp.max(xp.abs(J), axis=0)
    unit = J / xp.where(largest > 0, largest, like(J, 1.0))
    return largest * xp.sqrt(xp.sum(unit * unit, axis=0))


def probed_column_norms(pt: Point, root: Array) -> Array:
    """Estimate the norms of the columns of W^1/2 J by four products with vectors of signs.

    diag(J'J) is the mean of (J'z)^2 over the columns z of a Hadamard matrix; the first four of
    them leave out all products of rows whose distance is no multiple of 4 (Bekas, Kokiopoulou and
    Saad, Appl. Numer. Math. 57, 2007, 1214-1229, section 4).
    """
    xp = namespace(root)
    row = indices_like(root, root.shape[0])
    first, second = (1 - 2 * xp.astype(row // 2**bit % 2, root.dtype) for bit in (0, 1))
    signs = xp.stack([xp.ones_like(root), first, second, first * second], axis=1)
    return column_norms(xp.matrix_transpose(pt.vjp(root[:, None] * signs))) / 2


def _significant(sigma: Array, shape: tuple[int, ...]) -> Array:
    """Return the singular values with those below rounding set to 0."""
    xp = namespace(sigma)
    return xp.where(sigma > max(shape) * eps(sigma) * sigma[:1], sigma, like(sigma, 0.0))
