"""Image tensors as matplotlib shows them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def displayable(images: Tensor) -> NDArray[Any]:
    """``images`` ``[samples, channels, height, width]`` as floats in 0..1.

    Returns ``[samples, height, width, 3]`` for three channels, else ``[samples, height, width]``: the mean of the channels, gray.
    Bytes are divided by 255. Floats within 0..1 stay as they are; others have been normalized, and every channel is stretched
    back to 0..1 over all images.
    """
    values = images.detach().cpu()
    if values.dtype == torch.uint8:
        values = values.float() / 255.0
    else:
        values = torch.nan_to_num(values.float())
        if values.numel() and (values.min() < 0 or values.max() > 1):
            low, high = (limit(values, dim=(0, 2, 3), keepdim=True) for limit in (torch.amin, torch.amax))
            values = (values - low) / (high - low).clamp_min(torch.finfo(torch.float32).tiny)
    if values.shape[1] == 3:
        return np.asarray(values.permute(0, 2, 3, 1).numpy())
    return np.asarray(values.mean(dim=1).numpy())
