"""The backends: which there are, and which one an array belongs to.

A backend is a module ``<name>_backend`` with functions ``make_oracle(objective, params)``,
``from_numpy(array)``, ``from_scipy(sparse, like)``, ``to_numpy(array)``, ``version()`` and
``devices()``. It is imported when it is first asked for. Arrays of any other array-API namespace
are differentiated by the tape.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np
import optree

from ..core.arrays import is_array, namespace
from ..core.errors import BackendUnavailable
from ..core.oracle import Objective, Oracle
from . import strategies
from .linear_operators import linear_operator as linear_operator
from .strategies import Strategy

#: The backends that are modules here: name, the framework's own name, and its arrays' test.
_BACKENDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "numpy": ("NumPy", array_api_compat.is_numpy_array),
    "torch": ("PyTorch", array_api_compat.is_torch_array),
    "jax": ("JAX", array_api_compat.is_jax_array),
    "cupy": ("CuPy", array_api_compat.is_cupy_array),
}


def available() -> dict[str, str | None]:
    """Return, by name of backend, None if it can be used, else the reason and the remedy.

    Imports every framework that is installed.
    """
    return {name: _reason(name) for name in _BACKENDS}


def get(name: str) -> ModuleType:
    """Return the backend ``name`` as a module.

    Raises
    ------
    ValueError
        If there is no such backend.
    BackendUnavailable
        If its framework is not installed or cannot run here.
    """
    if name not in _BACKENDS:
        raise ValueError(f"no backend is called {name!r}; there are: {', '.join(_BACKENDS)}")
    title, _ = _BACKENDS[name]
    try:
        return import_module(f".{name}_backend", __name__)
    except BackendUnavailable:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != name:
            raise
        raise BackendUnavailable(
            f"{title} is not installed: pip install 'osculant[{name}]'"
        ) from error
    except ImportError as error:
        raise BackendUnavailable(
            f"{title} is installed but cannot be imported ({error}): reinstall it"
        ) from error


def oracle(
    fun: Callable[..., Any] | None = None,
    x0: Any = None,
    *,
    model: Callable[..., Any] | None = None,
    loss: Callable[..., Any] | None = None,
    params: Any = None,
    backend: str | None = None,
    products: Strategy = "autodiff",
    **functions: Callable[..., Any],
) -> Oracle:
    """Return the oracle of a function: its values, gradients and curvature products.

    Either ``oracle(fun, x0)``, or ``oracle(model=model, loss=loss, params=params)``, which adds
    the Gauss-Newton products.

    Parameters
    ----------
    fun : callable
        ``fun(x, *data)`` returns a scalar, computed with the array functions of ``x``.
    x0 : tree of arrays
        An array like those to differentiate by, or a tree of them. Its structure, shapes, dtype
        and framework count, its values do not. A number, or a list of numbers, stands for a
        float64 NumPy array.
    model, loss : callable
        ``loss(model(params, *data[:-1]), data[-1])`` is the scalar; without data it is
        ``loss(model(params))``. The model returns one array of any shape. It may be a
        :class:`torch.nn.Module`, which is called as ``model(*data[:-1])`` with ``params`` in
        place.
    params : tree of arrays
        What ``x0`` is to ``fun``. For a module by default its parameters by name, without those
        whose ``requires_grad`` is False.
    backend : str, optional
        ``"numpy"``, ``"torch"``, ``"jax"`` or ``"cupy"``: raise unless the arrays are its own.
    products : str, ComplexStep or FiniteDifference
        Where derivatives come from. ``"autodiff"``; ``"complex-step"``, H v = Im g(x + ihv) / h
        with g the gradient by automatic differentiation or your own; ``"finite-difference"``, for
        functions that can only be called. The classes, in :mod:`osculant.backends.strategies`,
        have options.
    **functions
        Functions of your own for any of ``value``, ``grad``, ``hvp``, ``vhv``, ``ggn``, ``vgv``,
        ``jvp``, ``vjp``, ``loss_hvp``, which are called instead and never traced: ``value`` and
        ``grad`` as ``grad(params, *data)``, the others as ``hvp(params, v, *data)``. ``grad`` and
        what else has the parameters' size takes and returns trees like them. With ``value``,
        ``fun`` may be left out: then there are your own products and no others, unless by steps. A
        ``grad`` that accepts complex arrays has exact Hessian products by
        ``products="complex-step"``.

    Returns
    -------
    Oracle

    Raises
    ------
    TypeError
        If the function is not given in one of the two forms, or if the arrays are of more than
        one framework, of another than ``backend``, or not real floating point of one dtype.
    ValueError
        If ``backend`` is unknown, or there are no parameters.
    BackendUnavailable
        If the framework cannot be used here.

    Examples
    --------
    >>> import numpy as np, osculant
    >>> x = np.array([1.0, 2.0])
    >>> point = osculant.oracle(lambda x: (x**3).sum(), x).at(x)
    >>> point.grad, point.hvp(np.array([1.0, 1.0]))
    (array([ 3., 12.]), array([ 6., 12.]))
    """
    if fun is None and model is None:
        fun = functions.get("value")
    if fun is not None and x0 is not None and model is None and loss is None and params is None:
        objective, example = Objective(fun=fun), as_parameters(x0)
    elif fun is None and x0 is None and model is not None and loss is not None:
        example = as_parameters(_parameters_of(model) if params is None else params)
        objective = Objective(model=model, loss=loss)
    else:
        raise TypeError(
            "a function is given either as oracle(fun, x0) or as "
            "oracle(model=..., loss=..., params=...)"
        )
    name = framework(example)
    if backend is not None and backend != name:
        raise TypeError(_mismatch(get(backend), backend, name))
    module = get(name if name in _BACKENDS else "numpy")  # whose tape runs on any namespace
    return strategies.build(
        objective, example, products, functions, module.make_oracle, module.make_holomorphic
    )


def as_parameters(params: Any) -> Any:
    """Return ``params``, having made numbers and (nested) lists of numbers a float64 NumPy array.

    Trees of arrays are returned as they are.
    """
    if type(params) not in (int, float, list, tuple):
        return params
    leaves = optree.tree_leaves(params, none_is_leaf=True)
    if not leaves or any(type(leaf) not in (int, float) for leaf in leaves):
        return params
    return np.asarray(params, dtype=np.float64)


def in_trace(tree: Any) -> bool:
    """Whether a leaf of ``tree`` stands for an array that JAX is tracing."""
    jax = sys.modules.get("jax")
    return jax is not None and any(
        isinstance(leaf, jax.core.Tracer) for leaf in jax.tree_util.tree_leaves(tree)
    )


def framework(params: Any) -> str:
    """Return the backend of a tree's arrays, or the name of their namespace if it is another.

    Raises
    ------
    TypeError
        If there are no arrays, or arrays of several frameworks.
    """
    arrays = [leaf for leaf in _leaves(params) if is_array(leaf)]
    names = sorted({_framework_of(array) for array in arrays})
    if len(names) == 1:
        return names[0]
    if not names:
        raise TypeError(
            f"the parameters, a {type(params).__name__}, hold no array: pass an array, or dicts, "
            "lists and tuples of arrays"
        )
    raise TypeError(
        f"the parameters mix arrays of {' and '.join(names)}; convert them to one framework: "
        "nothing is converted silently"
    )


def _framework_of(array: Any) -> str:
    for name, (_, is_own) in _BACKENDS.items():
        if is_own(array):
            return name
    return str(namespace(array).__name__)


def _leaves(params: Any) -> list[Any]:
    leaves = optree.tree_leaves(params)
    jax = sys.modules.get("jax")
    if jax is not None and not all(is_array(leaf) for leaf in leaves):
        return jax.tree_util.tree_leaves(params)  # knows the kinds of nodes registered with JAX
    return leaves


def _parameters_of(model: Any) -> Any:
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(model, torch.nn.Module):
        raise TypeError(
            "params= is needed: a tree of arrays, the first argument of model. "
            "Only a torch.nn.Module has parameters of its own"
        )
    return get("torch").module_parameters(model)


def _mismatch(module: ModuleType, backend: str, name: str) -> str:
    message = (
        f"backend={backend!r} was asked for, but the parameters are arrays of {name}; convert them "
        f"with osculant.backends.get({backend!r}).from_numpy: nothing is converted silently"
    )
    if backend == "jax":
        message += f". To keep float64: {module.X64_REMEDY}"
    return message


def _reason(name: str) -> str | None:
    try:
        get(name)
    except BackendUnavailable as error:
        return str(error)
    return None
