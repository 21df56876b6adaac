"""Data sets: that good files are read right, and that bad ones are named to the byte or line."""

from __future__ import annotations

import gzip
import struct
import sys

import numpy as np
import pytest

from osculant.core.errors import DataFormatError
from osculant.problems import (
    Dataset,
    Samples,
    batches,
    digits,
    libsvm,
    load_libsvm,
    load_mnist,
    mnist,
    one_hot,
    signs,
)

IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def write(path, content):
    """Write bytes, compressed if the name ends in .gz."""
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def images(n=5):
    return np.arange(n * 6, dtype=np.uint8).reshape(n, 2, 3)


# Targets and splits ------------------------------------------------------------------------


def test_one_hot():
    np.testing.assert_array_equal(one_hot(np.array([2, 0]), 3), [[0, 0, 1], [1, 0, 0]])
    assert one_hot(np.array([0]), 1, np.float32).dtype == np.float32
    for label in (-1, 3):
        with pytest.raises(ValueError, match=f"label {label} of sample 1"):
            one_hot(np.array([0, label]), 3)


@pytest.mark.parametrize("low, high", [(0, 1), (1, 2), (-1, 1)])
def test_signs(low, high):
    np.testing.assert_array_equal(signs(np.array([high, low, low])), [1, -1, -1])


def test_signs_needs_two_labels():
    with pytest.raises(ValueError, match="3 different labels"):
        signs(np.array([0, 1, 2]))


def test_digits_are_scaled_split_and_repeatable():
    data, again, other = digits(), digits(), digits(seed=1)
    assert data.train.inputs.shape == (1438, 64)
    assert data.held_out.targets.shape == (359, 10)
    everything = np.concatenate([data.train.inputs, data.held_out.inputs])
    assert everything.min() == 0
    assert everything.max() == 1
    np.testing.assert_array_equal(data.train.inputs, again.train.inputs)
    assert not np.array_equal(data.train.inputs, other.train.inputs)
    np.testing.assert_array_equal(data.train.targets.sum(axis=1), 1)


def test_digits_keep_inputs_with_their_targets():
    from sklearn.datasets import load_digits

    inputs, labels = load_digits(return_X_y=True)
    label_of = {row.tobytes(): label for row, label in zip(inputs, labels, strict=True)}
    data = digits()
    rows = np.concatenate([data.train.inputs, data.held_out.inputs]) * 16
    targets = np.concatenate([data.train.targets, data.held_out.targets])
    assert sorted(row.tobytes() for row in rows) == sorted(row.tobytes() for row in inputs)
    found = [label_of[row.tobytes()] for row in rows]
    np.testing.assert_array_equal(np.argmax(targets, axis=1), found)


def test_digits_say_which_extra_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "osculant\[demo\]"'):
        digits()


def test_dataset_maps_every_array():
    data = Dataset("x", Samples(np.zeros(2), np.zeros(2)), Samples(np.zeros(1), np.zeros(1)))
    mapped = data.map(lambda a: a.astype(np.float32))
    assert {a.dtype for part in (mapped.train, mapped.held_out) for a in part} == {np.dtype("f4")}


# MNIST -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_files_plain_and_compressed(tmp_path, suffix):
    labels = np.array([3, 0, 9, 1, 1], np.uint8)
    write(tmp_path / (IMAGES + suffix), idx(images()))
    write(tmp_path / (LABELS + suffix), idx(labels))
    samples = load_mnist(tmp_path, split="test", dtype=np.float32)
    np.testing.assert_array_equal(samples.targets, labels)
    assert samples.inputs.shape == (5, 6)
    assert samples.inputs.dtype == np.float32
    np.testing.assert_allclose(samples.inputs[1], np.arange(6, 12) / 255, rtol=1e-6)


def test_mnist_holds_out_the_test_files_or_a_fraction_of_the_only_ones(tmp_path):
    labels = np.array([3, 0, 9, 1, 1], np.uint8)
    write(tmp_path / IMAGES, idx(images()))
    write(tmp_path / LABELS, idx(labels))
    alone = mnist(tmp_path)
    assert alone.name == "MNIST (test files)"
    assert (len(alone.train.inputs), len(alone.held_out.inputs)) == (4, 1)
    write(tmp_path / IMAGES.replace("t10k", "train"), idx(images(7)))
    write(tmp_path / LABELS.replace("t10k", "train"), idx(np.zeros(7, np.uint8)))
    both = mnist(tmp_path)
    assert (len(both.train.inputs), len(both.held_out.inputs)) == (7, 5)
    np.testing.assert_array_equal(both.held_out.targets, one_hot(labels, 10))


def test_mnist_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither train-images"):
        mnist(tmp_path)
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte, plain or"):
        load_mnist(tmp_path)


@pytest.mark.parametrize(
    "content, where",
    [
        (b"", "byte 0: starts with nothing"),
        (b"\0\0\x08\x01" + bytes(20), "byte 0: starts with 00 00 08 01 instead of 00 00 08 03"),
        (b"\0\0\x0d\x03" + bytes(20), "byte 0: starts with 00 00 0d 03"),
        (idx(images())[:11], "byte 11: ends within its 16-byte header"),
        (idx(images())[:-1], r"byte 45: ends early; shape \(5, 2, 3\) takes 46 bytes"),
        (idx(images()) + b"\0\0", "byte 46: goes on after its data"),
        (struct.pack(">4B3I", 0, 0, 8, 3, *[2**32 - 1] * 3), "byte 16: ends early"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_malformed_idx_is_named_to_the_byte(tmp_path, content, where, suffix):
    write(tmp_path / (IMAGES + suffix), content)
    with pytest.raises(DataFormatError, match=f"{IMAGES}{suffix}, {where}"):
        load_mnist(tmp_path, split="test")


def test_truncated_gzip_is_named_to_the_byte(tmp_path):
    noise = np.random.default_rng(0).integers(256, size=(400, 28, 28), dtype=np.uint8)
    whole = gzip.compress(idx(noise))
    (tmp_path / f"{IMAGES}.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataFormatError, match=rf"{IMAGES}.gz, byte 1\d{{5}}: .*damaged"):
        load_mnist(tmp_path, split="test")
    (tmp_path / f"{IMAGES}.gz").write_bytes(b"not gzip")
    with pytest.raises(DataFormatError, match=r"byte 0: .*damaged"):
        load_mnist(tmp_path, split="test")


def test_mnist_counts_and_labels_are_checked(tmp_path):
    write(tmp_path / IMAGES, idx(images()))
    write(tmp_path / LABELS, idx(np.zeros(4, np.uint8)))
    with pytest.raises(DataFormatError, match=r"holds 5 images and .* 4 labels"):
        load_mnist(tmp_path, split="test")
    write(tmp_path / LABELS, idx(np.array([0, 1, 10, 2, 3], np.uint8)))
    with pytest.raises(DataFormatError, match=f"{LABELS}, byte 10: label 10 is not in 0-9"):
        load_mnist(tmp_path, split="test")


def test_real_mnist(real_data):
    samples = load_mnist(real_data, split="test")
    assert samples.inputs.shape == (10_000, 784)
    np.testing.assert_array_equal(samples.targets[:5], [7, 2, 1, 0, 4])


# LIBSVM ------------------------------------------------------------------------------------

TEXT = b"+1 1:0.5 3:-2e1 # a comment\n\n# only a comment\n-1\n2.5 2:1\n"
DENSE = [[0.5, 0, -20], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_libsvm_file_plain_and_compressed(tmp_path, suffix):
    write(tmp_path / f"data{suffix}", TEXT)
    samples = load_libsvm(tmp_path / "data")
    np.testing.assert_array_equal(samples.inputs.toarray(), DENSE)
    assert samples.inputs.format == "csr"
    np.testing.assert_array_equal(samples.targets, [1, -1, 2.5])
    dense = load_libsvm(tmp_path / "data", n_features=4, dense=True, dtype=np.float32)
    np.testing.assert_array_equal(dense.inputs, np.pad(DENSE, [(0, 0), (0, 1)]))
    assert dense.inputs.dtype == dense.targets.dtype == np.float32


def test_libsvm_is_scikit_learns(tmp_path):
    from sklearn.datasets import dump_svmlight_file, load_svmlight_file

    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 9)) * (rng.uniform(size=(20, 9)) < 0.3)
    dump_svmlight_file(X, rng.normal(size=20), str(tmp_path / "data"), zero_based=False)
    ours = load_libsvm(tmp_path / "data", n_features=9)
    X, y = load_svmlight_file(str(tmp_path / "data"), n_features=9)
    np.testing.assert_array_equal(ours.inputs.toarray(), X.toarray())
    np.testing.assert_array_equal(ours.targets, y)


@pytest.mark.parametrize(
    "line, problem",
    [
        (b"one 1:1", "'one' is not a finite number"),
        (b"nan 1:1", "'nan' is not a finite number"),
        (b"1 1:inf", "'inf' is not a finite number"),
        (b"1 1:1e999", "'1e999' is not a finite number"),
        (b"1 1:1_0", "'1_0' is not a finite number"),
        (b"1 1:", "'' is not a finite number"),
        (b"1 1", "'1' is not of the form index:value"),
        (b"1 1 :2", "'1' is not of the form index:value"),
        (b"1 -1:2", "'-1:2' is not of the form index:value"),
        (b"1 qid:3 1:2", "'qid:3' is not of the form"),
        (b"1 1:2:3", "'2:3' is not a finite number"),
        (b"1 0:2", "index 0 was found; indices start at 1"),
        (b"1 2:1 2:1", "index 2 follows 2; indices must increase"),
        (b"1 3:1 2:1", "index 2 follows 3"),
        (b"1,2 1:1", "'1,2' is not a finite number"),
        (b"\xff 1:1", r"xff' is not a finite number"),
    ],
)
def test_malformed_libsvm_is_named_to_the_line(tmp_path, line, problem):
    write(tmp_path / "bad.gz", b"1 1:1\n# fine\n" + line + b"\n1 1:1\n")
    with pytest.raises(DataFormatError, match=f"bad.gz, line 3: .*{problem}"):
        load_libsvm(tmp_path / "bad")


def test_libsvm_index_beyond_the_features_asked_for(tmp_path):
    write(tmp_path / "data", b"1 2:1\n1 3:1\n")
    with pytest.raises(DataFormatError, match="line 2: index 3 is beyond the 2 features"):
        load_libsvm(tmp_path / "data", n_features=2)


def test_libsvm_truncated_empty_missing(tmp_path):
    lines = "".join(f"1 1:{x}\n" for x in np.random.default_rng(0).normal(size=4000))
    whole = gzip.compress(lines.encode())
    (tmp_path / "cut.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataFormatError, match=r"cut.gz, after line 1\d{3}: .*damaged"):
        load_libsvm(tmp_path / "cut")
    write(tmp_path / "empty", b"# nothing\n")
    with pytest.raises(DataFormatError, match="empty, line 1: ends without a single sample"):
        load_libsvm(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*absent"):
        load_libsvm(tmp_path / "absent")


def test_libsvm_without_scipy(tmp_path, monkeypatch):
    write(tmp_path / "data", TEXT)
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with pytest.raises(ModuleNotFoundError, match="dense=True"):
        load_libsvm(tmp_path / "data")
    np.testing.assert_array_equal(load_libsvm(tmp_path / "data", dense=True).inputs, DENSE)


def test_libsvm_pair_of_files_agrees_on_features_and_signs(tmp_path):
    write(tmp_path / "name", b"0 1:1\n1 2:1\n0 1:2\n1 1:3\n0 2:1\n")
    alone = libsvm(tmp_path, "name", dense=True)
    assert (len(alone.train.targets), len(alone.held_out.targets)) == (4, 1)
    write(tmp_path / "name.t.gz", b"1 4:1\n")
    both = libsvm(tmp_path, "name", dense=True)
    assert both.train.inputs.shape == (5, 4)
    assert both.held_out.inputs.shape == (1, 4)
    np.testing.assert_array_equal(both.train.targets, [-1, 1, -1, 1, -1])
    np.testing.assert_array_equal(both.held_out.targets, [1])


def test_real_a9a(real_data):
    data = libsvm(real_data, "a9a")
    assert data.train.inputs.shape == (32_560, 122)
    assert data.held_out.inputs.shape == (16_281, 122)
    assert set(np.unique(data.held_out.targets)) == {-1.0, 1.0}


# Mini-batches ------------------------------------------------------------------------------


def rows_of(some):
    return [batch[0].tolist() for batch in some]


def test_batches_shuffle_anew_each_epoch_and_repeat_with_their_seed():
    data = (np.arange(10), np.arange(10) * 2)
    first = batches(data, 3, seed=4)
    assert len(first) == 3
    one, two = rows_of(first), rows_of(first)
    assert one != two
    again = batches(data, 3, seed=4)
    assert [rows_of(again), rows_of(again)] == [one, two]
    assert rows_of(batches(data, 3, seed=5)) != one
    for inputs, targets in batches(data, 3):
        np.testing.assert_array_equal(targets, inputs * 2)


def test_an_epoch_has_no_row_twice_and_equal_batches():
    one = rows_of(batches((np.arange(10),), 3))
    assert [len(rows) for rows in one] == [3, 3, 3]
    assert len(np.unique(one)) == 9


def test_full_batches_are_the_data_themselves():
    data = (np.arange(10),)
    everything = batches(data, None)
    assert len(everything) == 1
    assert [batch[0] is data[0] for batch in everything] == [True]


@pytest.mark.parametrize("name", ["array_api_strict", "torch", "jax.numpy"])
def test_batches_are_the_same_in_every_namespace(name):
    xp = pytest.importorskip(name)
    data = np.arange(8, dtype=np.float32)
    expected = rows_of(batches((data,), 2, seed=1))
    ours = batches((xp.asarray(data),), 2, seed=1)
    assert [np.asarray(batch[0]).tolist() for batch in ours] == expected


def test_batches_of_sparse_rows():
    scipy_sparse = pytest.importorskip("scipy.sparse")
    matrix = scipy_sparse.csr_array(np.eye(4))
    for rows, numbers in batches((matrix, np.arange(4)), 2):
        np.testing.assert_array_equal(rows.toarray(), np.eye(4)[numbers])


def test_batches_reject_what_cannot_be_cut():
    with pytest.raises(ValueError, match=r"different numbers of rows: \[3, 4\]"):
        batches((np.zeros(3), np.zeros(4)), 2)
    for size in (0, 4):
        with pytest.raises(ValueError, match=f"batch of {size} rows cannot be taken from 3"):
            batches((np.zeros(3),), size)
