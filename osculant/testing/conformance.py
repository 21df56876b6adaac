"""Holds an oracle to every law in every scenario, in one call or as cases for a test runner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from typing import Any

import numpy as np

from ..core.arrays import Array
from .checks import LAWS, Law, NotApplicable
from .scenario import Scenario
from .scenarios import SCENARIOS
from .subject import TOLERANCE, Factory, Subject


class ConformanceError(AssertionError):
    """An oracle breaks laws; the message lists all of them, and :attr:`report` has the rest."""

    def __init__(self, report: Report) -> None:
        failures = [str(result) for result in report.failures]
        super().__init__("\n\n".join([f"{len(failures)} failures:", *failures]))
        self.report = report


@dataclass(frozen=True)
class Case:
    """One law in one scenario and dtype."""

    law: Law
    scenario: Scenario
    dtype: str
    subject: Callable[[], Subject]

    def __str__(self) -> str:
        return f"{self.dtype}-{self.scenario}-{self.law}"

    def run(self) -> None:
        """Raise AssertionError if the law is broken, NotApplicable if it says nothing here."""
        self.law(self.subject())


@dataclass(frozen=True)
class Result:
    """What came of a case."""

    case: Case
    outcome: str
    """``"passed"``, ``"failed"`` or ``"not applicable"``."""
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.case}: {self.outcome}" + (f": {self.detail}" if self.detail else "")


@dataclass(frozen=True)
class Report:
    """Results of all cases; ``print`` it for a table of laws."""

    results: tuple[Result, ...]

    @property
    def failures(self) -> tuple[Result, ...]:
        """The cases that failed."""
        return tuple(result for result in self.results if result.outcome == "failed")

    def __str__(self) -> str:
        rows = [f"{'law':<24}{'passed':>8}{'failed':>8}{'n/a':>6}  statement (why not applicable)"]
        for law in dict.fromkeys(result.case.law for result in self.results):
            mine = [result for result in self.results if result.case.law is law]
            count = [
                sum(result.outcome == outcome for result in mine)
                for outcome in ("passed", "failed", "not applicable")
            ]
            reasons = {result.detail for result in mine if result.outcome == "not applicable"}
            why = f" ({'; '.join(sorted(reasons))})" if reasons else ""
            passed, failed, skipped = count
            rows.append(f"{law.name:<24}{passed:>8}{failed:>8}{skipped:>6}  {law.statement}{why}")
        return "\n".join(rows)


def cases(
    factory: Factory,
    *,
    scenarios: Iterable[Scenario] | None = None,
    laws: Iterable[str] | None = None,
    dtypes: Iterable[str] = ("float32", "float64"),
    convert: Callable[[np.ndarray], Array] = np.array,
    uncompiled: Callable[[], AbstractContextManager[Any]] = nullcontext,
    tolerance: Mapping[str, float] = TOLERANCE,
    peer: Factory | None = None,
) -> list[Case]:
    """Return every case, for ``pytest.mark.parametrize`` and its like.

    Nothing is built or evaluated before a case is run. The parameters are those of
    :func:`check_oracle`.

    Examples
    --------
    ::

        @pytest.mark.parametrize("case", cases(factory), ids=str)
        def test_conformance(case):
            case.run()
    """
    chosen = [LAWS[name] for name in (LAWS if laws is None else laws)]
    places = product(SCENARIOS.values() if scenarios is None else scenarios, dtypes)
    return [
        Case(law, scenario, dtype, subject)
        for scenario, dtype in places
        for subject in [
            cache(
                partial(
                    Subject, factory, scenario, dtype, convert, uncompiled, tolerance[dtype], peer
                )
            )
        ]
        for law in chosen
    ]


def run(case: Case) -> Result:
    """Run a case; whatever it raises becomes its result."""
    try:
        case.run()
    except NotApplicable as reason:
        return Result(case, "not applicable", str(reason))
    except Exception as error:
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        return Result(case, "failed", f"{kind}{error}")
    return Result(case, "passed")


def check_oracle(factory: Factory, **options: Any) -> Report:
    """Hold the oracles that ``factory`` makes to every law, in every scenario.

    Parameters
    ----------
    factory : callable
        ``factory(scenario, params)`` returns an :class:`~osculant.core.oracle.Oracle` for the
        scenario's ``fun``, or its ``model`` and ``loss``. ``params`` is the scenario's tree in
        the oracle's own arrays.
    scenarios : iterable of Scenario, optional
        By default :data:`~osculant.testing.scenarios.SCENARIOS`. An oracle that is written for
        one function is given scenarios of that function.
    laws : iterable of str, optional
        Names in :data:`~osculant.testing.checks.LAWS`; by default all.
    dtypes : iterable of str
        Of ``"float32"`` and ``"float64"``; by default both.
    convert : callable
        Maps a NumPy array to the oracle's own, on its device, with the same dtype; by default
        the NumPy array itself.
    uncompiled : callable
        Returns a context in which nothing is compiled, so that evaluations can be counted:
        ``jax.disable_jit`` for oracles that compile with JAX.
    tolerance : dict
        By dtype: what results may be off by, relative to the largest entry or to one.
    peer : callable, optional
        Another factory, of oracles that the first's must equal to nearly the last digit.

    Returns
    -------
    Report
        Every result, with the reason where a law does not apply.

    Raises
    ------
    ConformanceError
        If any law is broken: an AssertionError that lists every failure.

    Examples
    --------
    >>> from osculant.testing import ReferenceOracle, check_oracle
    >>> len(check_oracle(ReferenceOracle, laws=["hvp_symmetric"], dtypes=["float64"]).failures)
    0
    """
    report = Report(tuple(run(case) for case in cases(factory, **options)))
    if report.failures:
        raise ConformanceError(report)
    return report
