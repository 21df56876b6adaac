"""Backend x dtype x scenario x law, and backend x mutant, from one declaration of support."""

from functools import cache
from typing import Any

import pytest

from osculant.testing import LAWS, SCENARIOS, NotApplicable, Subject
from osculant.testing.conformance import Case, run
from osculant.testing.mutants import MUTANTS, Mutant
from osculant.testing.support import BACKENDS, Support, contradictions, factory


def _backend(support: Support) -> Any:
    missing = support.missing()
    marks = [pytest.mark.skip(reason=f"{support}: {missing}")] if missing else []
    return pytest.param(support, marks=marks, id=support.name)


EVERY_BACKEND = [_backend(support) for support in BACKENDS]
EVERY_CASE = [
    pytest.param(support, case, id=f"{support}-{case}")
    for support in BACKENDS
    if not support.missing()
    for case in support.cases()
]


@cache
def _subjects(support: Support) -> list[Subject]:
    return [
        Subject(factory, scenario, "float32", support.convert, support.uncompiled)
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


@pytest.mark.parametrize("support", EVERY_BACKEND)
def test_the_declaration_is_borne_out(support: Support) -> None:
    laws = [name for name in LAWS if name.startswith("closed_form") or name == "compiled"]
    with support.context():
        results = [run(case) for case in support.cases([SCENARIOS["tall"]], laws)]
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
    assert excused == on_the_host | (in_place if support.name == "JAX" else {"DecidesOnTheHost"})
