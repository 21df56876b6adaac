"""The array that a program is run on while derivatives are carried along."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

import numpy

from ...core.arrays import Array, namespace
from ...core.errors import NotDifferentiable
from ..linear_operators import is_matrix, linear_operator
from . import contraction, functions, numpy_protocol, shaping
from .namespace import TracedNamespace, traced_namespace
from .record import FUNCTIONS, Variable, real_value


class Active(Variable):
    """A variable that behaves as an array.

    It has the operators of the array API, NumPy's methods, and a namespace of its own; NumPy's
    functions accept it. Comparisons give plain arrays, so that a program may branch on them; in a
    complex step they compare the real parts.
    Whatever would silently lose the derivative raises :class:`NotDifferentiable`. It is
    immutable: ``x += y`` makes a new array, and leaves other names for the old one alone.
    """

    __slots__ = ()
    __array_priority__ = 1000  # CuPy's operators defer to it
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"

    def __format__(self, spec: str) -> str:
        return format(float(real_value(self)) if spec and not self.shape else str(self), spec)

    # Protocols --------------------------------------------------------------------------------

    def __array_namespace__(self, api_version: str | None = None) -> TracedNamespace:
        return traced_namespace(namespace(self.value))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return numpy_protocol.array_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return numpy_protocol.array_function(function, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in numpy_protocol.METHODS and hasattr(self.value, name):
            return numpy_protocol.array_method(self, name)
        raise AttributeError(f"a {self.kind} has no attribute {name!r}")

    # What would lose the derivative -----------------------------------------------------------

    def _lose(self, what: str, instead: str) -> NoReturn:
        raise NotDifferentiable(
            f"{what} of a {self.kind} would lose its derivative: {instead}. Code that cannot be "
            "changed is differentiated by osculant.oracle(fun, x0, products='finite-difference'), "
            "or by a gradient of your own"
        )

    def __float__(self) -> float:
        self._lose("float()", "keep the 0-d array")

    def __int__(self) -> int:
        self._lose("int()", "keep the 0-d array, or take int() of a constant")

    def __complex__(self) -> complex:
        self._lose("complex()", "keep the 0-d array")

    def __index__(self) -> int:
        self._lose("an index made", "compute indices from constants, or with argmax or argsort")

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if _in_sparse_product(sys._getframe(1)):
            return _not_an_array()
        self._lose(
            "numpy.asarray()",
            "pass it to NumPy's functions as it is, and join several with numpy.stack; a matrix "
            "that only knows products takes part as osculant.linear_operator(A) @ x",
        )

    def __dlpack__(self, **kwargs: Any) -> Any:
        self._lose("an export", "keep to the functions of its own namespace")

    def item(self, *args: Any) -> Any:
        """Raise: a Python number has no derivative."""
        self._lose(".item()", "keep the 0-d array")

    def tolist(self) -> Any:
        """Raise: Python numbers have no derivatives."""
        self._lose(".tolist()", "index it, or iterate over it")

    def __setitem__(self, key: Any, value: Any) -> None:
        raise NotDifferentiable(
            f"a {self.kind} cannot be assigned to: what was computed from it would not follow; "
            "build the new array with where, concat or stack"
        )

    # Shape and truth --------------------------------------------------------------------------

    @property
    def T(self) -> Array:
        """The array with its axes reversed."""
        return numpy_protocol.transpose(self)

    @property
    def mT(self) -> Array:
        """The array with its last two axes exchanged."""
        return shaping.matrix_transpose(self)

    @property
    def real(self) -> Array:
        """The array itself, which stands for a real one."""
        return self

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Array]:
        return iter(shaping.unstack(self))

    def __bool__(self) -> bool:
        return bool(real_value(self))

    def __getitem__(self, key: Any) -> Array:
        return shaping.getitem(self, key)

    # Arithmetic -------------------------------------------------------------------------------

    def __pos__(self) -> Array:
        return self

    def __neg__(self) -> Array:
        return FUNCTIONS["negative"](self)

    def __abs__(self) -> Array:
        return FUNCTIONS["abs"](self)

    def __add__(self, other: Any) -> Array:
        return functions.add(self, other)

    def __radd__(self, other: Any) -> Array:
        return functions.add(other, self)

    def __sub__(self, other: Any) -> Array:
        return functions.subtract(self, other)

    def __rsub__(self, other: Any) -> Array:
        return functions.subtract(other, self)

    def __mul__(self, other: Any) -> Array:
        if is_matrix(other):
            raise NotDifferentiable(f"write x @ A for the product of a {self.kind} and a matrix")
        return FUNCTIONS["multiply"](self, other)

    def __rmul__(self, other: Any) -> Array:
        if is_matrix(other):  # a scipy.sparse matrix, whose * is @
            return other @ self
        return FUNCTIONS["multiply"](other, self)

    def __truediv__(self, other: Any) -> Array:
        return FUNCTIONS["divide"](self, other)

    def __rtruediv__(self, other: Any) -> Array:
        return FUNCTIONS["divide"](other, self)

    def __mod__(self, other: Any) -> Array:
        return FUNCTIONS["remainder"](self, other)

    def __rmod__(self, other: Any) -> Array:
        return FUNCTIONS["remainder"](other, self)

    def __pow__(self, other: Any) -> Array:
        return functions.pow_(self, other)

    def __rpow__(self, other: Any) -> Array:
        return functions.pow_(other, self)

    def __matmul__(self, other: Any) -> Array:
        if is_matrix(other):
            return linear_operator(other).__rmatmul__(self)
        return contraction.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Array:
        if is_matrix(other):
            return linear_operator(other) @ self
        return contraction.matmul(other, self)

    # Piecewise constant: plain results --------------------------------------------------------

    def __floordiv__(self, other: Any) -> Array:
        return real_value(self) // real_value(other)

    def __rfloordiv__(self, other: Any) -> Array:
        return other // real_value(self)

    def __lt__(self, other: Any) -> Array:
        return real_value(self) < real_value(other)

    def __le__(self, other: Any) -> Array:
        return real_value(self) <= real_value(other)

    def __gt__(self, other: Any) -> Array:
        return real_value(self) > real_value(other)

    def __ge__(self, other: Any) -> Array:
        return real_value(self) >= real_value(other)

    def __eq__(self, other: Any) -> Array:
        return real_value(self) == real_value(other)

    def __ne__(self, other: Any) -> Array:
        return real_value(self) != real_value(other)


# SciPy's sparse products ----------------------------------------------------------------------


def _in_sparse_product(frame: FrameType) -> bool:
    """Whether scipy.sparse asks in ``A @ x`` whether x is an array.

    Its products know no other protocol: they call numpy.asanyarray(x), and hand over to
    ``x.__rmatmul__(A)`` if that makes nothing of x but an object without axes. Nobody else is given
    one, as it would silently have neither the shape nor the derivative of x.
    """
    module = frame.f_globals.get("__name__", "")
    return module.startswith("scipy.sparse.") and frame.f_code.co_name in _SPARSE_PRODUCTS


#: As they are called from SciPy 1.11 on.
_SPARSE_PRODUCTS = frozenset({"_matmul_dispatch", "_mul_dispatch"})


def _not_an_array() -> Any:
    return numpy.array(None, dtype=object)
