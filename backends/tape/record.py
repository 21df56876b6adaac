"""Applying a rule: to plain arrays it is just evaluated, to traced ones it is recorded too.

What carries derivatives is a :class:`Variable`; how it does is its own business. On the tape it
is :class:`Recorded`; a multicomplex array (``multicomplex.py``) is another.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import array_api_compat

from ...core.arrays import (
    Array,
    Namespace,
    complex_dtype,
    is_array,
    is_complex,
    namespace,
)
from ...core.errors import NotDifferentiable
from .graph import FOREIGN, Node, Spec, Tape
from .linear import LINEAR
from .rules import Bilinear, Elementwise, Linear

#: What differentiates each function, by its name in the array API ("linalg.solve" for those of
#: an extension). All accept plain arrays too.
FUNCTIONS: dict[str, Callable[..., Any]] = {}


def differentiable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Enter a function in ``FUNCTIONS`` under its own name, less the underscore of ``sum_``."""
    FUNCTIONS[function.__name__.rstrip("_")] = function
    return function


def differentiable_linalg(function: Callable[..., Any]) -> Callable[..., Any]:
    """Enter a function in ``FUNCTIONS`` as one of the linear algebra extension."""
    FUNCTIONS["linalg." + function.__name__] = function
    return function


class Variable(ABC):
    """A value that carries derivatives along, in whatever way its class does.

    Attributes
    ----------
    value : array
        The plain value, which decides comparisons, branches and indices.
    kind : str
        What messages call it.
    order : int
        The highest derivative that it carries.
    """

    __slots__ = ("value",)

    value: Array
    kind: str
    order: int

    @abstractmethod
    def check_kin(self, other: Variable) -> None:
        """Raise :class:`NotDifferentiable` unless the two may enter the same function."""

    @abstractmethod
    def apply(
        self,
        rule: Elementwise | Linear | Bilinear,
        args: Sequence[Any],
        params: dict[str, Any],
    ) -> Any:
        """Return what ``rule`` makes of ``args``, of which it is one."""

    @abstractmethod
    def with_value(self, value: Array) -> Any:
        """Return ``value``, which differs from this one by a constant, with its derivatives."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return tuple(self.value.shape)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.value.shape)

    @property
    def size(self) -> int:
        """The number of entries."""
        return math.prod(self.value.shape)

    @property
    def dtype(self) -> Any:
        """The dtype of the entries."""
        return self.value.dtype

    @property
    def device(self) -> Any:
        """Where the entries live."""
        return array_api_compat.device(self.value)


class Recorded(Variable):
    """A value together with the node that says how it came about.

    Different variables may share a node: x and x + 1 have the same derivatives.
    """

    __slots__ = ("node", "tape")

    kind = "traced array"
    order = 2

    def __init__(self, tape: Tape, value: Array, node: Node) -> None:
        self.tape = tape
        self.value = value
        self.node = node

    def check_kin(self, other: Variable) -> None:
        """Raise unless ``other`` was traced on the same tape."""
        check_tape(self.tape, other)

    def apply(
        self,
        rule: Elementwise | Linear | Bilinear,
        args: Sequence[Any],
        params: dict[str, Any],
    ) -> Any:
        """Return what ``rule`` makes of ``args``, having recorded it."""
        values = [plain(a) for a in args]
        traced = [is_traced(a) for a in args]
        value = rule.forward(self.tape.xp, *values, **params)
        spec = Spec.of(value)
        parents = [_fitted(a, spec, rule.broadcasts) if is_traced(a) else None for a in args]
        node = self.tape.add(Node(rule, parents, spec, rule.save(values, traced, value), params))
        return type(self)(self.tape, value, node)

    def with_value(self, value: Array) -> Any:
        """Return ``value``, which differs from this one by a constant, with its derivatives."""
        return type(self)(self.tape, value, _fitted(self, Spec.of(value), True))


def plain(x: Any) -> Any:
    """Return the value of a variable, and anything else as it is."""
    return x.value if isinstance(x, Variable) else x


def real_value(x: Any) -> Any:
    """Return :func:`plain` of ``x``, or of a variable the real part: what a program decides by."""
    value = plain(x)
    return namespace(value).real(value) if is_traced(x) and is_complex(value) else value


def is_traced(x: Any) -> bool:
    """Whether derivatives flow through ``x``."""
    return isinstance(x, Variable)


def namespace_of(*args: Any) -> Namespace:
    """Return the namespace of the values of ``args``, traced or plain."""
    return namespace(*(a for a in map(plain, args) if is_array(a)))


def apply(rule: Elementwise | Linear | Bilinear, *args: Any, **params: Any) -> Any:
    """Return what ``rule`` makes of ``args``; traced if one of them is.

    Raises
    ------
    NotDifferentiable
        If arguments were traced in different functions, or turn from real to complex.
    """
    variables = [a for a in args if is_traced(a)]
    if not variables:
        return rule.forward(namespace_of(*args), *args, **params)
    leader, *rest = variables
    for other in rest:
        leader.check_kin(other)
    return leader.apply(rule, args, params)


def with_value(x: Variable, value: Array) -> Any:
    """Return ``value``, which differs from ``x`` by a constant, with the derivatives of ``x``.

    ``value`` may have been broadcast, or promoted, by the constant that was added.
    """
    return x.with_value(value)


def cast(x: Any, dtype: Any) -> Any:
    """Return ``x`` in another dtype; plain, if that is not a floating one.

    In a complex step it is complex that becomes complex.
    """
    xp = namespace_of(x)
    if is_traced(x) and is_complex(x.value):
        if not xp.isdtype(dtype, ("real floating", "complex floating")):
            return xp.astype(real_value(x), dtype)
        dtype = complex_dtype(xp, dtype)
    value = xp.astype(plain(x), dtype)
    if is_traced(x) and xp.isdtype(value.dtype, ("real floating", "complex floating")):
        return with_value(x, value)
    return value


def check_tape(tape: Tape, x: Variable) -> None:
    """Raise unless ``x`` was traced on this tape."""
    if not isinstance(x, Recorded) or x.tape is not tape:
        raise NotDifferentiable(FOREIGN)


def _fitted(x: Recorded, spec: Spec, broadcasts: bool) -> Node:
    """Return the node of ``x`` as its tangent enters a result that looks like ``spec``.

    This is where promotion and broadcasting are recorded, once for all primitives.
    """
    tape, node = x.tape, x.node
    if node.spec.dtype != spec.dtype:
        _check_cast(tape.xp, node.spec.dtype, spec.dtype)
        to = Spec(node.spec.shape, spec.dtype, spec.device)
        node = tape.add(Node(LINEAR["astype"], (node,), to, (node.spec,), {"dtype": spec.dtype}))
    if broadcasts and node.spec.shape != spec.shape:
        params = {"shape": spec.shape}
        node = tape.add(Node(LINEAR["broadcast_to"], (node,), spec, (node.spec,), params))
    return node


def _check_cast(xp: Namespace, source: Any, target: Any) -> None:
    if xp.isdtype(source, "complex floating") != xp.isdtype(target, "complex floating"):
        raise NotDifferentiable(
            f"a traced array turned from {source} into {target}; the tape differentiates real "
            "functions, or holomorphic ones of complex arrays: write the real and the imaginary "
            "part as two real arrays"
        )
