"""Newton methods enriched by the steps of L-BFGS, which take no product.

Morales and Nocedal, Comput. Optim. Appl. 21 (2002) 143-154. Deviation: a step by products along
which the curvature came out positive is followed by those of L-BFGS for as long as its line search
finds one, not by a number of them.
"""

from __future__ import annotations

from typing import Any, TypeVar

from ..arrays import Array, like, namespace
from ..oracle import Oracle
from ..pairs import teaches
from .base import adopt
from .lbfgs import LBFGS, LBFGSState

#: A state with fields ``memory``, its pairs, and ``secant``, whether the next step goes by them.
S = TypeVar("S", bound=Any)


def quasi_newton(oracle: Oracle, state: S, gtol: float, *data: Any) -> tuple[S, Array]:
    """Return the state after a step of L-BFGS, and how long it was in units of its direction.

    Its value and gradient are to be those of its x. Where the line search finds no step, the pairs
    are kept and products are next.
    """
    start = LBFGSState(
        x=state.x,
        value=state.value,
        grad=state.grad,
        status=state.status,
        counts=state.counts,
        memory=state.memory,
        step_length=like(state.x, 0.0),
    )
    new = LBFGS(gtol=gtol, fixed=True).step(oracle, start, *data)
    moved, xp = new.step_length > 0, namespace(new.x)
    memory = new.memory._replace(  # a failed search forgets them
        R_inv=xp.where(moved, new.memory.R_inv, state.memory.R_inv),
        gamma=xp.where(moved, new.memory.gamma, state.memory.gamma),
    )
    return adopt(state, new)._replace(secant=moved, memory=memory), new.step_length


def arrived(oracle: Oracle, x: Array, new: S, moved: Array, *data: Any) -> S:
    """Return ``new`` with the value and gradient where its step from ``x`` ends, and their pair.

    Pairs are next if this one is of positive curvature. Where the step has not ``moved``, there is
    nothing to look at.
    """

    def look(new: S) -> S:
        pt = oracle.at(new.x, *data)
        s, y = new.x - x, pt.grad - new.grad
        taught = teaches(s, y)
        return new._replace(
            value=pt.value,
            grad=pt.grad,
            counts=new.counts.add(gradients=1),
            secant=taught,
            memory=new.memory.own(oracle.flow).push(s, y, taught, oracle.flow),
        )

    return oracle.flow.cond(moved, look, lambda new: new, new)
