"""Checkpoints: a safetensors file that is replaced all at once."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import array_api_compat
import numpy as np

from .core.errors import DataFormatError

#: Of the facts, in the metadata that safetensors keeps as text beside the arrays.
KEY = "osculant"

#: Of the arrays that lay in memory column by column, as the inverses of PyTorch do: products with
#: them round otherwise than with the same entries row by row, as which the file has them.
BY_COLUMNS = "by columns"


class Saved(NamedTuple):
    """A checkpoint that was read."""

    arrays: Mapping[str, np.ndarray]
    facts: dict[str, Any]


class Checkpoint:
    """Keeps a run of :func:`osculant.fit` in a file, from which the run goes on if it is there.

    Parameters
    ----------
    path : str or Path
        The file, in a folder that exists. Beside it, a file of that name with ``.tmp`` at its end
        comes and goes.
    every : int, optional
        Steps between checkpoints; by default there is one after each epoch. The end of a run
        always writes one.

    Raises
    ------
    ValueError
        If ``every`` is not positive.
    FileNotFoundError
        If there is no such folder.
    ImportError
        If safetensors is not installed.

    Notes
    -----
    The arrays of a run are its tensors, the history's columns among them, and all else is JSON in
    its metadata: nothing is pickled, and other programs can read it. A new checkpoint is written
    to the second file, flushed to the disk, and renamed, which POSIX does at once or not at all.
    At any moment, whatever kills the process, the file is a whole checkpoint or is not there yet.
    """

    def __init__(self, path: str | os.PathLike[str], every: int | None = None) -> None:
        if every is not None and every < 1:
            raise ValueError(f"every is {every}; it must be at least 1")
        self.path, self.every = Path(path), every
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {self.path.parent} for {self.path.name}")
        _safetensors()

    def save(self, arrays: Mapping[str, Any], facts: dict[str, Any]) -> None:
        """Replace the checkpoint.

        Parameters
        ----------
        arrays : mapping
            Arrays of any framework, and lists of numbers, by name.
        facts : dict
            What JSON can hold.
        """
        tensors = {name: _to_host(array) for name, array in arrays.items()}
        by_columns = [name for name, a in tensors.items() if a.flags.fnc]
        text = json.dumps({**facts, BY_COLUMNS: by_columns})
        tensors = {name: np.asarray(a, order="C") for name, a in tensors.items()}
        replace_file(self.path, _safetensors().save(tensors, metadata={KEY: text}))

    def load(self) -> Saved | None:
        """Return the checkpoint, None if there is none yet.

        Raises
        ------
        DataFormatError
            If the file is not a checkpoint.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            arrays = _safetensors().load(content)
            size = int.from_bytes(content[:8], "little")
            facts = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][KEY])
        except Exception as error:  # safetensors raises a class of its own, JSON another
            raise DataFormatError(
                f"{self.path} is not a checkpoint ({error}); give another path, or remove it"
            ) from error
        for name in facts.pop(BY_COLUMNS, ()):
            arrays[name] = np.asfortranarray(arrays[name])
        return Saved(arrays, facts)


def replace_file(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that, whatever happens, the old or the new is there."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name survives a power failure only then
    finally:
        os.close(folder)


def _to_host(array: Any) -> np.ndarray:
    if array_api_compat.is_torch_array(array) or array_api_compat.is_cupy_array(array):
        array = array_api_compat.to_device(array, "cpu")
    return np.asarray(array)


def _safetensors() -> ModuleType:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            'checkpoints need safetensors: pip install "osculant[checkpoint]"'
        ) from error
    return safetensors.numpy
