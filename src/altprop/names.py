"""Public names of configured classes, such as ``altprop.weights.DynamicSparse``, which do not depend on the file of a class.

Configurations use these names, so a class can move to another file without changing stored configurations or run keys. Nothing
has to be registered: a public package such as ``altprop.weights`` searches the source files of its folder for a name and imports
only the file that defines it. Classes that had another path before public names were introduced keep that path in run keys
(:data:`FORMER_PATHS`). Classes of other packages are named by their own paths; :func:`announced_folders` lists the packages that
add to altprop's configurations.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, get_type_hints

from altprop.keys import walk
from altprop.problems import Problem

FOLDERS = {
    "altprop.algorithms": ("altprop.algorithms",),
    "altprop.data": ("altprop.data",),
    "altprop.estimators": ("altprop.nn.estimators",),
    "altprop.heads": ("altprop.nn.heads",),
    "altprop.losses": ("altprop.nn.losses",),
    "altprop.metrics": ("altprop.nn.metrics",),
    "altprop.models": ("altprop.models",),
    "altprop.sweeping": ("altprop.sweeping",),
    "altprop.tasks": ("altprop.commands", "altprop.training"),
    "altprop.tracking": ("altprop.tracking",),
    "altprop.units": ("altprop.nn.units",),
    "altprop.weights": ("altprop.nn.weights",),
}
"""Public package -> packages whose files define its names."""

FORMER_PATHS: Mapping[str, Mapping[str, str]] = {
    "altprop.algorithms": {
        "altprop.algorithms.asynchronous_greedy": "AsynchronousGreedy",
        "altprop.algorithms.backprop": "Backprop",
        "altprop.algorithms.decoupled_greedy": "DecoupledGreedy",
        "altprop.algorithms.delayed_gradients": "DelayedGradients",
        "altprop.algorithms.distributed_greedy": "DistributedGreedy",
        "altprop.algorithms.equilibrium_propagation.algorithm": "EquilibriumPropagation",
        "altprop.algorithms.equilibrium_propagation.bptt": "BackpropThroughTime",
        "altprop.algorithms.equilibrium_propagation.continual": "ContinualEquilibriumPropagation",
        "altprop.algorithms.equilibrium_propagation.schedule": "CosineThenConstant",
        "altprop.algorithms.loss_scaling": "LossScaling",
        "altprop.algorithms.schedule": "Schedule piecewise_constant",
        "altprop.algorithms.sequential_greedy": "SequentialGreedy",
        "altprop.algorithms.synthetic_gradients": "SyntheticGradients",
        "altprop.algorithms.target_propagation": "TargetPropagation",
        "altprop.algorithms.target_search": "TargetSearch",
    },
    "altprop.data": {
        "altprop.data.augmentation": "Augmentation",
        "altprop.data.cifar": "CIFAR10 CIFAR100",
        "altprop.data.image_folder": "ImageFolder",
        "altprop.data.imagenet": "ImageNet",
        "altprop.data.mnist": "FashionMNIST MNIST",
        "altprop.data.mnist_sample": "MNISTSample",
        "altprop.data.recipes": "Crops",
        "altprop.data.shapes": "Shapes",
        "altprop.data.svhn": "SVHN",
        "altprop.data.validation": "Validation",
    },
    "altprop.estimators": {
        "altprop.nn.estimators.margin": "MarginEstimator TruncatedHinge",
        "altprop.nn.estimators.straight_through": "Ramp SaturatedStraightThrough SaturatedStraightThroughV2 StraightThrough",
        "altprop.nn.estimators.tanh": "LeCunTanh Sigmoid SoftHinge",
    },
    "altprop.heads": {"altprop.nn.local_heads": "ConvHead cnn_head mlp_head mlp_sr_head"},
    "altprop.losses": {
        "altprop.nn.clamped_cross_entropy": "ClampedCrossEntropy",
        "altprop.nn.losses": "hinge log_softmax_hinge squared_hinge truncated_hinge",
    },
    "altprop.models": {
        "altprop.models.alexnet_dorefa": "AlexNetDoReFa",
        "altprop.models.cifar_resnet": "CifarResNet",
        "altprop.models.convnet": "ConvNet",
        "altprop.models.dni_cnn": "DniCNN",
        "altprop.models.energy": "EnergyConvNet EnergyMLP",
        "altprop.models.greedy_cnn": "GreedyCNN",
        "altprop.models.mlp": "MLP",
        "altprop.models.resnet": "ResNet",
        "altprop.models.threshold_nets": "ConvNet4 ConvNet8",
        "altprop.models.vgg": "VGG",
        "altprop.models.wide_resnet": "WideResNet",
    },
    "altprop.tasks": {
        "altprop.config.sensitivity": "rank_layers rank_then_train",
        "altprop.config.tasks": "validate",
        "altprop.training.export_binary": "export_binary",
        "altprop.training.export_sparse": "export_sparse",
        "altprop.training.gradient_check": "check_gradients",
        "altprop.training.run": "train",
    },
    "altprop.tracking": {
        "altprop.tracking.console": "Console",
        "altprop.tracking.tensorboard_tracker": "TensorBoard",
        "altprop.tracking.wandb_tracker": "WandB",
    },
    "altprop.units": {
        "altprop.nn.hard_units": "BinaryStep SignStep Staircase SummedStaircase",
        "altprop.nn.saturating_units": "ClippedAbs HardSigmoid SaturatedReLU",
    },
    "altprop.weights": {
        "altprop.nn.weights.base": "Dense",
        "altprop.nn.weights.binary": "Binary",
        "altprop.nn.weights.iterative_binary": "IterativeBinary",
        "altprop.nn.weights.noise": "LangevinNoise",
        "altprop.nn.weights.penalties": "Penalty",
        "altprop.nn.weights.pruning": "IterativePruning",
        "altprop.nn.weights.sparse": "StaticSparse",
        "altprop.nn.weights.sparse_dynamic": "DynamicSparse",
        "altprop.nn.weights.sparse_strategies": (
            "FractionPrune GradientGrow ProportionalToSurvivors RandomGrow SignChangePrune ThresholdPrune WithinTensor"
        ),
        "altprop.nn.weights.tied": "TiedWeights",
    },
}
"""Public package -> former module -> names of the classes that it defined. This table is closed; new classes are not added."""

ALIASES = {
    f"{module}.{name}": f"{package}.{name}"
    for package, modules in FORMER_PATHS.items()
    for module, names in modules.items()
    for name in names.split()
}
"""Former path -> public name. Old configurations contain former paths, and run keys hash them."""


@dataclass(frozen=True)
class RenamedArgument:
    """An argument of a configured class that had another name. Its value is the former value plus ``offset``; null stays null."""

    former: str
    name: str
    offset: int = 0


RENAMED_ARGUMENTS: Mapping[str, tuple[RenamedArgument, ...]] = {
    "altprop.algorithms.AsynchronousGreedy": (RenamedArgument("max_reuse", "max_uses", -1),),
    "altprop.algorithms.DistributedGreedy": (RenamedArgument("max_reuse", "max_uses", -1),),
}
"""Public name -> arguments with a former name. Old configurations contain the former names, and run keys hash them."""
ENTRY_POINTS = "altprop.configs"
"""The group of the entry points with which installed packages announce a folder of configurations (docs/own_package.md)."""
_FORMER = {public: former for former, public in ALIASES.items()}
_DEFINITION = re.compile(r"^(?:class|def) ([A-Za-z]\w*)", re.MULTILINE)


def lazy_package(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` (PEP 562) of the public package ``package``."""

    def get(name: str) -> Any:
        modules = definitions(package).get(name, ())
        if len(modules) != 1:
            reason = f"it is defined in several files: {', '.join(modules)}" if modules else "no file of it defines one"
            raise AttributeError(f"module {package!r} has no attribute {name!r}: {reason}", name=name, obj=package)
        return getattr(importlib.import_module(modules[0]), name)

    return get, lambda: sorted(name for name, modules in definitions(package).items() if len(modules) == 1)


@functools.cache
def definitions(package: str) -> Mapping[str, tuple[str, ...]]:
    """Each class and function that the files of the public ``package`` define -> the modules that define it."""
    modules: dict[str, tuple[str, ...]] = {}
    for home in FOLDERS[package]:
        folder = Path(__file__).parent.joinpath(*home.split(".")[1:])
        for file in sorted(folder.rglob("*.py")):
            module = ".".join([home, *file.relative_to(folder).with_suffix("").parts])
            for name in _DEFINITION.findall(file.read_text(encoding="utf-8")):
                modules[name] = (*modules.get(name, ()), module)
    return modules


def public_name(path: str) -> str:
    """The public name of the class at ``path``: a former path, the path in its present file or already a public name."""
    if path in ALIASES:
        return ALIASES[path]
    module, _, name = path.rpartition(".")
    for package, homes in FOLDERS.items():
        if any(module.startswith(f"{home}.") for home in homes) and definitions(package).get(name) == (module,):
            return f"{package}.{name}"
    return path


def public_path(target: Any) -> str:
    """The name under which users know ``target``, a class or function: its public name, or the shortest path that imports it."""
    path = f"{target.__module__}.{target.__qualname__}"
    if (public := public_name(path)) != path:
        return public
    parts = target.__module__.split(".")
    modules = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
    short = (name for name in modules if getattr(sys.modules.get(name), target.__qualname__, None) is target)
    return f"{next(short, target.__module__)}.{target.__qualname__}"


def key_name(path: str) -> str:
    """The name of the class at ``path`` in a run key: its former path if it has one, otherwise its public name."""
    public = public_name(path)
    return _FORMER.get(public, public)


def targets_in(config: Any) -> Iterator[str]:
    """Every ``_target_`` at and below the plain ``config``."""
    for _, node in walk(config):
        if isinstance(node, Mapping) and isinstance(node.get("_target_"), str):
            yield node["_target_"]


def with_public_names(config: Any) -> Any:
    """A copy of the plain ``config`` in which every ``_target_`` is a public name and arguments have their present names."""
    if isinstance(config, Mapping):
        return {
            name: public_name(child) if name == "_target_" and isinstance(child, str) else with_public_names(child)
            for name, child in _with_present_arguments(config).items()
        }
    if isinstance(config, list):
        return [with_public_names(child) for child in config]
    return config


def _with_present_arguments(node: Mapping[Any, Any]) -> Mapping[Any, Any]:
    for renamed in _renamed_arguments(node):
        if renamed.name not in node:  # with both, the configuration is refused
            node = _renamed(node, renamed.former, renamed.name, renamed.offset)
    return node


def with_key_arguments(node: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The configured ``node`` with its arguments as they are named in run keys, which is by their former names."""
    for renamed in _renamed_arguments(node):
        node = _renamed(node, renamed.name, renamed.former, -renamed.offset)
    return node


def renamed_problem(path: str, key: str, value: str) -> Problem | None:
    """The problem of a ``key`` that is the former name of an argument of the class at ``path``; None if it is not one."""
    parent, _, name = key.rpartition(".")
    for renamed in RENAMED_ARGUMENTS.get(public_name(path), ()):
        if renamed.former == name:
            present = str(int(value) + renamed.offset) if value.isdigit() else value
            difference = f" {renamed.offset:+d}".replace("-", "- ").replace("+", "+ ") if renamed.offset else ""
            allowed = f"{renamed.name} = {renamed.former}{difference}"
            return Problem(key, f"is now called {renamed.name}", allowed, f"{parent}.{renamed.name}={present}")
    return None


def _renamed_arguments(node: Mapping[Any, Any]) -> tuple[RenamedArgument, ...]:
    path = node.get("_target_")
    return RENAMED_ARGUMENTS.get(public_name(path), ()) if isinstance(path, str) else ()


def _renamed(node: Mapping[Any, Any], before: str, after: str, offset: int) -> Mapping[Any, Any]:
    def converted(value: Any) -> Any:
        return value + offset if isinstance(value, int | float) and not isinstance(value, bool) else value

    return {after if name == before else name: converted(value) if name == before else value for name, value in node.items()}


def announced_folders() -> list[EntryPoint]:
    """The folders of configurations that installed packages announce, in the order of their names. Imports no package."""
    return sorted(entry_points(group=ENTRY_POINTS), key=lambda point: (point.name, point.value))


def class_of(node: Any) -> type | None:
    """The class that the configured ``node`` builds: its target or the return annotation of a function; None if unknown."""
    path = node.get("_target_") if isinstance(node, Mapping) else None
    if not isinstance(path, str):
        return None
    try:
        target = pkgutil.resolve_name(public_name(path))
    except Exception:  # importing a user's module may raise anything
        return None
    kind = target if isinstance(target, type) else get_type_hints(target).get("return") if callable(target) else None
    return kind if isinstance(kind, type) else None


def builds(node: Any, *classes: type) -> bool:
    """Whether the configured ``node`` builds an object of one of ``classes``."""
    kind = class_of(node)
    return kind is not None and issubclass(kind, classes)
