"""The figures that a report draws for given runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from altprop.reporting.comparisons import comparisons
from altprop.reporting.figures.report_figures import draw
from altprop.reporting.searches import searches
from tests.reporting.fixtures import PNG, read_records, rows_of, write_records, write_run

SHARED: dict[str, Any] = {"model": {"_target_": "models.MLP"}, "dataset": {"label": "MNIST"}, "paper": None}
METRICS = (("train", "loss"), ("test", "accuracy"))


def drawn(outputs: Path) -> dict[str, str]:
    """The titles of the figures and their files below the figures' folder."""
    rows = rows_of(outputs)
    folder = outputs.parent / "figures"
    figures = draw(rows, comparisons(rows), searches(rows), folder)
    assert all(path.read_bytes().startswith(PNG) for path in figures.values())
    return {title: str(path.relative_to(folder if path.is_relative_to(folder) else outputs)) for title, path in figures.items()}


def test_figures_of_a_single_run(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    run = write_run(outputs, "a", "00000000000a", [80.0, 90.0], seed=3)
    write_run(outputs, "b", "00000000000b", [80.0], status="failed")
    blocks = {"train/block1/loss": 1.0, "train/block2/loss": 0.5, "test/block1/accuracy": 70.0, "test/block2/accuracy": 80.0}
    write_records(run, [{**record, **blocks} for record in read_records(run)])
    assert drawn(outputs) == {"a, seed 3: curves": "a/00000000000a/curves.png", "a, seed 3: blocks": "a/00000000000a/blocks.png"}


def test_figures_of_several_runs(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    for number, (method, sparsity) in enumerate([("dynamic", 0.9), ("dynamic", 0.98), ("set", 0.9)]):
        config = {**SHARED, "algorithm": {"weights": {"sparsity": sparsity}}}
        write_run(outputs, f"dsr/mnist_{method}", f"00000000000{number}", [90.0 + number], config=config)
    write_run(outputs, "dsr/mnist_dense", "000000000010", [98.0], config=SHARED)
    thin = {"model": {"_target_": "models.WideResNet", "width": 0.75}, "dataset": {"label": "CIFAR-10"}, "paper": None}
    write_run(outputs, "dsr/wrn_thin", "000000000011", [92.0], config=thin)
    for slowdown in (1, 2):
        algorithm = {"slow_block": 1, "slowdown": slowdown, "buffer_size": 4}
        config = {"algorithm": algorithm, "paper": None}
        write_run(outputs, "dgl/buffer", f"00000000002{slowdown}", [90.0 - slowdown], config=config)
    together = {title: path for title, path in drawn(outputs).items() if "seed 0" not in title}
    assert together == {
        "MLP on MNIST, mean over seeds": "side_by_side_1.png",
        "dsr/mnist: accuracy over sparsity": "dsr/mnist/accuracy_over_sparsity.png",
        "dsr/wrn: accuracy over sparsity": "dsr/wrn/accuracy_over_sparsity.png",
        "dgl/buffer: slowdown": "dgl_buffer_slowdown.png",
    }


def test_sweeps_of_asynchronous_runs_do_not_mix_other_settings(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    for number, (slowdown, size) in enumerate([(1, 4), (2, 4), (2, 8)]):
        config = {"algorithm": {"slow_block": 1, "slowdown": slowdown, "buffer_size": size}, "paper": None}
        write_run(outputs, "dgl/buffer", f"00000000000{number}", [90.0], config=config)
    together = {title for title in drawn(outputs) if "seed 0" not in title}
    assert together == {
        "dgl/buffer algorithm.buffer_size=4: slowdown",
        "dgl/buffer algorithm.slowdown=2: buffer size",
    }


def test_parallel_and_sequential_greedy_learning(tmp_path: Path) -> None:
    """Drawn only if there is a row of each form with the same number of blocks."""
    outputs = tmp_path / "outputs"

    def greedy(number: int, form: str, blocks: int) -> None:
        config = {**SHARED, "algorithm": {"_target_": f"altprop.algorithms.{form}"}}
        run = write_run(outputs, f"dgl/{form.lower()}_{blocks}", f"00000000000{number}", [80.0, 82.0, 84.0, 86.0], config=config)
        values = {f"{metric}/block{n + 1}/{name}": 1.0 for n in range(blocks) for metric, name in METRICS}
        write_records(run, [{**record, **values} for record in read_records(run)])

    def together() -> dict[str, str]:
        return {title: path for title, path in drawn(outputs).items() if "in sequence" in title}

    greedy(1, "DecoupledGreedy", 2)
    greedy(2, "SequentialGreedy", 3)
    assert together() == {}
    greedy(3, "SequentialGreedy", 2)
    title = "dgl/decoupledgreedy_2 and dgl/sequentialgreedy_2: blocks in parallel and in sequence"
    assert together() == {title: "learning_curves_1.png"}


def test_sensitivities_once_every_layer_has_been_the_only_binary_one(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"

    def sensitivity(number: int, layer: int, rate: float) -> None:
        config = {"algorithm": {"weights": {"order": layer}}, "optimizer": {"lr": rate}, "paper": None}
        run = write_run(outputs, "sens", f"00000000000{number}", [80.0 + layer], config=config)
        flags = {f"weights/binary/layer{place}": float(place == layer) for place in (1, 2)}
        write_records(run, [{**record, **flags} for record in read_records(run)])

    def bars() -> dict[str, str]:
        return {title: path for title, path in drawn(outputs).items() if title.endswith("sensitivity")}

    sensitivity(1, 1, 0.1)
    sensitivity(2, 2, 0.2)
    assert bars() == {}
    sensitivity(3, 2, 0.1)
    assert bars() == {"sens optimizer.lr=0.1: sensitivity": "sens_optimizer_lr_0_1_sensitivity.png"}
