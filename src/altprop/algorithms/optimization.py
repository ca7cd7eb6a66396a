"""An optimizer with everything around its step: autocast, loss scaling, averaging over ranks, clipping, weights rule, schedule.

Every algorithm updates its parameters through :class:`OptimizerStep`, so none of this is written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from altprop.algorithms.context import Context
from altprop.algorithms.fused import DeviceRates, fused_on, is_fused, with_own_kernels
from altprop.algorithms.loss_scaling import LossScaling
from altprop.algorithms.schedule import RunningSchedule, Schedule
from altprop.nn.weights.base import WeightsRule

GradientObserver = Callable[[Iterable[nn.Parameter]], None]
"""Called with the parameters of a step when their gradients are complete."""
OptimizerFactory = Callable[..., torch.optim.Optimizer]
"""Takes parameters or parameter groups and returns an optimizer. The config group ``optimizer`` provides it as a partial."""

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class OptimizerStep:
    """Updates parameters: ``zero_grad`` → forward pass under ``autocast()`` → ``backward(loss)`` → ``step()``.

    Algorithms that compute gradients themselves set ``.grad`` and call only ``step()``.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | Iterable[Mapping[str, Any]],
        optimizer: OptimizerFactory,
        schedule: Schedule,
        weights: WeightsRule,
        context: Context,
        loss_scaling: LossScaling | None = None,
    ) -> None:
        groups = list(parameters)
        self.optimizer = fused_on(context.device, optimizer)(groups)
        self.parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.schedule = schedule.build(self.optimizer, context)
        self.weights = weights
        self.context = context
        self.loss_scaling = loss_scaling
        self.scaler = self._new_scaler()
        self._autocast_dtype = _AUTOCAST.get(context.precision)
        self._observer: GradientObserver | None = None
        self._deferred: list[RunningSchedule] | None = None
        self._replaced_states = 0
        on_device = context.device.type == "cuda" or context.recorder is not None
        self.rates = DeviceRates(self.optimizer, context.device) if on_device and is_fused(self.optimizer) else None

    @property
    def learning_rate(self) -> float:
        """The learning rate of the first parameter group."""
        return float(self.optimizer.param_groups[0]["lr"])

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the autocast context for the run's precision, which does nothing in fp32, fp64 and tf32."""
        if self._autocast_dtype is None:
            return nullcontext()
        return torch.autocast(self.context.device.type, dtype=self._autocast_dtype)

    def zero_grad(self) -> None:
        """Set all gradients to None. The optimizer skips parameters that get no gradient in this step (no decay, no momentum)."""
        # Optimizer.zero_grad does the same, but also looks for profilers, which takes longer than this for small networks.
        for parameter in self.parameters:
            parameter.grad = None

    def backward(self, loss: Tensor) -> None:
        """Backpropagate ``loss``, scaled in fp16."""
        (self.scaler.scale(loss) if self.scaler.is_enabled() else loss).backward()

    def backward_from(self, tensors: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Backpropagate ``gradients`` from ``tensors``, one each, in a single backward pass. They are scaled in fp16.

        Tensors that no trained parameter has a part in, such as the output of a frozen block, are skipped.
        """
        pairs = [(tensor, gradient) for tensor, gradient in zip(tensors, gradients, strict=True) if tensor.requires_grad]
        tensors, gradients = [tensor for tensor, _ in pairs], [gradient for _, gradient in pairs]
        if self.scaler.is_enabled():
            scale = self.scaler.scale(torch.ones((), device=self.context.device))  # half precision cannot represent 2^16
            gradients = [(gradient.float() * scale).to(gradient.dtype) for gradient in gradients]
        torch.autograd.backward(list(tensors), list(gradients))

    def step(self, *, advance_schedule: bool = True) -> None:
        """Average gradients over ranks, let the weights rule adjust them, clip, update, and advance a per-step schedule.

        An algorithm that updates several times per mini-batch advances the schedule only with the last update.
        """
        if self.context.world_size > 1:
            average_gradients(self.parameters)
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        if self._observer is not None:
            self._observer(self.parameters)
        self.weights.adjust_gradients(self.parameters)
        if self.context.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.context.clip_norm)
        self.refresh_rates()
        with self.rates.in_place(capturing=self._deferred is not None) if self.rates is not None else nullcontext():
            if self.scaler.is_enabled():
                self.scaler.step(self.optimizer)
                self.scaler.update()
            else:
                self.optimizer.step()
        if advance_schedule and self._deferred is not None:
            self._deferred.append(self.schedule)
        elif advance_schedule:
            self.schedule.step_end()

    @contextmanager
    def observed_by(self, observer: GradientObserver) -> Iterator[None]:
        """Call ``observer`` in every step inside, before the weights rule and clipping change the gradients."""
        self._observer = observer
        try:
            yield
        finally:
            self._observer = None

    @property
    def is_observed(self) -> bool:
        """Whether an observer is called in every step."""
        return self._observer is not None

    # -- CUDA graphs -----------------------------------------------------------------------------------------------------------

    def refresh_rates(self) -> None:
        """Copy learning rates that have changed to where a fused optimizer reads them. A replayed step does not do it itself."""
        if self.rates is not None:
            self.rates.refresh()

    @contextmanager
    def captured(self, schedules: list[RunningSchedule]) -> Iterator[None]:
        """Capture the steps inside in a CUDA graph. Schedules that they would advance are appended to ``schedules`` instead."""
        self._deferred = schedules
        try:
            yield
        finally:
            self._deferred = None

    def constants(self) -> tuple[Any, ...]:
        """Return what a captured step takes for granted, besides what torch's schedulers never change.

        That is the memory of the optimizer's state, and momentum and betas, which cyclic schedules change.
        """
        momenta = ((group.get("momentum"), group.get("betas")) for group in self.optimizer.param_groups)
        return self._replaced_states, *momenta

    def _new_scaler(self) -> torch.amp.GradScaler:
        device = self.context.device.type
        if self.context.precision == "fp16" and self.loss_scaling is not None:
            return self.loss_scaling.build(device)
        return torch.amp.GradScaler(device, enabled=self.context.precision == "fp16")

    def forget(self) -> None:
        """Reset the optimizer's state (momentum, moments) and the loss scale."""
        self.optimizer.state.clear()
        self.scaler = self._new_scaler()
        self._replaced_states += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the state of optimizer, schedule and loss scale for an exact resume."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.optimizer.load_state_dict(with_own_kernels(state["optimizer"], self.optimizer))
        self._replaced_states += 1
        self.schedule.load_state_dict(state["schedule"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over all ranks, with one all-reduce per dtype."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for gradient in gradients:
        by_dtype.setdefault(gradient.dtype, []).append(gradient)
    for group in by_dtype.values():
        flat = torch.cat([gradient.reshape(-1) for gradient in group])
        torch.distributed.all_reduce(flat)
        flat /= torch.distributed.get_world_size()
        offset = 0
        for gradient in group:
            gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
            offset += gradient.numel()
