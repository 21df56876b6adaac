"""PyTorch: one function of data that lie on several processes.

Each process evaluates on its own samples; an all-reduce makes of that the value, the gradient or
the product of the whole, the same bits on every process. The solvers see nothing else, so they run
unchanged, side by side, and take the same steps.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import array_api_compat
import torch
import torch.distributed as dist

from ..core.arrays import Array
from ..core.errors import ProductUnavailable
from ..core.oracle import Objective, Oracle, Point, Product

#: Products in the space of the model's outputs, of which a process has those of its own samples.
OF_OUTPUTS = frozenset({Product.JVP, Product.VJP, Product.LOSS_HVP})


class DataParallel(Oracle):
    """The mean over all samples of a loss that each process knows on its own samples.

    With N_p samples and the mean f_p on process p, f = sum_p N_p f_p / sum_p N_p, and so are the
    gradient, H V, G V and the third derivatives: an all-reduce each, and one for value and gradient
    together. ``jvp``, ``vjp`` and ``loss_hvp`` would be those of a process's own samples, and are
    not offered: solvers that need them (``lm``, ``gauss-newton``, ``kfac``) do not run on it.

    Parameters
    ----------
    oracle : Oracle
        Of tensors, the same function on each process.
    samples : int or callable, optional
        How many samples the loss of this process is the mean of: a number, or a function that is
        called as ``samples(*data)``, where each sample counts differently (tokens, masks). By
        default the length of the last of the data. A process may have none.
    reduction : str
        ``"mean"`` for a loss that is a mean over samples; ``"sum"`` for a sum, and then f is
        sum_p f_p.
    group : torch.distributed.ProcessGroup, optional
        The processes; by default all.

    Raises
    ------
    RuntimeError
        If there is no process group, or this process is not in it.
    TypeError
        If the oracle's arrays are not tensors; in an evaluation, if the number of samples is not
        known.
    ValueError
        If an option is out of range; in the first evaluation, on all processes, if they were given
        different parameters.

    Notes
    -----
    All processes must do the same: run one solver for as many steps, on batches that may differ in
    size but not in number. Time limits, and the number that an :class:`~osculant.Evaluation` with
    patience watches, are averaged over the processes; a callback that raises StopIteration must do
    so on all. An error on one process is raised there, while the others wait in their next
    all-reduce until PyTorch's timeout; ``torchrun`` ends them all.

    It is equal arithmetic on equal numbers that keeps the processes together: run them on devices
    of one kind, with as many threads.

    A module's buffers, such as running statistics, move on each process by its own samples, within
    which batch normalisation normalises; dropout draws other masks on each. A decay goes around
    it, ``Regularized(DataParallel(oracle), ...)``: inside of a sum it would count once a process.
    A checkpoint needs a file of its own on each.

    Examples
    --------
    >>> import torch, osculant
    >>> from osculant.backends.distributed import DataParallel
    >>> alone = {"store": torch.distributed.HashStore(), "rank": 0, "world_size": 1}
    >>> torch.distributed.init_process_group("gloo", **alone)  # not needed: torchrun gives these
    >>> def loss(w, X, y):
    ...     return ((X @ w - y) ** 2).mean()
    >>> X = torch.eye(2)[torch.distributed.get_rank() :: torch.distributed.get_world_size()]
    >>> w = torch.zeros(2)
    >>> oracle = DataParallel(osculant.oracle(loss, w))
    >>> osculant.minimize(oracle, w, args=(X, X @ torch.tensor([1.0, 2.0]))).x.round(decimals=2)
    tensor([1., 2.])
    >>> torch.distributed.destroy_process_group()
    """

    def __init__(
        self,
        oracle: Oracle,
        *,
        samples: float | Callable[..., float] | None = None,
        reduction: str = "mean",
        group: dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__(oracle.structure)
        if not array_api_compat.is_torch_namespace(oracle.structure.xp):
            raise TypeError(
                f"DataParallel needs an oracle of tensors, not of {oracle.structure.xp.__name__}; "
                "JAX needs none of it: place the data on several devices by jax.device_put"
            )
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction is {reduction!r}; it must be 'mean' or 'sum'")
        if reduction == "sum" and samples is not None:
            raise ValueError("a sum is not weighted by its samples: leave samples out")
        if not (dist.is_available() and dist.is_initialized()):
            raise RuntimeError(
                "there is no process group: call torch.distributed.init_process_group first, in a "
                "program that torchrun has started"
            )
        if dist.get_rank(group) < 0:
            raise RuntimeError("this process is not in the group")
        self.base = oracle
        self.flow, self.products = oracle.flow, oracle.products - OF_OUTPUTS
        self.group, self.reduction = group, reduction
        self._samples = _length if samples is None else samples
        self._compared = False

    def at(self, x: Array, *data: Any) -> DataParallelPoint:
        """Linearise once at ``x``, of shape (n,), on this process's ``data``."""
        self._compare(x)
        return DataParallelPoint(self, self.base.at(x, *data), self.weight(data))

    def value(self, x: Array, *data: Any) -> Array:
        """Return the function at ``x`` as a 0-d tensor."""
        self._compare(x)
        (value,) = self.reduced(self.weight(data), self.base.value(x, *data))
        return value

    def weight(self, data: tuple[Any, ...]) -> float:
        """Return by what this process's loss is weighted: its samples, 1 in a sum."""
        if self.reduction == "sum":
            return 1.0
        number = self._samples(*data) if callable(self._samples) else self._samples
        if not 0 <= number < math.inf:
            raise ValueError(f"there cannot be {number} samples")
        return float(number)

    def reduced(self, weight: float, *parts: Array) -> list[Array]:
        """Return the mean, or the sum, over the processes of each of ``parts``.

        One all-reduce, of new memory, in which the weight travels behind what it weights.
        """
        flat = torch.cat([*(part.reshape(-1) for part in parts), parts[0].new_ones(1)])
        flat = flat.mul_(weight) if weight else flat.zero_()  # a mean over nothing is NaN
        dist.all_reduce(flat, group=self.group)
        *totals, weights = flat.split([*(part.numel() for part in parts), 1])
        if self.reduction == "mean":
            totals = [total / weights for total in totals]
        return [total.reshape(part.shape) for total, part in zip(totals, parts, strict=True)]

    def agreed(self, number: float) -> float:
        """Return the mean of ``number`` over the processes."""
        total = torch.tensor([number], dtype=torch.float64, device=self.structure.device)
        dist.all_reduce(total, group=self.group)
        return float(total) / dist.get_world_size(self.group)

    def _compare(self, x: Array) -> None:
        """Raise on every process, in the first evaluation, if their parameters differ."""
        if self._compared:
            return
        self.structure.check(x, name="x")
        structure = self.structure
        kind = repr((structure.names, structure.shapes, structure.dtype, self.reduction))
        bits = x.detach().cpu().contiguous().view(torch.uint8).numpy()
        sums = torch.tensor([zlib.crc32(kind.encode()), zlib.crc32(bits)], device=structure.device)
        extremes = torch.cat([sums, -sums])
        dist.all_reduce(extremes, op=dist.ReduceOp.MAX, group=self.group)
        kinds_differ, values_differ = (extremes[:2] != -extremes[2:]).tolist()
        if kinds_differ:
            raise ValueError(
                "the processes have parameters of different names, shapes or dtypes, or different "
                f"reductions; process {dist.get_rank(self.group)} has {kind}"
            )
        if values_differ:
            raise ValueError(
                "the processes start from different parameters: make them from the same seed, or "
                "copy those of one process by torch.distributed.broadcast"
            )
        self._compared = True

    def held(self, seed: int, *, track: bool = True) -> AbstractContextManager[None]:
        """Hold the oracle underneath, which draws other numbers on each process."""
        return self.base.held(seed + dist.get_rank(self.group), track=track)

    def remedy(self, product: Product) -> str:
        """Return what to do where ``product``, which is missing, is wanted."""
        if product not in OF_OUTPUTS:
            return self.base.remedy(product)
        return "the model's outputs lie on several processes: take a solver that needs no Jacobian"

    def composition(self) -> Objective:
        """Raise: what is seen in the layers is of one process's samples."""
        raise ProductUnavailable(
            "the inputs of the model's layers lie on several processes: take a solver, or "
            "a preconditioner, that does not look into layers"
        )

    @property
    def buffers(self) -> Mapping[str, Array]:
        """Those of the oracle underneath, of this process alone."""
        return self.base.buffers

    def ravel(self, tree: Any) -> Array:
        """Return a tree of parameters as a new vector of shape (n,)."""
        return self.base.ravel(tree)


class DataParallelPoint(Point):
    """The function of all samples at one place: each answer is reduced from those underneath.

    Parameters
    ----------
    oracle : DataParallel
    local : Point
        The function of this process's samples.
    weight : float
        The number of these.
    """

    oracle: DataParallel

    def __init__(self, oracle: DataParallel, local: Point, weight: float) -> None:
        super().__init__(oracle)
        self._local = local
        self._weight = weight

    @cached_property
    def _first(self) -> list[Array]:
        return self._reduced(self._local.value, self._local.grad)

    @property
    def value(self) -> Array:
        """The function, a 0-d tensor."""
        return self._first[0].clone()

    @property
    def grad(self) -> Array:
        """The gradient, of shape (n,)."""
        return self._first[1].clone()

    def hvp(self, V: Array) -> Array:
        """Return H V, for V of shape (n,) or (n, k)."""
        return self._reduced(self._local.hvp(V))[0]

    def vhv(self, V: Array) -> Array:
        """Return v' H v for each column v of V."""
        return self._reduced(self._local.vhv(V))[0]

    def ggn(self, V: Array) -> Array:
        """Return G V, for V of shape (n,) or (n, k)."""
        return self._reduced(self._local.ggn(V))[0]

    def vgv(self, V: Array) -> Array:
        """Return v' G v for each column v of V."""
        return self._reduced(self._local.vgv(V))[0]

    def third(self, V: Array) -> Array:
        """Return D^3 f[v, v, v] for each column v of V."""
        return self._reduced(self._local.third(V))[0]

    def dhvp(self, v: Array, W: Array) -> Array:
        """Return D^3 f[v, w, .] for W of shape (n,) or (n, k)."""
        return self._reduced(self._local.dhvp(v, W))[0]

    def _taylor(self, v: Array, order: int) -> Sequence[Array]:
        return self._reduced(*self._local.taylor(v, order))

    def _reduced(self, *parts: Array) -> list[Array]:
        return self.oracle.reduced(self._weight, *parts)


def _length(*data: Any) -> int:
    shape = getattr(data[-1], "shape", ()) if data else ()
    if not shape:
        raise TypeError(
            "how many samples this process has is not known, as the last of the data has no first "
            "axis: give DataParallel samples=, a number or a function of the data"
        )
    return int(shape[0])
