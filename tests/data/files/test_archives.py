"""Archives that torchvision extracts cannot write outside of their folder."""

from __future__ import annotations

import io
import tarfile
import warnings

import pytest

from altprop.data.files.archives import safe_extraction


def test_a_file_outside_of_the_folder_is_refused_without_a_warning(tmp_path):
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("inside.txt", "../outside.txt"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    before = tarfile.TarFile.extraction_filter
    with warnings.catch_warnings(), tarfile.open(archive) as tar, safe_extraction():
        warnings.simplefilter("error")
        with pytest.raises(tarfile.OutsideDestinationError):
            tar.extractall(tmp_path / "folder")
    assert (tmp_path / "folder" / "inside.txt").is_file()
    assert not (tmp_path / "outside.txt").exists()
    assert tarfile.TarFile.extraction_filter is before
