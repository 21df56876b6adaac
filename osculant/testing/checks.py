"""The laws that derivatives, and oracles that answer them, obey.

Each law is a function of a :class:`~osculant.testing.subject.Subject` that raises
AssertionError where the oracle breaks it, and :class:`NotApplicable` where it says nothing.
"""

from __future__ import annotations

import unittest
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np
import optree

from ..core.arrays import Array, namespace
from ..core.errors import ProductUnavailable
from ..core.oracle import Product
from ..core.partition import canonical
from ..core.summary import summary
from .subject import ROUNDING, Subject, overwrite, to_numpy

_LINEAR = (Product.HVP, Product.GGN, Product.JVP, Product.VJP, Product.LOSS_HVP)


class NotApplicable(unittest.SkipTest):
    """A law says nothing here, for the reason given. Test runners show it as a skip."""


@dataclass(frozen=True)
class Law:
    """A law with its name; call it with a subject."""

    name: str
    statement: str
    check: Callable[[Subject], None]
    needs: frozenset[Product] = frozenset()

    def __call__(self, subject: Subject) -> None:
        """Raise AssertionError if the subject breaks the law, NotApplicable if it cannot."""
        if not __debug__:
            raise RuntimeError("python -O removes the assertions that laws are made of")
        for product in sorted(self.needs - subject.oracle.products):
            raise NotApplicable(f"the oracle has no {product}")
        self.check(subject)

    def __str__(self) -> str:
        return self.name


#: Every law, by name.
LAWS: dict[str, Law] = {}


def law(
    statement: str, *needs: Product
) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    """Register a function as the law of its name; it applies to oracles that have ``needs``."""

    def register(check: Callable[[Subject], None]) -> Callable[[Subject], None]:
        LAWS[check.__name__] = Law(check.__name__, statement, check, frozenset(needs))
        return check

    return register


# Closed forms -------------------------------------------------------------------------------


@law("value is the function, at a point and on its own")
def closed_form_value(s: Subject) -> None:
    """Compare the value, and the model's outputs, with the closed form."""
    point, expected = s.at(), s.expected(s.scenario.here)
    x, data = s.here
    s.check_close(point.value, expected["value"], "value")
    s.check_close(s.oracle.value(x, *data), expected["value"], "oracle.value")
    if Product.JVP in s.oracle.products and "outputs" in expected:
        s.check_close(point.outputs, expected["outputs"], "outputs")


def _closed_form(product: Product) -> Law:
    def check(s: Subject) -> None:
        point, expected = s.at(), s.expected(s.scenario.here)
        name = "grad" if product is Product.GRAD else f"{product}(v)"
        if name not in expected:
            raise NotApplicable(f"the scenario has no closed form of {product}")
        s.check_close(s.ask(point, product, s.direction(product)[:, 0]), expected[name], name)

    name = f"closed_form_{product}"
    return Law(name, f"{product} equals its closed form", check, frozenset({product}))


LAWS.update((each.name, each) for each in map(_closed_form, Product))


@law("another place and other data give the derivatives there: nothing is remembered")
def closed_form_elsewhere(s: Subject) -> None:
    """Compare with the closed forms at a second place, after a first."""
    s.answers(s.at())
    s.oracle.value(s.here.x, *s.here.data)
    x, data = s.elsewhere
    expected = s.expected(s.scenario.elsewhere)
    s.check_all_close(s.answers(s.oracle.at(x, *data)), expected)
    s.check_close(s.oracle.value(x, *data), expected["value"], "oracle.value")


# Algebra ------------------------------------------------------------------------------------


@law("k vectors at once give what one at a time gives")
def columns(s: Subject) -> None:
    """Compare each column of a product of (n, 3) with the product of that column."""
    point = s.at()
    for product in sorted(s.oracle.products - {Product.GRAD}):
        V = s.direction(product)
        at_once = s.ask(point, product, V)
        for j in range(V.shape[1]):
            one = s.ask(point, product, V[:, j])
            s.check_close(at_once[..., j], one, f"column {j} of {product}(V)")


@law("hvp, ggn, jvp, vjp and loss_hvp are linear")
def linear(s: Subject) -> None:
    """Check A(2v - 3w) = 2Av - 3Aw."""
    point = s.at()
    for product in _LINEAR:
        if product in s.oracle.products:
            V = s.direction(product)
            v, w = V[:, 0], V[:, 1]
            combined = 2 * s.ask(point, product, v) - 3 * s.ask(point, product, w)
            s.check_close(s.ask(point, product, 2 * v - 3 * w), combined, f"{product}(2v - 3w)")


@law("<u, Jv> = <J'u, v>", Product.JVP, Product.VJP)
def adjoint(s: Subject) -> None:
    """Compare U'(JV) with (J'U)'V."""
    point = s.at()
    left = _gram(s.U, point.jvp(s.V))
    s.check_close(_gram(point.vjp(s.U), s.V), left, "(J'U)'V against U'JV")


@law("the Hessian is symmetric: <u, Hv> = <Hu, v>", Product.HVP)
def hvp_symmetric(s: Subject) -> None:
    """Check that V'HV is symmetric."""
    VHV = _gram(s.V, s.at().hvp(s.V))
    s.check_close(VHV, VHV.T, "V'HV")


@law("Gauss-Newton is symmetric: <u, Gv> = <Gu, v>", Product.GGN)
def ggn_symmetric(s: Subject) -> None:
    """Check that V'GV is symmetric."""
    VGV = _gram(s.V, s.at().ggn(s.V))
    s.check_close(VGV, VGV.T, "V'GV")


@law("Gauss-Newton of a convex loss is positive semi-definite", Product.GGN)
def ggn_psd(s: Subject) -> None:
    """Check the eigenvalues of V'GV."""
    if not s.scenario.convex_loss:
        raise NotApplicable("the scenario's loss is not convex")
    VGV = _gram(s.V, s.at().ggn(s.V))
    least, largest = np.linalg.eigvalsh((VGV + VGV.T) / 2)[[0, -1]]
    assert least >= -s.tolerance * max(1.0, largest), f"V'GV has the eigenvalue {least:.3g}"


@law("G v = J' H_L J v", Product.GGN, Product.JVP, Product.VJP, Product.LOSS_HVP)
def ggn_factors(s: Subject) -> None:
    """Compare ggn with its three factors, one after the other."""
    point = s.at()
    factors = point.vjp(point.loss_hvp(point.jvp(s.V)))
    s.check_close(point.ggn(s.V), factors, "ggn(V) against vjp(loss_hvp(jvp(V)))")


@law("vhv(v) = <v, hvp(v)>", Product.HVP, Product.VHV)
def vhv_quadratic(s: Subject) -> None:
    """Compare the quadratic form of the Hessian with its product."""
    point = s.at()
    s.check_close(point.vhv(s.V), np.diag(_gram(s.V, point.hvp(s.V))), "vhv(V)")


@law("vgv(v) = <v, ggn(v)>", Product.GGN, Product.VGV)
def vgv_quadratic(s: Subject) -> None:
    """Compare the quadratic form of Gauss-Newton with its product."""
    point = s.at()
    s.check_close(point.vgv(s.V), np.diag(_gram(s.V, point.ggn(s.V))), "vgv(V)")


@law("D^3 f[u, v, w] is the same in any order, and third(v) is D^3 f[v, v, v]", Product.THIRD)
def third_symmetric(s: Subject) -> None:
    """Check that V' dhvp(v_i, V), for all i, is a symmetric tensor with third(V) as diagonal."""
    point = s.at()
    T = np.stack([_gram(s.V, point.dhvp(s.V[:, i], s.V)) for i in range(s.V.shape[1])])
    s.check_close(T, T.transpose(1, 2, 0), "V' dhvp(v, V)")
    s.check_close(T, T.transpose(0, 2, 1), "V' dhvp(v, V)")
    s.check_close(point.third(s.V), np.einsum("iii->i", T), "third(V)")


@law("taylor(v, k) is the derivatives of f(x + t v) in t, not divided by factorials", Product.THIRD)
def taylor_derivatives(s: Subject) -> None:
    """Compare the terms with the products, and those of order 4 with the ones of order 3."""
    point, v = s.at(), s.V[:, 0]
    terms = point.taylor(v, 3)
    for k, expected in enumerate([point.value, _gram(point.grad, v), point.vhv(v), point.third(v)]):
        s.check_close(terms[k], expected, f"taylor(v, 3)[{k}]")
    try:
        more = point.taylor(v, 4)
    except ProductUnavailable:
        return
    for k in range(4):
        s.check_close(more[k], terms[k], f"taylor(v, 4)[{k}]")


@law("taylor(v, 3) is f, g'v, v'Hv and D^3 f[v, v, v] in closed form", Product.THIRD)
def closed_form_taylor(s: Subject) -> None:
    """Compare the four terms with the dense derivatives."""
    dense, v = s.scenario.here.derivatives, s.V[:, 0]
    if dense.third is None:
        raise NotApplicable("the scenario has no closed form of third")
    u = to_numpy(v).astype(np.float64)
    expected = [dense.value, dense.grad @ u, u @ dense.hess @ u, dense.apply(Product.THIRD, u)]
    for k, term in enumerate(s.at().taylor(v, 3)):
        s.check_close(term, np.asarray(expected[k]), f"taylor(v, 3)[{k}]")


@law("summaries are contractions of the dense derivatives with the groups' directions", Product.HVP)
def summary_contraction(s: Subject) -> None:
    """Compare U'HU, and D^3 f[u_r, u_s, u_t], for u restricted to each tensor of parameters."""
    point, u, dense = s.at(), s.V[:, 0], s.scenario.here.derivatives
    partition = canonical(s.oracle.structure)
    U = np.zeros((s.oracle.size, len(s.oracle.groups)))
    for j, where in enumerate(s.oracle.groups.values()):
        U[where, j] = to_numpy(u)[where]
    s.check_close(summary(point, u, partition, 2), U.T @ dense.hess @ U, "the summary of order 2")
    if Product.THIRD in s.oracle.products and dense.third is not None:
        expected = np.einsum("ijk,ir,js,kt->rst", dense.third, U, U, U)
        s.check_close(summary(point, u, partition, 3), expected, "the summary of order 3")


@law("the complex step gives what automatic differentiation does, but for rounding")
def as_autodiff(s: Subject) -> None:
    """Compare every answer with the peer's, to 1e-13 in float64."""
    if s.peer is None:
        raise NotApplicable("there is no other oracle to compare with")
    x, data = s.here
    expected = s.answers(s.peer.at(x, *data))
    for name, answer in s.answers(s.at()).items():
        s.check_close(answer, expected[name], name, ROUNDING[s.dtype])


def _gram(A: Array, B: Array) -> np.ndarray:
    return to_numpy(A).astype(np.float64).T @ to_numpy(B).astype(np.float64)


# Arrays -------------------------------------------------------------------------------------


@law("dtype, shape, namespace and device of the results are those of the arguments")
def kind(s: Subject) -> None:
    """Compare each answer's kind with the parameters'; the values are other laws' business."""
    x, data = s.here
    point, shapes = s.oracle.at(x, *data), s.expected(s.scenario.here)
    _check_kind(s.oracle.value(x, *data), x, (), "oracle.value")
    for name, answer in s.answers(point).items():
        _check_kind(answer, x, shapes[name].shape if name in shapes else None, name)
    for leaf in optree.tree_leaves(s.oracle.unravel(x)):
        _check_kind(leaf, x, None, "a leaf of unravel(x)")


def _check_kind(answer: Any, x: Array, shape: tuple[int, ...] | None, name: str) -> None:
    assert array_api_compat.is_array_api_obj(answer), f"{name} is a {type(answer).__name__}"
    assert namespace(answer) == namespace(x), (
        f"{name} is an array of {namespace(answer).__name__}, not of {namespace(x).__name__}"
    )
    assert answer.dtype == x.dtype, f"{name} has dtype {answer.dtype} instead of {x.dtype}"
    device, wanted = array_api_compat.device(answer), array_api_compat.device(x)
    assert device == wanted, f"{name} lies on {device} instead of {wanted}"
    assert shape is None or tuple(answer.shape) == shape, (
        f"{name} has shape {tuple(answer.shape)} instead of {shape}"
    )


@law("no argument is changed: parameters, data, directions")
def arguments_unmutated(s: Subject) -> None:
    """Compare every argument, bit by bit, with a copy that was made before."""
    arguments = s.here
    passed = optree.tree_leaves((s.params, *arguments, s.V, s.U))
    before = [to_numpy(a) for a in passed]

    def check(what: str) -> None:
        for array, copy in zip(passed, before, strict=True):
            assert not getattr(array, "requires_grad", False), f"{what} sets requires_grad"
            now = to_numpy(array)
            assert np.array_equal(now, copy), f"{what} changed an argument to {now} from {copy}"

    s.oracle.value(arguments.x, *arguments.data)
    check("value")
    s.oracle.unravel(arguments.x)
    s.oracle.ravel(s.params)
    check("ravel or unravel")
    point = s.at(arguments)
    check("at")
    s.answers(point)
    check("a product")


@law("results share memory neither with arguments nor with one another")
def results_unaliased(s: Subject) -> None:
    """Overwrite each answer, and look at the arguments and at later answers."""
    if not s.mutable:
        raise NotApplicable("its arrays are immutable")
    arguments, V, U = s.here, to_numpy(s.V), to_numpy(s.U)
    before = [to_numpy(a) for a in optree.tree_leaves(arguments)]
    point = s.at(arguments)
    first = s.answers(point)
    kept = {name: to_numpy(answer) for name, answer in first.items()}
    second = s.answers(point)
    for name, answer in second.items():
        overwrite(answer)
        s.check_close(first[name], kept[name], f"{name}, after a later result was overwritten")
    s.check_all_close(s.answers(point), kept)
    after = [to_numpy(a) for a in (*optree.tree_leaves(arguments), s.V, s.U)]
    for now, then in zip(after, [*before, V, U], strict=True):
        assert np.array_equal(now, then), f"overwriting a result changed an argument to {now}"


@law("ravel and unravel are inverse, agree with groups, and copy")
def ravel_round_trip(s: Subject) -> None:
    """Take the parameters to a vector and back."""
    structure = s.oracle.structure
    wanted = [to_numpy(leaf) for leaf in structure.leaves(s.params)]
    x = s.oracle.ravel(s.params)
    s.check_close(x, s.scenario.here.x, "ravel(params)")
    leaves = structure.leaves(s.oracle.unravel(x))
    for leaf, original in zip(leaves, wanted, strict=True):
        s.check_close(leaf, original, "a leaf of unravel(ravel(params))")
    slices = s.oracle.groups.values()
    joined = [i for where in slices for i in range(s.oracle.size)[where]]
    assert joined == list(range(s.oracle.size)), f"groups {list(slices)} do not tile the vector"
    for leaf, where in zip(leaves, slices, strict=True):
        s.check_close(x[where], to_numpy(leaf).reshape(-1), "a group of the vector")
    if overwrite(x):
        for leaf, parameter, original in zip(
            leaves, structure.leaves(s.params), wanted, strict=True
        ):
            s.check_close(leaf, original, "a leaf of unravel(x), after x was overwritten")
            s.check_close(parameter, original, "a parameter, after ravel(params) was overwritten")


# Points -------------------------------------------------------------------------------------


@law("a point stays valid after x is overwritten and after another point is made")
def point_outlives(s: Subject) -> None:
    """Move on before the first point is asked, then ask both."""
    arguments = s.here
    point = s.at(arguments)
    overwrite(arguments.x)
    other = s.at(s.elsewhere)
    s.check_all_close(s.answers(point), s.expected(s.scenario.here))
    s.check_all_close(s.answers(other), s.expected(s.scenario.elsewhere))
    s.check_all_close(s.answers(point), s.expected(s.scenario.here))


@law("asking again gives the same, in any order")
def repeatable(s: Subject) -> None:
    """Ask a point for everything, and once more from the last to the first."""
    point = s.at()
    first = {name: to_numpy(answer) for name, answer in s.answers(point).items()}
    again = {}
    for product in sorted(s.oracle.products, reverse=True):
        V = s.direction(product)
        if product is not Product.GRAD:
            again[f"{product}(V)"] = s.ask(point, product, V)
            again[f"{product}(v)"] = s.ask(point, product, V[:, 0])
    again |= {"grad": point.grad, "value": point.value}
    s.check_all_close(again, first)


@law("a point evaluates the function once, whatever it is asked up to second order")
def one_linearisation(s: Subject) -> None:
    """Count the calls of ``fun`` or ``model`` by a point that is asked for everything twice."""
    arguments = s.here
    products = sorted(s.oracle.products - {Product.THIRD})
    directions = {product: s.direction(product)[:, 0] for product in products}
    with s.uncompiled():
        s.calls.count = 0
        point = s.at(arguments)
        for product, v in [*directions.items(), *directions.items()]:
            s.ask(point, product, v)
    calls = s.calls.count
    if calls == 0:
        raise NotApplicable("the oracle does not call the scenario's function: nothing to count")
    assert calls == 1, (
        f"the function was called {calls} times at one point; where a framework traces it, "
        "uncompiled= must say how to stop that"
    )


# Contract -----------------------------------------------------------------------------------


@law("declared products answer; others raise ProductUnavailable and are named in it")
def declared(s: Subject) -> None:
    """Ask for every product there is."""
    point = s.at()
    for product in Product:
        try:
            s.ask(point, product, s.direction(product))
        except ProductUnavailable as error:
            assert product not in s.oracle.products, f"{product} is declared but raises: {error}"
            assert product.value in str(error), f"the message does not name {product}: {error}"
        else:
            assert product in s.oracle.products, f"{product} answers but is not declared"


@law("arguments of the wrong shape, dtype or type raise ValueError or TypeError")
def bad_input(s: Subject) -> None:
    """Pass what must not be accepted to the oracle and to its point."""
    x, data = s.here
    bad = [x[:-1], _other_precision(s, x), to_numpy(x).tolist()]
    for argument in [*bad, s.V, s.V[:, :, None]]:
        _check_raises("at", s.oracle.at, argument, *data)
        _check_raises("value", s.oracle.value, argument, *data)
    point = s.at()
    for product in sorted(s.oracle.products - {Product.GRAD}):
        V = s.direction(product)
        for argument in [V[:-1, :], _other_precision(s, V), to_numpy(V).tolist(), V[:, :, None]]:
            _check_raises(product, getattr(point, product.value), argument)


def _other_precision(s: Subject, a: Array) -> Array:
    xp = namespace(a)
    return xp.astype(a, xp.float32 if s.dtype == "float64" else xp.float64)


def _check_raises(name: str, call: Callable[..., Any], argument: Any, *data: Any) -> None:
    try:
        call(argument, *data)
    except (TypeError, ValueError):
        return
    kind = getattr(argument, "dtype", type(argument).__name__)
    raise AssertionError(f"{name} accepted {kind} of shape {np.shape(argument)}")


@law("compiled and eager give the same, at data that were not there when it was compiled")
def compiled(s: Subject) -> None:
    """Compile a function from parameters and data to every answer."""

    def everything(x: Array, *data: Any) -> dict[str, Array]:
        return s.answers(s.oracle.at(x, *data)) | {"again": s.oracle.value(x, *data)}

    jitted = s.oracle.flow.jit(everything)
    if jitted is everything:
        raise NotApplicable("the framework does not compile")
    for place, (x, data) in ((s.scenario.here, s.here), (s.scenario.elsewhere, s.elsewhere)):
        expected = s.expected(place)
        try:
            answers = jitted(x, *data)
        except Exception as error:
            raise AssertionError(f"it cannot be compiled: {error}") from error
        s.check_all_close(answers, expected | {"again": expected["value"]})
