"""Array helpers, and the only maker of constants.

A Python scalar promotes differently in each framework once it has become a 0-d array, so
algorithms never write ``xp.asarray(0.5)``: they write ``like(x, 0.5)``, which has the dtype,
the device and the namespace of ``x``.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import array_api_compat

#: An array of any array-API namespace. The namespaces share no base class to name here.
Array = Any
#: An array-API namespace, as :func:`namespace` returns it.
Namespace = Any


#: Of types that settle it; to look for it takes longer than arithmetic on a short vector.
_NAMESPACES: dict[type, Namespace] = {}


def namespace(*arrays: Array) -> Namespace:
    """Return the array-API namespace of ``arrays``."""
    if len(arrays) > 1:
        return array_api_compat.array_namespace(*arrays)
    kind = type(arrays[0])
    xp = _NAMESPACES.get(kind)
    if xp is None:
        xp = array_api_compat.array_namespace(*arrays)
        if array_api_compat.is_numpy_namespace(xp) or array_api_compat.is_torch_namespace(xp):
            _NAMESPACES[kind] = xp
    return xp


def is_array(x: Any) -> bool:
    """Whether ``x`` belongs to an array-API namespace."""
    return array_api_compat.is_array_api_obj(x)


def like(x: Array, value: Any) -> Array:
    """Return the 0-d array ``value`` in the dtype, device and namespace of ``x``."""
    xp = namespace(x)
    if array_api_compat.is_numpy_namespace(xp) and isinstance(value, float | int):
        return x.dtype.type(value)  # a scalar of NumPy takes a tenth of the time of a 0-d array
    return xp.asarray(value, dtype=x.dtype, device=device_of(x))


def as_like(x: Array, host: Any) -> Array:
    """Return a copy of ``host``, an array of the host, in the kind and on the device of ``x``."""
    return namespace(x).asarray(host, dtype=x.dtype, device=device_of(x), copy=True)


def integer_like(x: Array, value: int) -> Array:
    """Return the 0-d int32 array ``value`` on the device and in the namespace of ``x``."""
    xp = namespace(x)
    return xp.asarray(int(value), dtype=xp.int32, device=device_of(x))


def boolean_like(x: Array, value: bool) -> Array:
    """Return the 0-d boolean array ``value`` on the device and in the namespace of ``x``."""
    xp = namespace(x)
    return xp.asarray(value, dtype=xp.bool, device=device_of(x))


def identity_like(x: Array, size: int) -> Array:
    """Return the identity of shape (size, size) in the dtype, device and namespace of ``x``."""
    return namespace(x).eye(size, dtype=x.dtype, device=device_of(x))


def rows_like(x: Array, count: int) -> Array:
    """Return zeros of shape (count, n), for ``x`` of shape (..., n)."""
    return namespace(x).zeros((count, x.shape[-1]), dtype=x.dtype, device=device_of(x))


def entries_like(x: Array, count: int) -> Array:
    """Return zeros of shape (count,) in the dtype, device and namespace of ``x``."""
    return namespace(x).zeros((count,), dtype=x.dtype, device=device_of(x))


def indices_like(x: Array, count: int) -> Array:
    """Return 0, 1, ..., count - 1 in int32, on the device and in the namespace of ``x``."""
    xp = namespace(x)
    return xp.arange(count, dtype=xp.int32, device=device_of(x))


def widest(x: Array) -> Array:
    """Return ``x`` in float64, or as it is where its device has none, as JAX set to 32 bits."""
    xp, info = namespace(x), namespace(x).__array_namespace_info__()
    known = info.dtypes(device=device_of(x), kind="real floating")
    return xp.astype(x, xp.float64) if "float64" in known else x


def device_of(x: Array) -> Any:
    """Return the device to make a constant on that is to meet ``x``; None is the default one.

    A JAX array that was not placed on purpose is not ``committed`` to its device. A constant that
    is would commit all that it touches, and a step compiled for the one would be compiled again
    for the other.
    """
    device = array_api_compat.device(x)  # None under a JAX transformation
    if hasattr(device, "spec"):  # how JAX lays x on several devices: a constant lies on each
        device = type(device)(device.mesh, type(device.spec)())
    return device if device is None or getattr(x, "committed", True) else None


def is_complex(x: Any) -> bool:
    """Whether ``x`` is an array of complex entries."""
    return is_array(x) and bool(namespace(x).isdtype(x.dtype, "complex floating"))


def complex_dtype(xp: Namespace, dtype: Any) -> Any:
    """Return the complex dtype whose parts are of a real floating ``dtype``."""
    return xp.result_type(dtype, xp.complex64)


def join_parts(re: Any, im: Array) -> Array:
    """Return re + i im as a new array of the shape of ``im``, to which ``re`` broadcasts."""
    xp = namespace(im)
    dtype = complex_dtype(xp, im.dtype)
    if not (array_api_compat.is_numpy_array(im) or array_api_compat.is_cupy_array(im)):
        return re + xp.astype(im, dtype) * 1j
    z = xp.empty_like(im, dtype=dtype)
    z.real, z.imag = re, im
    return z


def eps(x: Array) -> float:
    """Machine epsilon of ``x``'s dtype."""
    return float(_limits(namespace(x), x.dtype).eps)


def smallest(x: Array) -> float:
    """Smallest positive normal number of ``x``'s dtype."""
    return float(_limits(namespace(x), x.dtype).smallest_normal)


def largest(x: Array) -> float:
    """Largest number of ``x``'s dtype."""
    return float(_limits(namespace(x), x.dtype).max)


@cache
def _limits(xp: Namespace, dtype: Any) -> Any:
    return xp.finfo(dtype)


def dot(a: Array, b: Array) -> Array:
    """Return the inner product of two real vectors, as a 0-d array."""
    return a @ b


def columnwise_dot(A: Array, B: Array) -> Array:
    """Return the inner product of two real vectors, or of each column of A with that of B."""
    return dot(A, B) if A.ndim == 1 else namespace(A).sum(A * B, axis=0)


def norm(a: Array) -> Array:
    """Return the Euclidean norm of a vector, or of each column, free of under- and overflow."""
    xp = namespace(a)
    scale = max_abs(a)
    safe = xp.where((scale > 0) & (scale < math.inf), scale, like(a, 1.0))
    unit = a / safe
    return safe * xp.sqrt(columnwise_dot(unit, unit))


def max_abs(a: Array) -> Array:
    """Return the maximum norm of a vector, or of each column; NaN if any entry is."""
    xp = namespace(a)
    if a.shape[0] == 0:
        return like(a, 0.0)
    return xp.max(xp.abs(a), axis=0)


def root(a: Array) -> Array:
    """Return the square root, 0 where rounding has made ``a`` negative."""
    return namespace(a).sqrt(namespace(a).maximum(a, like(a, 0.0)))


def guarded_divide(a: Array, b: Array, otherwise: float = 0.0) -> Array:
    """Return ``a / b``, and ``otherwise`` where ``b`` is zero.

    The denominator is guarded before the ``where``, so that nothing is ever divided by zero
    (an untaken branch would still warn, and still poison a derivative).
    """
    xp = namespace(b)
    zero = b == 0
    safe = b + xp.astype(zero, b.dtype)  # 1 where it was 0
    return xp.where(zero, like(b, otherwise), a / safe)
