"""The array that a program is run on while its record is taken."""

from __future__ import annotations

from .active import Active
from .record import Recorded


class Traced(Recorded, Active):
    """An array that remembers how it was computed."""

    __slots__ = ()
