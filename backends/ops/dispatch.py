"""Which version of an op its arrays get: their framework's own, or the one for all others."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import array_api_compat

from ...core.arrays import Array, Namespace, namespace
from ..strategies.analytic import Analytic, watched
from ..tape.record import is_traced
from . import generic

#: The modules with frameworks' own versions, and what their arrays are.
_NATIVE: dict[str, Callable[[Any], bool]] = {
    "torch_ops": array_api_compat.is_torch_array,
    "jax_ops": array_api_compat.is_jax_array,
}


def version(name: str, *arrays: Array) -> Callable[..., Any]:
    """Return the op ``name`` for these arrays.

    Traced and multicomplex arrays have the generic version, whatever the framework beneath; so
    have the arrays of a complex step through a user's own gradient.
    """
    if not any(map(is_traced, arrays)):
        for module, is_own in _NATIVE.items():
            if any(map(is_own, arrays)):
                return getattr(import_module(f".{module}", __package__), name)
    op = getattr(generic, name)
    return watched(op) if any(isinstance(a, Analytic) for a in arrays) else op


def common_namespace(*arrays: Array) -> Namespace:
    """Return the namespace whose functions take all of the arrays, of which some may be traced."""
    return namespace(*([a for a in arrays if is_traced(a)] or arrays))
