"""Mini-batches of arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import array_api_compat
import numpy as np

from .core.arrays import Array, namespace


class Batches:
    """Mini-batches of arrays, shuffled anew in each epoch.

    Parameters
    ----------
    data : tuple of arrays
        The data arguments, with as many rows each; SciPy's sparse arrays too.
    size : int, optional
        Rows in a batch; all of the data, unshuffled, if None.
    seed : int
        The same seed gives the same batches, in every framework.
    drop_last : bool
        Whether to leave out the rows that fill no batch, other ones in each epoch. Otherwise they
        are a smaller batch, for which a compiled step is compiled once more.
    with_seed : bool
        Whether each batch begins with an integer of its own, a further argument of the function,
        which models that draw random numbers draw them from: ``jax.random.key(seed)``. All
        evaluations of a step then draw the same.

    Raises
    ------
    TypeError
        If the data are not a tuple of arrays.
    ValueError
        If the arrays differ in their number of rows, or the size is not between 1 and that.

    Notes
    -----
    Each iteration is the next epoch. :func:`osculant.fit` asks for :meth:`epoch` by number, so
    that a run does not depend on what was iterated over before.

    Examples
    --------
    >>> import numpy as np
    >>> batches = Batches((np.arange(5), np.arange(5) ** 2), 2, seed=1)
    >>> len(batches)
    2
    >>> [(x.tolist(), y.tolist()) for x, y in batches.epoch(0)]
    [([4, 0], [16, 0]), ([1, 2], [1, 4])]
    """

    def __init__(
        self,
        data: tuple[Array, ...],
        size: int | None = None,
        *,
        seed: int = 0,
        drop_last: bool = True,
        with_seed: bool = False,
    ) -> None:
        if not isinstance(data, tuple | list) or not all(getattr(a, "shape", ()) for a in data):
            raise TypeError(
                f"the data are a {type(data).__name__}; pass a tuple of arrays, each with samples "
                "along its first axis: (inputs, targets), or (inputs,) for one"
            )
        rows = {int(array.shape[0]) for array in data}
        if len(rows) != 1:
            raise ValueError(f"the arrays have different numbers of rows: {sorted(rows)}")
        [self._rows] = rows
        if size is not None and not 1 <= size <= self._rows:
            raise ValueError(f"a batch of {size} rows cannot be taken from {self._rows} rows")
        self._data, self._size, self._seed = tuple(data), size, seed
        self._drop_last, self._with_seed = drop_last, with_seed
        self._next_epoch = 0

    def __len__(self) -> int:
        """Batches in an epoch."""
        if self._size is None:
            return 1
        return self._rows // self._size if self._drop_last else -(-self._rows // self._size)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Give the batches of the next epoch."""
        epoch, self._next_epoch = self._next_epoch, self._next_epoch + 1
        return self.epoch(epoch)

    def epoch(self, number: int, skip: int = 0) -> Iterator[tuple[Any, ...]]:
        """Give the batches of an epoch, counted from 0, without the first ``skip``."""
        random = np.random.default_rng((self._seed, number))
        order = None if self._size is None else random.permutation(self._rows)
        for i in range(skip, len(self)):
            first = (self._draw_seed(number, i),) if self._with_seed else ()
            yield first + self._batch(order, i)

    def description(self) -> dict[str, Any]:
        """Return what decides which batches these are, as plain values."""
        return {
            "rows": self._rows,
            "size": self._size,
            "seed": self._seed,
            "drop_last": self._drop_last,
            "with_seed": self._with_seed,
        }

    def _batch(self, order: np.ndarray | None, i: int) -> tuple[Any, ...]:
        if order is None or self._size is None:
            return self._data
        rows = order[i * self._size : (i + 1) * self._size]
        return tuple(_take(array, rows) for array in self._data)

    def _draw_seed(self, epoch: int, i: int) -> int:
        """Return an integer that fits 32 bits, as JAX has no others by default."""
        return int(np.random.default_rng((self._seed, epoch, i)).integers(2**31))


def _take(array: Any, rows: np.ndarray) -> Any:
    if not array_api_compat.is_array_api_obj(array):  # a SciPy sparse array
        return array[rows]
    xp = namespace(array)
    return xp.take(array, xp.asarray(rows, device=array_api_compat.device(array)), axis=0)
