"""Curvature as SciPy linear operators, for SciPy's own eigensolvers and linear solvers."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy

from ..core.operators import Operator


def linear_operator(operator: Operator) -> Any:
    """Return ``operator`` as a symmetric :class:`scipy.sparse.linalg.LinearOperator`.

    Parameters
    ----------
    operator : Operator
        ``pt.H``, ``pt.G`` or a shifted, scaled one, over arrays in host memory.

    Returns
    -------
    scipy.sparse.linalg.LinearOperator
        Takes and gives NumPy arrays of the operator's precision.

    Raises
    ------
    TypeError
        If the arrays live on an accelerator: nothing is moved between devices silently.
    ImportError
        If SciPy is not installed.

    Examples
    --------
    >>> import numpy as np, osculant
    >>> from scipy.sparse.linalg import eigsh
    >>> oracle = osculant.oracle(lambda x: (np.arange(1.0, 5.0) * x**2).sum(), np.ones(4))
    >>> pt = oracle.at(np.ones(4))
    >>> round(float(eigsh(pt.H.to_scipy(), k=1)[0][0]), 6)
    8.0
    """
    try:
        from scipy.sparse.linalg import LinearOperator
    except ImportError as error:
        raise ImportError('to_scipy needs SciPy: pip install "osculant[scipy]"') from error

    structure = operator.structure
    if not _in_host_memory(structure.device):
        raise TypeError(
            f"the parameters live on {structure.device}, SciPy works in host memory, and nothing "
            "is moved silently: build the oracle from parameters on the CPU"
        )
    example = structure.xp.zeros(1, dtype=structure.dtype)
    dtype = _to_numpy(example).dtype

    def apply(V: Any) -> Any:
        vector = numpy.ascontiguousarray(V, dtype=dtype)
        if vector.ndim == 2 and vector.shape[1] == 1 and vector.shape[0] != 1:
            return apply(vector[:, 0])[:, None]
        return _to_numpy(operator @ structure.xp.asarray(vector, copy=True))

    return LinearOperator(
        operator.shape, matvec=apply, rmatvec=apply, matmat=apply, rmatmat=apply, dtype=dtype
    )


def _in_host_memory(device: Any) -> bool:
    platform = getattr(device, "platform", None) or getattr(device, "type", None)
    return (platform or str(device)).lower().startswith("cpu") or "CPU_DEVICE" in str(device)


def _to_numpy(array: Any) -> Any:
    if array_api_compat.is_torch_array(array):
        return array.detach().numpy()
    try:
        return numpy.asarray(array)
    except TypeError:  # a namespace without NumPy's protocol, such as array_api_strict
        return numpy.from_dlpack(array)
