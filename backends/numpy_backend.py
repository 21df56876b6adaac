"""NumPy arrays, differentiated by the tape; other array-API namespaces take the same oracle."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.arrays import Array
from .tape.oracle import make_holomorphic as make_holomorphic
from .tape.oracle import make_oracle as make_oracle


def from_numpy(array: np.ndarray) -> Array:
    """Return a copy of ``array``, of the same dtype."""
    return np.array(array)


def to_numpy(array: Array) -> np.ndarray:
    """Return a copy of ``array``, of the same dtype."""
    return np.array(array)


def from_scipy(A: Any, like: Array) -> Any:
    """Return a scipy.sparse array in the dtype of ``like``."""
    return A.astype(like.dtype, copy=False)


def version() -> str:
    """Return NumPy's version."""
    return str(np.__version__)


def devices() -> list[str]:
    """Return the devices that arrays can live on."""
    return ["cpu"]
