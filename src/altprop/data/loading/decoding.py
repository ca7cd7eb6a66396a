"""Decoding of image files in worker processes, mini-batch by mini-batch."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from altprop.data.errors import DataError
from altprop.data.files.folder import Listing, open_image
from altprop.data.loading.recipes import View, crop_error
from altprop.seeding import derive_seed

Request = list[tuple[int, int]]
"""One mini-batch: each image's number in its listing, and its position in the epoch, which seeds its draws."""
MAX_WORKERS = 16


def num_workers(workers: int | None) -> int:
    """Return ``workers``; if it is None, one for each core that this process may use, at most 16."""
    if workers is not None:
        return workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_WORKERS)


@dataclass(frozen=True)
class Decoding:
    """One pass over images: the files, how they are cropped, and the seed of the draws."""

    listing: Listing
    view: View
    seed: int
    epoch: int

    def stream(self, position: int) -> random.Random:
        """Return the random stream of the image at ``position`` of the epoch, whichever process decodes it."""
        return random.Random(derive_seed(self.seed, "augment", self.epoch, position))


def decode_with_workers(
    decoding: Decoding, requests: Iterator[Request], workers: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Decode mini-batches in ``workers`` processes (0: in this one).

    Yields pixels ``[batch, height, width, 3]`` uint8 and labels ``[batch]`` on ``device``. Raises DataError if an image cannot be
    decoded.
    """
    loader: DataLoader[Any] = DataLoader(
        _Images(decoding),
        batch_sampler=_Once(requests),  # the loader accepts any iterable of lists
        num_workers=workers,
        collate_fn=_unchanged,
        pin_memory=device.type == "cuda",
        worker_init_fn=_ignore_signals,
        # Without its own generator the loader would draw from the global one, and change what training draws from it.
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        pixels, labels = batch
        yield pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True)


class _Images(Dataset[Any]):
    """Decodes a mini-batch in a worker process. Errors are returned, because torch would wrap a raised one in another."""

    def __init__(self, decoding: Decoding) -> None:
        self.decoding = decoding

    def __getitems__(self, request: Request) -> tuple[Tensor, Tensor] | DataError:
        listing, view = self.decoding.listing, self.decoding.view
        pixels = np.empty((len(request), view.size, view.size, 3), dtype=np.uint8)
        for row, (index, position) in enumerate(request):
            path = listing.path(index)
            try:
                pixels[row] = view.render(open_image(path), self.decoding.stream(position))
            except DataError as error:
                return error
            except ValueError as error:
                return crop_error(path, error)
        labels = listing.labels[[index for index, _ in request]]
        return torch.from_numpy(pixels), torch.from_numpy(labels)


class _Once:
    """A batch sampler that runs through ``requests`` once."""

    def __init__(self, requests: Iterator[Request]) -> None:
        self.requests = requests

    def __iter__(self) -> Iterator[Request]:
        return self.requests


def _unchanged(batch: Any) -> Any:
    return batch


def _ignore_signals(worker: int) -> None:
    """Leave signals to the trainer: a worker that died of Ctrl-C or a cluster's signal would end the training."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
