"""What an algorithm in another package costs, counted on ``examples/own_package``."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "own_package"
LAYOUT = (
    tokenize.NEWLINE,
    tokenize.NL,
    tokenize.COMMENT,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.ENCODING,
)


def code_lines(file: Path) -> int:
    """Lines of Python that are not blank, not comments and not docstrings."""
    text = file.read_text()
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = [
        node.body[0] for node in ast.walk(ast.parse(text)) if isinstance(node, documented) and ast.get_docstring(node) is not None
    ]
    left_out = {line for node in docstrings for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in LAYOUT:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - left_out)


def yaml_lines(file: Path) -> int:
    return sum(bool(line.split("#")[0].strip()) for line in file.read_text().splitlines())


def test_what_an_algorithm_in_another_package_costs() -> None:
    files = [file for file in EXAMPLE.rglob("*") if file.suffix in (".py", ".yaml") and "WeightPerturbation" in file.read_text()]
    code = sorted(file.relative_to(EXAMPLE).as_posix() for file in files if "tests" not in file.parts)
    assert code == ["own_package/algorithm.py", "own_package/conf/algorithm/weight_perturbation.yaml"]
    costs = code_lines(EXAMPLE / code[0]), yaml_lines(EXAMPLE / code[1])
    readme = " ".join((EXAMPLE / "README.md").read_text().split())
    assert f"2 files, one of them YAML, with {costs[0]} lines of code and {costs[1]} lines of YAML" in readme
    assert costs[0] <= 50
    tests = (EXAMPLE / "tests" / "test_own_package.py").read_text()
    assert re.search(r"class TestWeightPerturbation\(AlgorithmSuite\):\n    cases = .*\n\n\n", tests)


def test_nothing_in_altprop_knows_the_package() -> None:
    folders = [ROOT / name for name in ("src", "conf", "sweeps")]
    files = [file for folder in folders for file in folder.rglob("*") if file.suffix in (".py", ".yaml")]
    assert len(files) > 300
    assert not [file for file in files if "perturbation" in file.read_text().lower()]
