"""What a run consists of: named arrays, and facts that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from numbers import Integral, Real
from typing import Any, Protocol

import optree

from .arrays import Array, as_like, is_array
from .errors import CheckpointMismatch


class Saved(Protocol):
    """A checkpoint that was read."""

    @property
    def arrays(self) -> Mapping[str, Any]:
        """Arrays of the host, by name."""

    @property
    def facts(self) -> dict[str, Any]:
        """What JSON held."""


class Store(Protocol):
    """Where checkpoints are kept, such as :class:`osculant.Checkpoint`."""

    @property
    def every(self) -> int | None:
        """Steps between checkpoints; None for one after each epoch."""

    def save(self, arrays: Mapping[str, Array], facts: dict[str, Any]) -> None:
        """Replace the checkpoint, all at once or not at all."""

    def load(self) -> Saved | None:
        """Return the checkpoint, None if there is none yet."""


def named_leaves(state: Any) -> dict[str, Array]:
    """Return the arrays of a solver's state by dotted name, such as ``"counts.hvps"``."""
    accessors, leaves, _ = optree.tree_flatten_with_accessor(state)
    return {a.codify("").lstrip("."): leaf for a, leaf in zip(accessors, leaves, strict=True)}


def rebuild(state: Any, leaves: Mapping[str, Array]) -> Any:
    """Return a tree like ``state`` that has these leaves."""
    treedef = optree.tree_structure(state)
    return optree.tree_unflatten(treedef, [leaves[name] for name in named_leaves(state)])


def restore(tree: Any, arrays: Mapping[str, Any], prefix: str) -> Any:
    """Return a tree like ``tree`` with the saved arrays whose names begin with ``prefix``.

    Each is of the namespace, dtype and device of the leaf that it replaces.

    Raises
    ------
    CheckpointMismatch
        If one is missing, or has another shape or dtype.
    """
    leaves = {}
    for name, leaf in named_leaves(tree).items():
        saved = arrays.get(prefix + name)
        if saved is None:
            raise CheckpointMismatch(f"the checkpoint has no {prefix + name}")
        if tuple(saved.shape) != tuple(leaf.shape):
            raise CheckpointMismatch(
                f"{prefix + name} has shape {tuple(saved.shape)} in the checkpoint and "
                f"{tuple(leaf.shape)} here"
            )
        if str(saved.dtype) not in str(leaf.dtype):
            raise CheckpointMismatch(
                f"{prefix + name} has dtype {saved.dtype} in the checkpoint and {leaf.dtype} here"
            )
        leaves[name] = as_like(leaf, saved)
    return rebuild(tree, leaves)


def describe(value: Any) -> Any:
    """Return hyper-parameters as plain values: equal ones for equal hyper-parameters.

    Functions and objects of other kinds are told apart by the names of what they are made of.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    if is_array(value):
        return [describe(x) for x in value] if value.ndim else float(value)
    if is_dataclass(value) and not isinstance(value, type):
        own = {f.name: describe(getattr(value, f.name)) for f in fields(value)}
        return {"type": type(value).__name__, **own}
    if isinstance(value, Mapping):
        return {str(key): describe(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [describe(entry) for entry in value]
    return getattr(value, "__qualname__", type(value).__qualname__)


def check_same(saved: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raise unless a checkpoint belongs to this run.

    Raises
    ------
    CheckpointMismatch
        With every difference.
    """
    mine, other = _flat(here), _flat(saved)
    different = [
        f"{name}: {other.get(name, 'nothing')} in the checkpoint, {mine.get(name, 'nothing')} here"
        for name in dict.fromkeys([*mine, *other])
        if mine.get(name) != other.get(name)
    ]
    if different:
        raise CheckpointMismatch(
            "the checkpoint is of another run: "
            + "; ".join(different)
            + ". Go on with the same settings, or give another path"
        )


def _flat(facts: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(facts, Mapping):
        return {prefix: list(facts) if isinstance(facts, tuple) else facts}
    return {
        name: value
        for key, entry in facts.items()
        for name, value in _flat(entry, f"{prefix}.{key}" if prefix else key).items()
    }
