"""Constant matrices that are known by their products: sparse ones, above all.

On the tape a product with one is a linear primitive, whose transpose is the product with A';
so a loss over a sparse design matrix costs sparse products only, and nothing is made dense:
one A x and one A'u for the gradient, and another pair for each Hessian product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import array_api_compat

from ..core.arrays import Array, is_array, is_complex, namespace
from .tape.linear import LINEAR
from .tape.record import Variable, apply, plain

#: matvec, rmatvec.
Pair = tuple[Callable[[Array], Array], Callable[[Array], Array]]


@dataclass(frozen=True, eq=False)
class LinearOperator:
    """A constant real matrix A of shape (m, n), made by :func:`linear_operator`.

    ``A @ x`` is defined for x of shape (n,) or (n, k), ``x @ A`` for x of shape (m,) or (k, m);
    ``A.T`` is the transpose. All can be differentiated by x, any number of times.

    Attributes
    ----------
    matrix : object
        Has ``shape``, and ``@`` with arrays of its own framework.
    transposed : object or None
        Its transpose, likewise; None if the framework needs none, and ``matrix.T`` will do.
    """

    matrix: Any
    transposed: Any = None

    __array_ufunc__ = None  # so that NumPy's x @ A asks A

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        m, n = self.matrix.shape
        return int(m), int(n)

    @cached_property
    def T(self) -> LinearOperator:
        """The transpose."""
        if self.transposed is None:
            return LinearOperator(self.matrix.T)
        return LinearOperator(self.transposed, self.matrix)

    def __matmul__(self, x: Any) -> Array:
        self._check(x)
        if array_api_compat.is_torch_array(x):
            from . import torch_backend  # which x has imported anyway

            return torch_backend.multiply(self, x)
        if array_api_compat.is_jax_array(x):
            return self.product(x)  # JAX differentiates it
        return apply(LINEAR["constant_matmul"], x, A=self)

    def __rmatmul__(self, x: Any) -> Array:
        return self.T @ x if x.ndim == 1 else (self.T @ x.T).T

    def product(self, x: Array) -> Array:
        """Return A x for a plain real array."""
        return self.matrix @ x

    def _check(self, x: Any) -> None:
        if not is_array(x):
            raise TypeError(f"a linear operator multiplies arrays, not a {type(x).__name__}")
        own, other = _framework(self.matrix), _framework(plain(x))
        if own not in (None, other):
            raise TypeError(
                f"the linear operator is of {own}, and was multiplied with an array of {other}; "
                "convert a SciPy sparse array once, with osculant.linear_operator(A, like=x): "
                "nothing is converted silently"
            )
        if x.ndim not in (1, 2) or x.shape[0] != self.shape[1]:
            raise ValueError(
                f"a linear operator of shape {self.shape} was multiplied with an array of shape "
                f"{tuple(x.shape)}"
            )


def linear_operator(
    A: Any, *, shape: tuple[int, int] | None = None, like: Array | None = None
) -> LinearOperator:
    """Return a constant matrix as something whose ``@`` can be differentiated everywhere.

    Parameters
    ----------
    A : object
        A sparse array of scipy.sparse, cupyx.scipy.sparse or PyTorch (in any layout), JAX's BCOO or
        BCSR, a :class:`scipy.sparse.linalg.LinearOperator`, an array, or a pair of functions
        ``(matvec, rmatvec)``, which map x of shape (n,) to A x and u of shape (m,) to A'u. Real.
        It is kept by reference and not copied; of PyTorch's, A and A' are kept in compressed rows.
    shape : tuple of int, optional
        (m, n), for a pair of functions.
    like : array, optional
        Convert ``A``, of scipy.sparse, to the sparse format of this array's framework, with its
        dtype and on its device.

    Returns
    -------
    LinearOperator

    Raises
    ------
    TypeError
        If ``A`` is none of these, or complex.
    ValueError
        If a pair has no shape, or ``A`` has not two axes.

    Notes
    -----
    On NumPy and CuPy a sparse array may also be used as it is, ``A @ x``, and so may BCOO on JAX.
    PyTorch multiplies with its own sparse tensors, too, but its second derivatives of such a
    product are more than ten times slower than those of this operator.
    On JAX the functions of a pair must be JAX's: it transposes matvec by itself. A BCOO is best
    handed over as data, and a loss compiled anew for each number of stored entries.

    Examples
    --------
    >>> import numpy as np, osculant
    >>> from scipy.sparse import csr_array
    >>> A = osculant.linear_operator(csr_array([[1.0, 0.0], [2.0, 3.0]]))
    >>> x = np.ones(2)
    >>> osculant.oracle(lambda x, A: ((A @ x) ** 2).sum() / 2, x).at(x, A).hvp(x)
    array([11., 15.])
    """
    if like is not None:
        A = _converted(A, like)
    if isinstance(A, LinearOperator):
        return A
    if isinstance(A, tuple) and len(A) == 2 and all(map(callable, A)):
        if shape is None:
            raise ValueError("a pair (matvec, rmatvec) needs its shape=(m, n)")
        return LinearOperator(Functions(*A, shape))
    if shape is not None:
        raise TypeError("shape= belongs to a pair (matvec, rmatvec)")
    if not is_matrix(A) and not is_array(A):
        raise TypeError(
            f"a {type(A).__name__} is no linear operator; give a sparse array, a SciPy "
            "LinearOperator, an array, or a pair of functions (matvec, rmatvec)"
        )
    _check_real(A)
    if array_api_compat.is_torch_array(A):
        from . import torch_backend

        return LinearOperator(*torch_backend.compressed(A))
    return LinearOperator(A.to_bcoo() if hasattr(A, "to_bcoo") else A)  # BCSR has no transpose


def is_matrix(A: Any) -> bool:
    """Whether ``A`` is a matrix that is not an array, as sparse ones and operators are."""
    return (
        not is_array(A)
        and not isinstance(A, Variable)
        and hasattr(A, "__matmul__")
        and len(getattr(A, "shape", ())) > 0
    )


@dataclass(frozen=True)
class Functions:
    """The matrix of a pair of functions of vectors."""

    matvec: Callable[[Array], Array]
    rmatvec: Callable[[Array], Array]
    shape: tuple[int, int]

    @property
    def T(self) -> Functions:
        """The transpose."""
        return Functions(self.rmatvec, self.matvec, self.shape[::-1])

    def __matmul__(self, x: Array) -> Array:
        if x.ndim == 1:
            return self.matvec(x)
        columns = [self.matvec(x[:, j]) for j in range(x.shape[1])]
        return namespace(x).stack(columns, axis=1)


def _framework(A: Any) -> str | None:
    """Return whose arrays multiply with ``A``: a package's name, None for any."""
    if isinstance(A, Functions):
        return None
    if array_api_compat.is_jax_array(A):  # a tracer's class is in a module of its own
        return "jax"
    root = type(A).__module__.partition(".")[0]
    return {"scipy": "numpy", "cupyx": "cupy", "jaxlib": "jax"}.get(root, root)


def _converted(A: Any, like: Array) -> Any:
    from . import framework, get

    if not hasattr(A, "tocsr"):
        raise TypeError(f"like= converts arrays of scipy.sparse, not a {type(A).__name__}")
    return get(framework(like)).from_scipy(A, like)


def _check_real(A: Any) -> None:
    if len(A.shape) != 2:
        raise ValueError(f"a linear operator has two axes, and this has shape {tuple(A.shape)}")
    dtype = getattr(A, "dtype", None)
    if is_complex(A) or getattr(dtype, "kind", "") == "c":
        raise TypeError(f"the linear operator has dtype {dtype}; real ones only are differentiated")
