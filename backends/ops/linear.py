"""The dense layer, by the array API alone."""

from __future__ import annotations

from ...core.arrays import Array
from ...core.layers import as_places, recorder
from .dispatch import common_namespace


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Return x W + b, and let :class:`osculant.KFAC` know that it is a dense layer.

    Parameters
    ----------
    x : array of shape (..., p)
    weight : array of shape (p, q)
        To be recognised as a layer's, one of the parameters as it stands.
    bias : array of shape (q,), optional

    Returns
    -------
    array of shape (..., q)

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    if weight.ndim != 2 or x.shape[-1:] != weight.shape[:1]:
        raise ValueError(
            f"the weight has shape {tuple(weight.shape)} and the inputs {tuple(x.shape)}; they are "
            "(p, q) and (..., p)"
        )
    if bias is not None and tuple(bias.shape) != tuple(weight.shape[1:]):
        raise ValueError(f"the bias has shape {tuple(bias.shape)} for {weight.shape[1]} outputs")
    xp = common_namespace(x, weight, *([] if bias is None else [bias]))
    y = xp.matmul(x, weight)
    y = y if bias is None else xp.add(y, bias)
    listener = recorder()
    if listener is None:
        return y
    return listener.report(
        weight, bias, lambda: as_places(x), y, outputs_first=False, convolution=False
    )
