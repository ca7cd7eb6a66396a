"""Writers of small data sets in the file formats of the real ones."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat


def random_pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(root: Path, folder: str = "MNIST", train: int = 40, test: int = 20) -> dict[str, np.ndarray]:
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    arrays = {}
    for seed, (prefix, count) in enumerate({"train": train, "t10k": test}.items()):
        arrays[f"{prefix}-images-idx3-ubyte"] = random_pixels(count, 28, 28, seed=seed)
        arrays[f"{prefix}-labels-idx1-ubyte"] = (np.arange(count) % 10).astype(np.uint8)
    for name, array in arrays.items():
        (raw / name).write_bytes(idx_bytes(array))
    return arrays


def python2_pickle(data: np.ndarray, labels_key: str, labels: list[int]) -> bytes:
    """Imitate the Python 2 pickles of the real CIFAR files, with byte strings and arrays from numpy's old module path."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def array(value: np.ndarray) -> bytes:
        rebuild = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR"
        dtype = (
            b"cnumpy\ndtype\n("
            + text(b"u1")
            + b"K\x00K\x01tR(K\x03"
            + text(b"|")
            + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        )
        shape = b"(" + b"".join(b"J" + struct.pack("<i", size) for size in value.shape) + b"t"
        content = value.tobytes()
        return rebuild + b"(K\x01" + shape + dtype + b"\x89" + b"T" + struct.pack("<I", len(content)) + content + b"tb"

    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array(data) + text(labels_key.encode()) + numbers + b"u."


def write_cifar(
    folder: Path, files: dict[str, int], labels_key: str, names: tuple[str, str], num_classes: int
) -> dict[str, np.ndarray]:
    """Write ``files`` (name -> number of images). ``names`` are the file and the key of the class names."""
    folder.mkdir(parents=True)
    arrays = {}
    for seed, (name, count) in enumerate(files.items()):
        arrays[name] = random_pixels(count, 3072, seed=seed)
        content = python2_pickle(arrays[name], labels_key, [number % num_classes for number in range(count)])
        (folder / name).write_bytes(content)
    (folder / names[0]).write_bytes(pickle.dumps({names[1]: [f"class {number}" for number in range(num_classes)]}, protocol=2))
    return arrays


def write_cifar10(root: Path, count: int = 10) -> dict[str, np.ndarray]:
    files = dict.fromkeys([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"], count)
    return write_cifar(root / "cifar-10-batches-py", files, "labels", ("batches.meta", "label_names"), 10)


def write_cifar100(root: Path, count: int = 200) -> dict[str, np.ndarray]:
    files = {"train": count, "test": count}
    return write_cifar(root / "cifar-100-python", files, "fine_labels", ("meta", "fine_label_names"), 100)


def write_svhn(root: Path, counts: dict[str, int]) -> dict[str, np.ndarray]:
    (root / "svhn").mkdir(parents=True)
    arrays = {}
    for seed, (split, count) in enumerate(counts.items()):
        arrays[split] = random_pixels(32, 32, 3, count, seed=seed)
        labels = np.arange(1, count + 1)[:, None] % 10
        savemat(
            root / "svhn" / f"{split}_32x32.mat", {"X": arrays[split], "y": np.where(labels == 0, 10, labels).astype(np.uint8)}
        )
    return arrays


def smooth_image(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return an image of a few smoothly blended colors, which scaling and JPEG change as little as a photograph."""
    return Image.fromarray(random_pixels(8, 8, 3, seed=seed)).resize((width, height), Image.Resampling.BICUBIC)


def write_image_folder(
    folder: Path, counts: dict[str, int], sizes: list[tuple[int, int]], classes: tuple[str, ...] = ("cat", "dog")
) -> None:
    """Write ``counts`` images of each class in each split, as JPEG and one PNG per class. Sizes (width, height) alternate."""
    seed = 0
    for split, count in counts.items():
        for name in classes:
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                image = smooth_image(*sizes[seed % len(sizes)], seed=seed)
                image.save(folder / split / name / f"{number:04d}.{'png' if number == 0 else 'jpg'}")
                seed += 1
