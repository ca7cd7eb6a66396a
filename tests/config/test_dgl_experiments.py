"""The rows of decoupled greedy learning match the specification: data, networks, blocks, rates, lengths and published numbers.

Expectations are copied from its tables (sections 3 to 6), not from the rows. Networks are on the meta device and take no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from altprop.algorithms.base import Algorithm
from altprop.algorithms.context import Context
from altprop.config.compose import config_loader
from altprop.nn.losses.output import ClampedCrossEntropy

META = torch.device("meta")
ROWS: dict[str, dict[str, Any]] = {}


def rows(*names: str, **expected: Any) -> None:
    for name in names:
        ROWS[name] = {**ROWS.get(name, {}), **expected}


def phases(*lengths_and_rates: tuple[int, float]) -> list[float]:
    """The rate of every epoch."""
    return [rate for length, rate in lengths_and_rates for _ in range(length)]


SGD = {"_target_": "torch.optim.SGD", "momentum": 0.9, "dampening": 0, "nesterov": False}
ADAM = {"_target_": "torch.optim.Adam", "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0}
CIFAR = {
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2023, 0.1994, 0.2010),
    "drop_last": False,
    "sizes": ((3, 32, 32), 10),
}

# learning_curves and auxiliary_nets_study
CURVES, AUX = ("curves_parallel", "curves_sequential"), ("aux_mlp_sr", "aux_mlp", "aux_cnn")
rows(*CURVES, *AUX, optimizer={**SGD, "weight_decay": 5e-4}, data=CIFAR, batch=(128, 1000), resets=set(), precision="fp32")
rows(*CURVES, *AUX, rates=phases((15, 0.1), (15, 0.02), (15, 0.004), (5, 0.0008)))
rows(*CURVES, parameters=[1_920, 74_112, 147_840, 295_680], heads=[214_282, 846_346, 846_346, 2_114_058], total=4_540_584)
rows(*AUX, parameters=[3_840, 295_680, 590_592, 1_181_184, 2_360_832, 2_360_832])
rows("aux_mlp_sr", heads=[846_346, *[3_363_850] * 2, *[13_412_362] * 2, 8_422_410], total=49_614_140)
rows("aux_mlp", heads=[796_426, *[3_165_706] * 2, *[12_622_858] * 2, 8_422_410], total=47_588_924)
rows("aux_cnn", heads=[300_810, *[1_191_434] * 2, *[4_742_154] * 2, 8_422_410], total=27_383_356)
rows("curves_parallel", paper=89.86)
rows("curves_sequential", paper=89.13)

# ddg_comparison
DGL_110, DDG_110 = ("ddg_resnet110_bp", "ddg_resnet110_dgl_k2"), ("ddg_resnet110_ddg_k2", "ddg_resnet110_ddg_k4")
DDG_DATA = {**CIFAR, "mean": (125.3 / 255, 123.0 / 255, 113.9 / 255), "std": (63.0 / 255, 62.1 / 255, 66.7 / 255)}
rows(*DGL_110, optimizer={**SGD, "weight_decay": 5e-4}, data=CIFAR, batch=(128, 1000), precision="fp32")
rows(*DGL_110, rates=phases((149, 0.01), (75, 0.001), (76, 0.0001)))  # at the start of the 150th and the 225th epoch
rows(*DDG_110, optimizer={**SGD, "weight_decay": 5e-4, "nesterov": True}, data=DDG_DATA, batch=(128, 1000), precision="fp32")
rows(*DDG_110, rates=phases((150, 0.01), (75, 0.001), (75, 0.0001)))  # from the 0-based epochs 150 and 225 on
rows("ddg_resnet110_bp", total=228_432 + 1_498_880 + 650, paper=93.53)
rows("ddg_resnet110_dgl_k2", parameters=[228_432, 1_498_880], heads=[54_922, 650], total=1_782_884, resets={149, 224}, paper=93.5)
rows("ddg_resnet110_ddg_k2", parameters=[228_432, 1_498_880 + 650], paper=93.41, delays=("stale", True))
rows("ddg_resnet110_ddg_k4", layers=[13, 15, 15, 12], total=228_432 + 1_498_880 + 650, delays=("stale", True))

# dni_comparisons
DNI = ("dni_bp", "dni_dni", "dni_cdni")
rows(*DNI, "dni_dgl", optimizer=ADAM, data=CIFAR, batch=(256, 256), precision="fp32")
rows(*DNI, rates=phases((2000, 3e-5)))
rows("dni_bp", total=831_242, paper=84.47)  # the values of the DNI rows are the last ones in the published logs
rows(
    "dni_bp_sgd", optimizer={**SGD, "weight_decay": 1e-5}, data=CIFAR, batch=(256, 256), rates=phases((2000, 0.01)), total=831_242
)
rows("dni_dni", context=False, total=4_524_554, paper=64.74)
rows("dni_cdni", context=True, total=4_524_554, paper=80.86)
rows(
    "dni_dgl", rates=phases((1500, 3e-5)), parameters=[9_984, 409_984, 409_984], heads=[*[1_230_986] * 2, 1_290], total=3_293_214
)
rows("dni_dgl", paper=85.05)

# buffer_experiments; the passes and rates of the workers have their own test
BUFFER = ("buffer_sync", "buffer_example")
rows(*BUFFER, optimizer={**SGD, "weight_decay": 5e-4}, data={**CIFAR, "drop_last": True}, batch=(128, 256), precision="fp32")
rows(*BUFFER, rates=phases((17, 0.1), (15, 0.02), (15, 0.004), (4, 0.0008)), loss=ClampedCrossEntropy, ensemble="logits")
rows(*BUFFER, parameters=[3_712, 147_712, 295_424, 590_336, 1_180_672, 2_360_320], total=37_748_156)
rows(*BUFFER, heads=[*[796_426] * 2, *[3_165_706] * 2, *[12_622_858] * 2])
rows("buffer_sync", buffer=(1, "round_robin", [1 / 6] * 6))
rows("buffer_example", buffer=(30, "random", [1 / 5.9 if worker != 3 else 0.9 / 5.9 for worker in range(6)]))

# imagenet_dgl
IMAGENET = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "drop_last": False,
    "sizes": ((3, 224, 224), 1000),
}
GREEDY = tuple(f"imagenet_{name}" for name in ("vgg13_k10", "vgg13_k4", "vgg19_k4", "vgg19_k2", "resnet152_k2"))
END_TO_END = tuple(f"imagenet_{name}_bp" for name in ("vgg13", "vgg19", "resnet152"))
rows(*GREEDY, *END_TO_END, optimizer={**SGD, "weight_decay": 1e-4}, data=IMAGENET, batch=(256, 256))
rows(*GREEDY, rates=phases(*((10, 0.1 * 0.1**drop) for drop in range(5))), resets={10, 20, 30, 40}, precision="fp16")
rows(*GREEDY, scaling=(2.0**32, 1000, 1.0, True), ensemble="probabilities")
rows(*END_TO_END, rates=phases((9, 0.1), *((10, 0.1 * 0.1**drop) for drop in range(1, 5)), (1, 1e-6)), precision="fp32")
LAST_VGG = 123_642_856
VGG13 = [1_920, 37_056, 74_112, 147_840, 295_680, 590_592, 1_181_184, 2_360_832, 2_360_832, 2_360_832]
VGG13_HEADS = [*[468_712] * 2, *[1_354_216] * 2, *[4_378_600] * 2, *[15_440_872] * 3, LAST_VGG]
FOUR_HEADS = [1_354_216, 4_378_600, 15_440_872, LAST_VGG]
rows("imagenet_vgg13_k10", parameters=VGG13, heads=VGG13_HEADS, total=191_779_408, paper=64.4)
rows("imagenet_vgg13_k4", parameters=[113_088, 1_034_112, 5_902_848, 2_360_832], heads=FOUR_HEADS, total=154_227_424)
rows("imagenet_vgg19_k4", parameters=[260_928, 2_067_456, 8_263_680, 9_443_328], heads=FOUR_HEADS, total=164_851_936)
rows("imagenet_vgg19_k2", parameters=[2_328_384, 17_707_008], heads=[4_378_600, LAST_VGG], total=148_056_848)
rows("imagenet_resnet152_k2", parameters=[18_601_024, 39_542_784], heads=[57_619_432, 2_049_000], total=117_812_240)
rows("imagenet_vgg13_bp", total=133_053_736, paper=66.6, top5=87.5)
rows("imagenet_vgg19_bp", total=143_678_248, paper=69.7, top5=89.7)
rows("imagenet_resnet152_bp", total=60_192_808, paper=74.4, top5=92.1)
rows("imagenet_vgg13_k4", paper=67.8, top5=88.0)
rows("imagenet_vgg19_k4", paper=69.2, top5=89.0)
rows("imagenet_resnet152_k2", paper=74.5, top5=92.0)


@pytest.fixture(scope="module")
def config_of() -> Iterator[Callable[[str], DictConfig]]:
    with config_loader() as composer:
        yield lambda name: composer.compose("train", [f"experiment=dgl/{name}"])


def set_up(config: DictConfig, expected: dict[str, Any]) -> Algorithm:
    """The row's algorithm on the row's model, on the meta device."""
    shape, classes = expected["data"]["sizes"]
    algorithm = instantiate(config.algorithm)
    with META:
        node = {name: value for name, value in config.model.items() if name != "weights_from"}
        model = instantiate(node)(input_shape=shape, num_classes=classes)
    length = algorithm.total_epochs(int(config.trainer.duration.removesuffix("ep")), model)
    context = Context(2, length, META, 0, shape, classes, config.dataset.batch_size)
    algorithm.setup(model, instantiate(config.optimizer), instantiate(config.schedule), context)
    assert isinstance(algorithm, Algorithm)
    return algorithm


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def rates(algorithm: Algorithm, epochs: int) -> list[float]:
    values = []
    for _ in range(epochs):
        values.append(algorithm.optimizers[0].learning_rate)
        algorithm.optimizers[0].schedule.epoch_end()
    return values


def test_every_row_has_expectations() -> None:
    from tests.config.catalog import EXPERIMENTS

    assert {f"dgl/{name}" for name in ROWS} == {name for name in EXPERIMENTS if name.startswith("dgl/") and "quick" not in name}


@pytest.mark.parametrize("name", ROWS)
def test_row(name: str, config_of: Callable[[str], DictConfig]) -> None:
    config, expected = config_of(name), ROWS[name]
    data, trainer = config.dataset, config.trainer
    assert (data.batch_size, data.eval_batch_size) == expected["batch"]
    assert data.drop_last == expected["data"]["drop_last"]
    for statistic in ("mean", "std"):
        assert list(data[statistic]) == pytest.approx(expected["data"][statistic], abs=1e-6)
    assert trainer.precision == expected.get("precision", "fp32")
    assert trainer.clip_norm is None
    assert trainer.duration == f"{len(expected['rates'])}ep"
    if not name.startswith("imagenet"):
        assert (data.augmentation.padding, data.augmentation.flip) == (4, 0.5)

    algorithm = set_up(config, expected)
    optimizer = algorithm.optimizers[0].optimizer
    settings = dict(expected["optimizer"])
    assert f"torch.optim.{type(optimizer).__name__}" == settings.pop("_target_")
    assert {key: optimizer.param_groups[0][key] for key in settings} == settings
    assert rates(algorithm, len(expected["rates"])) == pytest.approx(expected["rates"])
    _check_blocks(algorithm, expected)
    if "resets" in expected:
        assert {epoch for epoch in range(len(expected["rates"])) if algorithm.is_reset(epoch)} == expected["resets"]  # type: ignore[attr-defined]
    if "scaling" in expected:
        rule = algorithm.loss_scaling  # type: ignore[attr-defined]
        assert (rule.init_scale, rule.growth_interval, rule.minimum, rule.dynamic) == expected["scaling"]
        assert algorithm.master_weights  # type: ignore[attr-defined]
    if "buffer" in expected:
        capacity, order, probabilities = expected["buffer"]
        assert (algorithm.buffer_size, algorithm.order, algorithm.passes) == (capacity, order, 51)  # type: ignore[attr-defined]
        assert algorithm.choice.probabilities.tolist() == pytest.approx(probabilities)  # type: ignore[attr-defined]
        assert algorithm.restart_at_decay  # type: ignore[attr-defined]
    if "context" in expected:
        assert config.algorithm.context == expected["context"]
    if "delays" in expected:
        assert (config.algorithm.semantics, config.algorithm.pad_batches) == expected["delays"]
    assert isinstance(algorithm.loss, expected.get("loss", nn.CrossEntropyLoss))
    if "ensemble" in expected:
        assert config.algorithm.ensemble == expected["ensemble"]
    assert config.paper.value == expected.get("paper")
    if "top5" in expected:
        assert dict(config.paper.milestones) == {"test/accuracy_top5": [[50, expected["top5"]]]}


def _check_blocks(algorithm: Algorithm, expected: dict[str, Any]) -> None:
    """Check where the network is split, the heads, and the total number of parameters."""
    if "heads" in expected:
        assert [size(part.block) for part in algorithm.parts] == expected["parameters"]  # type: ignore[attr-defined]
        assert [size(part.head) for part in algorithm.parts] == expected["heads"]  # type: ignore[attr-defined]
    elif "parameters" in expected:
        assert [size(module) for module in algorithm.modules] == expected["parameters"]  # type: ignore[attr-defined]
    if "layers" in expected:
        modules = algorithm.modules  # type: ignore[attr-defined]
        assert [len(block) for block in (*modules[:-1], modules[-1][0])] == expected["layers"]
    if "total" in expected:
        own = [getattr(algorithm, name) for name in ("local_heads", "interfaces") if hasattr(algorithm, name)]
        assert size(algorithm.model) + sum(map(size, own)) == expected["total"]


def test_every_worker_of_the_asynchronous_row_has_its_rates_and_number_of_passes(config_of: Callable[[str], DictConfig]) -> None:
    """Section 10, check 12: 0.1, 0.02, 0.004, 0.0008 for 17, 15, 15 and 4 passes, regardless of the number of steps in a pass."""
    algorithm: Any = set_up(config_of("buffer_sync"), ROWS["buffer_sync"])
    rates_seen: list[list[float]] = [[] for _ in range(6)]

    def train_block(worker: int, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        rates_seen[worker].append(algorithm.optimizers[worker].learning_rate)
        return features, torch.tensor(0.0), {"accuracy": torch.tensor(0.0)}

    algorithm.train_block = train_block
    algorithm.blocks = [nn.Identity() for _ in range(6)]
    batch = torch.zeros(128, 1), torch.zeros(128, dtype=torch.int64)
    for _ in range(2 * algorithm.context.total_epochs):
        if not algorithm.finished:
            algorithm.train_step(*batch)
    assert algorithm.finished
    for rates_of_worker in rates_seen:
        assert rates_of_worker == pytest.approx(phases((34, 0.1), (30, 0.02), (30, 0.004), (8, 0.0008)))
