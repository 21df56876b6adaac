"""Backend x dtype x scenario x law, and backend x mutant, from one declaration of support."""

from functools import cache
from typing import Any

import pytest

from osculant.testing import SCENARIOS, NotApplicable, Subject
from osculant.testing.conformance import Case, run
from osculant.testing.mutant import Mutant
from osculant.testing.mutants import MUTANTS
from osculant.testing.support import BACKENDS, COLUMN_LAWS, ROWS, Support, contradictions
from osculant.testing.support import COMPLEX_STEP as COMPLEX


def _row(support: Support) -> Any:
    missing = support.missing()
    marks = [pytest.mark.skip(reason=f"{support}: {missing}")] if missing else []
    return pytest.param(support, marks=marks, id=str(support))


EVERY_BACKEND = [_row(support) for support in BACKENDS]
EVERY_ROW = [_row(support) for support in ROWS]
EVERY_CASE = [
    pytest.param(support, case, id=f"{support}-{case}")
    for support in ROWS
    if not support.missing()
    for case in support.quick()
]
#: Mutants of the step are tried where a complex step is cheapest.
STEPPING = ["StepTooLong", "TransposeConjugated", "BicomplexIdempotent"]


@cache
def _subjects(support: Support) -> list[Subject]:
    return [
        Subject(support.strategy.factory, scenario, "float32", support.convert, support.uncompiled)
        for scenario in SCENARIOS.values()
        if scenario.name not in support.excused
    ]


@pytest.mark.parametrize(("support", "case"), EVERY_CASE)
def test_law(support: Support, case: Case) -> None:
    with support.context():
        case.run()


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=str)
@pytest.mark.parametrize("support", EVERY_BACKEND)
def test_mutant_dies(support: Support, mutant: Mutant) -> None:
    with support.context():
        mutant.kill(_subjects(support))


@pytest.mark.parametrize("name", STEPPING)
@pytest.mark.parametrize("support", [p for p in EVERY_ROW if p.values[0].strategy is COMPLEX])
def test_mutant_of_the_step_dies(support: Support, name: str) -> None:
    if support.name == "JAX":
        pytest.skip("the step is the same, and compiling takes long")
    # all scenarios: the tape extends most primitives linearly, so that no step is too long there
    cases = support.cases(laws=[MUTANTS[name].law])
    message = MUTANTS[name].kill(case.subject() for case in cases if case.dtype == "float64")
    assert "is allowed" in message


@pytest.mark.parametrize("support", EVERY_BACKEND)
def test_the_declaration_is_borne_out(support: Support) -> None:
    with support.context():
        results = [run(case) for case in support.cases([SCENARIOS["tall"]], COLUMN_LAWS)]
    assert contradictions(support, results) == []


@pytest.mark.parametrize("support", EVERY_BACKEND)
def test_excuses_are_still_needed(support: Support) -> None:
    excused = [SCENARIOS[name] for name in support.excused]
    with support.context():
        outcomes = {run(case).outcome for case in support.cases(excused, ["closed_form_value"])}
    assert outcomes <= {"failed"}


@pytest.mark.parametrize("support", EVERY_BACKEND)
def test_only_impossible_mutants_are_excused(support: Support) -> None:
    """A mutant that writes in place needs arrays that can be written, and so on: no more."""
    excused = set()
    with support.context():
        subject = _subjects(support)[0]
        for mutant in MUTANTS.values():
            try:
                mutant.applies(subject)
            except NotApplicable:
                excused.add(mutant.name)
    in_place = {
        "DirectionMutated",
        "ParametersMutated",
        "DataMutated",
        "BufferReused",
        "GradientShared",
        "UnravelAliases",
        "PointFollows",
    }
    on_the_host = {"HostCopy"} if support.module == "numpy" else set()
    assert excused == set(STEPPING) | on_the_host | (
        in_place if support.name == "JAX" else {"DecidesOnTheHost"}
    )
