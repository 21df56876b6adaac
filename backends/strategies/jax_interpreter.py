"""A program (jaxpr) of real JAX arrays, run on complex ones.

Calls are inlined. Loops and branches are built again around programs that are run likewise:
predicates compare real parts, and a carry is complex if a step makes it so. Kinked functions, and
those that JAX has for real arrays only, go by their derivative; products of arrays by real ones;
the rest are JAX's own functions of complex arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import sparse
from jax.extend.core import primitives

from ...core.arrays import Array
from ...core.errors import NotAnalytic

Arrays = Sequence[Any]


def evaluate(jaxpr: Any, consts: Arrays, args: Arrays) -> list[Any]:
    """Run a program of real arrays on complex ones.

    Raises
    ------
    NotAnalytic
        If a step of it has no rule for complex arrays.
    """
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= zip(jaxpr.invars, args, strict=True)

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else values[atom]

    for step in jaxpr.eqns:
        results = _apply(step, [read(atom) for atom in step.invars])
        values |= zip(step.outvars, results, strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def _apply(step: Any, inputs: list[Any]) -> Arrays:
    name, params = step.primitive.name, step.params
    if any(_is_complex(atom.aval) for atom in (*step.invars, *step.outvars)):
        raise NotAnalytic(
            f"the function has complex numbers of its own, in JAX's {name}, which cannot be told "
            "from a complex step: use products='autodiff' or 'finite-difference'"
        )
    if not any(map(_is_complex, inputs)):
        return _bind(step, inputs)
    if name in _CALLS:
        return _run(next(params[key] for key in _PROGRAMS if key in params), inputs)
    if name in _CONTROL:
        return _CONTROL[name](*inputs, **params)
    try:
        if name in _OF_REAL_PARTS:
            return _bind(step, list(map(_re, inputs)))
        if name in _BY_DERIVATIVE:
            return _by_derivative(partial(_bind, step), inputs)
        if name in _RULES:
            return [_RULES[name](*inputs, **params)]
        results = _bind(step, _promoted(inputs))
        if any(jnp.issubdtype(y.dtype, jnp.floating) for y in results):
            raise TypeError("its result is real, and has lost the derivative")
        return results
    except (TypeError, NotImplementedError) as error:
        raise NotAnalytic(
            f"JAX's {name} has no rule for a complex step ({error}): use products='autodiff' or "
            "'finite-difference', or a gradient of your own"
        ) from error


def _bind(step: Any, inputs: Arrays) -> Arrays:
    """Return what JAX itself makes of a step."""
    params = step.primitive.get_bind_params(step.params)
    functions, params = params if isinstance(params, tuple) else ((), params)  # a pair in old JAX
    results = step.primitive.bind(*functions, *inputs, **params)
    return results if step.primitive.multiple_results else [results]


def _promoted(inputs: Arrays) -> list[Any]:
    """Return floating arrays as complex ones; integers and booleans stay."""
    dtype = next(x.dtype for x in inputs if _is_complex(x))
    return [
        jnp.asarray(x, dtype) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x
        for x in inputs
    ]


def _is_complex(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.complexfloating)


def _re(x: Any) -> Any:
    return jnp.real(x) if _is_complex(x) else x


# Calls and control flow ----------------------------------------------------------------------

#: What does nothing but call a program. The rule of a custom VJP is one for the reverse mode only.
_CALLS = frozenset(
    """
    checkpoint closed_call core_call custom_vjp_call custom_vjp_call_jaxpr jit pjit remat2
    """.split()  # noqa: SIM905
)
_PROGRAMS = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def _run(program: Any, inputs: Arrays) -> list[Any]:
    return evaluate(getattr(program, "jaxpr", program), getattr(program, "consts", ()), inputs)


def _cond(index: Any, *operands: Any, branches: Sequence[Any], **_: Any) -> Arrays:
    runs = [partial(_run, branch) for branch in branches]
    results = zip(*(jax.eval_shape(run, operands) for run in runs), strict=True)
    found = [next(filter(_is_complex, each), each[0]) for each in results]
    return jax.lax.switch(
        index, [lambda xs, run=run: _complex_like(found, run(xs)) for run in runs], operands
    )


def _while(
    *inputs: Any,
    cond_jaxpr: Any,
    cond_nconsts: int,
    body_jaxpr: Any,
    body_nconsts: int,
    **_: Any,
) -> Arrays:
    of_cond, of_body, carry = _cut(inputs, cond_nconsts, body_nconsts)

    def keep_going(carry: Arrays) -> Any:
        return _run(cond_jaxpr, [*of_cond, *carry])[0]

    def step(carry: Arrays) -> tuple[Arrays, Arrays]:
        return _run(body_jaxpr, [*of_body, *carry]), ()

    def body(carry: Arrays) -> Arrays:
        going, moved = keep_going(carry), _complex_like(carry, step(carry)[0])
        if going.ndim == 0:
            return moved
        # vmap made one of many loops, of which those that have ended stand still
        return [
            jnp.where(going.reshape(*going.shape, *[1] * (new.ndim - going.ndim)), new, old)
            for new, old in zip(moved, carry, strict=True)
        ]

    return jax.lax.while_loop(lambda c: jnp.any(keep_going(c)), body, _settled(step, carry))


def _scan(
    *inputs: Any,
    jaxpr: Any,
    num_consts: int,
    num_carry: int,
    length: int,
    reverse: bool,
    unroll: Any,
    **_: Any,
) -> Arrays:
    consts, carry, xs = _cut(inputs, num_consts, num_carry)

    def step(carry: Arrays, x: Arrays) -> tuple[Arrays, Arrays]:
        results = _run(jaxpr, [*consts, *carry, *x])
        return _complex_like(carry, results[:num_carry]), results[num_carry:]

    carry = _settled(step, carry, [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in xs])
    last, ys = jax.lax.scan(step, carry, xs, length=length, reverse=reverse, unroll=unroll)
    return [*last, *ys]


_CONTROL: dict[str, Callable[..., Arrays]] = {"cond": _cond, "while": _while, "scan": _scan}


def _settled(
    step: Callable[..., tuple[Arrays, Arrays]], carry: list[Any], *args: Arrays
) -> list[Any]:
    """Return the carry, complex where it is or comes to be after any number of steps."""
    while True:
        results, _ = jax.eval_shape(step, carry, *args)
        wider = _complex_like(results, carry)
        if sum(map(_is_complex, wider)) == sum(map(_is_complex, carry)):
            return wider
        carry = wider


def _complex_like(models: Arrays, xs: Arrays) -> list[Any]:
    """Make complex what is complex in ``models``."""
    return [
        jnp.add(x, 0j) if _is_complex(model) and not _is_complex(x) else x
        for model, x in zip(models, xs, strict=True)
    ]


def _cut(inputs: Arrays, *lengths: int) -> list[list[Any]]:
    """Cut off so many inputs, and so many again; the rest comes last."""
    rest, pieces = list(inputs), []
    for length in lengths:
        pieces.append(rest[:length])
        rest = rest[length:]
    return [*pieces, rest]


# Rules -------------------------------------------------------------------------------------

#: Piecewise constant functions, and one that is to be held constant.
_OF_REAL_PARTS = frozenset(
    """
    argmax argmin ceil eq eq_to floor ge gt is_finite le le_to lt lt_to ne round sign stop_gradient
    """.split()  # noqa: SIM905
)

#: Kinked functions, for which the real part decides, and those of which JAX has no complex version
#: or a slow one. A custom JVP is what its author says it is; a linear solve is by functions of
#: real arrays.
_BY_DERIVATIVE = frozenset(
    """
    abs acosh asinh atan2 bcoo_dot_general_sampled bcoo_spdot_general bessel_i0e bessel_i1e cbrt
    cholesky clamp cumlogsumexp cummax cummin custom_jvp_call custom_linear_solve digamma eigh
    erf erf_inv erfc expm1 igamma igammac lgamma log1p logistic max min polygamma qr reduce
    reduce_max reduce_min reduce_precision reduce_window_max reduce_window_min
    regularized_incomplete_beta rem scatter scatter-add scatter-max scatter-min scatter-mul
    scatter-sub select_and_gather_add sort svd tan tanh triangular_solve zeta
    """.split()  # noqa: SIM905
)


def _by_derivative(function: Callable[[Arrays], Arrays], inputs: list[Any]) -> Arrays:
    """f(a + ib) = f(a) + i f'(a) b, up to O(b^2)."""
    moving = [i for i, x in enumerate(inputs) if _is_complex(x)]

    def of_moving(*parts: Array) -> Arrays:
        found = dict(zip(moving, parts, strict=True))
        return function([found.get(i, x) for i, x in enumerate(inputs)])

    a, b = (tuple(part(inputs[i]) for i in moving) for part in (jnp.real, jnp.imag))
    values, slopes = jax.jvp(of_moving, a, b)
    return [
        jax.lax.complex(y, t) if jnp.issubdtype(y.dtype, jnp.floating) else y
        for y, t in zip(values, slopes, strict=True)
    ]


def _bilinear(primitive: Any) -> Callable[..., Array]:
    """Of (a + ib) (c + id) the terms a c + i (a d + b c); the other is O(h^2), below rounding.

    XLA's complex product costs ten real ones on the CPU. Between the factors stand the indices of
    a sparse one.
    """

    def rule(x: Array, *between: Array, **params: Any) -> Array:
        *indices, y = between

        def product(x: Array, y: Array) -> Array:
            return primitive.bind(x, *indices, y, **params)

        im = [product(x.imag, _re(y))] if _is_complex(x) else []
        im += [product(_re(x), y.imag)] if _is_complex(y) else []
        return jax.lax.complex(product(_re(x), _re(y)), sum(im[1:], im[0]))

    return rule


def _scattered(x: Array, y: Array, **params: Any) -> Array:
    """Add x, linearly, to where windows of y have their extremes."""
    scatter = partial(primitives.select_and_scatter_add_p.bind, **params)
    if not _is_complex(x):
        return scatter(x, y.real)
    return jax.lax.complex(scatter(x.real, _re(y)), scatter(x.imag, _re(y)))


def _converted(x: Array, *, new_dtype: Any, **_: Any) -> Array:
    if jnp.issubdtype(new_dtype, jnp.floating):
        return x.astype(jnp.result_type(new_dtype, jnp.complex64))
    return x.real.astype(new_dtype)


#: Called with the inputs and parameters of a step.
_RULES: dict[str, Callable[..., Array]] = {
    "dot_general": _bilinear(primitives.dot_general_p),
    "bcoo_dot_general": _bilinear(sparse.bcoo_dot_general_p),
    "bcsr_dot_general": _bilinear(sparse.bcsr_dot_general_p),
    "conv_general_dilated": _bilinear(primitives.conv_general_dilated_p),
    "select_and_scatter_add": _scattered,
    "convert_element_type": _converted,
}
