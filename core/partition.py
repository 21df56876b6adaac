"""Partitions of the parameters into groups.

P. Wolinski, "Adapting Newton's method to neural networks through a summary of higher-order
derivatives" (2023), section 4.1: the canonical partition has a group for each tensor, the trivial
one a single group, and the discrete one a group for each scalar.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from .arrays import Array, device_of, indices_like, namespace
from .structure import Structure


class Partition:
    """Groups of parameters that cover the vector of shape (n,), each entry once.

    Parameters
    ----------
    groups : mapping of str to sequence of slice
        The pieces of the vector that make up each group, by its name. ``oracle.groups`` says
        where each tensor lies: ``{"head": [oracle.groups["W2"], oracle.groups["b2"]], ...}``.
    size : int
        The length n of the vector.

    Raises
    ------
    ValueError
        If an entry of the vector is in no group, or in two.

    Notes
    -----
    Partitions compare and hash by value: a solver that has one is compiled once.
    """

    def __init__(self, groups: Mapping[str, Sequence[slice]], size: int) -> None:
        self.names = tuple(groups)
        self.size = size
        pieces = (
            (piece.start or 0, size if piece.stop is None else piece.stop, s)
            for s, group in enumerate(groups.values())
            for piece in group
        )
        self._pieces = tuple(sorted(pieces))
        place = 0
        for start, stop, s in self._pieces:
            if start != place or stop < start:
                raise ValueError(
                    f"the groups must cover each entry of a vector of length {size} once, but "
                    f"after entry {place} comes the piece {start}:{stop} of {self.names[s]!r}"
                )
            place = stop
        if place != size:
            raise ValueError(f"entries {place} to {size - 1} of the vector are in no group")

    def __len__(self) -> int:
        """Return the number S of groups."""
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Partition) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[object, ...]:
        return (self.names, self.size, self._pieces)

    def restrictions(self, u: Array) -> Array:
        """Return [u_1, ..., u_S], of shape (n, S): u where the entry is of group s, else 0."""
        xp, of_entry = namespace(u), self._group_of_entry(u)
        groups = indices_like(u, len(self))
        return xp.where(of_entry[:, None] == groups[None, :], u[:, None], xp.zeros_like(u)[:, None])

    def spread(self, values: Array) -> Array:
        """Return the vector of shape (n,) that has ``values[s]`` at each entry of group s."""
        return namespace(values).take(values, self._group_of_entry(values), axis=0)

    def _group_of_entry(self, like: Array) -> Array:
        xp, place = namespace(like), {"dtype": namespace(like).int32, "device": device_of(like)}
        pieces = self._pieces
        return xp.concat([xp.full((stop - start,), s, **place) for start, stop, s in pieces])


def canonical(structure: Structure) -> Partition:
    """Return the partition with a group for each tensor."""
    return Partition({name: [piece] for name, piece in structure.groups.items()}, structure.size)


def trivial(structure: Structure) -> Partition:
    """Return the partition with a single group."""
    return Partition({"all": [slice(0, structure.size)]}, structure.size)


def discrete(structure: Structure) -> Partition:
    """Return the partition with a group for each scalar."""
    entries = {
        f"{name}[{i - piece.start}]": [slice(i, i + 1)]
        for name, piece in structure.groups.items()
        for i in range(piece.start, piece.stop)
    }
    return Partition(entries, structure.size)


def by_depth(structure: Structure, chunks: int = 1) -> Partition:
    """Return the partition of the weights, and of the biases, into chunks of consecutive tensors.

    Tensors of two axes or more are weights, and the others biases. Each kind is cut into at most
    ``chunks`` chunks, whose numbers of tensors differ by one at most.
    """
    if chunks < 1:
        raise ValueError(f"chunks is {chunks}; there must be at least one")
    tensors = list(zip(structure.groups.values(), structure.shapes, strict=True))
    weights = [piece for piece, shape in tensors if len(shape) > 1]
    biases = [piece for piece, shape in tensors if len(shape) <= 1]
    groups = chain(_cut("weights", weights, chunks), _cut("biases", biases, chunks))
    return Partition(dict(groups), structure.size)


def _cut(kind: str, pieces: list[slice], chunks: int) -> Iterable[tuple[str, list[slice]]]:
    chunks = min(chunks, len(pieces))
    for c in range(chunks):
        start, stop = (len(pieces) * k // chunks for k in (c, c + 1))
        yield f"{kind} {c + 1}/{chunks}", pieces[start:stop]
