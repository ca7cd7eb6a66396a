"""Downloads from a local server: files are put in place completely or not at all."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from altprop._torchvision import import_torchvision
from altprop.data.fetch import fetch
from altprop.data.sets.cifar import CIFAR10
from altprop.data.sets.mnist import MNIST
from altprop.data.sets.shapes import Shapes
from altprop.data.sets.svhn import SVHN
from altprop.problems import ConfigError, RunFailed
from tests.data.writers import write_cifar10, write_mnist, write_svhn

SETTINGS = {"batch_size": 10, "eval_batch_size": 10, "mean": [0.5], "std": [0.5]}


class Quiet(SimpleHTTPRequestHandler):
    requests: list[str]

    def do_GET(self) -> None:
        self.requests.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def server(tmp_path):
    """A folder being served, its address, and the paths requested so far."""
    folder, requests = tmp_path / "server", []
    folder.mkdir()
    handler = type("Handler", (Quiet,), {"requests": requests})
    http = ThreadingHTTPServer(("127.0.0.1", 0), lambda *arguments: handler(*arguments, directory=str(folder)))
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{http.server_address[1]}/", requests
    http.shutdown()
    http.server_close()
    thread.join()


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def serve_mnist(server, monkeypatch):
    folder, url, _ = server
    resources = []
    write_mnist(folder)
    for path in sorted((folder / "MNIST/raw").iterdir()):
        archive = folder / f"{path.name}.gz"
        archive.write_bytes(gzip.compress(path.read_bytes()))
        resources.append((archive.name, md5(archive)))
    reader = import_torchvision().datasets.MNIST
    monkeypatch.setattr(reader, "mirrors", [url])
    monkeypatch.setattr(reader, "resources", resources)


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_mnist_is_fetched_once(server, tmp_path, monkeypatch, capsys):
    serve_mnist(server, monkeypatch)
    root, data_set = tmp_path / "data", MNIST(**SETTINGS)
    assert fetch(data_set, {}, root)
    assert files(root) == [
        f"MNIST/raw/{prefix}-{kind}" for prefix in ("t10k", "train") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    ]
    assert len(data_set.read(root).train) == 40
    requests = len(server[2])
    assert not fetch(data_set, {}, root)
    assert len(server[2]) == requests


def test_a_truncated_file_is_fetched_again(server, tmp_path, monkeypatch):
    serve_mnist(server, monkeypatch)
    root, data_set = tmp_path / "data", MNIST(**SETTINGS)
    fetch(data_set, {}, root)
    path = root / "MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:100])
    assert fetch(data_set, {}, root)
    assert len(data_set.read(root).train) == 40


def serve_cifar10(server, monkeypatch):
    folder, url, _ = server
    write_cifar10(folder)
    batches = folder / "cifar-10-batches-py"
    archive = folder / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(batches, batches.name)
    reader = import_torchvision().datasets.CIFAR10
    monkeypatch.setattr(reader, "url", f"{url}{archive.name}")
    monkeypatch.setattr(reader, "tgz_md5", md5(archive))
    for table in ("train_list", "test_list"):
        monkeypatch.setattr(reader, table, [[name, md5(batches / name)] for name, _ in getattr(reader, table)])
    monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": md5(batches / "batches.meta")})


def test_cifar10_is_fetched_and_verified(server, tmp_path, monkeypatch):
    serve_cifar10(server, monkeypatch)
    root, data_set = tmp_path / "data", CIFAR10(**SETTINGS)
    assert fetch(data_set, {}, root)
    assert files(root) == [f"cifar-10-batches-py/{name}" for name in sorted((*CIFAR10.train_files, "test_batch", "batches.meta"))]
    assert not fetch(data_set, {}, root)
    path = root / "cifar-10-batches-py/data_batch_2"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert fetch(data_set, {}, root)


@pytest.mark.parametrize("extra", [False, True])
def test_svhn_fetches_the_extra_images_only_on_request(server, tmp_path, monkeypatch, extra):
    folder, url, _ = server
    write_svhn(folder, {"train": 9, "test": 9, "extra": 9})
    reader = import_torchvision().datasets.SVHN
    split_list = {
        split: [f"{url}svhn/{name}", name, md5(folder / "svhn" / name)] for split, (_, name, _) in reader.split_list.items()
    }
    monkeypatch.setattr(reader, "split_list", split_list)
    root = tmp_path / "data"
    assert fetch(SVHN(**SETTINGS, extra=extra), {"extra": extra}, root)
    assert files(root) == [f"svhn/{split}_32x32.mat" for split in (*(["extra"] if extra else []), "test", "train")]


def test_a_download_with_the_wrong_checksum_leaves_nothing_behind(server, tmp_path, monkeypatch):
    serve_cifar10(server, monkeypatch)
    monkeypatch.setattr(import_torchvision().datasets.CIFAR10, "tgz_md5", "0" * 32)
    root = tmp_path / "data"
    with pytest.raises(RunFailed, match="CIFAR-10 cannot be downloaded") as caught:
        fetch(CIFAR10(**SETTINGS), {}, root)
    assert "\n" not in str(caught.value)
    assert files(root) == []


def test_an_unreachable_server_is_reported_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(import_torchvision().datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(RunFailed, match="MNIST cannot be downloaded") as caught:
        fetch(MNIST(**SETTINGS), {}, tmp_path / "data")
    assert "\n" not in str(caught.value)


def test_simultaneous_fetches_download_once(server, tmp_path, monkeypatch):
    serve_mnist(server, monkeypatch)
    results = []
    threads = [threading.Thread(target=lambda: results.append(fetch(MNIST(**SETTINGS), {}, tmp_path / "data"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, False, True]


def test_a_data_set_without_a_download_is_rejected(tmp_path):
    with pytest.raises(ConfigError, match="shapes is not available for download"):
        fetch(Shapes(**SETTINGS), {}, tmp_path)
