"""Readers of the IDX and LIBSVM formats, which say where a file is malformed.

Files may be compressed with gzip; bytes and lines are counted as uncompressed.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import DataFormatError

# Files -------------------------------------------------------------------------------------

_BROKEN_GZIP = (EOFError, gzip.BadGzipFile, zlib.error)


def find(path: str | Path) -> Path | None:
    """Return ``path`` or ``path.gz``, whichever is there."""
    candidates = (Path(path), Path(f"{path}.gz"))
    return next((file for file in candidates if file.is_file()), None)


def require(path: str | Path) -> Path:
    """Return ``path`` or ``path.gz``; raise FileNotFoundError if neither is there."""
    file = find(path)
    if file is None:
        raise FileNotFoundError(f"there is no file {path}, plain or with .gz")
    return file


def _open(file: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(file) if file.suffix == ".gz" else file.open("rb")


# IDX -------------------------------------------------------------------------------------


def read_idx(path: str | Path, *, ndim: int) -> tuple[Path, np.ndarray]:
    """Return the file found and its array of unsigned bytes.

    An IDX file is big-endian: two zero bytes, the type (8: unsigned byte), the number of
    dimensions, each dimension in four bytes, then the data in row-major order.

    Parameters
    ----------
    path : path
        With or without the ``.gz`` that the file may have. Bytes are counted as uncompressed.
    ndim : int
        Number of dimensions that the file must have.

    Raises
    ------
    FileNotFoundError
        If neither ``path`` nor ``path.gz`` is there.
    DataFormatError
        If the file is malformed, truncated or too long; says at which byte.
    """
    file = require(path)
    content = bytearray()
    with _open(file) as stream:
        try:
            while chunk := stream.read1(1 << 16):
                content += chunk
        except _BROKEN_GZIP as error:
            raise DataFormatError(
                f"{file}, byte {len(content)}: the compressed data are damaged: {error}"
            ) from error
    return file, _decode_idx(file, bytes(content), ndim)


def _decode_idx(file: Path, content: bytes, ndim: int) -> np.ndarray:
    header = idx_header(ndim)
    magic = bytes([0, 0, 8, ndim])
    if content[:4] != magic:
        raise DataFormatError(
            f"{file}, byte 0: starts with {content[:4].hex(' ') or 'nothing'} instead of "
            f"{magic.hex(' ')}, the mark of an IDX file of unsigned bytes in {ndim} dimensions"
        )
    if len(content) < header:
        raise DataFormatError(f"{file}, byte {len(content)}: ends within its {header}-byte header")
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", count=ndim, offset=4))
    expected = header + math.prod(shape)
    if len(content) != expected:
        problem = "ends early" if len(content) < expected else "goes on after its data"
        raise DataFormatError(
            f"{file}, byte {min(len(content), expected)}: {problem}; shape {shape} takes "
            f"{expected} bytes with the header, and there are {len(content)}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def idx_header(ndim: int) -> int:
    """Return the number of bytes before the data of an IDX file."""
    return 4 + 4 * ndim


# LIBSVM ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entries:
    """A LIBSVM file as read: labels, and a matrix in compressed rows."""

    labels: list[float]
    """One for each row."""
    row_ends: list[int]
    """Where each row ends in the two lists that follow."""
    columns: list[int]
    """Counted from 0."""
    values: list[float]

    @property
    def features(self) -> int:
        """Number of columns up to the last one that is used."""
        return max(self.columns, default=-1) + 1

    def matrix(self, features: int, dense: bool, dtype: Any) -> Any:
        """Return the matrix, as a NumPy or as a :class:`scipy.sparse.csr_array`.

        Raises
        ------
        ModuleNotFoundError
            If SciPy is missing and ``dense`` was not asked for.
        """
        shape = (len(self.labels), features)
        # SciPy keeps the type that it is given, and some solvers take 32-bit indices only.
        largest = max(*shape, len(self.values))
        index = np.int32 if largest <= np.iinfo(np.int32).max else np.int64
        columns = np.asarray(self.columns, index)
        if dense:
            matrix = np.zeros(shape, dtype)
            rows = np.repeat(np.arange(shape[0]), np.diff(self.row_ends, prepend=0))
            matrix[rows, columns] = self.values
            return matrix
        try:
            from scipy.sparse import csr_array
        except ModuleNotFoundError as missing:
            raise ModuleNotFoundError(
                'sparse inputs need SciPy: pip install "osculant[scipy]", or pass dense=True',
                name="scipy",
            ) from missing
        values = np.asarray(self.values, dtype)
        row_starts = np.asarray([0, *self.row_ends], index)
        return csr_array((values, columns, row_starts), shape=shape)


def read_libsvm(file: Path, n_features: int | None = None) -> Entries:
    """Return the entries of a file of lines ``label index:value index:value ... # comment``.

    Parameters
    ----------
    file : Path
    n_features : int, optional
        The greatest index allowed.

    Raises
    ------
    DataFormatError
        If a line is malformed, its indices (from 1) are not increasing or too great, or a
        number is not finite; says in which line.
    """
    entries = Entries([], [], [], [])
    limit = math.inf if n_features is None else n_features
    number = 0
    with _open(file) as stream:
        try:
            for number, line in enumerate(stream, start=1):  # noqa: B007 (the errors need it)
                if fields := line.partition(b"#")[0].split():
                    label, columns, values = _parse_line(fields, limit)
                    entries.labels.append(label)
                    entries.columns.extend(columns)
                    entries.values.extend(values)
                    entries.row_ends.append(len(entries.columns))
        except _BROKEN_GZIP as error:
            raise DataFormatError(
                f"{file}, after line {number}: the compressed data are damaged: {error}"
            ) from error
        except ValueError as error:
            raise DataFormatError(f"{file}, line {number}: {error}") from error
    if not entries.labels:
        raise DataFormatError(f"{file}, line {number}: ends without a single sample")
    return entries


def _parse_line(fields: list[bytes], limit: float) -> tuple[float, list[int], list[float]]:
    """Return the label, the columns (from 0) and the values of one line."""
    label = _finite(fields[0])
    columns, values = [], []
    last = 0
    for field in fields[1:]:
        index, colon, value = field.partition(b":")
        if not (colon and index.isdigit()):
            raise ValueError(f"{_quoted(field)} is not of the form index:value")
        column = int(index)
        if not last < column <= limit:
            raise ValueError(_why_not(column, last, limit))
        columns.append(column - 1)
        values.append(_finite(value))
        last = column
    return label, columns, values


def _why_not(column: int, last: int, limit: float) -> str:
    if column == 0:
        return "index 0 was found; indices start at 1"
    if column <= last:
        return f"index {column} follows {last}; indices must increase"
    return f"index {column} is beyond the {limit} features that were asked for"


def _finite(text: bytes) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or b"_" in text:
        raise ValueError(f"{_quoted(text)} is not a finite number")
    return number


def _quoted(text: bytes) -> str:
    return repr(text.decode("ascii", "backslashreplace"))
