"""Training on mini-batches."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import optree

from ..arrays import Array, like, namespace
from ..checkpoint import Store, check_same, describe, named_leaves, restore
from ..oracle import Oracle
from ..result import Solution, Status
from ..sampler import Batched
from ..samples import split
from ..solvers.base import Solver
from .evaluation import Evaluation, Monitor
from .feed import Feed
from .run import Callback, Run, check_limits

#: ``fit`` gives up after this many batches in a row on which nothing is finite.
NOT_FINITE_PATIENCE = 10

#: Of a checkpoint's layout.
FORMAT = 1


def fit(
    oracle: Oracle,
    params: Any,
    batches: Batched,
    *,
    solver: Solver,
    curvature: Batched | None = None,
    ratio: Batched | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    seconds: float | None = None,
    budget: float | None = None,
    seed: int = 0,
    evaluation: Evaluation | Callable[[Any], Any] | None = None,
    checkpoint: Store | None = None,
    callback: Callback | None = None,
    jit: bool = True,
) -> Solution:
    """Train on mini-batches; :func:`osculant.fit` is the public face of this.

    Parameters
    ----------
    oracle : Oracle
    params : tree of arrays
        Where to start; not modified.
    batches, curvature, ratio : iterable or callable
    solver : Solver
    epochs, steps, seconds, budget, seed, evaluation, callback, jit
        As for :func:`osculant.fit`.
    checkpoint : Store, optional
        Where the run is kept, and gone on from.

    Returns
    -------
    Solution
    """
    check_limits(epochs=epochs, steps=steps, seconds=seconds, budget=budget)
    if epochs is steps is seconds is budget is None:
        epochs = 1
    feed = Feed(solver, batches, curvature, ratio)
    run = Run(
        oracle,
        oracle.ravel(params),
        solver,
        gtol=solver.gtol if solver.gtol > 0 else None,
        callback=callback,
        jit=jit,
    )
    if evaluation is not None and not isinstance(evaluation, Evaluation):
        evaluation = Evaluation(evaluation)
    monitor = None if evaluation is None else Monitor(evaluation)
    training = _Training(run, feed, _Limits(epochs, steps, seconds, budget), seed, monitor)
    if checkpoint is None:
        return training.conclude(training.go())
    identity = {
        "format": FORMAT,
        "solver": describe(solver),
        "parameters": {
            "names": list(oracle.structure.names),
            "shapes": [list(shape) for shape in oracle.structure.shapes],
            "dtype": str(oracle.structure.dtype).rpartition(".")[-1],
        },
        "batches": feed.description(),
        "seed": seed,
    }
    saved = checkpoint.load()
    if saved is not None:
        check_same(saved.facts["run"], identity)
        training.resume(saved.arrays, saved.facts["place"])

    def save() -> None:
        checkpoint.save(training.arrays(), {"run": identity, "place": training.place()})

    return training.conclude(training.go(save, checkpoint.every))


class _Limits(NamedTuple):
    epochs: int | None
    steps: int | None
    seconds: float | None
    budget: float | None

    def reached(self, epoch: int, steps: int, cost: float, timed_out: bool) -> Status:
        """Return why the run is to end, RUNNING if it is not."""
        if self.epochs is not None and epoch >= self.epochs:
            return Status.FINISHED
        spent = ((steps, self.steps), (cost, self.budget))
        if timed_out or any(limit is not None and amount >= limit for amount, limit in spent):
            return Status.BUDGET
        return Status.RUNNING


class _Good(NamedTuple):
    """Where value and gradient were last seen to be finite."""

    x: Array
    value: Array
    grad: Array


class _Training:
    """A run over batches: what it needs to go on from where it was, and the loop."""

    def __init__(
        self, run: Run, feed: Feed, limits: _Limits, seed: int, monitor: Monitor | None
    ) -> None:
        self.run, self.feed, self.limits, self.seed = run, feed, limits, seed
        self.monitor = monitor
        x = run.state.x
        self.good = _Good(x, like(x, math.nan), namespace(x).full_like(x, math.nan))
        self.failures = 0

    def go(self, save: Callable[[], None] | None = None, every: int | None = None) -> Status:
        """Run until something ends it; ``save`` after each epoch or ``every`` steps, and then."""
        while True:
            status = self._limit()
            if status is not Status.RUNNING:
                break
            data = self._next()
            if data is not None:
                status = self._step(data)
                if status is not Status.RUNNING:
                    break
            if save is not None and (
                data is None if every is None else data is not None and self.run.nit % every == 0
            ):
                save()
        if save is not None:
            save()
        return status

    def conclude(self, status: Status) -> Solution:
        """Return the result: where the run stands, or where it was last good, or best."""
        x, message = self.run.state.x, None
        if not _finite(x) or 0 < self.run.nit == self.failures:
            status = Status.NOT_FINITE
        if status is Status.NOT_FINITE:
            message = self._why_not_finite()
        elif passed := self._passed_over():
            message = (
                f"{status.message} The loss or its gradient was not finite in {passed} of the "
                f"{self.run.nit} steps: see the history, and look for such values in the data."
            )
        if status is Status.NOT_FINITE or self.failures:
            x = self.good.x
        elif status is Status.EARLY_STOP and self.monitor is not None:
            x = self.monitor.best_x
        return self.run.solution(status, x, self.good.value, self.good.grad, message)

    # One turn of the loop ------------------------------------------------------------------

    def _limit(self) -> Status:
        run = self.run
        if self.monitor is not None and self.monitor.impatient:
            return Status.EARLY_STOP
        cost = run.history["cost"][-1] if run.nit else 0.0
        timed_out = run.lasted(self.limits.seconds)
        return self.limits.reached(self.feed.main.epoch, run.nit, cost, timed_out)

    def _next(self) -> tuple[Any, ...] | None:
        """Return the next data; at the end of an epoch evaluate, and return None."""
        run, main = self.run, self.feed.main
        if run.solver.refresh_due(main.index):
            with run.oracle.held(self._step_seed(), track=False):
                run.state = run.solver.refresh(run.oracle, run.state, main.whole_epoch())
        data = self.feed.draw()
        if data is None and self.monitor is not None and self.monitor.evaluation.every is None:
            self.monitor.evaluate(run)
        return data

    def _step(self, data: tuple[Any, ...]) -> Status:
        run, start = self.run, self.run.state.x
        with run.oracle.held(self._step_seed()):
            try:
                status = run.advance(*data)
            except Exception as error:
                error.add_note(
                    f"In step {run.nit + 1}, on a batch of {_described(data)}, for parameters of "
                    f"{_described(start)}."
                )
                raise
            if status is Status.NOT_FINITE:
                status = self._reject(data)
            else:
                self.failures = 0
                self.good = _Good(start, run.state.value, run.state.grad)
        if status is Status.CONVERGED:
            return status
        if self.monitor is not None and self.monitor.due(run.nit):
            self.monitor.evaluate(run)
        if not run.call_back():
            return Status.CALLBACK
        return status if status in (Status.UNBOUNDED, Status.NOT_FINITE) else Status.RUNNING

    def _reject(self, data: tuple[Any, ...]) -> Status:
        """Halve the way to x from where the function was last finite, unless the batch is at fault.

        It is if the function is not finite there either: then the batch is passed over.
        """
        run, good = self.run, self.good.x
        self.failures += 1
        if self.failures >= NOT_FINITE_PATIENCE:
            return Status.NOT_FINITE
        value = run.oracle.value(good, *split(data).gradient)
        run.spend("values")
        if _finite(value):
            xp, x = namespace(good), run.state.x
            halved = xp.where(xp.isfinite(x), good + (x - good) / 2, good)
            run.state = run.state._replace(x=halved)
        return Status.RUNNING

    def _passed_over(self) -> int:
        """Return how many steps there were that started where something was not finite."""
        columns = (self.run.history.get(name, []) for name in ("fun", "grad_norm"))
        return sum(not all(map(math.isfinite, seen)) for seen in zip(*columns, strict=True))

    def _why_not_finite(self) -> str:
        seen = "both were finite" if self.run.nit > self.failures else "the run started"
        return (
            f"The loss or its gradient was not finite, {max(self.failures, 1)} times in a row up "
            f"to step {self.run.nit}. x holds the last parameters where {seen}. Take shorter steps "
            "(learning rate, radius), or look for values in the data that are not finite."
        )

    def _step_seed(self) -> int:
        """Return an integer for the next step, the same after a resumption."""
        return random.Random(f"{self.seed} {self.run.nit}").getrandbits(63)

    # What a checkpoint holds -----------------------------------------------------------------

    def _trees(self) -> dict[str, Any]:
        """Return the arrays of the run, as trees by name."""
        run = self.run
        best = None if self.monitor is None else self.monitor.best_x
        trees = {"state": run.state, "good": self.good}
        return trees if best is None else {**trees, "best": (best,)}

    def arrays(self) -> dict[str, Any]:
        """Return everything that is an array, by name; columns of the history are lists."""
        arrays = {
            f"{tree}/{name}": leaf
            for tree, leaves in self._trees().items()
            for name, leaf in named_leaves(leaves).items()
        }
        arrays |= {f"buffers/{name}": b for name, b in self.run.oracle.buffers.items()}
        return arrays | {f"history/{name}": column for name, column in self.run.history.items()}

    def place(self) -> dict[str, Any]:
        """Return everything else: where the run is."""
        monitor = self.monitor
        return {
            "nit": self.run.nit,
            "spent": self.run.spent,
            "seconds": self.run.seconds,
            "failures": self.failures,
            "position": self.feed.position(),
            "columns": list(self.run.history),
            "evaluation": None if monitor is None else [monitor.best, monitor.waited],
        }

    def resume(self, arrays: Mapping[str, Any], place: dict[str, Any]) -> None:
        """Go to where a checkpoint was written."""
        run, monitor = self.run, self.monitor
        run.state = restore(run.state, arrays, "state/")
        self.good = restore(self.good, arrays, "good/")
        if monitor is not None and place["evaluation"] is not None:
            monitor.best, monitor.waited = place["evaluation"]
            if "best/[0]" in arrays:
                (monitor.best_x,) = restore((run.state.x,), arrays, "best/")
        for name, buffer in run.oracle.buffers.items():
            buffer[...] = restore((buffer,), {"[0]": arrays[f"buffers/{name}"]}, "")[0]
        for name in place["columns"]:
            run.history[name] = [float(value) for value in arrays[f"history/{name}"]]
        run.nit, run.spent, run.seconds = place["nit"], place["spent"], place["seconds"]
        self.failures = place["failures"]
        self.feed.seek(place["position"])


def _described(data: Any) -> str:
    """Return the kind, shape and dtype of each array in ``data``."""

    def kind(a: Any) -> str:
        if not (hasattr(a, "shape") and hasattr(a, "dtype")):
            return type(a).__name__
        library = type(a).__module__.partition(".")[0]
        return f"{library} {tuple(a.shape)} {str(a.dtype).rpartition('.')[-1]}"

    return ", ".join(map(kind, optree.tree_leaves(data))) or "nothing"


def _finite(a: Array) -> bool:
    xp = namespace(a)
    return bool(xp.all(xp.isfinite(a)))
