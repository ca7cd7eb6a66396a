"""Decoding by NVIDIA DALI: JPEGs are decoded and scaled on the GPU, in the order and with the draws of the worker processes.

DALI's own readers shuffle and draw by a state that cannot be set to the middle of an epoch, so files and windows are handed to it
from here. Its filters are not Pillow's: pixels differ by rounding from those of ``dataset.loader=torch``.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from altprop.data.errors import DataError
from altprop.data.files.folder import open_image

if TYPE_CHECKING:
    from altprop.data.loading.stream import Decoding, Request

Sample = tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]


def decoded_by_dali(
    decoding: Decoding, requests: Iterator[Request], batch_size: int, threads: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pixels ``[batch, height, width, 3]`` uint8 and labels ``[batch]`` on ``device``.

    :raises DataError: where an image cannot be decoded.
    """
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.pytorch import feed_ndarray

    on_gpu = device.type == "cuda"
    under_way: deque[Request] = deque()
    threads = max(threads, 1)

    def sources(pool: ThreadPoolExecutor) -> Iterator[tuple[list[Any], ...]]:
        for request in requests:
            samples = list(pool.map(lambda asked: _sample(decoding, *asked), request))
            under_way.append(request)
            yield tuple(map(list, zip(*samples)))

    @pipeline_def(
        batch_size=batch_size,
        num_threads=threads,
        device_id=(device.index or 0) if on_gpu else None,
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
                _raise_first_broken(decoding, under_way)
                raise
            decoded = images.as_tensor()
            pixels = torch.empty(decoded.shape(), dtype=torch.uint8, device=device)
            feed_ndarray(decoded, pixels, cuda_stream=torch.cuda.current_stream(device) if on_gpu else None)
            labels = decoding.listing.labels[[index for index, _ in under_way.popleft()]]
            yield pixels, torch.from_numpy(labels).to(device, non_blocking=True)


def _sample(decoding: Decoding, index: int, place: int) -> Sample:
    """One encoded image with the corner and the extent (width, height) of its window, and whether to mirror it."""
    path = decoding.listing.path(index)
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
        window = decoding.view.window(width, height, decoding.stream(place))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(path, f"cannot be used ({error})", "a whole image file, large enough for the crop") from error
    start = np.array([round(window.left), round(window.top)], dtype=np.int32)
    extent = np.array([round(window.width), round(window.height)], dtype=np.int32)
    shape = np.minimum(extent, np.array([width, height], dtype=np.int32) - start)
    return np.frombuffer(content, dtype=np.uint8), start, shape, np.array(window.flip, dtype=np.int32)


def _raise_first_broken(decoding: Decoding, under_way: Iterable[Request]) -> None:
    """DALI does not say which file it could not decode: find it among those that were handed to it."""
    for request in under_way:
        for index, _ in request:
            open_image(decoding.listing.path(index))
