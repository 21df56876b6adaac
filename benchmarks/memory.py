"""What the C library does with freed memory, which can be what a benchmark times."""

from __future__ import annotations

import ctypes


def keep() -> None:
    """Tell glibc to keep what is freed.

    By default it returns blocks of more than 32 MB to the system at once, and fetching them anew,
    a page at a time, takes a tenth and more of what is computed in them. For a program that is not
    a benchmark, ``GLIBC_TUNABLES`` does the same: ``glibc.malloc.mmap_max=0``,
    ``glibc.malloc.trim_threshold=4294967296`` and ``glibc.malloc.arena_max=1``, by colons.
    """
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        for option in (trim_threshold, mmap_threshold):
            mallopt(option, 2**31 - 1)
        mallopt(arena_max, 1)  # others cannot hold more than 64 MB
