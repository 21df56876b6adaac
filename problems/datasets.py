"""Data sets: scikit-learn's digits, MNIST's IDX files, LIBSVM's text files; and mini-batches.

Everything here is NumPy on the host; the caller moves arrays to a backend and device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ..batches import Batches
from ..core.arrays import Array
from ..core.errors import DataFormatError
from .formats import find, idx_header, read_idx, read_libsvm, require


class Samples(NamedTuple):
    """Inputs with their targets: the ``*data`` of a composite oracle."""

    inputs: Any
    """Array of shape (N, ...)."""
    targets: Any
    """Array of shape (N, ...)."""


@dataclass(frozen=True)
class Dataset:
    """Samples to train on and samples held out.

    Attributes
    ----------
    name : str
    train, held_out : Samples
    """

    name: str
    train: Samples
    held_out: Samples

    def map(self, function: Callable[[Array], Array]) -> Dataset:
        """Return the data set with each of its arrays mapped, to another dtype or backend."""
        return replace(
            self,
            train=Samples(*map(function, self.train)),
            held_out=Samples(*map(function, self.held_out)),
        )


# Targets -----------------------------------------------------------------------------------


def one_hot(labels: np.ndarray, classes: int, dtype: Any = np.float64) -> np.ndarray:
    """Return an array of shape (N, classes) with a 1 in each row, at its label.

    Parameters
    ----------
    labels : numpy.ndarray of int, shape (N,)
        In 0, ..., classes - 1.
    classes : int
    dtype : numpy dtype

    Raises
    ------
    ValueError
        If a label is out of range.
    """
    outside = (labels < 0) | (labels >= classes)
    if np.any(outside):
        where = int(np.argmax(outside))
        raise ValueError(f"label {labels[where]} of sample {where} is not in 0, ..., {classes - 1}")
    return np.eye(classes, dtype=dtype)[labels]


def signs(labels: np.ndarray, dtype: Any = np.float64) -> np.ndarray:
    """Return -1 for the smaller of two labels and +1 for the greater, of shape (N,).

    So the files' {0, 1}, {1, 2} and {-1, +1} all become what the linear classifiers take.

    Raises
    ------
    ValueError
        If there are not exactly two different labels.
    """
    values = np.unique(labels)
    if len(values) != 2:
        raise ValueError(
            f"there are {len(values)} different labels; a linear classifier needs exactly 2"
        )
    return np.where(labels == values[1], 1, -1).astype(dtype)


def hold_out(name: str, samples: Samples, *, fraction: float, seed: int) -> Dataset:
    """Return the samples shuffled, with a fraction of them held out.

    Raises
    ------
    ValueError
        If either part would be empty.
    """
    total = samples.inputs.shape[0]  # a sparse array has no len
    held_out = round(fraction * total)
    if not 0 < held_out < total:
        raise ValueError(f"a fraction {fraction} of {total} samples leaves nothing on one side")
    order = np.random.default_rng(seed).permutation(total)
    parts = (Samples(*(a[rows] for a in samples)) for rows in np.split(order, [total - held_out]))
    return Dataset(name, *parts)


# Digits ------------------------------------------------------------------------------------


def digits(*, held_out: float = 0.2, seed: int = 0, dtype: Any = np.float64) -> Dataset:
    """Return scikit-learn's 1797 handwritten digits, which need no download.

    Parameters
    ----------
    held_out : float
        Fraction of samples to hold out.
    seed : int
        Of the split.
    dtype : numpy dtype

    Returns
    -------
    Dataset
        Inputs of shape (N, 64) in [0, 1], one-hot targets of shape (N, 10).

    Raises
    ------
    ModuleNotFoundError
        If scikit-learn is missing.

    References
    ----------
    E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI, 1998 (test part).
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            'the digits come with scikit-learn: pip install "osculant[demo]"', name="sklearn"
        ) from missing
    inputs, labels = load_digits(return_X_y=True)
    samples = Samples((inputs / 16).astype(dtype), one_hot(labels, 10, dtype))
    return hold_out("digits", samples, fraction=held_out, seed=seed)


# MNIST -------------------------------------------------------------------------------------

MnistSplit = Literal["train", "test"]
_MNIST_PREFIX: dict[MnistSplit, str] = {"train": "train", "test": "t10k"}
_IMAGES, _LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


def mnist(
    folder: str | Path, *, held_out: float = 0.2, seed: int = 0, dtype: Any = np.float64
) -> Dataset:
    """Return MNIST, from a folder that holds its IDX files.

    The official test samples are held out. Where the folder has one of the two pairs of files
    only, a fraction of that pair is held out instead, and the name of the data set says which
    pair it was.

    Parameters
    ----------
    folder : path
        See :func:`load_mnist` for the names of the files.
    held_out : float
        Fraction of samples to hold out, where there is one pair of files.
    seed : int
        Of that split.
    dtype : numpy dtype

    Returns
    -------
    Dataset
        Inputs of shape (N, 784) in [0, 1], one-hot targets of shape (N, 10).

    Raises
    ------
    FileNotFoundError
        If the folder has neither pair.
    DataFormatError
        If a file is malformed or truncated.
    """
    folder = Path(folder)
    parts: dict[MnistSplit, Samples] = {}
    for part, prefix in _MNIST_PREFIX.items():
        if find(folder / f"{prefix}-{_IMAGES}"):
            images, labels = load_mnist(folder, split=part, dtype=dtype)
            parts[part] = Samples(images, one_hot(labels, 10, dtype))
    if not parts:
        raise FileNotFoundError(
            f"{folder} holds neither train-{_IMAGES} nor t10k-{_IMAGES}, plain or with .gz"
        )
    if len(parts) == 2:
        return Dataset("MNIST", parts["train"], parts["test"])
    [(part, samples)] = parts.items()
    return hold_out(f"MNIST ({part} files)", samples, fraction=held_out, seed=seed)


def load_mnist(
    folder: str | Path, *, split: MnistSplit = "train", dtype: Any = np.float64
) -> Samples:
    """Return MNIST's images, of shape (N, 784) in [0, 1], with integer labels of shape (N,).

    Parameters
    ----------
    folder : path
        Holds ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte``, or ``t10k-...`` for
        the test split, plain or with ``.gz``.
    split : {"train", "test"}
    dtype : numpy dtype
        Of the images.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    DataFormatError
        If a file is malformed, truncated or too long, a label is not a digit, or the two files
        differ in the number of samples.

    References
    ----------
    Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998: the
    page describes the IDX format.
    """
    prefix = Path(folder) / _MNIST_PREFIX[split]
    images_file, images = read_idx(f"{prefix}-{_IMAGES}", ndim=3)
    labels_file, labels = read_idx(f"{prefix}-{_LABELS}", ndim=1)
    if len(images) != len(labels):
        raise DataFormatError(
            f"{images_file} holds {len(images)} images and {labels_file} {len(labels)} labels; "
            "they do not belong together"
        )
    if np.any(labels > 9):
        where = int(np.argmax(labels > 9))
        raise DataFormatError(
            f"{labels_file}, byte {idx_header(1) + where}: label {labels[where]} is not in 0-9"
        )
    pixels = images.reshape(len(images), -1).astype(dtype) / np.asarray(255, dtype)
    return Samples(pixels, labels.astype(np.int64))


# LIBSVM ------------------------------------------------------------------------------------


def libsvm(
    folder: str | Path,
    name: str,
    *,
    dense: bool = False,
    held_out: float = 0.2,
    seed: int = 0,
    dtype: Any = np.float64,
) -> Dataset:
    """Return one of LIBSVM's two-class data sets, with targets -1 and +1 (:func:`signs`).

    Parameters
    ----------
    folder : path
    name : str
        Of the file to train on, with or without the ``.gz`` that it may have. The file
        ``name.t`` is held out; where there is none, a fraction of the samples is.
    dense : bool
        See :func:`load_libsvm`.
    held_out : float
        Fraction of samples to hold out, where there is one file.
    seed : int
        Of that split.
    dtype : numpy dtype

    Raises
    ------
    FileNotFoundError
        If the folder has no file of that name.
    DataFormatError
        If a file is malformed.
    ValueError
        If there are not exactly two different labels.
    """
    train_file, test_file = Path(folder) / name, Path(folder) / f"{name}.t"
    files = [train_file, test_file] if find(test_file) else [train_file]
    read = [read_libsvm(require(file)) for file in files]
    features = max(entries.features for entries in read)
    targets = signs(np.concatenate([entries.labels for entries in read]), dtype)
    first = len(read[0].labels)
    parts = [
        Samples(entries.matrix(features, dense, dtype), part)
        for entries, part in zip(read, np.split(targets, [first])[: len(read)], strict=True)
    ]
    if len(parts) == 2:
        return Dataset(name, *parts)
    return hold_out(name, parts[0], fraction=held_out, seed=seed)


def load_libsvm(
    path: str | Path,
    *,
    n_features: int | None = None,
    dense: bool = False,
    dtype: Any = np.float64,
) -> Samples:
    """Return the samples of a file in LIBSVM's text format.

    A line is ``label index:value index:value ... # comment``, with indices from 1 in increasing
    order, and one number for a label. scikit-learn's reader is faster, but does not say in
    which line it stumbled.

    Parameters
    ----------
    path : path
        With or without the ``.gz`` that the file may have.
    n_features : int, optional
        Number of columns; the greatest index by default. Give it to read two files alike.
    dense : bool
        Whether to return the inputs as a NumPy array instead of a sparse one. The linear
        classifiers of :mod:`osculant.problems` take both, the networks dense inputs.
    dtype : numpy dtype

    Returns
    -------
    Samples
        Inputs of shape (N, n_features), a :class:`scipy.sparse.csr_array` unless ``dense``;
        targets of shape (N,), as they stand in the file (see :func:`signs`).

    Raises
    ------
    FileNotFoundError
        If neither ``path`` nor ``path.gz`` is there.
    DataFormatError
        If a line is malformed, its indices are not increasing or out of range, or a number is
        not finite; says in which line.
    ModuleNotFoundError
        If SciPy is missing and ``dense`` was not asked for.
    """
    entries = read_libsvm(require(path), n_features)
    return Samples(
        entries.matrix(entries.features if n_features is None else n_features, dense, dtype),
        np.asarray(entries.labels, dtype),
    )


# Files -------------------------------------------------------------------------------------

# Mini-batches ------------------------------------------------------------------------------


def batches(data: tuple[Array, ...], size: int | None, *, seed: int = 0) -> Batches:
    """Return :class:`osculant.Batches` of ``data``, such as :attr:`Dataset.train`."""
    return Batches(data, size, seed=seed)
