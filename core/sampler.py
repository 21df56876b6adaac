"""Walks through batches, epoch after epoch, and knows its place."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Protocol, runtime_checkable

#: Batches of one epoch: an iterable that can be gone through again and again; an iterator, for
#: one epoch; or a function that returns either, given the epoch's number if it takes one.
Batched = Iterable[Any] | Callable[..., Iterable[Any]]


@runtime_checkable
class Epochs(Protocol):
    """Batches that can be asked for by the epoch's number, such as :class:`osculant.Batches`."""

    def epoch(self, number: int, skip: int = 0) -> Iterator[tuple[Any, ...]]:
        """Give the batches of an epoch without the first ``skip``."""

    def description(self) -> dict[str, Any]:
        """Return what decides which batches these are, as plain values."""


class Sampler:
    """The place of a run in its batches: ``index`` batches into ``epoch``.

    Parameters
    ----------
    source : Epochs, iterable or callable
        Of what is not :class:`Epochs`, batches to be skipped are drawn and dropped.
    name : str
        What to call it in errors.
    """

    def __init__(self, source: Batched, name: str = "batches") -> None:
        if not callable(source) and not isinstance(source, Iterable):
            raise TypeError(
                f"{name} is a {type(source).__name__}; it must be an iterable of tuples, or a "
                "function that returns one"
            )
        self.source, self.name = source, name
        self.epoch = self.index = 0
        self._batches: Iterator[Any] | None = None

    def draw(self) -> tuple[Any, ...] | None:
        """Return the next batch, and None where the epoch ends; then the next one begins.

        Raises
        ------
        ValueError
            If an epoch has no batches.
        TypeError
            If a batch is not a tuple or a list.
        """
        if self._batches is None:
            self._batches = self._open(self.epoch, self.index)
        batch = next(self._batches, None)
        if batch is None:
            self._end()
            return None
        if not isinstance(batch, tuple | list):
            raise TypeError(
                f"a batch is a {type(batch).__name__}; it must be a tuple of the function's data "
                "arguments: (inputs, targets), or (inputs,) for one. For batches of whole arrays "
                "pass osculant.Batches((inputs, targets), size)"
            )
        self.index += 1
        return tuple(batch)

    def cycle(self) -> tuple[Any, ...]:
        """Return the next batch, of the next epoch where this one ends."""
        batch = self.draw()
        if batch is None:
            batch = self.draw()
            assert batch is not None
        return batch

    def whole_epoch(self) -> Iterator[tuple[Any, ...]]:
        """Give the batches of this epoch, without moving."""
        return (tuple(batch) for batch in self._open(self.epoch, 0))

    def seek(self, epoch: int, index: int) -> None:
        """Go to where ``index`` batches of ``epoch`` have been drawn."""
        self.epoch, self.index, self._batches = epoch, index, None

    def _end(self) -> None:
        if self.index == 0:
            raise ValueError(
                f"{self.name} gave nothing in epoch {self.epoch}, counted from 0: they are empty, "
                "as of a loader whose batches are larger than its data, or used up, as a generator "
                "after one epoch; pass something that can be iterated over anew (a list, a loader, "
                "a function)"
            )
        self.epoch, self.index, self._batches = self.epoch + 1, 0, None

    def _open(self, epoch: int, skip: int) -> Iterator[Any]:
        source = self.source
        if isinstance(source, Epochs):
            return source.epoch(epoch, skip)
        if not isinstance(source, Iterable):
            source = source(epoch) if inspect.signature(source).parameters else source()
        return islice(iter(source), skip, None)
