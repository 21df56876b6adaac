"""What each backend supports: one declaration, which drives the tests and the table in the README.

A run of the laws verifies it (:func:`contradictions`), in both directions: what is declared must
have been seen to work, and what works must have been declared.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .. import backends
from ..core.arrays import Array
from ..core.oracle import Oracle, Product
from .checks import LAWS
from .conformance import Case, Result, cases
from .scenario import Scenario
from .scenarios import SCENARIOS
from .subject import TOLERANCE

DTYPES = ("float32", "float64")
JIT = "jit"
#: The laws from which :func:`contradictions` tells what is there.
COLUMN_LAWS = (*(f"closed_form_{product}" for product in Product), "declared", "compiled")
COLUMNS = (*(product.value for product in Product), *DTYPES, JIT)

BEGIN, END = "<!-- support:begin -->", "<!-- support:end -->"


@dataclass(frozen=True, eq=False)
class Strategy:
    """Where derivatives come from, and what may be asked of them.

    Parameters
    ----------
    name : str
        As in the table.
    products : str
        The argument of :func:`osculant.backends.oracle`.
    gaps : dict
        What it lacks on every backend: a column of the table, and the reason, as a sentence.
    exempt : dict
        Laws that it does not obey, and the reason, as a sentence.
    tolerance : dict
        By dtype.
    sample : tuple of str
        Scenarios that stand for all in a quick run; by default none do, and all are run.
    """

    name: str
    products: str
    gaps: Mapping[str, str] = field(default_factory=dict)
    exempt: Mapping[str, str] = field(default_factory=dict)
    tolerance: Mapping[str, float] = field(default_factory=lambda: TOLERANCE)
    sample: tuple[str, ...] = ()

    def factory(self, scenario: Scenario, params: Any) -> Oracle:
        """Return osculant's own oracle for a scenario, of the backend ``params`` belong to."""
        if scenario.fun is not None:
            return backends.oracle(scenario.fun, params, products=self.products)
        return backends.oracle(
            model=scenario.model, loss=scenario.loss, params=params, products=self.products
        )


_AGAIN = {"one_linearisation": "A step evaluates the function again, and counts as one."}
#: A plain function with a rank-deficient curvature, a tree, and a composition with J of full size:
#: each kind of argument once. The rules of the primitives are other rows' business, and
#: ``as_autodiff``, which compares with those rows, is run in every scenario.
_SAMPLE = ("rosenbrock", "tree", "tall")

AUTODIFF = Strategy("autodiff", "autodiff")
COMPLEX_STEP = Strategy("complex step", "complex-step", exempt=_AGAIN, sample=_SAMPLE)
FINITE_DIFFERENCE = Strategy(
    "finite differences",
    "finite-difference",
    gaps={"third": "A third difference of values leaves no digits: take another strategy."},
    exempt=_AGAIN,
    # of a second difference of values: the square root of the machine epsilon, and a factor
    tolerance={"float32": 3e-2, "float64": 1e-6},
    sample=_SAMPLE,
)
STRATEGIES = (AUTODIFF, COMPLEX_STEP, FINITE_DIFFERENCE)
factory = AUTODIFF.factory


@dataclass(frozen=True, eq=False)
class Support:
    """What one backend supports, and how to test it.

    Parameters
    ----------
    name : str
        As in the table.
    module : str
        Whose ``asarray`` makes the backend's arrays.
    gaps : dict
        What it lacks: a column of the table, and the reason, as a sentence.
    excused : dict
        Scenarios that cannot run on it, and the reason, as a sentence.
    note : str
        A sentence about the whole row.
    strategy : Strategy
        Where its derivatives come from.
    context, uncompiled : callable
        Return the contexts in which to test it, and to count evaluations
        (:class:`~osculant.testing.subject.Subject`).
    """

    name: str
    module: str
    gaps: Mapping[str, str] = field(default_factory=dict)
    excused: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    strategy: Strategy = AUTODIFF
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    uncompiled: Callable[[], AbstractContextManager[Any]] = nullcontext

    def __str__(self) -> str:
        by = "" if self.strategy is AUTODIFF else f", {self.strategy.name}"
        return self.name + by

    def by(self, strategy: Strategy) -> Support:
        """Return this backend's support of a strategy, of which the gaps are added."""
        return replace(self, strategy=strategy, gaps={**self.gaps, **strategy.gaps})

    @property
    def products(self) -> frozenset[Product]:
        """The products of a composition."""
        return frozenset(product for product in Product if product.value not in self.gaps)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes of parameters."""
        return tuple(dtype for dtype in DTYPES if dtype not in self.gaps)

    def convert(self, array: np.ndarray) -> Array:
        """Return a copy of a NumPy array as the backend's."""
        return importlib.import_module(self.module).asarray(array.copy())

    def missing(self) -> str | None:
        """Return why the backend cannot be tested here, None if it can."""
        try:
            self.convert(np.zeros(1, np.float32))
        except Exception as error:  # the framework, its libraries or its device: it varies
            return f"{type(error).__name__}: {error}".splitlines()[0]
        return None

    @property
    def scenarios(self) -> list[Scenario]:
        """The scenarios that are not excused."""
        return [each for each in SCENARIOS.values() if each.name not in self.excused]

    def cases(
        self, scenarios: Iterable[Scenario] | None = None, laws: Iterable[str] | None = None
    ) -> list[Case]:
        """Return the cases to run, by default all laws that are not exempt in all scenarios."""
        return cases(
            self.strategy.factory,
            scenarios=self.scenarios if scenarios is None else scenarios,
            laws=[name for name in (laws or LAWS) if name not in self.strategy.exempt],
            dtypes=self.dtypes,
            convert=self.convert,
            uncompiled=self.uncompiled,
            tolerance=self.strategy.tolerance,
            peer=AUTODIFF.factory if self.strategy is COMPLEX_STEP else None,
        )

    def quick(self) -> list[Case]:
        """Return the cases that stand for all: those of the strategy's sample, if it has one.

        Where a framework compiles, which takes seconds for every product, the sample is its last
        scenario and the laws that the table rests on, in float64, and a gradient in float32.
        """
        sample = [SCENARIOS[name] for name in self.strategy.sample]
        if not sample:
            return self.cases()
        compiled = JIT not in self.gaps
        chosen = self.cases(sample[-1:], COLUMN_LAWS) if compiled else self.cases(sample)
        if self.strategy is COMPLEX_STEP:
            rest = [each for each in self.scenarios if compiled or each not in sample]
            chosen += self.cases(rest, ["as_autodiff"])
        if not compiled:
            return chosen
        return [
            case
            for case in chosen
            if case.dtype == "float64" or case.law.name == "closed_form_grad"
        ]


def _jax_x64() -> AbstractContextManager[Any]:
    import jax

    return jax.enable_x64(True)


def _jax_uncompiled() -> AbstractContextManager[Any]:
    import jax

    return jax.disable_jit()


_EAGER = {JIT: "Runs eagerly: there is nothing to compile."}

#: Every backend, by automatic differentiation.
BACKENDS = (
    Support("NumPy", "numpy", gaps=_EAGER),
    Support(
        "array-api-strict",
        "array_api_strict",
        gaps=_EAGER,
        excused={
            "left_operands": "Its arrays refuse a traced one on the right of an operator: write "
            "`x * data` or `xp.multiply(data, x)` instead of `data * x`.",
        },
        note="The reference implementation of the array API standard: the tape asks for nothing "
        "else.",
    ),
    Support(
        "CuPy",
        "cupy",
        gaps=_EAGER,
        note="The same tape as NumPy's. Its laws run where there is a CUDA device, which the "
        "continuous tests have not.",
    ),
    Support("PyTorch", "torch", gaps=_EAGER),
    Support(
        "JAX",
        "jax.numpy",
        note="float64 needs `jax_enable_x64`, which is yours to set: without it, asking for "
        "float64 is an error.",
        context=_jax_x64,
        uncompiled=_jax_uncompiled,
    ),
)


#: Every backend by every strategy, in the order of the table.
ROWS = tuple(support.by(strategy) for support in BACKENDS for strategy in STRATEGIES)


def contradictions(support: Support, results: Iterable[Result]) -> list[str]:
    """Return where a run of a backend's laws does not bear out its declaration."""
    passed = {
        (result.case.law.name, result.case.dtype)
        for result in results
        if result.outcome == "passed"
    }
    laws = {law for law, _ in passed}
    seen = {product.value: f"closed_form_{product}" in laws for product in Product}
    seen |= {dtype: any(dtype == other for _, other in passed) for dtype in DTYPES}
    seen[JIT] = "compiled" in laws
    return [
        f"{support}: {column} is declared a gap, but works"
        if seen[column]
        else f"{support}: {column} is declared, but no law about it passed"
        for column in COLUMNS
        if seen[column] == (column in support.gaps)
    ]


def table() -> str:
    """Return the support table in Markdown; each gap and note has a footnote."""
    notes: list[str] = []

    def mark(text: str) -> str:
        if text not in notes:
            notes.append(text)
        return f"({notes.index(text) + 1})"

    names = ["backend", "by", *(f"`{column}`" for column in COLUMNS)]
    rows = [names, ["---", "---", *[":-:"] * len(COLUMNS)]]
    for support in ROWS:
        remarks = filter(None, [support.note, *support.excused.values()])
        name = " ".join([support.name, *map(mark, remarks)])
        by = " ".join([support.strategy.name, *map(mark, support.strategy.exempt.values())])
        cells = [
            f"no {mark(support.gaps[column])}" if column in support.gaps else "yes"
            for column in COLUMNS
        ]
        rows.append([name, by, *cells])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", *(f"{i}. {note}" for i, note in enumerate(notes, 1))])


def splice(text: str, table: str) -> str:
    """Return ``text`` with ``table`` between its markers.

    Raises
    ------
    ValueError
        If there is not one of each marker, in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"the text needs the line {BEGIN} and after it the line {END}, once each")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"
