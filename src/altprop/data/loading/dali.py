"""Decoding with NVIDIA DALI, which decodes and scales JPEGs on the GPU.

DALI's own readers shuffle and draw from a state that cannot be set to the middle of an epoch. This module therefore passes files
and crop windows to it, in the order and with the draws of the worker processes. Its filters are not Pillow's, so pixels differ by
rounding from those of ``dataset.loader=torch``. It does not scale 16-bit or floating-point levels, show transparent pixels on
white, or rotate by EXIF data as altprop does, so such images are refused.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from altprop.data.errors import DataError
from altprop.data.files.folder import Facts, open_image, unconvertible
from altprop.data.files.pixels import conversion_of
from altprop.data.loading.decoding import Decoding, Request
from altprop.files import read_bytes

Sample = tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]


def decode_with_dali(
    decoding: Decoding, requests: Iterator[Request], batch_size: int, threads: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Decode mini-batches of up to ``batch_size`` images with DALI.

    Yields pixels ``[batch, height, width, 3]`` uint8 and labels ``[batch]`` on ``device``. Raises DataError if an image cannot be
    decoded.
    """
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.pytorch import feed_ndarray

    on_gpu = device.type == "cuda"
    in_flight: deque[Request] = deque()
    threads = max(threads, 1)

    def sources(pool: ThreadPoolExecutor) -> Iterator[tuple[list[Any], ...]]:
        for request in requests:
            samples = list(pool.map(lambda item: _sample(decoding, *item), request))
            in_flight.append(request)
            yield tuple(map(list, zip(*samples)))

    @pipeline_def(
        batch_size=batch_size,
        num_threads=threads,
        device_id=cuda_index(device) if on_gpu else None,
        prefetch_queue_depth=2,
    )
    def pipeline(source: Iterator[Any]) -> Any:
        encoded, start, shape, flip = fn.external_source(
            source=source, num_outputs=4, dtype=[types.UINT8, types.INT32, types.INT32, types.INT32], ndim=[1, 1, 1, 0]
        )
        window = fn.decoders.image_slice(encoded, start=start, shape=shape, device="mixed" if on_gpu else "cpu")
        size = decoding.view.size
        scaled = fn.resize(window, size=(size, size), interp_type=types.INTERP_LINEAR, antialias=True)
        return fn.flip(scaled, horizontal=flip)

    with ThreadPoolExecutor(threads) as pool:
        running = pipeline(sources(pool))
        running.build()
        while True:
            try:
                (images,) = running.run()
            except StopIteration:
                return
            except RuntimeError:
                _raise_first_broken(decoding, in_flight)
                raise
            decoded = images.as_tensor()
            pixels = torch.empty(decoded.shape(), dtype=torch.uint8, device=device)
            feed_ndarray(decoded, pixels, cuda_stream=torch.cuda.current_stream(device) if on_gpu else None)
            labels = decoding.listing.labels[[index for index, _ in in_flight.popleft()]]
            yield pixels, torch.from_numpy(labels).to(device, non_blocking=True)


def cuda_index(device: torch.device) -> int:
    """Return the number of a CUDA device; without an index it is the current device of this process."""
    return torch.cuda.current_device() if device.index is None else device.index


def _sample(decoding: Decoding, index: int, position: int) -> Sample:
    """Return an encoded image, the corner and extent (width, height) of its window, and whether to flip it."""
    path = decoding.listing.path(index)
    try:
        content = read_bytes(path)
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
            problem = unconvertible(path, Facts(image.size, image.mode, conversion_of(image)))
        if problem is not None:
            raise problem
        window = decoding.view.window(width, height, decoding.stream(position))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(path, f"cannot be used ({error})", "a complete image file, large enough for the crop") from error
    start = np.array([round(window.left), round(window.top)], dtype=np.int32)
    extent = np.array([round(window.width), round(window.height)], dtype=np.int32)
    shape = np.minimum(extent, np.array([width, height], dtype=np.int32) - start)
    return np.frombuffer(content, dtype=np.uint8), start, shape, np.array(window.flip, dtype=np.int32)


def _raise_first_broken(decoding: Decoding, in_flight: Iterable[Request]) -> None:
    """Decode the images passed to DALI again until one fails, because DALI does not say which file it could not decode."""
    for request in in_flight:
        for index, _ in request:
            open_image(decoding.listing.path(index))
