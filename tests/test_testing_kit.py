"""The conformance kit itself: its closed forms are right, and it says no when it should."""

import re
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import osculant
import osculant.testing.__main__ as command
from osculant.core.oracle import Product
from osculant.core.structure import Structure
from osculant.testing import (
    LAWS,
    SCENARIOS,
    Case,
    ConformanceError,
    NotApplicable,
    ReferenceOracle,
    Report,
    Result,
    Scenario,
    Subject,
    Wrapped,
    WrappedPoint,
    cases,
    check_oracle,
)
from osculant.testing.conformance import run
from osculant.testing.derivatives import differences
from osculant.testing.mutants import MUTANTS
from osculant.testing.scenario import Place
from osculant.testing.support import (
    AUTODIFF,
    BACKENDS,
    BEGIN,
    COLUMN_LAWS,
    COLUMNS,
    END,
    JIT,
    ROWS,
    STRATEGIES,
    Support,
    contradictions,
    splice,
    table,
)

ROOT = Path(__file__).parents[1]
CLOSED = [scenario for scenario in SCENARIOS.values() if scenario.closed_form is not None]


@pytest.mark.parametrize("scenario", CLOSED, ids=str)
@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_closed_forms_agree_with_central_differences(scenario: Scenario, where: str) -> None:
    place = getattr(scenario, where)
    found = differences(scenario.objective, place.params, place.data)
    if place.derivatives.third is not None:
        found = found._replace(third=_derivative_of_hessian(scenario, place))
    for name, numerical, closed in zip(found._fields, found, place.derivatives, strict=True):
        assert (numerical is None) == (closed is None), name
        if closed is not None:
            np.testing.assert_allclose(numerical, closed, rtol=0, atol=3e-10, err_msg=name)


def _derivative_of_hessian(scenario: Scenario, place: Place) -> np.ndarray:
    """Return D^3 f by central differences of the closed form of H, of fourth order."""
    structure, h = Structure(scenario.params), 1e-3

    def hess(x: np.ndarray) -> np.ndarray:
        return scenario.derivatives(structure.unravel(x), place.data).hess

    def slope(v: np.ndarray) -> np.ndarray:
        x = place.x
        near, far = hess(x + h * v) - hess(x - h * v), hess(x + 2 * h * v) - hess(x - 2 * h * v)
        return (8 * near - far) / (12 * h)

    return np.stack([slope(v) for v in np.eye(place.x.size)], axis=-1)


def test_scenarios_cover_what_goes_wrong() -> None:
    dense = {name: scenario.here.derivatives for name, scenario in SCENARIOS.items()}
    jacobians = [d.jac.shape for d in dense.values() if d.jac is not None]
    assert any(m > n for m, n in jacobians) and any(m < n for m, n in jacobians)
    weights = dense["tall"].loss_hess
    assert (
        np.array_equal(weights, weights.T)
        and np.abs(weights - np.diag(np.diag(weights))).max() > 0.1
    )
    ggn = dense["residuals"].matrix(Product.GGN)
    assert np.abs(dense["residuals"].hess - ggn).max() > 1
    assert np.linalg.eigvalsh(dense["indefinite_loss"].matrix(Product.GGN))[0] < -0.1
    assert not dense["linear"].hess.any() and not dense["linear_loss"].loss_hess.any()
    change = SCENARIOS["cubic"].elsewhere.derivatives.hess - dense["cubic"].hess
    assert np.abs(change).max() > 0.1


def test_the_reference_oracle_obeys_every_law() -> None:
    report = check_oracle(ReferenceOracle)
    held = {result.case.law.name for result in report.results if result.outcome == "passed"}
    assert held == set(LAWS) - {"compiled", "as_autodiff"}
    assert "the framework does not compile" in str(report)


def test_every_law_has_a_mutant() -> None:
    assert {mutant.law for mutant in MUTANTS.values()} == set(LAWS)


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mutants_of_the_reference_oracle_die(mutant, dtype: str) -> None:
    mutant.kill([Subject(ReferenceOracle, scenario, dtype) for scenario in SCENARIOS.values()])


def test_a_mutant_that_is_no_mistake_survives() -> None:
    harmless = replace(MUTANTS["HvpAsymmetric"], wrap=lambda oracle: oracle)
    subjects = [Subject(ReferenceOracle, SCENARIOS["quadratic"])]
    with pytest.raises(AssertionError, match="HvpAsymmetric survives hvp_symmetric"):
        harmless.kill(subjects)


def test_check_oracle_lists_every_failure_and_goes_on_after_errors() -> None:
    def factory(scenario: Scenario, params: object):
        if scenario.name == "scalar":
            raise RuntimeError("no scalars here")
        return MUTANTS["VhvHalved"].wrap(ReferenceOracle(scenario, params))

    chosen = [SCENARIOS["scalar"], SCENARIOS["quadratic"]]
    laws = ["closed_form_vhv", "vhv_quadratic", "hvp_symmetric"]
    with pytest.raises(ConformanceError) as caught:
        check_oracle(factory, scenarios=chosen, laws=laws, dtypes=["float64"])
    failed = {str(result.case) for result in caught.value.report.failures}
    wrong = {"quadratic-closed_form_vhv", "quadratic-vhv_quadratic"}
    assert failed == {f"float64-{name}" for name in wrong | {f"scalar-{law}" for law in laws}}
    for name in failed:
        assert name in str(caught.value)
    assert "RuntimeError: no scalars here" in str(caught.value)


def test_cases_build_nothing_before_they_run_and_share_a_subject() -> None:
    built = []

    def factory(scenario: Scenario, params: object):
        built.append(scenario.name)
        return ReferenceOracle(scenario, params)

    found = list(cases(factory, scenarios=[SCENARIOS["tall"]], dtypes=["float64"]))
    assert len(found) == len(LAWS) and not built
    for case in found[:3]:
        case.run()
    assert built == ["tall"]


def test_laws_that_do_not_apply_are_skips_with_a_reason() -> None:
    (case,) = cases(
        ReferenceOracle, scenarios=[SCENARIOS["linear"]], laws=["adjoint"], dtypes=["float64"]
    )
    with pytest.raises(NotApplicable, match="the oracle has no jvp"):
        case.run()
    assert run(case).outcome == "not applicable"
    assert issubclass(NotApplicable, unittest.SkipTest)  # which pytest counts as a skip


def test_not_a_number_is_not_close() -> None:
    subject = Subject(ReferenceOracle, SCENARIOS["quadratic"])
    with pytest.raises(AssertionError, match="off by nan"):
        subject.check_close(np.array([np.nan]), np.array([0.0]), "x")


@pytest.mark.parametrize(
    "functions", [{}, {"model": np.sum}, {"fun": np.sum, "model": np.sum, "loss": np.sum}]
)
def test_a_scenario_needs_one_function(functions) -> None:
    with pytest.raises(ValueError, match="needs either fun="):
        Scenario("mine", np.ones(2), **functions)


# The support table --------------------------------------------------------------------------


def _results(support: Support) -> list[Result]:
    found = cases(ReferenceOracle, scenarios=[SCENARIOS["tall"]], dtypes=support.dtypes)
    return [run(case) for case in found]


def test_every_gap_is_a_column_and_has_a_reason() -> None:
    for support in ROWS:
        assert set(support.gaps) <= set(COLUMNS)
        exempt = support.strategy.exempt
        assert set(exempt) <= set(LAWS)
        for reason in (*support.gaps.values(), *exempt.values(), support.note):
            assert not reason or (reason in table() and reason.endswith("."))


def test_a_run_contradicts_a_wrong_declaration() -> None:
    eager = {JIT: "Runs eagerly."}
    right = Support("reference", "numpy", gaps=eager)
    assert contradictions(right, _results(right)) == []
    for gaps, complaint in (
        ({}, "jit is declared, but no law about it passed"),
        (eager | {"ggn": "Too hard."}, "ggn is declared a gap, but works"),
    ):
        wrong = Support("reference", "numpy", gaps=gaps)
        assert contradictions(wrong, _results(wrong)) == [f"reference: {complaint}"]


def test_the_rows_are_every_backend_by_every_strategy() -> None:
    assert len(set(map(str, ROWS))) == len(ROWS) == len(BACKENDS) * len(STRATEGIES)
    for support in ROWS:
        quick, full = set(map(str, support.quick())), set(map(str, support.cases()))
        assert quick <= full and (support.strategy is AUTODIFF) == (quick == full)
        assert contradictions_are_decidable(support)


def contradictions_are_decidable(support: Support) -> bool:
    """Whether the quick cases have a law for every column that is declared."""
    laws = {case.law.name for case in support.quick()}
    dtypes = {case.dtype for case in support.quick()}
    return laws >= set(COLUMN_LAWS) and dtypes == set(support.dtypes)


def test_splice_replaces_what_is_between_the_markers() -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter"
    assert splice(text, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter"
    for broken in ("none", f"{END}{BEGIN}", f"{BEGIN}{END}{END}"):
        with pytest.raises(ValueError, match="needs the line"):
            splice(broken, "new")


def test_the_readme_shows_the_table() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert splice(text, table()) == text, "stale: run python -m osculant.testing --write"


def test_the_command_writes_and_checks_the_table(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(command, "verify", lambda support, laws, full: [])
    path = tmp_path / "README.md"
    path.write_text(f"{BEGIN}\n{END}\n")
    assert command.main(["--check", str(path)]) == 1
    assert "is stale" in capsys.readouterr().err
    assert command.main(["--write", str(path)]) == 0
    assert command.main(["--check", str(path)]) == 0
    assert table() in path.read_text()


def test_the_command_runs_one_row(monkeypatch) -> None:
    rows = []
    monkeypatch.setattr(command, "verify", lambda support, **_: rows.append(str(support)) or [])
    assert command.main(["--backend", "JAX", "--by", "finite differences"]) == 0
    assert rows == ["JAX, finite differences"]


def test_the_command_reports_failures(capsys, monkeypatch) -> None:
    def broken(subject: Subject) -> None:
        raise AssertionError("broken")

    scenario = SCENARIOS["linear"]
    law = replace(LAWS["linear"], check=broken)
    case = Case(law, scenario, "float64", lambda: Subject(ReferenceOracle, scenario))
    monkeypatch.setattr(Support, "cases", lambda self: [case])
    wrong = command.verify(BACKENDS[0])
    assert "NumPy: float64-linear-linear: failed: broken" in wrong
    assert "1 failed" in capsys.readouterr().out


def test_a_report_prints_a_line_for_each_law() -> None:
    report = check_oracle(ReferenceOracle, scenarios=[SCENARIOS["tall"]])
    assert isinstance(report, Report)
    lines = str(report).splitlines()
    assert len(lines) == 1 + len(LAWS)
    assert re.match(r"adjoint +2 +0 +0 +<u, Jv> = <J'u, v>", lines[1 + list(LAWS).index("adjoint")])


# The documentation --------------------------------------------------------------------------


def test_the_documentation_runs(capsys) -> None:
    text = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(code, "docs/conformance.md", "exec"), {"__name__": "conformance"})
    assert "hvp_symmetric" in capsys.readouterr().out


# Wrapping ----------------------------------------------------------------------------------


def test_wrapped_point_asks_for_each_product_and_passes_the_answers_on() -> None:
    asked = []

    class Listening(WrappedPoint):
        def ask(self, product: str, *args: Any) -> Any:
            asked.append(product)
            return super().ask(product, *args)

    scenario = SCENARIOS["softmax"]
    _, model, loss = scenario.objective
    oracle = osculant.oracle(model=model, loss=loss, params=scenario.here.params)
    wrapped = Wrapped(oracle)
    wrapped.point = Listening
    x, data = scenario.here.x, scenario.here.data
    theirs, ours = oracle.at(x, *data), wrapped.at(x, *data)
    for name in ("value", "grad", "outputs", "output_shape", "loss_grad"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert asked == []
    arguments = {name: (x,) for name in ("hvp", "vhv", "ggn", "vgv", "jvp", "third")}
    arguments |= {"vjp": (ours.outputs,), "loss_hvp": (ours.outputs,)}
    arguments |= {"dhvp": (x, x), "taylor": (x, 2)}
    for name, args in arguments.items():
        np.testing.assert_array_equal(getattr(ours, name)(*args), getattr(theirs, name)(*args))
    assert asked == list(arguments)
    assert {*arguments, "grad"} >= set(Product)


def test_wrapped_oracle_is_held_as_the_one_inside() -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Dropout(), torch.nn.BatchNorm1d(8))
    oracle = osculant.oracle(model=net, loss=lambda z, t: ((z - t) ** 2).sum())
    wrapped, inputs = Wrapped(oracle), torch.ones(4, 3)
    x = wrapped.ravel(dict(net.named_parameters()))
    values = []
    for each in (oracle, wrapped):
        with each.held(5):
            values.append(float(each.value(x, inputs, torch.zeros(4, 8))))
    assert values[0] == values[1]
    assert list(wrapped.buffers) == list(oracle.buffers) != []
