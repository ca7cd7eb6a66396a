"""Draw the figures of docs/algorithms/iterative_binarization.md from finished runs.

python docs/algorithms/figures/iterative_binarization.py <run directory of the layer run> <order.json of the sensitivity runs>
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from altprop.reporting.figures.binarization import draw_sensitivity, draw_timeline
from altprop.tracking.metrics_file import read_metrics

HERE = Path(__file__).parent


def main(run: Path, order: Path) -> None:
    """Write both PNG files next to this one, from the directory ``run`` and the file ``order``."""
    title = "300-100-10 on MNIST, one more layer binary every three epochs"
    draw_timeline(read_metrics(run / "metrics.jsonl"), HERE / "iterative_timeline.png", title=title)
    ranked = json.loads(order.read_text())
    draw_sensitivity(
        ranked["layers"],
        ranked["accuracy"],
        HERE / "iterative_sensitivity.png",
        metric=ranked["metric"],
        title="300-100-10, MNIST",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
