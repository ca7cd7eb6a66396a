"""Build a folder with what a bare machine with a GPU lacks, so that ``benchmarks/gpu.py`` starts there at once.

    python benchmarks/gpu_kit.py gpu-kit [--data data] [--python 3.12]     # or: make gpu-kit DATA=<folder>

The machine is expected to have Python with PyTorch, torchvision, NumPy, SciPy, Matplotlib, pytest and other common packages, but
no network. The folder gets the wheels of the packages that altprop needs in addition, in the versions of ``constraints.txt``, the
archive ``cifar10-jpeg.tar.xz`` from ``--data`` if it is there, and ``run.sh``. Carry the repository with it, and run

    bash gpu-kit/run.sh [options of benchmarks/gpu.py]
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "annotated-types",
    "antlr4-python3-runtime",
    "hydra-core",
    "hydra-submitit-launcher",
    "mlxtend",
    "omegaconf",
    "pydantic",
    "pydantic_core",
    "submitit",
    "typing-inspection",
    "typing_extensions",
)
FROM_SOURCE = ("antlr4-python3-runtime",)
"""Pure Python packages without a wheel in the registry."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
ARCHIVE = "cifar10-jpeg.tar.xz"
SCRIPT = """\
#!/usr/bin/env bash
# Installs the wheels of this folder into a temporary folder, unpacks the data, and runs benchmarks/gpu.py.
set -euo pipefail
kit="$(cd "$(dirname "$0")" && pwd)"
cd "$kit/.."
site="$(mktemp -d)"
python3 -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$kit"/wheels/*.whl
if [ -f "$kit/{archive}" ] && [ ! -d "$kit/data/cifar10-jpeg" ]; then
    mkdir -p "$kit/data" && tar -xf "$kit/{archive}" -C "$kit/data"
fi
export PYTHONPATH="$site:$PWD/src${{PYTHONPATH:+:$PYTHONPATH}}"
exec python3 benchmarks/gpu.py --data "$kit/data" "$@"
"""


def versions() -> dict[str, str]:
    """Return the version of every package in ``constraints.txt`` by normalized name."""
    pins = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return {normalized(name): version for name, version in pins}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def fetch_wheels(folder: Path, python: str, pins: Mapping[str, str]) -> None:
    """Download or build one wheel for each of :data:`PACKAGES`. Raises CalledProcessError if one is not available."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    ready, source = (
        [f"{name}=={pins[normalized(name)]}" for name in PACKAGES if (name in FROM_SOURCE) == built] for built in (False, True)
    )
    target = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    target += [f"--platform={platform}" for platform in PLATFORMS]
    subprocess.run([*pip, "download", "--no-deps", *target, "--dest", folder, *ready], check=True)
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, *source], check=True)


def build(folder: Path, data: Path, python: str) -> None:
    """Write the whole folder anew."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "wheels").mkdir(parents=True)
    fetch_wheels(folder / "wheels", python, versions())
    if (data / ARCHIVE).is_file():
        shutil.copy(data / ARCHIVE, folder / ARCHIVE)
    else:
        print(f"{data / ARCHIVE} is missing: the part 'training' will fail", file=sys.stderr)
    write_script(folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB; start with: bash {folder.name}/run.sh")


def write_script(folder: Path) -> None:
    (folder / "run.sh").write_text(SCRIPT.format(archive=ARCHIVE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--python", default="3.12", help="version of Python on the machine; default 3.12")
    args = parser.parse_args()
    build(args.folder.resolve(), args.data, args.python)


if __name__ == "__main__":
    main()
