"""What a mutant is: an oracle with one mistake, and the law that catches it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from ..core.oracle import Oracle
from .checks import LAWS, NotApplicable
from .subject import Subject
from .wrapped import Wrapped, WrappedPoint


def _anywhere(subject: Subject) -> None:
    pass


@dataclass(frozen=True)
class Mutant:
    """A mistake, and the law that catches it."""

    name: str
    statement: str
    law: str
    wrap: Callable[[Oracle], Oracle]
    applies: Callable[[Subject], None]

    def __str__(self) -> str:
        return self.name

    def kill(self, subjects: Iterable[Subject]) -> str:
        """Return the message with which its law catches it, in the first scenario where it does.

        Parameters
        ----------
        subjects : iterable of Subject
            Scenarios, with an oracle that is correct.

        Raises
        ------
        AssertionError
            If it survives them all.
        NotApplicable
            If the mistake cannot be made with such arrays.
        """
        for subject in subjects:
            self.applies(subject)
            try:
                LAWS[self.law](subject.with_oracle(self.wrap(subject.oracle)))
            except NotApplicable:
                continue
            except AssertionError as failure:
                return f"{subject.scenario}: {failure}"
        raise AssertionError(f"{self.name} survives {self.law}: {self.statement}")


#: Every mutant, by name.
MUTANTS: dict[str, Mutant] = {}


M = TypeVar("M", type[Wrapped], type[WrappedPoint])


def mutant(law: str, applies: Callable[[Subject], None] = _anywhere) -> Callable[[M], M]:
    """Register a class of oracles or of points as a mutant; its docstring says what is wrong."""

    def register(cls: M) -> M:
        def wrap(inner: Oracle) -> Oracle:
            if issubclass(cls, Wrapped):
                return cls(inner)
            wrapped = Wrapped(inner)
            wrapped.point = cls
            return wrapped

        statement = (cls.__doc__ or "").strip().rstrip(".")
        MUTANTS[cls.__name__] = Mutant(cls.__name__, statement, law, wrap, applies)
        return cls

    return register
