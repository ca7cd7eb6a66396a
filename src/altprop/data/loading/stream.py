"""Splits whose images are decoded as they are needed, in worker processes."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from altprop.data.base import Batch, LoadContext
from altprop.data.errors import DataError
from altprop.data.files.folder import Listing, open_image
from altprop.data.loading.recipes import View
from altprop.data.normalization import Normalization
from altprop.data.order import epoch_order, evaluation_slices, training_slices
from altprop.problems import Problem
from altprop.seeding import derive_seed

Request = list[tuple[int, int]]
"""One mini-batch: number of the image in its listing, and its place in the epoch, which seeds its draws."""
Loader = Literal["torch", "dali"]
LOADERS = ("torch", "dali")
DALI_INSTALL = "pip install nvidia-dali-cuda130"
MOST_WORKERS = 16


def num_workers(asked: int | None) -> int:
    """Worker processes (or threads): as asked for, or one for each core that this process may use, at most 16."""
    if asked is not None:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


def check_decoding(config: Mapping[str, Any]) -> Iterator[Problem]:
    """A number of workers out of range, a loader that is not installed."""
    workers, loader = config.get("workers"), config.get("loader")
    if isinstance(workers, int) and workers < 0:
        yield Problem("dataset.workers", str(workers), "0 (no worker processes) or more, or null for one for each core")
    if loader not in (None, *LOADERS):
        yield Problem("dataset.loader", str(loader), f"one of {', '.join(LOADERS)}")
    if loader == "dali" and (find_spec("nvidia") is None or find_spec("nvidia.dali") is None):
        yield Problem("dataset.loader", "dali, which is not installed", "torch, or the package installed", DALI_INSTALL)


@dataclass(frozen=True)
class Decoding:
    """One pass over images: which, how they are seen, and the seed of their draws."""

    listing: Listing
    view: View
    seed: int
    epoch: int

    def stream(self, place: int) -> random.Random:
        """The random stream of the image at ``place`` of the epoch: the same in whichever process it is decoded."""
        return random.Random(derive_seed(self.seed, "augment", self.epoch, place))


class StreamSplit:
    """One part of a data set of image files.

    Order and draws depend on (seed, epoch, place in the epoch) alone, not on workers or ranks.
    """

    def __init__(
        self,
        listing: Listing,
        view: View,
        *,
        loader: Loader,
        workers: int | None,
        batch_size: int,
        normalization: Normalization,
        context: LoadContext,
        train: bool,
        drop_last: bool = False,
    ) -> None:
        """``train``: shuffled, and in shares of one size for all ranks; otherwise in file order, every image."""
        self.listing, self.view, self.normalization, self.shuffled = listing, view, normalization, train
        self.loader, self.workers = loader, num_workers(workers)
        self.batch_size, self.seed, self.device = batch_size, context.seed, context.device
        self.memory_format = torch.channels_last if context.channels_last else torch.contiguous_format
        if train:
            self.slices = training_slices(len(listing), batch_size, drop_last, context.rank, context.world_size)
            self.num_samples = sum(part.stop - part.start for part in self.slices) * context.world_size
        else:
            self.slices = evaluation_slices(len(listing), batch_size, context.rank, context.world_size)
            self.num_samples = len(listing)

    def __len__(self) -> int:
        return len(self.slices)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The mini-batches of ``epoch`` from number ``start`` on.

        :raises DataError: where an image cannot be decoded; it names the file.
        """
        decoding = Decoding(self.listing, self.view, self.seed, epoch)
        requests = self.requests(epoch, start)
        if self.loader == "dali":
            from altprop.data.loading.dali import decoded_by_dali

            batches = decoded_by_dali(decoding, requests, self.batch_size, self.workers, self.device)
        else:
            batches = decoded_by_workers(decoding, requests, max(0, min(self.workers, len(self) - start)), self.device)
        for pixels, labels in batches:
            # Decoders deliver channels last; seen as channels first this is torch's channels_last format without a copy.
            images = self.normalization(pixels.permute(0, 3, 1, 2))
            yield images.contiguous(memory_format=self.memory_format), labels

    def requests(self, epoch: int, start: int) -> Iterator[Request]:
        """What to decode for each mini-batch of this rank."""
        order = epoch_order(len(self.listing), self.seed, epoch) if self.shuffled else torch.arange(len(self.listing))
        for part in self.slices[start:]:
            yield list(zip(order[part].tolist(), range(part.start, part.stop)))


class _Images(Dataset[Any]):
    """Decodes a mini-batch in a worker process. What goes wrong is handed over, because torch would rewrap the exception."""

    def __init__(self, decoding: Decoding) -> None:
        self.decoding = decoding

    def __getitems__(self, request: Request) -> tuple[Tensor, Tensor] | DataError:
        listing, view = self.decoding.listing, self.decoding.view
        pixels = np.empty((len(request), view.size, view.size, 3), dtype=np.uint8)
        for row, (index, place) in enumerate(request):
            path = listing.path(index)
            try:
                pixels[row] = view.render(open_image(path), self.decoding.stream(place))
            except DataError as error:
                return error
            except ValueError as error:
                return DataError(path, str(error), "a larger image", "dataset.crops.resize=<pixels of the short side>")
        labels = listing.labels[[index for index, _ in request]]
        return torch.from_numpy(pixels), torch.from_numpy(labels)


class _Once:
    """A sampler of mini-batches that runs through ``requests`` once."""

    def __init__(self, requests: Iterator[Request]) -> None:
        self.requests = requests

    def __iter__(self) -> Iterator[Request]:
        return self.requests


def decoded_by_workers(
    decoding: Decoding, requests: Iterator[Request], workers: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pixels ``[batch, height, width, 3]`` uint8 and labels ``[batch]`` on ``device``, decoded by worker processes.

    :raises DataError: where an image cannot be decoded.
    """
    loader: DataLoader[Any] = DataLoader(
        _Images(decoding),
        batch_sampler=_Once(requests),  # any iterable of lists will do
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=device.type == "cuda",
        worker_init_fn=_leave_signals_to_the_parent,
        # Without one of its own the loader would draw from the global generator, and change what training draws from it.
        generator=torch.Generator(),
    )
    for decoded in loader:
        if isinstance(decoded, DataError):
            raise decoded
        pixels, labels = decoded
        yield pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def _as_it_is(batch: Any) -> Any:
    return batch


def _leave_signals_to_the_parent(worker: int) -> None:
    """The trainer decides what Ctrl-C and a cluster's signals mean; a worker that died of them would end the training."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
