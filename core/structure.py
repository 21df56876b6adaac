"""Between the user's own structure of parameters and the one flat vector that core sees."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from itertools import accumulate, pairwise
from types import MappingProxyType
from typing import Any, NamedTuple

import array_api_compat
import optree

from .arrays import Array, is_array, namespace

#: A vector by tensor; None for one that is all zeros.
Leaves = list[Array | None]


class Trees(NamedTuple):
    """How a framework walks its pytrees."""

    flatten: Callable[[Any], tuple[list[str], list[Any], Any]]
    """Maps a tree to its leaves' names, its leaves and its (hashable) structure."""
    unflatten: Callable[[Any, Sequence[Any]], Any]
    """Maps a structure and leaves to a tree."""


def _optree_flatten(tree: Any) -> tuple[list[str], list[Any], Any]:
    paths, leaves, treedef = optree.tree_flatten_with_path(tree)
    return [".".join(str(key) for key in path) for path in paths], leaves, treedef


#: Dicts, lists, tuples, named tuples and whatever is registered with optree.
OPTREE = Trees(_optree_flatten, optree.tree_unflatten)


class Structure:
    """Names, shapes and dtype of a tree of parameters; ravels trees and unravels vectors.

    Parameters
    ----------
    example : tree of arrays
        Fixes structure, shapes, dtype, device and namespace. Not kept.
    trees : Trees
        How to walk it.

    Raises
    ------
    TypeError
        If a leaf is not an array, is not real floating point, or leaves differ in dtype.
    ValueError
        If the tree has no leaves.

    Notes
    -----
    Structures compare and hash by value, so that a compiled function is found again by a
    second problem of the same shape.
    """

    def __init__(self, example: Any, trees: Trees = OPTREE) -> None:
        names, leaves, self.treedef = trees.flatten(example)
        self.trees = trees
        if not leaves:
            raise ValueError("the parameters are empty: there is nothing to optimise")
        for name, leaf in zip(names, leaves, strict=True):
            _check_leaf(name, leaf, leaves[0])
        self.names = tuple(name or "x" for name in names)
        self.shapes = tuple(tuple(leaf.shape) for leaf in leaves)
        self.sizes = tuple(math.prod(shape) for shape in self.shapes)
        bounds = [0, *accumulate(self.sizes)]
        self.size = bounds[-1]
        self._slices = tuple(slice(a, b) for a, b in pairwise(bounds))
        self.dtype = leaves[0].dtype
        self.device = array_api_compat.device(leaves[0])
        self.xp = namespace(leaves[0])

    def with_dtype(self, dtype: Any) -> Structure:
        """Return the structure of such trees in another dtype, such as a complex one."""
        other = copy(self)
        other.dtype = dtype
        return other

    def __deepcopy__(self, memo: Any) -> Structure:
        return self  # never changed, and a namespace cannot be copied

    @property
    def _key(self) -> tuple[Any, ...]:
        return (self.treedef, self.names, self.shapes, str(self.dtype), str(self.device), self.xp)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Structure) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def groups(self) -> Mapping[str, slice]:
        """Where each leaf lies in the vector, by name."""
        return MappingProxyType(dict(zip(self.names, self._slices, strict=True)))

    def leaves(self, tree: Any) -> list[Array]:
        """Return the leaves of ``tree``, having checked them against this structure."""
        names, leaves, treedef = self.trees.flatten(tree)
        if treedef != self.treedef:
            raise ValueError(
                f"the tree, a {type(tree).__name__}, has another structure than the parameters "
                f"that the oracle was made for: {treedef} instead of {self.treedef}"
            )
        for name, leaf, shape in zip(names, leaves, self.shapes, strict=True):
            _check_array(name, leaf)
            if tuple(leaf.shape) != shape:
                raise ValueError(
                    f"leaf {name or 'x'!r} has shape {tuple(leaf.shape)} instead of {shape}"
                )
            if leaf.dtype != self.dtype:
                raise TypeError(
                    f"leaf {name or 'x'!r} has dtype {leaf.dtype} instead of {self.dtype}"
                )
        return leaves

    def ravel(self, tree: Any) -> Array:
        """Return the leaves of ``tree`` as one new vector of shape (n,)."""
        return self.join(self.leaves(tree), copy=True)

    def unravel(self, vector: Array) -> Any:
        """Return ``vector``, of shape (n,), as a new tree that shares no memory with it."""
        self.check(vector)
        return self.build(self.split(self.xp.asarray(vector, copy=True)))

    def build(self, leaves: Sequence[Any]) -> Any:
        """Return the tree that has these leaves."""
        return self.trees.unflatten(self.treedef, leaves)

    def split(self, vector: Array) -> list[Array]:
        """Return the leaves of ``vector``, as views where the namespace has them."""
        xp = self.xp
        if len(self.sizes) == 1:
            return [xp.reshape(vector, self.shapes[0])]
        return [
            xp.reshape(vector[where], shape)
            for where, shape in zip(self._slices, self.shapes, strict=True)
        ]

    def moving(self, v: Array) -> Leaves:
        """Return the leaves of ``v``, None for those that are all zeros. Waits for the device.

        A derivative along v involves only the tensors in which v moves.
        """
        return [leaf if bool(self.xp.any(leaf != 0)) else None for leaf in self.split(v)]

    def join(self, leaves: Sequence[Array], *, copy: bool = False) -> Array:
        """Return ``leaves`` as one vector, the inverse of :meth:`split`."""
        xp = self.xp
        if len(leaves) == 1:
            flat = xp.reshape(leaves[0], (-1,))
            # The dtype is said so that a weakly typed JAX array becomes an ordinary one.
            return xp.asarray(flat, dtype=self.dtype, copy=True) if copy else flat
        return xp.concat([xp.reshape(leaf, (-1,)) for leaf in leaves])

    def check(self, vector: Array, *, columns: bool = False, name: str = "the vector") -> None:
        """Raise unless ``vector`` has shape (n,), or (n, k) if ``columns``, and the right dtype."""
        check_vector(vector, self.size, self.dtype, self.xp, columns=columns, name=name)


def check_vector(
    vector: Array,
    size: int,
    dtype: Any,
    xp: Any,
    *,
    columns: bool = False,
    name: str = "the vector",
) -> None:
    """Raise unless ``vector`` is of this namespace, dtype and length; ``columns`` allows (n, k)."""
    if not is_array(vector) or namespace(vector) != xp:
        raise TypeError(
            f"{name} is a {type(vector).__module__}.{type(vector).__name__}, not an array of "
            f"{getattr(xp, '__name__', xp)}; nothing is converted between frameworks silently"
        )
    shape = tuple(vector.shape)
    if len(shape) not in ((1, 2) if columns else (1,)) or shape[0] != size:
        wanted = f"({size},)" + (f" or ({size}, k)" if columns else "")
        raise ValueError(f"{name} has shape {shape}; {wanted} is needed")
    if vector.dtype != dtype:
        raise TypeError(
            f"{name} has dtype {vector.dtype}; the parameters have {dtype}: cast it yourself"
        )


def _check_array(name: str, leaf: Any) -> str:
    where = f"parameter {name!r}" if name else "the parameter array"
    if not is_array(leaf):
        raise TypeError(f"{where} is a {type(leaf).__name__}, not an array")
    return where


def _check_leaf(name: str, leaf: Any, first: Any) -> None:
    where = _check_array(name, leaf)
    if not namespace(leaf).isdtype(leaf.dtype, "real floating"):
        raise TypeError(
            f"{where} has dtype {leaf.dtype}; derivatives need real floating point: "
            "cast it, for example with astype(float)"
        )
    if first is not None and leaf.dtype != first.dtype:
        raise TypeError(
            f"{where} has dtype {leaf.dtype} but the first parameter has {first.dtype}; "
            "cast them to one dtype: nothing is upcast silently"
        )
