"""CuPy: the tape over CuPy arrays. Importable only where there is a GPU."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from ..core.arrays import Array
from ..core.errors import BackendUnavailable
from .tape.oracle import make_holomorphic as make_holomorphic
from .tape.oracle import make_oracle as make_oracle


def _device_count() -> int:
    try:
        return int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError:  # its way to say that there are none
        return 0


if _device_count() == 0:
    raise BackendUnavailable(
        "CuPy is installed but finds no GPU: use the NumPy backend, or a machine with a CUDA "
        "device and its driver"
    )


def from_numpy(array: np.ndarray) -> Array:
    """Return a copy of ``array`` on the current GPU, of the same dtype."""
    return cupy.array(array)


def to_numpy(array: Array) -> np.ndarray:
    """Return a copy of a CuPy array on the host, of the same dtype."""
    return cupy.asnumpy(array)


def from_scipy(A: Any, like: Array) -> Any:
    """Return a scipy.sparse array on the current GPU, in the dtype of ``like``."""
    from cupyx.scipy.sparse import csr_matrix  # slow to import, and rarely needed

    return csr_matrix(A).astype(like.dtype)


def version() -> str:
    """Return CuPy's version."""
    return str(cupy.__version__)


def devices() -> list[str]:
    """Return the GPUs."""
    return [f"cuda:{i}" for i in range(_device_count())]
