"""PyTorch at complex points: the analytic extension of a function of real tensors.

PyTorch computes with complex tensors, but its ``abs`` and norms leave the analytic functions,
its losses and many activations have no complex version, and a product of a real with a complex
tensor is an error. A mode that sees every call replaces those while the user's function runs.
PyTorch's gradient of a holomorphic function is the conjugate of the derivative.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ...core.arrays import Array
from ...core.errors import NotAnalytic
from ..torch_oracle import TorchOracle, TorchPoint
from .torch_functions import (
    BILINEAR,
    ELEMENTWISE,
    EXTENDED,
    LINEAR,
    MULTILINEAR,
    REFUSED,
    Bilinear,
    Elementwise,
    all_complex,
    is_complex,
)


class HolomorphicTorchOracle(TorchOracle):
    """Differentiates the analytic extension of a function; its structure is complex."""

    def at(self, x: Array, *data: Any) -> HolomorphicTorchPoint:
        """Linearise once at ``x``, complex and of shape (n,)."""
        self.structure.check(x, name="x")
        with _Extension():
            return HolomorphicTorchPoint(self, x, data)


class HolomorphicTorchPoint(TorchPoint):
    """A place off the real axis."""

    @property
    def grad(self) -> Array:
        """The gradient, of shape (n,): the derivative itself, which is not conjugated."""
        one = torch.ones_like(self._value)
        parts = torch.autograd.grad(
            self._value, self._leaves, one, retain_graph=True, materialize_grads=True
        )
        return self._join([part.conj() for part in parts])


class _Extension(TorchFunctionMode):
    """Replaces functions of complex tensors by their analytic extension by the real part."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not any(map(is_complex, _flat((args, tuple(kwargs.values()))))):
            return func(*args, **kwargs)
        name = _name(func)
        if name in REFUSED:
            raise NotAnalytic(
                f"torch's {name} of a complex step has no analytic extension here: {REFUSED[name]}"
            )
        if name in ELEMENTWISE:
            z, *rest = args
            return Elementwise.apply(lambda a: func(a, *rest, **kwargs), z)
        if name in LINEAR:
            z, *rest = args
            return torch.complex(func(z.real, *rest, **kwargs), func(z.imag, *rest, **kwargs))
        if name in EXTENDED:
            return EXTENDED[name](*args, **kwargs)
        if name in BILINEAR and len(args) > 1:
            x, y, *rest = args
            return Bilinear.apply(lambda x, y: func(x, y, *rest, **kwargs), x, y)
        if name in MULTILINEAR:
            args, kwargs = all_complex(args), all_complex(kwargs)
        try:
            return func(*args, **kwargs)
        except RuntimeError as error:
            if not re.search("complex|not implemented for", str(error), re.IGNORECASE):
                raise
            raise NotAnalytic(
                f"torch's {name} has no complex version ({error}): write it with simpler "
                "functions, or use products='autodiff'"
            ) from error


_PARTS = {getattr(torch.Tensor, part).__get__: part for part in ("real", "imag", "mH")}


def _name(func: Any) -> str:
    """Return the name of torch.f, Tensor.f, Tensor.f_, Tensor.__f__ and nn.functional.f alike."""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        return _PARTS.get(func, "")
    return name.strip("_")


def _flat(tree: Any) -> list[Any]:
    if isinstance(tree, tuple | list):
        return [leaf for item in tree for leaf in _flat(item)]
    return [tree]
