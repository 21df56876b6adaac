"""Fisher matrices, as the Gauss-Newton matrix of a pseudo-loss.

For a loss L(z) = mean_i l_i(z_i) of outputs z_i, one for each of N samples, with gradients
u_i = N dL / dz_i, the matrix

    F = mean_i J_i' u_i u_i' J_i = J' H J,      H = blockdiag(u_i u_i') / N

is the Gauss-Newton matrix of the quadratic pseudo-loss mean_i (u_i'z_i)^2 / 2. At the targets of
the data it is the empirical Fisher matrix. At targets drawn from the distribution that the model
predicts, l_i being its negative log-likelihood, it is a Monte Carlo estimate of the Fisher matrix,
whose expectation is the Gauss-Newton matrix where z are the natural parameters (logits of the
cross-entropy, the mean of the squared error). F. Kunstner, L. Balles, P. Hennig, "Limitations
of the empirical Fisher approximation for natural gradient descent", NeurIPS 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any, Literal

from ..arrays import Array, as_like, identity_like, namespace
from ..operators import Operator
from ..oracle import Oracle, Point
from .probes import check_count

Reduction = Literal["mean", "sum"]
#: ``draw(outputs, seed)`` returns targets as the loss takes them.
Draw = Callable[[Array, int], Any]


def empirical_fisher(point: Point, *, reduction: Reduction = "mean") -> Operator:
    """Return the empirical Fisher matrix of a composition, mean_i g_i g_i'.

    g_i is the gradient of the i-th sample's loss. A product costs one JVP and one VJP.

    Parameters
    ----------
    point : Point
        Of an oracle given as model and loss. The first axis of the outputs must count the samples,
        and the loss must be the mean, or the sum, of losses of one sample each: no regulariser
        among the outputs, and no normalisation across the batch. This cannot be checked.
    reduction : {"mean", "sum"}
        Which of the two the loss is. The sum gives sum_i g_i g_i'.

    Returns
    -------
    Operator

    Raises
    ------
    ProductUnavailable
        If the oracle is not a composition.
    ValueError
        If the outputs have no axis of samples.
    """
    return _fisher(point, point.loss_grad[:, None], reduction)


def monte_carlo_fisher(
    oracle: Oracle,
    x: Array,
    *data: Any,
    draw: Draw,
    draws: int = 1,
    seed: int = 0,
    reduction: Reduction = "mean",
) -> Operator:
    """Return a Monte Carlo estimate of the Fisher matrix at ``x``.

    It costs ``draws`` + 1 linearisations; a product, one JVP and one VJP.

    Parameters
    ----------
    oracle : Oracle
        Of a model and a loss, as :func:`empirical_fisher` needs it; the loss is a negative
        log-likelihood of the targets, but for a constant.
    x : array of shape (n,)
    *data
        As for ``oracle.at``; of the targets, the last one, nothing is used.
    draw : callable
        ``draw(outputs, seed)`` returns targets drawn from the distribution that the outputs, of the
        model's own shape, stand for: :func:`categorical`, :func:`gaussian` or your own.
    draws : int
        How often targets are drawn for each sample.
    seed : int
    reduction : {"mean", "sum"}
        What the loss is, of its samples' losses.
    """
    check_count("draws", draws, 1)
    point = oracle.at(x, *data)
    xp = namespace(x)
    outputs = xp.reshape(point.outputs, point.output_shape)
    seeds = Random(seed)
    gradients = [
        oracle.at(x, *data[:-1], draw(outputs, seeds.getrandbits(32))).loss_grad
        for _ in range(draws)
    ]
    return _fisher(point, xp.stack(gradients, axis=1), reduction)


def _fisher(point: Point, U: Array, reduction: Reduction) -> Operator:
    """Return the matrix of the loss's gradients by the outputs, one a column, averaged."""
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is {reduction!r}; it is 'mean' or 'sum'")
    if not point.output_shape:
        raise ValueError("the model returned a 0-d array; its first axis must count the samples")
    N, draws = point.output_shape[0], U.shape[1]
    xp = namespace(U)
    weight = (N if reduction == "mean" else 1) / draws
    U = xp.reshape(U, (N, -1, draws))

    def product(V: Array) -> Array:
        JV = point.jvp(V)
        columns = xp.reshape(JV, (N, U.shape[1], -1))
        inner = xp.matmul(xp.matrix_transpose(U), columns)  # u_i'J_i v: draws x columns
        return point.vjp(xp.reshape(weight * xp.matmul(U, inner), tuple(JV.shape)))

    return Operator(product, point.oracle.structure, flow=point.oracle.flow)


def categorical(logits: Array, seed: int) -> Array:
    """Return one-hot rows drawn from softmax of the rows of ``logits``, of shape (N, C)."""
    xp = namespace(logits)
    p = xp.exp(logits - xp.max(logits, axis=1, keepdims=True))
    cumulative = xp.cumulative_sum(p, axis=1)
    random = Random(seed)
    u = as_like(logits, [random.random() for _ in range(logits.shape[0])])
    passed = xp.astype(cumulative <= (u * cumulative[:, -1])[:, None], xp.int32)
    classes = logits.shape[1]
    label = xp.minimum(xp.sum(passed, axis=1), xp.full_like(passed[:, 0], classes - 1))
    return xp.take(identity_like(logits, classes), label, axis=0)


def gaussian(means: Array, seed: int) -> Array:
    """Return draws of unit variance around ``means``: the squared error's, |z - y|^2 / 2 each."""
    random = Random(seed)
    xp = namespace(means)
    noise = as_like(means, [random.gauss(0.0, 1.0) for _ in range(math.prod(means.shape))])
    return means + xp.reshape(noise, tuple(means.shape))
