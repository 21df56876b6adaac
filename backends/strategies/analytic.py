"""A complex step through NumPy code that is not ours: what can be extended is, the rest raises."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...core.errors import NotAnalytic


def _chosen(difference: Any, x: Any, y: Any) -> Any:
    """Return x where the difference is positive, y where it is negative, their mean at a tie."""
    return np.where(difference > 0, x, np.where(difference < 0, y, 0.5 * (x + y)))


def _of_real_parts(ufunc: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: ufunc(*map(np.real, args))


_COMPARISONS = (np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal)
_ROUNDINGS = (np.sign, np.floor, np.ceil, np.rint, np.trunc)

#: Extended by the real part of the arguments.
_BRANCHING: dict[str, Callable[..., Any]] = {
    "absolute": lambda x: x * np.sign(x.real),
    "fabs": lambda x: x * np.sign(x.real),
    "maximum": lambda x, y: _chosen(np.real(x) - np.real(y), x, y),
    "minimum": lambda x, y: _chosen(np.real(y) - np.real(x), x, y),
    **{ufunc.__name__: _of_real_parts(ufunc) for ufunc in (*_COMPARISONS, *_ROUNDINGS)},
}

#: Which have no analytic extension as they are written, and what to write instead.
_REFUSED = {
    "conjugate": "leave it away, and write x.T for x.conj().T",
    "real": "leave it away: the argument stands for a real array",
    "imag": "the argument stands for a real array, which has none",
    "angle": "write arctan2",
    "vdot": "write numpy.dot or @, which do not conjugate",
    "vecdot": "write numpy.sum of the product, which does not conjugate",
    "linalg.norm": "write numpy.sqrt(numpy.sum(x * x))",
}


class Analytic(np.ndarray):
    """A complex array that stands for a real one moved along the imaginary axis.

    ``abs``, ``maximum``, ``sign`` and comparisons go by the real part. Conjugation, parts and
    what is built on them raise :class:`NotAnalytic`.
    """

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        plain = [unwatched(x) for x in inputs]
        if "out" in kwargs:
            kwargs["out"] = tuple(unwatched(x) for x in kwargs["out"])
        if not any(map(np.iscomplexobj, plain)):
            return getattr(ufunc, method)(*plain, **kwargs)
        name = ufunc.__name__
        if name in _REFUSED:
            raise _error(f"numpy.{name}", _REFUSED[name])
        if name in _BRANCHING and method == "__call__":
            if kwargs:
                raise _error(f"numpy.{name} with {', '.join(kwargs)}", "use numpy.where")
            return _wrapped(_BRANCHING[name](*plain))
        # NumPy's reductions order complex numbers by their real parts, as they should
        return _wrapped(getattr(ufunc, method)(*plain, **kwargs))

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        name = f"{function.__module__}.{function.__name__}".removeprefix("numpy.")
        if name in _REFUSED:
            raise _error(f"numpy.{name}", _REFUSED[name])
        return super().__array_function__(function, types, args, kwargs)

    def conj(self) -> Any:
        """Raise: conjugation is not analytic."""
        raise _error("conj", _REFUSED["conjugate"])

    conjugate = conj

    @property  # type: ignore[misc]
    def real(self) -> Any:
        """Raise: the real part is not analytic."""
        raise _error(".real", _REFUSED["real"])

    @property  # type: ignore[misc]
    def imag(self) -> Any:
        """Raise: the imaginary part is not analytic."""
        raise _error(".imag", _REFUSED["imag"])


@contextmanager
def watching(name: str) -> Iterator[None]:
    """Turn NumPy's complaints about complex numbers in the user's function into NotAnalytic."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        try:
            yield
        except (np.exceptions.ComplexWarning, TypeError) as error:
            if isinstance(error, NotAnalytic) or not _about_complex(error):
                raise
            raise NotAnalytic(
                f"{name} cannot be called with complex arrays, as a complex step does: {error}. "
                "Make its work arrays with numpy.zeros_like(x) or dtype=x.dtype; or use "
                "products='finite-difference'"
            ) from error


def _about_complex(error: Exception) -> bool:
    text = str(error)
    return "complex" in text.lower() or "not supported for the input types" in text


def _error(what: str, instead: str) -> NotAnalytic:
    return NotAnalytic(f"{what} of a complex step has no analytic extension: {instead}")


def unwatched(x: Any) -> Any:
    """Return an analytic array as a plain one, and anything else as it is."""
    return x.view(np.ndarray) if isinstance(x, Analytic) else x


def watched(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that knows the extension of all it does as one of analytic arrays."""
    return lambda *args: _wrapped(function(*map(unwatched, args)))


def _wrapped(result: Any) -> Any:
    return np.asarray(result).view(Analytic) if np.iscomplexobj(result) else result
