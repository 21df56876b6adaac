"""The record of one evaluation, and the sweeps over it.

A tape is a function y = F(x) cut into nodes, each with its own tangent map ``J`` between the
tangents of its parents and its own:

==========================  =====================================================
tangent sweep               t  = sum_i J_i t_i
reverse sweep               g_i += J_i' g
tangent-of-reverse sweep    g'_i += J_i' g'  +  (d/dt J_i)' g
==========================  =====================================================

where t_i and g_i belong to the i-th parent, and g' is the derivative of g as x moves along the
tangent. J' is the transpose, never the adjoint: nothing is conjugated, every sweep is
holomorphic, and a tape that is run on complex arrays gives complex-step products.
The forward sweep is the program itself: running it records the nodes (``record.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import array_api_compat

from ...core.arrays import Array, Namespace
from ...core.errors import NotDifferentiable

FOREIGN = (
    "an array was traced in another function than the one being differentiated: a loss may depend "
    "on the parameters only through the model's outputs, and a function must return what is "
    "needed later instead of keeping traced arrays"
)


class Spec(NamedTuple):
    """What the tangents and cotangents of a node look like."""

    shape: tuple[int, ...]
    dtype: Any
    device: Any

    @classmethod
    def of(cls, value: Array) -> Spec:
        """Return the spec of an array."""
        return cls(tuple(value.shape), value.dtype, array_api_compat.device(value))

    def zeros(self, xp: Namespace) -> Array:
        """Return a new array of zeros."""
        return xp.zeros(self.shape, dtype=self.dtype, device=self.device)


class Rule(Protocol):
    """What the sweeps ask of a category; ``rules.py`` has the three."""

    @property
    def fresh(self) -> bool:
        """Whether results are new memory, which the sweep may then add to in place."""

    def tangent(self, xp: Namespace, node: Node, tangents: Sequence[Array]) -> Array:
        """Return sum_i J_i t_i; for a constant argument the entry of ``tangents`` is None."""

    def transpose(self, xp: Namespace, node: Node, g: Array, i: int) -> Array:
        """Return J_i' g."""

    def curvature(
        self, xp: Namespace, node: Node, i: int, tangents: Sequence[Array]
    ) -> Array | None:
        """Return (d/dt J_i)' g for the node's cotangent g, as new memory; None if it is zero."""


class Node:
    """One step of a program: what is needed to differentiate it, not its value.

    Attributes
    ----------
    rule : Rule
    parents : sequence of Node or None
        One for each argument; None for a constant.
    spec : Spec
    saved : object
        What the rule kept of the arguments.
    params : dict
        The rule's keyword arguments: axes, shapes, indices.
    slot : int
        Where the sweeps keep what belongs to this node.
    cotangent : array or None
        Of the scalar whose gradient was taken, once a sweep has been told to keep it.
    cache : dict
        Derivatives at this point, each computed when first asked for.
    """

    __slots__ = ("cache", "cotangent", "params", "parents", "rule", "saved", "slot", "spec")

    def __init__(
        self,
        rule: Rule,
        parents: Sequence[Node | None],
        spec: Spec,
        saved: Any = None,
        params: dict[str, Any] | None = None,
    ) -> None:
        self.rule = rule
        self.parents = parents
        self.spec = spec
        self.saved = saved
        self.params = params or {}
        self.slot = -1
        self.cotangent: Array | None = None
        self.cache: dict[Any, Any] = {}


class _Source:
    """The rule of a node without parents: an input, or an output that depends on no input."""

    fresh = True

    def tangent(self, xp: Namespace, node: Node, tangents: Sequence[Array]) -> Array:
        return node.spec.zeros(xp)

    def transpose(self, xp: Namespace, node: Node, g: Array, i: int) -> Array:
        raise AssertionError("a source has no parents")

    def curvature(
        self, xp: Namespace, node: Node, i: int, tangents: Sequence[Array]
    ) -> Array | None:
        raise AssertionError("a source has no parents")


_SOURCE = _Source()


class _Sums:
    """For each slot the sum of what was added; memory that is not its own is never written to."""

    def __init__(self, size: int) -> None:
        self._sums: list[Any] = [None] * size
        self._own = [False] * size

    def add(self, slot: int, term: Array, fresh: bool) -> None:
        total = self._sums[slot]
        if total is None:
            total, own = term, fresh
        elif self._own[slot]:
            total += term
            own = True
        elif fresh:
            term += total
            total, own = term, True
        else:
            total, own = total + term, True
        self._sums[slot], self._own[slot] = total, own

    def pop(self, slot: int) -> Array | None:
        """Return the sum, or None if nothing was added, and forget it."""
        total = self._sums[slot]
        self._sums[slot] = None
        return total


class Tape:
    """The record of one evaluation of y = F(x_1, ..., x_k).

    Parameters
    ----------
    xp : namespace
        Of the arrays.
    inputs : sequence of array
        Where the function is evaluated; only their specs are kept.
    """

    def __init__(self, xp: Namespace, inputs: Sequence[Array]) -> None:
        self.xp = xp
        self.inputs = [Node(_SOURCE, (), Spec.of(x)) for x in inputs]
        self._nodes: list[Node] = []
        self._output: Node | None = None

    # Forward ------------------------------------------------------------------------------

    def add(self, node: Node) -> Node:
        """Record a step, and return it."""
        if self._output is not None:
            raise NotDifferentiable(FOREIGN)
        self._nodes.append(node)
        return node

    def finish(self, output: Node | None, value: Array) -> None:
        """Close the record: ``value`` is y and ``output`` its node, None if it is a constant.

        Steps that the output does not depend on are dropped.
        """
        if output is None:
            output = self.add(Node(_SOURCE, (), Spec.of(value)))
        live = {id(output)}
        for node in reversed(self._nodes):
            if id(node) in live:
                live.update(id(parent) for parent in node.parents if parent is not None)
        self._nodes = [node for node in self._nodes if id(node) in live]
        for slot, node in enumerate([*self.inputs, *self._nodes]):
            node.slot = slot
        self._output = output

    @property
    def output(self) -> Node:
        """The node of y."""
        assert self._output is not None, "the tape is still recording"
        return self._output

    # Tangent: J t -------------------------------------------------------------------------

    def tangent(self, seeds: Sequence[Array | None]) -> list[Array | None]:
        """Return the tangent of every node by slot, for these tangents of the inputs.

        None stands for zero, and nothing is computed of it.
        """
        tangents = list(seeds)
        for node in self._nodes:
            of_parents = _of_parents(node, tangents)
            moves = not of_parents or any(t is not None for t in of_parents)
            tangents.append(node.rule.tangent(self.xp, node, of_parents) if moves else None)
        return tangents

    # Reverse: J' g ------------------------------------------------------------------------

    def reverse(self, seed: Array, *, keep: bool = False) -> list[Array]:
        """Return the cotangents of the inputs, for this cotangent of the output.

        Parameters
        ----------
        seed : array
        keep : bool
            Whether the nodes keep their cotangents, for :meth:`tangent_of_reverse`.
        """
        sums = self._sums(seed)
        for node in reversed(self._nodes):
            g = sums.pop(node.slot)
            if keep:
                node.cotangent = g
            for i, parent in enumerate(node.parents):
                if parent is not None:
                    sums.add(parent.slot, node.rule.transpose(self.xp, node, g, i), node.rule.fresh)
        return self._of_inputs(sums)

    # Tangent of reverse: J' g' + (d/dt J)' g -----------------------------------------------

    def tangent_of_reverse(
        self, tangents: Sequence[Array | None], seed: Array | None
    ) -> list[Array]:
        """Return the derivative of the inputs' cotangents, as these move along ``tangents``.

        Parameters
        ----------
        tangents : list of array or None
            What :meth:`tangent` returned.
        seed : array or None
            Derivative of the output's cotangent; None if that is constant.
        """
        sums = self._sums(seed)
        for node in reversed(self._nodes):
            dg = sums.pop(node.slot)
            of_parents = _of_parents(node, tangents)
            for i, parent in enumerate(node.parents):
                if parent is None:
                    continue
                if dg is not None:
                    term = node.rule.transpose(self.xp, node, dg, i)
                    sums.add(parent.slot, term, node.rule.fresh)
                bend = node.rule.curvature(self.xp, node, i, of_parents)
                if bend is not None:
                    sums.add(parent.slot, bend, True)
        return self._of_inputs(sums)

    # ---------------------------------------------------------------------------------------

    def _sums(self, seed: Array | None) -> _Sums:
        sums = _Sums(len(self.inputs) + len(self._nodes))
        if seed is not None:
            sums.add(self.output.slot, seed, False)
        return sums

    def _of_inputs(self, sums: _Sums) -> list[Array]:
        totals = [sums.pop(node.slot) for node in self.inputs]
        return [
            node.spec.zeros(self.xp) if total is None else total
            for node, total in zip(self.inputs, totals, strict=True)
        ]


def _of_parents(node: Node, tangents: Sequence[Array | None]) -> list[Array | None]:
    return [None if parent is None else tangents[parent.slot] for parent in node.parents]
