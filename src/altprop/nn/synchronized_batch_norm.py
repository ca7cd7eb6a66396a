"""Batch norm with the statistics of a mini-batch that is split among several processes; on GPUs and CPUs."""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm


class SynchronizedBatchNorm(_BatchNorm):
    """Batch norm over ``[batch, channels, …]`` of all processes together; their shares must have equal sizes.

    :class:`torch.nn.SyncBatchNorm` does the same faster, but only on GPUs.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected [batch, channels, …], got {input.dim()} dimensions")

    def forward(self, input: Tensor) -> Tensor:
        """Normalize ``input``; gradients flow through the shared mean and variance on every process."""
        if not self.training or not torch.distributed.is_initialized():
            return super().forward(input)
        dims = [0, *range(2, input.dim())]
        world_size = torch.distributed.get_world_size()
        count = input.numel() // input.shape[1] * world_size
        mean = all_reduce(input.mean(dims)) / world_size
        centered = input - mean.view(1, -1, *[1] * (input.dim() - 2))
        variance = all_reduce(centered.square().mean(dims)) / world_size
        self._update_running_statistics(mean.detach(), variance.detach() * (count / max(count - 1, 1)))
        scale = torch.rsqrt(variance + self.eps) * (1.0 if self.weight is None else self.weight)
        shape = (1, -1, *[1] * (input.dim() - 2))
        output = centered * scale.view(shape)
        return output if self.bias is None else output + self.bias.view(shape)

    def _update_running_statistics(self, mean: Tensor, variance: Tensor) -> None:
        if not self.track_running_stats:  # temporarily switched off; torch's own batch norms honor this too
            return
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        factor = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), factor)
        self.running_var.lerp_(variance.to(self.running_var.dtype), factor)


def synchronize_batch_norm(model: nn.Module) -> nn.Module:
    """Replace every batch norm of ``model``, in place, by one over all processes with the same parameters; return ``model``."""
    device = next((parameter.device.type for parameter in model.parameters()), "cpu")
    if device == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm) and not isinstance(child, SynchronizedBatchNorm):
                setattr(parent, name, _synchronized(child))
    return model


def _synchronized(module: _BatchNorm) -> SynchronizedBatchNorm:
    synchronized = SynchronizedBatchNorm(
        module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats
    )
    synchronized.weight, synchronized.bias = module.weight, module.bias
    synchronized.running_mean, synchronized.running_var = module.running_mean, module.running_var
    synchronized.num_batches_tracked = module.num_batches_tracked
    synchronized.training = module.training
    return synchronized
