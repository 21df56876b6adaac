"""Oracles that are wrong on purpose: what each law is there to catch.

A mutant wraps a correct oracle, of any backend, and makes one mistake. It names the law that
must catch it; a law that no mutant breaks might as well be missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from typing import Any

import array_api_compat
import numpy as np
import optree

from ..backends.strategies import ComplexStep
from ..core.arrays import Array, join_parts, namespace
from ..core.oracle import Oracle, Point, Product
from .checks import NotApplicable
from .mutant import MUTANTS as MUTANTS
from .mutant import mutant
from .subject import Subject, to_numpy
from .wrapped import Wrapped, WrappedPoint


def _mutable(subject: Subject) -> None:
    if not subject.mutable:
        raise NotApplicable("arrays are immutable: nothing can be overwritten")


def _foreign(subject: Subject) -> None:
    if array_api_compat.is_numpy_array(subject.here.x):
        raise NotApplicable("arrays are NumPy's own: a copy to NumPy is no mistake")


def _compiling(subject: Subject) -> None:
    if subject.oracle.flow.jit(to_numpy) is to_numpy:
        raise NotApplicable("nothing is compiled")


def _stepping(subject: Subject) -> None:
    if not isinstance(_step(subject.oracle), ComplexStep):
        raise NotApplicable("nothing steps into the complex plane")


def _step(oracle: Oracle) -> Any:
    return getattr(getattr(oracle, "base", None), "step", None)


# Wrong values -------------------------------------------------------------------------------


@mutant("closed_form_value")
class ValueHalved(WrappedPoint):
    """The value lacks a factor of two."""

    @property
    def value(self) -> Array:
        """Half of it."""
        return 0.5 * self.inner.value


@mutant("closed_form_grad")
class GradientShifted(WrappedPoint):
    """The gradient is off by one coordinate."""

    @property
    def grad(self) -> Array:
        """The next one's."""
        grad = self.inner.grad
        return namespace(grad).roll(grad, 1)


@mutant("closed_form_hvp")
class HvpIsGgn(WrappedPoint):
    """Hessian products are Gauss-Newton products."""

    def hvp(self, V: Array) -> Array:
        """Return G V."""
        return self.ggn(V) if Product.GGN in self.oracle.products else self.inner.hvp(V)


@mutant("hvp_symmetric")
class HvpAsymmetric(WrappedPoint):
    """The Hessian is not symmetric."""

    def hvp(self, V: Array) -> Array:
        """Return H V and a little of a permutation of V."""
        return self.inner.hvp(V) + 0.1 * namespace(V).roll(V, 1, axis=0)


@mutant("linear")
class HvpCurved(WrappedPoint):
    """A finite difference whose step ignores the length of v: the product is not linear."""

    def hvp(self, V: Array) -> Array:
        """Return H V with an error of second order in V."""
        return self.inner.hvp(V) + 0.1 * V * V


@mutant("closed_form_vhv")
class VhvHalved(WrappedPoint):
    """vhv is the quadratic model's v'Hv/2."""

    def vhv(self, V: Array) -> Array:
        """Return half of it."""
        return 0.5 * self.inner.vhv(V)


@mutant("vhv_quadratic")
class VhvNegated(WrappedPoint):
    """vhv has the wrong sign."""

    def vhv(self, V: Array) -> Array:
        """Return -v'Hv."""
        return -self.inner.vhv(V)


@mutant("closed_form_ggn")
class GgnIsEmpiricalFisher(WrappedPoint):
    """Gauss-Newton is the outer product of the gradient, the empirical Fisher matrix."""

    def ggn(self, V: Array) -> Array:
        """Return g g' V."""
        g = self.inner.grad
        return (g[:, None] * g[None, :]) @ V


@mutant("ggn_factors")
class GgnUnweighted(WrappedPoint):
    """Gauss-Newton is J'J: the weights of the loss are forgotten."""

    def ggn(self, V: Array) -> Array:
        """Return J'J V."""
        return self.inner.vjp(self.inner.jvp(V))


@mutant("ggn_symmetric")
class GgnAsymmetric(WrappedPoint):
    """Gauss-Newton is not symmetric."""

    def ggn(self, V: Array) -> Array:
        """Return G V and a little of a permutation of V."""
        return self.inner.ggn(V) + 0.1 * namespace(V).roll(V, 1, axis=0)


@mutant("ggn_psd")
class GgnNegated(WrappedPoint):
    """Gauss-Newton has the wrong sign, as that of a log-likelihood."""

    def ggn(self, V: Array) -> Array:
        """Return -G V."""
        return -self.inner.ggn(V)


@mutant("closed_form_vgv")
class VgvUnweighted(WrappedPoint):
    """vgv is |Jv|^2: the weights of the loss are forgotten."""

    def vgv(self, V: Array) -> Array:
        """Return |Jv|^2."""
        JV = self.inner.jvp(V)
        return namespace(JV).sum(JV * JV, axis=0)


@mutant("vgv_quadratic")
class VgvHalved(WrappedPoint):
    """vgv is the quadratic model's v'Gv/2."""

    def vgv(self, V: Array) -> Array:
        """Return half of it."""
        return 0.5 * self.inner.vgv(V)


@mutant("closed_form_jvp")
class JvpScaled(WrappedPoint):
    """Jacobian products are scaled, as by a step that was not divided out."""

    def jvp(self, V: Array) -> Array:
        """Return 2 J V."""
        return 2.0 * self.inner.jvp(V)


@mutant("closed_form_vjp")
class VjpUntransposed(WrappedPoint):
    """Transposed Jacobian products lack the transpose, where the shapes allow it."""

    def vjp(self, U: Array) -> Array:
        """Return J U if J is square."""
        square = self.inner.outputs.shape[0] == self.oracle.size
        return self.inner.jvp(U) if square else self.inner.vjp(U)


@mutant("adjoint")
class VjpNegated(WrappedPoint):
    """Transposed Jacobian products have the sign that conjugating an imaginary part leaves."""

    def vjp(self, U: Array) -> Array:
        """Return -J' U."""
        return -self.inner.vjp(U)


@mutant("closed_form_loss_hvp")
class LossHvpIdentity(WrappedPoint):
    """The loss is taken for half a sum of squares, whose Hessian is the identity."""

    def loss_hvp(self, U: Array) -> Array:
        """Return U."""
        return 1.0 * U


@mutant("closed_form_third")
class ThirdIsCoefficient(WrappedPoint):
    """third is the cubic model's coefficient D^3 f[v, v, v] / 3!."""

    def third(self, V: Array) -> Array:
        """Return a sixth of it."""
        return self.inner.third(V) / 6.0


@mutant("third_symmetric")
class DhvpScaled(WrappedPoint):
    """The derivative of the Hessian lacks the length of its direction, as if it were normalised."""

    def dhvp(self, v: Array, W: Array) -> Array:
        """Return it for a direction whose entries sum to one in size."""
        return self.inner.dhvp(v, W) / namespace(v).sum(namespace(v).abs(v))


@mutant("closed_form_taylor")
class TaylorIsCoefficients(WrappedPoint):
    """taylor gives the polynomial's coefficients: the derivatives over k!."""

    def taylor(self, v: Array, order: int = 3) -> tuple[Array, ...]:
        """Return them over k!."""
        terms = self.inner.taylor(v, order)
        return tuple(term / math.factorial(k) for k, term in enumerate(terms))


@mutant("taylor_derivatives")
class TaylorOfUnitDirection(WrappedPoint):
    """taylor differentiates along the direction brought to length one, as a step does."""

    def taylor(self, v: Array, order: int = 3) -> tuple[Array, ...]:
        """Return the terms along v / |v|."""
        return self.inner.taylor(v / namespace(v).sqrt(namespace(v).sum(v * v)), order)


@mutant("summary_contraction")
class HvpIsBlockDiagonal(WrappedPoint):
    """The Hessian lacks what couples one tensor of parameters with another."""

    def hvp(self, V: Array) -> Array:
        """Return the sum of the groups' own products."""
        xp = namespace(V)
        places = xp.arange(V.shape[0], device=array_api_compat.device(V))
        total = 0.0 * V
        for where in self.oracle.groups.values():
            mine = xp.astype((places >= where.start) & (places < where.stop), V.dtype)
            mine = mine if V.ndim == 1 else mine[:, None]
            total = total + mine * self.inner.hvp(mine * V)
        return total


@mutant("columns")
class ColumnsReversed(WrappedPoint):
    """Products of many vectors come in the opposite order."""

    def hvp(self, V: Array) -> Array:
        """Return H V with its columns reversed."""
        HV = self.inner.hvp(V)
        return HV if HV.ndim == 1 else namespace(HV).flip(HV, axis=1)


@mutant("columns")
class ColumnsTransposed(WrappedPoint):
    """Products of many vectors are stacked along the wrong axis, then reshaped to fit."""

    def hvp(self, V: Array) -> Array:
        """Return H V with its entries in a wrong order."""
        HV = self.inner.hvp(V)
        return HV if HV.ndim == 1 else namespace(HV).reshape(HV.T, HV.shape)


# Wrong steps --------------------------------------------------------------------------------


def _stepped(oracle: Oracle, step: ComplexStep) -> Oracle:
    """Return a complex-step oracle with another step."""
    other, other.base = copy(oracle), copy(oracle.base)  # type: ignore[attr-defined]
    other.base.step = step  # type: ignore[attr-defined]
    return other


@mutant("as_autodiff", _stepping)
class StepTooLong(Wrapped):
    """The step is 1e-3, as one would choose for finite differences: its error is h^2 / 6 D^3."""

    def __init__(self, inner: Oracle) -> None:
        super().__init__(_stepped(inner, ComplexStep(h=1e-3)))


class _Conjugated(ComplexStep):
    """A step through a function that ends in a transpose which conjugates."""

    def along(self, F: Callable[[Array], Array], x: Array, v: Array) -> Array:
        """Return the derivative of the conjugate."""
        return super().along(lambda z: namespace(z).conj(F(z)), x, v)


@mutant("as_autodiff", _stepping)
class TransposeConjugated(Wrapped):
    """The reverse pass applies the adjoint of each step instead of its transpose."""

    def __init__(self, inner: Oracle) -> None:
        super().__init__(_stepped(inner, _Conjugated()))


@mutant("as_autodiff", _stepping)
class BicomplexIdempotent(WrappedPoint):
    """v'Hv is a bicomplex evaluation in idempotent components, which are subtracted in the end.

    f(x + hv i + hv j) is f(x) and f(x + 2ihv) in these, and v'Hv = (f(x) - Re f(x + 2ihv)) / 2h^2.
    """

    def vhv(self, V: Array) -> Array:
        """Subtract, for each column."""
        xp, extended = namespace(V), self.oracle.inner.base.extended  # type: ignore[attr-defined]
        if V.ndim == 2:
            return xp.stack([self.vhv(V[:, j]) for j in range(V.shape[1])])
        h = 1e-4
        value = extended.value(join_parts(self.x, 2.0 * h * V), *self.data)
        return (self.value - xp.real(value)) / (2.0 * h * h)


# Wrong arrays -------------------------------------------------------------------------------


@mutant("kind")
class Upcast(WrappedPoint):
    """Hessian products leave in another precision than they came."""

    def hvp(self, V: Array) -> Array:
        """Return H V in float64, or in float32 if it was that."""
        xp = namespace(V)
        return xp.astype(self.inner.hvp(V), xp.float64 if V.dtype == xp.float32 else xp.float32)


@mutant("kind", _foreign)
class HostCopy(WrappedPoint):
    """The gradient leaves as a NumPy array, whatever came."""

    @property
    def grad(self) -> Array:
        """On the host."""
        return to_numpy(self.inner.grad)


@mutant("kind")
class ValueIsVector(WrappedPoint):
    """The value is of shape (1,) instead of 0-d."""

    @property
    def value(self) -> Array:
        """With one axis too many."""
        return self.inner.value[None]


@mutant("arguments_unmutated", _mutable)
class DirectionMutated(WrappedPoint):
    """The direction is normalised in place."""

    def hvp(self, V: Array) -> Array:
        """Return H V and spoil V."""
        HV = self.inner.hvp(V)
        V[...] = V / 2
        return HV


@mutant("arguments_unmutated", _mutable)
class ParametersMutated(Wrapped):
    """The parameters are perturbed in place and not put back."""

    def at(self, x: Array, *data: Any) -> WrappedPoint:
        """Linearise, and spoil ``x``."""
        point = super().at(x, *data)
        x[...] = x + 1e-3
        return point


@mutant("arguments_unmutated", _mutable)
class DataMutated(Wrapped):
    """The data are centred in place."""

    def at(self, x: Array, *data: Any) -> WrappedPoint:
        """Linearise, and spoil the data."""
        point = super().at(x, *data)
        leaves: list[Array] = optree.tree_leaves(data)
        for leaf in leaves[:1]:
            leaf[...] = leaf * 2
        return point


@mutant("results_unaliased", _mutable)
class BufferReused(WrappedPoint):
    """Each Hessian product is written over the one before."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.buffers: dict[tuple[int, ...], Array] = {}

    def hvp(self, V: Array) -> Array:
        """Return H V in the same buffer every time."""
        buffer: Array = self.buffers.setdefault(tuple(V.shape), self.inner.hvp(V))
        buffer[...] = self.inner.hvp(V)
        return buffer


@mutant("results_unaliased", _mutable)
class GradientShared(WrappedPoint):
    """The gradient that is handed out is the one that is kept."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.kept = self.inner.grad

    @property
    def grad(self) -> Array:
        """The same array every time."""
        return self.kept


@mutant("ravel_round_trip", _mutable)
class UnravelAliases(Wrapped):
    """The tree's leaves are views of the vector."""

    def unravel(self, vector: Array) -> Any:
        """Return views."""
        return self.structure.build(self.structure.split(vector))


@mutant("ravel_round_trip")
class UnravelReversed(Wrapped):
    """The tree is filled in another order than the vector."""

    def unravel(self, vector: Array) -> Any:
        """Fill the tree from the end of the vector."""
        return self.inner.unravel(namespace(vector).flip(vector))


# Wrong memory -------------------------------------------------------------------------------


@mutant("point_outlives", _mutable)
class PointFollows(WrappedPoint):
    """The point keeps a reference to the parameters, and answers where they are now."""

    @property
    def inner(self) -> Point:
        """Linearised at what ``x`` has become."""
        return self.oracle.inner.at(self.x, *self.data)


@mutant("point_outlives")
class OnlyLatest(Wrapped):
    """All points answer from what the oracle computed last."""

    def __init__(self, inner: Oracle) -> None:
        super().__init__(inner)
        self.points: list[WrappedPoint] = []

    def at(self, x: Array, *data: Any) -> WrappedPoint:
        """Linearise, for the points before as well."""
        self.points.append(super().at(x, *data))
        for point in self.points:
            point.linearised = self.points[-1].linearised
        return self.points[-1]


@mutant("repeatable")
class GradientAccumulates(WrappedPoint):
    """The gradient adds up from one question to the next."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.sum = 0.0 * self.inner.grad

    @property
    def grad(self) -> Array:
        """The sum of all so far."""
        self.sum = self.sum + self.inner.grad
        return self.sum


@mutant("one_linearisation")
class Reevaluates(WrappedPoint):
    """Every question linearises the function again."""

    @property
    def inner(self) -> Point:
        """A new point at the same place."""
        return self.oracle.inner.at(self.x, *self.data)


@mutant("closed_form_elsewhere")
class DataRemembered(Wrapped):
    """The data of the first call are kept, as if closed over."""

    first: tuple[Any, ...] | None = None

    def at(self, x: Array, *data: Any) -> WrappedPoint:
        """Linearise with the first data."""
        self.first = data if self.first is None else self.first
        return super().at(x, *self.first)


@mutant("closed_form_elsewhere")
class ValueRemembered(Wrapped):
    """The oracle's value is that of its first call."""

    first: Array | None = None

    def value(self, x: Array, *data: Any) -> Array:
        """Return the first value."""
        self.first = super().value(x, *data) if self.first is None else self.first
        return self.first


# Broken contract ----------------------------------------------------------------------------


@mutant("declared")
class Overclaims(Wrapped):
    """Gauss-Newton products are declared for a function that is no composition."""

    def __init__(self, inner: Oracle) -> None:
        super().__init__(inner)
        self.products = frozenset(Product)


@mutant("declared")
class Underclaims(Wrapped):
    """A product that is there is not declared."""

    def __init__(self, inner: Oracle) -> None:
        super().__init__(inner)
        self.products = inner.products - {Product.VHV}


@mutant("bad_input")
class CastsSilently(Wrapped):
    """Parameters of another dtype are cast."""

    def at(self, x: Array, *data: Any) -> WrappedPoint:
        """Linearise at whatever comes."""
        return super().at(namespace(x).astype(x, self.structure.dtype), *data)


@mutant("compiled", _compiling)
class DecidesOnTheHost(Wrapped):
    """Python looks at the parameters' values, which a compiler does not know."""

    def at(self, x: Array, *data: Any) -> WrappedPoint:
        """Linearise, having looked at ``x``."""
        return super().at(x if float(x[0]) < np.inf else -x, *data)
