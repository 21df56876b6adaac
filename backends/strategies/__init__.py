"""How products come about: by automatic differentiation, by steps, or from the user's functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ...core.arrays import complex_dtype
from ...core.oracle import Objective, Oracle
from ...core.structure import Structure
from .check import Discrepancy as Discrepancy
from .stepped import Stepped
from .steps import ComplexStep as ComplexStep
from .steps import FiniteDifference as FiniteDifference
from .user import BlackBox, Functions, Overridden
from .user import check_functions as check_functions

Maker = Callable[[Objective, Any], Oracle]
Strategy = str | ComplexStep | FiniteDifference

#: By name.
STEPS: dict[str, ComplexStep | FiniteDifference] = {
    "complex-step": ComplexStep(),
    "finite-difference": FiniteDifference(),
}


def build(
    objective: Objective,
    example: Any,
    products: Strategy,
    functions: Functions,
    make_oracle: Maker,
    make_holomorphic: Callable[[Objective, Structure], Oracle],
) -> Oracle:
    """Return the oracle of ``objective`` that a strategy and the user's functions make.

    Parameters
    ----------
    objective : Objective
        Whose ``fun`` is ``functions["value"]`` if there is no other.
    example : tree of arrays
    products : str, ComplexStep or FiniteDifference
    functions : mapping
        The user's, by product.
    make_oracle, make_holomorphic : callable
        The backend's: automatic differentiation, at real and at complex points.
    """
    step = STEPS.get(products, products) if isinstance(products, str) else products
    check_functions(functions, objective.composite)
    if step == "autodiff":
        exact = make_oracle(objective, example)
        if not functions:
            return exact
        if objective.fun is not None and objective.fun is functions.get("value"):
            exact = BlackBox(objective, exact.structure, exact)
        return Overridden(exact, functions)
    if not isinstance(step, ComplexStep | FiniteDifference):
        raise ValueError(
            f"products={products!r} is unknown; there are: autodiff, {', '.join(STEPS)}"
        )
    own = {name: functions[name] for name in ("value", "grad") if name in functions}
    opaque = isinstance(step, FiniteDifference) or (bool(own) and not objective.composite)
    exact = make_oracle(objective, example)
    structure = exact.structure
    objective = getattr(exact, "objective", objective)  # a torch module has become a function
    opaquely = partial(BlackBox, host=exact)
    black_box = opaquely(objective, structure)
    extend: Callable[[Objective, Structure], Oracle] = opaquely if opaque else make_holomorphic
    real = Overridden(black_box if opaque else exact, own)
    extended: Oracle = real
    if isinstance(step, ComplexStep):
        dtype = complex_dtype(structure.xp, structure.dtype)
        extended = Overridden(extend(objective, structure.with_dtype(dtype)), own)
    stepped = Stepped(objective, real, extended, extend, step)
    reference = Overridden(
        Stepped(objective, black_box, black_box, opaquely, FiniteDifference()), {}
    )
    rest = {name: f for name, f in functions.items() if name not in own}
    return Overridden(stepped, rest, reference)
