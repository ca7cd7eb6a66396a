"""Splits of image files that are decoded as they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Literal

import torch

from altprop.data.base import Batch, LoadContext
from altprop.data.errors import DataError
from altprop.data.files.folder import Listing
from altprop.data.loading.dali import decode_with_dali
from altprop.data.loading.decoding import Decoding, Request, decode_with_workers, num_workers
from altprop.data.loading.recipes import View
from altprop.data.normalization import Normalization
from altprop.data.order import epoch_order, evaluation_slices, training_slices
from altprop.problems import Problem
from altprop.program import command

Loader = Literal["torch", "dali"]
LOADERS = ("torch", "dali")
DALI_INSTALL = "pip install nvidia-dali-cuda130"


def check_decoding(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a problem if the number of workers is out of range or the loader is not installed."""
    workers, loader = config.get("workers"), config.get("loader")
    if isinstance(workers, int) and workers < 0:
        yield Problem("dataset.workers", str(workers), "0 (no worker processes) or more, or null for one per core")
    if loader not in (None, *LOADERS):
        yield Problem("dataset.loader", str(loader), f"one of {', '.join(LOADERS)}")
    if loader == "dali" and (find_spec("nvidia") is None or find_spec("nvidia.dali") is None):
        yield Problem("dataset.loader", "dali, which is not installed", "torch, or install the package", DALI_INSTALL)


class StreamSplit:
    """A split of image files. Order and draws depend on (seed, epoch, position in the epoch) only, not on workers or ranks.

    Args:
        listing: The image files.
        view: How images are cropped.
        loader: What decodes them, ``torch`` (worker processes) or ``dali``.
        workers: Worker processes or threads; None for one per core, at most 16.
        batch_size: Images in a mini-batch, all ranks together.
        normalization: Applied to mini-batches on the device.
        context: Device, seed, memory format and ranks.
        train: Whether images are shuffled and divided evenly among ranks; otherwise every image is delivered, in file order.
        drop_last: Whether to skip the last, smaller mini-batch of a training epoch.
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
        self.listing, self.view, self.normalization, self.shuffled = listing, view, normalization, train
        self.loader, self.workers = loader, num_workers(workers)
        self.batch_size, self.seed, self.device = batch_size, context.seed, context.device
        self.memory_format = torch.channels_last if context.channels_last else torch.contiguous_format
        if train:
            self.slices = training_slices(len(listing), batch_size, drop_last, context.rank, context.world_size)
            self.num_samples = sum(share.stop - share.start for share in self.slices) * context.world_size
        else:
            self.slices = evaluation_slices(len(listing), batch_size, context.rank, context.world_size)
            self.num_samples = len(listing)

    def __len__(self) -> int:
        return len(self.slices)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yield the mini-batches of ``epoch``, beginning with number ``start``.

        Raises DataError, which names the file and the command that names all such files, if an image cannot be decoded.
        """
        try:
            yield from self._decoded_batches(epoch, start)
        except DataError as error:
            raise error.with_fix(f"{command('data')} action=check dataset=…, which names all such files") from error

    def _decoded_batches(self, epoch: int, start: int) -> Iterator[Batch]:
        decoding = Decoding(self.listing, self.view, self.seed, epoch)
        requests = self._requests(epoch, start)
        if self.loader == "dali":
            batches = decode_with_dali(decoding, requests, self.batch_size, self.workers, self.device)
        else:
            batches = decode_with_workers(decoding, requests, max(0, min(self.workers, len(self) - start)), self.device)
        for pixels, labels in batches:
            # Decoders deliver channels last. Permuted to channels first, this is torch's channels_last format without a copy.
            images = self.normalization(pixels.permute(0, 3, 1, 2))
            yield images.contiguous(memory_format=self.memory_format), labels

    def _requests(self, epoch: int, start: int) -> Iterator[Request]:
        """Yield which images to decode for each mini-batch of this rank."""
        order = epoch_order(len(self.listing), self.seed, epoch) if self.shuffled else torch.arange(len(self.listing))
        for share in self.slices[start:]:
            yield list(zip(order[share].tolist(), range(share.start, share.stop)))
