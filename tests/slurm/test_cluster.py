"""The cluster of the tests is one that altprop's own tests can rely on."""

from __future__ import annotations

import subprocess


def test_each_task_gets_a_gpu_of_its_own() -> None:
    command = ["srun", "--time=2", "--mem=100", "--ntasks=2", "--gpus-per-task=1", "--gpu-bind=single:1"]
    done = subprocess.run([*command, "printenv", "CUDA_VISIBLE_DEVICES"], capture_output=True, text=True, timeout=120, check=True)
    assert sorted(done.stdout.split()) == ["0", "1"]
