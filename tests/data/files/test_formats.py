"""Readers of the classic file formats: arrays are read correctly, and errors name truncated or foreign files."""

from __future__ import annotations

import gzip
import pickle

import numpy as np
import pytest

from altprop.data.errors import DataError
from altprop.data.files.formats import read_idx, read_matlab, read_pickle
from tests.data.writers import idx_bytes, python2_pickle, random_pixels, write_svhn


@pytest.mark.parametrize("compressed", [False, True])
def test_idx(tmp_path, compressed):
    array = random_pixels(5, 4, 3)
    content = idx_bytes(array)
    (tmp_path / ("images.gz" if compressed else "images")).write_bytes(gzip.compress(content) if compressed else content)
    assert np.array_equal(read_idx(tmp_path / "images", 3), array)


@pytest.mark.parametrize("length", [0, 3, 10, 16, 50])
def test_truncated_idx_is_named(tmp_path, length):
    (tmp_path / "images").write_bytes(idx_bytes(random_pixels(5, 4, 3))[:length])
    with pytest.raises(DataError, match="images") as caught:
        read_idx(tmp_path / "images", 3)
    assert caught.value.path == tmp_path / "images"


def test_truncated_gzip_is_named(tmp_path):
    (tmp_path / "images.gz").write_bytes(gzip.compress(idx_bytes(random_pixels(50, 4, 3)))[:-20])
    with pytest.raises(DataError, match=r"images\.gz"):
        read_idx(tmp_path / "images", 3)


def test_idx_with_wrong_dimensions_is_rejected(tmp_path):
    (tmp_path / "labels").write_bytes(idx_bytes(random_pixels(5, 4, 3)))
    with pytest.raises(DataError, match="1 dimension"):
        read_idx(tmp_path / "labels", 1)


def test_pickle_of_python_2(tmp_path):
    data = random_pixels(4, 3072)
    content = python2_pickle(data, "labels", [3, 1, 4, 1])
    (tmp_path / "batch").write_bytes(content)
    assert np.array_equal(pickle.loads(content, encoding="latin1")["data"], data)
    read = read_pickle(tmp_path / "batch")
    assert np.array_equal(read["data"], data)
    assert read["labels"] == [3, 1, 4, 1]


def test_pickle_of_python_3(tmp_path):
    data = random_pixels(4, 3072)
    for protocol in range(2, 6):
        (tmp_path / "batch").write_bytes(pickle.dumps({"data": data}, protocol=protocol))
        assert np.array_equal(read_pickle(tmp_path / "batch")["data"], data)


class Malicious:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


@pytest.mark.parametrize("content", [pickle.dumps({"data": Malicious()}), pickle.dumps([1]), b"", b"\x80\x02}(U"])
def test_malicious_foreign_and_truncated_pickles_are_named(tmp_path, content):
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(DataError, match="batch"):
        read_pickle(tmp_path / "batch")


def test_truncated_matlab_file_is_named(tmp_path):
    write_svhn(tmp_path, {"test": 10})
    path = tmp_path / "svhn" / "test_32x32.mat"
    assert read_matlab(path)["X"].shape == (32, 32, 3, 10)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"test_32x32\.mat"):
        read_matlab(path)
