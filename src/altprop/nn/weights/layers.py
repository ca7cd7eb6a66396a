"""The weights of a model's linear, convolutional, attention and recurrent layers: roles, selection, and uses of each weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm

from altprop.nn.fused_attention import without_fused_attention
from altprop.nn.weights.base import KEY
from altprop.nn.weights.recurrent import read_computed_weights
from altprop.problems import ConfigError, Problem, nearest

ROLES = ("conv", "linear", "attention", "recurrent", "first", "stem", "shortcut", "classifier")
"""``conv``: convolutions, transposed ones included; ``linear``: all other matrices, among them ``attention`` (the projections of
``nn.MultiheadAttention``) and ``recurrent`` (RNNs, LSTMs, GRUs and their cells); ``first``: the first layer; ``stem``: the first
one if it is a convolution; ``shortcut``: a convolution with kernel size 1 on a residual connection; ``classifier``: the last
layer if it is linear."""
KINDS = "linear, convolutional, attention or recurrent layer"
"""The layers that have weights in the sense of weights rules, for messages."""


@dataclass(frozen=True)
class WeightLayer:
    """A weight of a layer: the layer's module, the name of the weight in it, and the roles that select it.

    ``name`` is the dotted name of the module, followed by that of the weight if the module has several: ``encoder.fc`` for a
    linear layer, but ``encoder.attention.in_proj_weight`` and ``lstm.weight_ih_l0``. ``shape`` is that of the weight, without a
    bias.
    """

    name: str
    module: nn.Module
    roles: frozenset[str]
    tensor: str
    shape: tuple[int, ...]

    @property
    def weight(self) -> Tensor:
        """The effective weight, which parametrizations compute anew at every access."""
        weight: Tensor = getattr(self.module, self.tensor)
        return weight

    @property
    def transposed_groups(self) -> int:
        """The groups of a transposed convolution, whose weight is ``[in, out / groups, *kernel]``; 0 for all other layers."""
        return self.module.groups if isinstance(self.module, _ConvTransposeNd) else 0

    @property
    def frozen(self) -> bool:
        """Whether the weight is not trained, because its parameters require no gradient."""
        inside = f"parametrizations.{self.tensor}."
        named = self.module.named_parameters()
        stored = [parameter for name, parameter in named if name == self.tensor or name.startswith(inside)]
        return bool(stored) and not any(parameter.requires_grad for parameter in stored)

    def matches(self, selector: str) -> bool:
        """Return whether ``selector`` is a role of the layer, or a name or pattern (``*``, ``?``) of the weight or its module."""
        module = self.name.removesuffix(f".{self.tensor}")
        return selector in self.roles or fnmatchcase(self.name, selector) or fnmatchcase(module, selector)


def weight_layers(model: nn.Module) -> list[WeightLayer]:
    """Return every weight of the linear, convolutional, attention and recurrent layers of ``model``, in registration order.

    A layer that is used several times is listed once, under its first name.
    """
    modules = [(name, module, tensors) for name, module in model.named_modules() if (tensors := weight_names(module))]
    inside_attention = {id(module.out_proj) for _, module, _ in modules if isinstance(module, nn.MultiheadAttention)}
    layers = []
    for place, (name, module, tensors) in enumerate(modules):
        roles = {"conv" if isinstance(module, _ConvNd) else "linear"}
        if isinstance(module, nn.MultiheadAttention) or id(module) in inside_attention:
            roles.add("attention")
        elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
            roles.add("recurrent")
        if place == 0:
            roles |= {"first", "stem"} if isinstance(module, _ConvNd) else {"first"}
        if place == len(modules) - 1 and isinstance(module, nn.Linear) and "attention" not in roles:
            roles.add("classifier")
        on_shortcut = {"shortcut", "downsample"} & set(name.split("."))
        if on_shortcut and isinstance(module, _ConvNd) and set(module.kernel_size) == {1}:
            roles.add("shortcut")
        for tensor in tensors:
            full = name if tensor == "weight" else f"{name}.{tensor}".removeprefix(".")
            layers.append(WeightLayer(full, module, frozenset(roles), tensor, tuple(effective_weight(module, tensor).shape)))
    return layers


def weight_names(module: nn.Module) -> list[str]:
    """Return the names of the weights of ``module`` if it is a linear, convolutional, attention or recurrent layer, else []."""
    if isinstance(module, nn.Linear | _ConvNd):
        return ["weight"]
    if isinstance(module, nn.MultiheadAttention):
        joint = module._qkv_same_embed_dim
        return ["in_proj_weight"] if joint else ["q_proj_weight", "k_proj_weight", "v_proj_weight"]
    if isinstance(module, nn.RNNBase):
        return [name for names in module._all_weights for name in names if name.startswith("weight_")]
    return ["weight_ih", "weight_hh"] if isinstance(module, nn.RNNCellBase) else []


def effective_weight(module: nn.Module, tensor: str) -> Tensor:
    """Return the weight called ``tensor`` of ``module`` without a graph, as in evaluation mode: nothing in the module changes."""
    with torch.no_grad(), evaluating(module):
        weight: Tensor = getattr(module, tensor)
    return weight.detach()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put ``module`` in evaluation mode inside, and each of its parts back in its own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def weight_count(layer: WeightLayer) -> int:
    """Return the number of entries in the effective weight of ``layer``, without its bias."""
    return prod(layer.shape)


def left_out(model: nn.Module) -> dict[str, int]:
    """Return the sizes, by name, of the weights of ``model`` to which no weights rule applies.

    These are frozen weights, and parameters with at least two dimensions outside of the layers of :func:`weight_layers` and of
    norms, such as embeddings, bilinear layers and parameters of a module's own.
    """
    frozen = {layer.name: weight_count(layer) for layer in weight_layers(model) if layer.frozen}
    norms = (nn.LayerNorm, nn.RMSNorm)
    covered = [name for name, module in model.named_modules() if weight_names(module) or isinstance(module, norms)]
    inside = tuple(f"{name}." if name else "" for name in covered)
    others = {
        name: parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.dim() >= 2 and not name.startswith(inside)
    }
    return {**frozen, **others}


def total_weights(model: nn.Module) -> int:
    """Return the number of all weights of ``model``: those of layers and those of :func:`left_out`."""
    sizes = {layer.name: weight_count(layer) for layer in weight_layers(model)}
    return sum({**sizes, **left_out(model)}.values())


def trained_layers(model: nn.Module) -> list[WeightLayer]:
    """Return those of :func:`weight_layers` to which weights rules apply: all that are not frozen."""
    return [layer for layer in weight_layers(model) if not layer.frozen]


def register_on_weight(layer: WeightLayer, parametrization: nn.Module) -> nn.Parameter:
    """Let ``parametrization`` compute the layer's weight, and return the parameter from which it is computed.

    A spectral norm that the weight has already is then that of the computed weight.
    """
    module, tensor = layer.module, layer.tensor
    if parametrize.is_parametrized(module, tensor):
        parametrization.train(module.training)
        parametrizations_of(module, tensor).insert(0, parametrization)
    else:
        parametrize.register_parametrization(module, tensor, parametrization, unsafe=True)
    if isinstance(module, nn.RNNBase):
        read_computed_weights(module)
    stored = module.get_parameter(f"parametrizations.{tensor}.original")
    assert isinstance(stored, nn.Parameter)
    return stored


def parametrizations_of(module: nn.Module, tensor: str) -> nn.ModuleList:
    """Return the parametrizations of the weight called ``tensor``, in the order in which they are applied."""
    if not parametrize.is_parametrized(module, tensor):
        return nn.ModuleList()
    parametrizations = module.parametrizations
    assert isinstance(parametrizations, nn.ModuleDict)
    chain = parametrizations[tensor]
    assert isinstance(chain, nn.ModuleList)
    return chain


def require_plain_weights(model: nn.Module, layers: Sequence[WeightLayer], *, spectral_norm: bool = True) -> None:
    """Raise ``ConfigError`` for every weight among ``layers`` that a rule cannot compute from one parameter of its own.

    That is the case for weights that are computed already, by weight norm for example, and for parameters that other layers use,
    too. ``spectral_norm`` says whether the rule works below a spectral norm.
    """
    owners: dict[int, list[str]] = {}
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(f"{module_name}.{name}".removeprefix("."))
    problems = []
    for layer in layers:
        chain = parametrizations_of(layer.module, layer.tensor)
        names = owners.get(id(getattr(layer.module, layer.tensor, None)), []) if not len(chain) else []
        if len(chain) and not (spectral_norm and all(isinstance(part, _SpectralNorm) for part in chain)):
            kinds = ", ".join(type(part).__name__.strip("_") for part in chain)
            reason = f"the weight of {layer.name} is computed by {kinds}, and this rule cannot compute it, too"
        elif not len(chain) and layer.tensor not in dict(layer.module.named_parameters(recurse=False)):
            reason = f"the weight of {layer.name} is computed in a hook, as torch's old weight_norm and spectral_norm do"
        elif len(names) > 1:
            reason = f"{' and '.join(names)} are one parameter"
        else:
            continue
        allowed = "each weight must be a parameter of a single layer, at most with torch.nn.utils.parametrizations.spectral_norm"
        problems.append(Problem(KEY, reason, allowed if spectral_norm else "without a norm", "algorithm/weights=dense"))
    if problems:
        raise ConfigError(problems)


def select(model: nn.Module, layers: Sequence[str], dense: Sequence[str], key: str = KEY) -> list[WeightLayer]:
    """Return the layers that match a selector of ``layers`` and none of ``dense`` and are not frozen, in registration order.

    Raises ``ConfigError`` if a name fits no layer or nothing is selected.
    """
    candidates = trained_layers(model)
    refuse_unknown([(f"{key}.layers", layers), (f"{key}.dense", dense)], weight_layers(model))
    selected = [layer for layer in candidates if _matches_any(layer, layers) and not _matches_any(layer, dense)]
    if not selected:
        description = f"layers={list(layers)} without dense={list(dense)} selects nothing"
        allowed = f"at least one {KINDS}"
        raise ConfigError([Problem(f"{key}.layers", description, allowed, f"{key}.dense=[]")])
    require_plain_weights(model, selected)
    return selected


def refuse_unknown(selectors: Iterable[tuple[str, Iterable[str]]], layers: Sequence[WeightLayer]) -> None:
    """Raise ``ConfigError`` with every selector that is not a role and fits the name of no layer.

    ``selectors`` are pairs of a configuration key and the selectors given there.
    """
    problems = []
    for key, words in selectors:
        for word in words:
            if word not in ROLES and not any(layer.matches(word) for layer in layers):
                close = nearest(word, [*ROLES, *(layer.name for layer in layers)])
                fix = f"{key}=[{close}]" if close else ""
                problems.append(Problem(key, f"{word!r} fits no layer", f"a role ({', '.join(ROLES)}) or a layer's name", fix))
    if problems:
        raise ConfigError(problems)


def value_for(layer: WeightLayer, values: float | Mapping[str, float]) -> float:
    """Return the value of ``layer``: ``values`` itself, or that of the last selector in it that matches.

    Raises ``ConfigError`` if no selector matches.
    """
    if not isinstance(values, Mapping):
        return float(values)
    matches = [value for selector, value in values.items() if layer.matches(selector)]
    if not matches:
        description = f"nothing in {dict(values)} fits layer {layer.name}"
        raise ConfigError([Problem(f"{KEY}.sparsity", description, "a value for every layer that layers selects")])
    return float(matches[-1])


def _matches_any(layer: WeightLayer, selectors: Iterable[str]) -> bool:
    return any(layer.matches(selector) for selector in selectors)


def positions_per_weight(model: nn.Module, input_shape: tuple[int, ...]) -> dict[str, float]:
    """Return how often a forward pass of one input uses each weight of ``model``, by the names of :func:`weight_layers`.

    That is the number of positions for a linear layer (1 for flat features, the tokens of a sequence), those of the output for a
    convolution, those of the input for a transposed one, and the number of time steps for a recurrent layer. The joint projection
    of attention counts the mean over its three parts. Runs ``model`` once on zeros, in eval mode.
    """
    uses: dict[str, float] = {}
    by_module: dict[int, list[WeightLayer]] = {}
    for layer in weight_layers(model):
        by_module.setdefault(id(layer.module), []).append(layer)
    handles = []

    def counter(layers: Sequence[WeightLayer]) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], options: Mapping[str, Any], output: Any) -> None:
            for name, count in _positions(module, inputs, options, output).items():
                for layer in layers:
                    if layer.tensor == name:
                        uses[layer.name] = uses.get(layer.name, 0) + count
                if name == OUTPUT_PROJECTION:  # attention does not call this layer but reads its weight
                    [projection] = by_module[id(module.out_proj)]
                    uses[projection.name] = uses.get(projection.name, 0) + count

        return hook

    for layers in by_module.values():
        handles.append(layers[0].module.register_forward_hook(counter(layers), with_kwargs=True))
    like = next(model.parameters())
    try:
        with torch.no_grad(), evaluating(model), without_fused_attention():
            model(like.new_zeros(1, *input_shape))
    finally:
        for handle in handles:
            handle.remove()
    return uses


OUTPUT_PROJECTION = "out_proj"


def _positions(module: Any, inputs: tuple[Any, ...], options: Mapping[str, Any], output: Any) -> dict[str, float]:
    """Return how often one call of ``module`` used each of its weights."""
    if isinstance(module, _ConvTransposeNd):
        return {"weight": inputs[0].numel() // module.in_channels}
    if isinstance(module, nn.Linear | _ConvNd):
        return {"weight": output.numel() // (module.out_features if isinstance(module, nn.Linear) else module.out_channels)}
    if isinstance(module, nn.MultiheadAttention):
        names = ("query", "key", "value")
        triple = [options[name] if name in options else inputs[place] for place, name in enumerate(names)]
        sizes = (module.embed_dim, module.kdim, module.vdim)
        counts = [tensor.numel() // size for tensor, size in zip(triple, sizes)]
        parts = {f"{name[0]}_proj_weight": count for name, count in zip(names, counts)}
        return {"in_proj_weight": sum(counts) / 3, OUTPUT_PROJECTION: counts[0], **parts}
    first = options["input"] if "input" in options else inputs[0]
    steps = (first.data if isinstance(first, nn.utils.rnn.PackedSequence) else first).numel() // module.input_size
    return dict.fromkeys(weight_names(module), steps)
