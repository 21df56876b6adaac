"""Windows that slide over images: their sizes, strides and paddings, checked and completed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..tape.windows import Pair, extent

#: One number for rows and columns alike, or one for each.
Size = int | Sequence[int]


class Window(NamedTuple):
    """A window of taps; each field holds what is for the rows and what is for the columns."""

    size: Pair
    stride: Pair
    dilation: Pair
    padding: tuple[Pair, Pair]
    """Zeros before and after."""

    @property
    def taps(self) -> int:
        """How many entries of an image lie in a window."""
        return self.size[0] * self.size[1]

    @property
    def is_symmetric(self) -> bool:
        """Whether there are as many zeros before as after."""
        return all(before == after for before, after in self.padding)

    @property
    def widths(self) -> tuple[Pair, ...]:
        """The padding of every axis of (N, C, H, W)."""
        return ((0, 0), (0, 0), *self.padding)


def window(
    shape: Sequence[int], size: Size, stride: Size, padding: Size | str, dilation: Size = 1
) -> Window:
    """Return the window for images of ``shape``, (N, C, H, W).

    Raises
    ------
    ValueError
        If it does not fit, or a number is not possible.
    """
    sizes = _pair("window", size, 1)
    strides, dilations = _pair("stride", stride, 1), _pair("dilation", dilation, 1)
    padded = _padding(shape[2:], sizes, strides, padding, dilations)
    for axis, name in enumerate(("rows", "columns")):
        length = shape[2 + axis] + sum(padded[axis])
        if extent(length, sizes[axis], 1, dilations[axis]) < 1:
            reach = dilations[axis] * (sizes[axis] - 1) + 1
            raise ValueError(
                f"a window over {reach} {name} does not fit into an image of {length}, padding "
                "included: use a smaller window or dilation, or more padding"
            )
    return Window(sizes, strides, dilations, padded)


def check_images(x: object, name: str) -> None:
    """Raise unless ``x`` has the four axes of a batch of images."""
    shape = tuple(getattr(x, "shape", ()))
    if len(shape) != 4:
        raise ValueError(
            f"{name} takes images of shape (N, C, H, W); these have shape {shape}. "
            "Reshape flattened images, and give a single one a batch axis"
        )


def _padding(
    lengths: Sequence[int], size: Pair, stride: Pair, padding: Size | str, dilation: Pair
) -> tuple[Pair, Pair]:
    if padding == "valid":
        padding = 0
    if padding == "same":
        rows, columns = map(_same, lengths, size, stride, dilation)
        return rows, columns
    if isinstance(padding, str):
        raise ValueError(f"padding is {padding!r}; it is a number, a pair, 'same' or 'valid'")
    above, left = _pair("padding", padding, 0)
    return (above, above), (left, left)


def _same(length: int, size: int, stride: int, dilation: int) -> Pair:
    """Return the zeros that make ceil(length / stride) windows; an odd one goes after."""
    windows = -(-length // stride)
    total = max((windows - 1) * stride + dilation * (size - 1) + 1 - length, 0)
    return total // 2, total - total // 2


def _pair(name: str, value: Size, least: int) -> Pair:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or any(not isinstance(n, int) or n < least for n in pair):
        raise ValueError(f"{name} is {value}; it is an integer of at least {least}, or two")
    return pair
