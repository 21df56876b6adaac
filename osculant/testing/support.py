"""What each backend supports: one declaration, which drives the tests and the table in the README.

A run of the laws verifies it (:func:`contradictions`), in both directions: what is declared must
have been seen to work, and what works must have been declared.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import backends
from ..core.arrays import Array
from ..core.oracle import Oracle, Product
from .conformance import Case, Result, cases
from .scenarios import SCENARIOS, Scenario

DTYPES = ("float32", "float64")
JIT = "jit"
COLUMNS = (*(product.value for product in Product), *DTYPES, JIT)

BEGIN, END = "<!-- support:begin -->", "<!-- support:end -->"


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
    context, uncompiled : callable
        Return the contexts in which to test it, and to count evaluations
        (:class:`~osculant.testing.subject.Subject`).
    """

    name: str
    module: str
    gaps: Mapping[str, str] = field(default_factory=dict)
    excused: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    uncompiled: Callable[[], AbstractContextManager[Any]] = nullcontext

    def __str__(self) -> str:
        return self.name

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

    def cases(
        self, scenarios: Iterable[Scenario] | None = None, laws: Iterable[str] | None = None
    ) -> list[Case]:
        """Return the cases to run, by default all laws in all scenarios that are not excused."""
        if scenarios is None:
            scenarios = [each for each in SCENARIOS.values() if each.name not in self.excused]
        return cases(
            factory,
            scenarios=scenarios,
            laws=laws,
            dtypes=self.dtypes,
            convert=self.convert,
            uncompiled=self.uncompiled,
        )


def factory(scenario: Scenario, params: Any) -> Oracle:
    """Return osculant's own oracle for a scenario, of whatever backend ``params`` belong to."""
    if scenario.fun is not None:
        return backends.oracle(scenario.fun, params)
    return backends.oracle(model=scenario.model, loss=scenario.loss, params=params)


def _jax_x64() -> AbstractContextManager[Any]:
    import jax

    return jax.enable_x64(True)


def _jax_uncompiled() -> AbstractContextManager[Any]:
    import jax

    return jax.disable_jit()


_EAGER = {JIT: "Runs eagerly: there is nothing to compile."}

#: Every backend, in the order of the table.
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
        f"{support.name}: {column} is declared a gap, but works"
        if seen[column]
        else f"{support.name}: {column} is declared, but no law about it passed"
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

    rows = [["backend", *(f"`{column}`" for column in COLUMNS)], ["---", *[":-:"] * len(COLUMNS)]]
    for support in BACKENDS:
        remarks = filter(None, [support.note, *support.excused.values()])
        name = " ".join([support.name, *map(mark, remarks)])
        cells = [
            f"no {mark(support.gaps[column])}" if column in support.gaps else "yes"
            for column in COLUMNS
        ]
        rows.append([name, *cells])
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
