"""The conformance kit: holds any oracle to the laws that derivatives obey.

:func:`check_oracle` does it in one call, :func:`cases` one test at a time. Laws are in
:mod:`~osculant.testing.checks`, functions with closed forms in
:mod:`~osculant.testing.scenarios`, and oracles that are wrong on purpose, to prove that each
law can fail, in :mod:`~osculant.testing.mutants`. :class:`Wrapped` is an oracle around another
one, to count or time what a solver asks for; :func:`time_products` times oracles side by side.
"""

from .checks import LAWS as LAWS
from .checks import Law as Law
from .checks import NotApplicable as NotApplicable
from .conformance import Case as Case
from .conformance import ConformanceError as ConformanceError
from .conformance import Report as Report
from .conformance import Result as Result
from .conformance import cases as cases
from .conformance import check_oracle as check_oracle
from .derivatives import Derivatives as Derivatives
from .derivatives import compose as compose
from .reference import ReferenceOracle as ReferenceOracle
from .scenario import Scenario as Scenario
from .scenarios import SCENARIOS as SCENARIOS
from .subject import Subject as Subject
from .timing import Timing as Timing
from .timing import time_products as time_products
from .wrapped import Wrapped as Wrapped
from .wrapped import WrappedPoint as WrappedPoint
