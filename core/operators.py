"""Matrix-free operator views of curvature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .arrays import Array
from .flow import EAGER, Flow
from .krylov.linear_solve import LinearSolution, linear_solve
from .structure import Structure


class Operator:
    """A symmetric n x n matrix known by its products: ``scale * A + shift * I``.

    Operators of the same parameters are added, subtracted, scaled and shifted; ``V @ A`` is
    (A V')'.

    Parameters
    ----------
    product : callable
        Maps V of shape (n,) or (n, k) to A V.
    structure : Structure
        Size, dtype and namespace of the vectors.
    scale, shift : float
        Coefficients of A and of the identity.
    flow : Flow
        Control flow for :meth:`solve`: that of the oracle whose products they are.

    Examples
    --------
    >>> import numpy as np, osculant
    >>> pt = osculant.oracle(lambda x: (x**4).sum(), np.ones(2)).at(np.ones(2))
    >>> (pt.H + 0.5) @ np.array([1.0, 0.0])
    array([12.5,  0. ])
    >>> (pt.H + pt.H) / 4
    <Operator of shape (2, 2), float64>

    The Hessian of a mean over batches:

    >>> oracle = osculant.oracle(lambda x, a: (a * x**2).sum(), np.ones(2))
    >>> batches = [np.array([1.0, 2.0]), np.array([3.0, 4.0])]
    >>> H = sum(oracle.at(np.ones(2), a).H for a in batches) / 2
    >>> H @ np.eye(2)
    array([[4., 0.],
           [0., 6.]])
    """

    __array_ufunc__ = None  # so that NumPy leaves V @ A to the operator

    def __init__(
        self,
        product: Callable[[Array], Array],
        structure: Structure,
        scale: float = 1.0,
        shift: float = 0.0,
        *,
        flow: Flow = EAGER,
    ) -> None:
        self._product = product
        self.structure = structure
        self.flow = flow
        self.scale = scale
        self.shift = shift

    def __repr__(self) -> str:
        dtype = str(self.dtype).rpartition(".")[-1]
        return f"<{type(self).__name__} of shape {self.shape}, {dtype}>"

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return (self.structure.size, self.structure.size)

    @property
    def dtype(self) -> Any:
        """The dtype of the vectors."""
        return self.structure.dtype

    @property
    def T(self) -> Operator:
        """The operator itself, which is symmetric."""
        return self

    def __matmul__(self, V: Array) -> Array:
        result = self._product(V)
        if self.scale != 1.0:
            result = self.scale * result
        return result + self.shift * V if self.shift != 0.0 else result

    def __rmatmul__(self, V: Array) -> Array:
        return self @ V if V.ndim == 1 else (self @ V.T).T

    def __add__(self, other: Operator | float) -> Operator:
        if not isinstance(other, Operator):
            return self._with(self.scale, self.shift + _real(other))
        if other.structure != self.structure:
            raise ValueError("the operators are of different parameters")
        return Operator(lambda V: self @ V + other @ V, self.structure, flow=self.flow)

    __radd__ = __add__

    def __sub__(self, other: Operator | float) -> Operator:
        return self + (-other)

    def __rsub__(self, other: float) -> Operator:
        return -self + other

    def __mul__(self, factor: float) -> Operator:
        return self._with(self.scale * _real(factor), self.shift * _real(factor))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Operator:
        return self * (1.0 / _real(divisor))

    def __neg__(self) -> Operator:
        return self * -1.0

    def _with(self, scale: float, shift: float) -> Operator:
        return Operator(self._product, self.structure, scale, shift, flow=self.flow)

    def solve(
        self,
        b: Array,
        *,
        rtol: float = 1e-5,
        atol: float = 0.0,
        maxiter: int | None = None,
        preconditioner: Callable[[Array], Array] | None = None,
    ) -> LinearSolution:
        """Solve A x = b by conjugate gradients, where the arrays are, also under a tracer.

        Parameters
        ----------
        b : array of shape (n,) or (n, k)
            With k columns, each product is one of (n, k).
        rtol, atol : float
            A column ends once |b - A x| <= max(rtol |b|, atol); SciPy's defaults.
        maxiter : int, optional
            Most products; 10 n, SciPy's default, if it is not given.
        preconditioner : callable, optional
            Maps V, of the shape of b, to P^-1 V with P positive definite and close to A.

        Returns
        -------
        LinearSolution
            ``x``, and of each column whether it ``converged``, and whether it was ``indefinite``:
            A must be positive definite, and a column that meets a direction of another curvature
            ends there. ``pt.G`` with a positive shift always is, ``pt.H`` is near a minimum.

        Raises
        ------
        TypeError
            If b is of another framework or dtype than the parameters.
        ValueError
            If b has another shape, or a limit is negative.

        Examples
        --------
        >>> import numpy as np, osculant
        >>> pt = osculant.oracle(lambda x: (x**4).sum(), np.ones(2)).at(np.ones(2))
        >>> (pt.H + 0.5).solve(np.array([25.0, 12.5])).x
        array([2., 1.])
        """
        self.structure.check(b, columns=True, name="b")
        most = 10 * self.structure.size if maxiter is None else maxiter
        for name, given in (("rtol", rtol), ("atol", atol), ("maxiter", most)):
            if not given >= 0:
                raise ValueError(f"{name} is {given}; it must be zero or positive")
        return linear_solve(
            self.__matmul__,
            b,
            precondition=preconditioner or (lambda V: V),
            rtol=rtol,
            atol=atol,
            maxiter=most,
            flow=self.flow,
        )

    def to_scipy(self) -> Any:
        """Return a :class:`scipy.sparse.linalg.LinearOperator` over NumPy arrays.

        Raises
        ------
        TypeError
            If the arrays live on an accelerator: SciPy's solvers run on the host, and nothing
            is moved between devices silently.
        """
        from ..adapters.scipy_adapter import linear_operator

        return linear_operator(self)


def _real(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"an operator is shifted and scaled by real numbers, not by {type(value).__name__}"
        ) from error
