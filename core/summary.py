"""Summaries of higher-order derivatives over a partition of the parameters.

With u_s the restriction of a direction u to group s of S, the summary of order d is the
S x ... x S tensor

    D^d f [u_s1, ..., u_sd]

P. Wolinski, "Adapting Newton's method to neural networks through a summary of higher-order
derivatives" (2023), section 3. All its entries add up to the Taylor term D^d f[u, ..., u].
"""

from __future__ import annotations

from .arrays import Array, namespace
from .oracle import Point
from .partition import Partition


def summary(point: Point, u: Array, partition: Partition, order: int) -> Array:
    """Return the summary of order 1, 2 or 3, of shape (S,) * order.

    Order 1 costs the gradient, order 2 S Hessian products at once, order 3 S times S derivatives
    of Hessian products. S vectors of length n are held at a time.

    Parameters
    ----------
    point : Point
        Where to differentiate.
    u : array of shape (n,)
        The direction, for instance the gradient or a momentum.
    partition : Partition
    order : int

    Raises
    ------
    ValueError
        If the order is none of these, or ``u`` and the partition are not of the point's size.
    ProductUnavailable
        If the oracle has no such derivatives.

    Examples
    --------
    >>> import numpy as np, osculant
    >>> from osculant.core.partition import canonical
    >>> x = {"a": np.array([1.0, 2.0]), "b": np.array([3.0])}
    >>> oracle = osculant.oracle(lambda x: (x["a"] ** 2).sum() * x["b"].sum(), x)
    >>> point, u = oracle.at(oracle.ravel(x)), np.ones(3)
    >>> summary(point, u, canonical(oracle.structure), 2)
    array([[12.,  6.],
           [ 6.,  0.]])
    """
    U = _restrictions(point, u, partition)
    xp = namespace(U)
    if order == 1:
        return xp.matmul(U.T, point.grad)
    if order == 2:
        return xp.matmul(U.T, point.hvp(U))
    if order == 3:
        slices = [xp.matmul(U.T, point.dhvp(U[:, s], U)) for s in range(len(partition))]
        return xp.stack(slices)
    raise ValueError(f"a summary of order {order} is not implemented; there are 1, 2 and 3")


def third_diagonal(point: Point, u: Array, partition: Partition) -> Array:
    """Return D^3 f[u_s, u_s, u_s] for each group, of shape (S,): S products instead of S^2.

    The parameters and errors are those of :func:`summary`.
    """
    return point.third(_restrictions(point, u, partition))


def gauss_newton_summary(point: Point, u: Array, partition: Partition) -> Array:
    """Return u_s'J'H_L J u_t, of shape (S, S): the summary of order 2 of Gauss-Newton's matrix.

    It costs S Jacobian products, two forward passes each, where the Hessian's costs six each. The
    parameters and errors are those of :func:`summary`.
    """
    JU = point.jvp(_restrictions(point, u, partition))
    return namespace(JU).matmul(JU.T, point.loss_hvp(JU))


def _restrictions(point: Point, u: Array, partition: Partition) -> Array:
    structure = point.oracle.structure
    structure.check(u, name="the direction")
    if partition.size != structure.size:
        raise ValueError(
            f"the partition is of {partition.size} parameters, and the point has {structure.size}"
        )
    return partition.restrictions(u)
