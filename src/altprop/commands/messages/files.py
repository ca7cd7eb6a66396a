"""What is wrong with a user's own configuration files: the package line, the name's ending, a choice that is almost there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from altprop.commands.messages.command_line import CommandLine
from altprop.config.project import CONF
from altprop.problems import Problem

PACKAGE_LINE = "# @package _global_"
GLOBAL_GROUPS = ("experiment", "sweep", "debug", "local")
"""Groups whose files set keys of the root."""
MANY = 20
NEAREST = 5


def source_files(line: CommandLine, name: str) -> Iterator[Path]:
    """The files that ``name`` (``experiment/mine.yaml``) may stand for, in every configuration folder on disk."""
    folders = [str(source.path) for source in line.composer.loader.get_search_path().get_path()]
    for text in (*line.composer.extra, *line.overrides):
        if "hydra.searchpath" in text:
            folders += [folder.strip("'\" ") for folder in text.partition("=")[2].strip("[]").split(",")]
    for folder in folders:
        scheme, _, path = folder.rpartition("://")
        if scheme in ("", "file"):
            yield Path(path) / name


def shown_file(line: CommandLine, name: str) -> str:
    """The file of the choice ``name`` (``experiment/mine``): its path if it is not one of altprop's own."""
    file = next((file for file in source_files(line, f"{name}.yaml") if file.is_file()), None)
    return f"conf/{name}.yaml" if file is None or file.is_relative_to(CONF) else str(file)


def package_problem(line: CommandLine, name: str) -> Problem | None:
    """The problem of the file ``name`` (``experiment/mine``) if it lacks the line that makes it set keys of the root."""
    if name.partition("/")[0] not in GLOBAL_GROUPS:
        return None
    file = next((file for file in source_files(line, f"{name}.yaml") if file.is_file()), None)
    if file is None:
        return None
    content = file.read_bytes()
    if content.startswith(b"\xef\xbb\xbf"):
        return Problem(
            str(file), "it starts with a byte-order mark", "UTF-8 without one", f"sed -i '1s/^\\xEF\\xBB\\xBF//' {file}"
        )
    if PACKAGE_LINE not in content.decode(errors="replace"):
        return Problem(str(file), "its first line does not say where its keys belong", f"a first line: {PACKAGE_LINE}")
    return None


def ending_problem(line: CommandLine, group: str, name: str) -> Problem | None:
    """The problem of a choice that is there as a ``.yml`` file, which Hydra does not read."""
    file = next((file for file in source_files(line, f"{group}/{name}.yml") if file.is_file()), None)
    if file is None:
        return None
    return Problem(group, f"{file} ends in .yml", "configuration files end in .yaml", f"mv {file} {file.with_suffix('.yaml')}")


def choices_in_words(name: str, options: Sequence[str]) -> str:
    """The ``options`` of a group; of many, those that are most like ``name``, by their whole or their last part."""
    if len(options) <= MANY:
        return f"its choices: {', '.join(options)}"
    last = name.rpartition("/")[2]
    alike = [option for option in options if option.rpartition("/")[2] == last]
    alike += get_close_matches(name, options, n=NEAREST, cutoff=0.5)
    by_last = {option.rpartition("/")[2]: option for option in options}
    alike += [by_last[match] for match in get_close_matches(last, list(by_last), n=NEAREST, cutoff=0.5)]
    nearest_few = list(dict.fromkeys(alike))[:NEAREST]
    return f"{len(options)} choices, such as {', '.join(nearest_few or options[:NEAREST])}"
