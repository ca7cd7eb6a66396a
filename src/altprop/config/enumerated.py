"""The values of an argument that takes one of a few words, read from source files without importing them.

Tab completion asks for them: importing a configured class would import torch, which takes seconds.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from altprop.config.project import module_folders
from altprop.config.typed import as_typed
from altprop.names import FOLDERS, definitions, public_name

MAX_STEPS = 12
"""Imports, aliases and base classes that are followed for one argument. More than that would be a circle."""


@dataclass(frozen=True)
class Definition:
    """A class, function or assignment and the module that it is in."""

    node: ast.AST
    module: str


def values_of(target: str, argument: str) -> list[str]:
    """The values that the ``argument`` of the class or function at the path ``target`` may have, as they are typed.

    These are the words of a ``Literal``, the names of an ``Enum``, and ``true`` and ``false``. Empty if the argument takes
    anything else, or if the source cannot be read.
    """
    definition = _at_path(public_name(target))
    hint = None if definition is None else _hint(definition, argument)
    return [] if hint is None else list(dict.fromkeys(_words(hint)))


def _at_path(path: str) -> Definition | None:
    package, _, name = path.rpartition(".")
    if package in FOLDERS:
        modules = definitions(package).get(name, ())
        return _named(modules[0], name) if len(modules) == 1 else None
    return _named(package, name) if package else None


def _named(module: str, name: str, steps: int = 0) -> Definition | None:
    """What ``name`` means in ``module``, where it may be imported from elsewhere."""
    tree = _source(module)
    if tree is None or steps > MAX_STEPS:
        return None
    for node in reversed(_statements(tree)):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            return Definition(node, module)
        if (value := _assigned(node, name)) is not None:
            return Definition(value, module)
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _named(_absolute(node, module), alias.name, steps + 1)
    return None


def _statements(tree: ast.Module) -> list[ast.stmt]:
    """The statements of a module, and those in an ``if``, such as ``if TYPE_CHECKING``."""
    return [inner for node in tree.body for inner in (node.body if isinstance(node, ast.If) else [node])]


def _assigned(node: ast.AST, name: str) -> ast.expr | None:
    """The value that the statement ``node`` gives to ``name``."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    else:
        return None
    return node.value if any(isinstance(target, ast.Name) and target.id == name for target in targets) else None


def _absolute(node: ast.ImportFrom, module: str) -> str:
    """The module that ``from … import`` names."""
    if not node.level:
        return node.module or ""
    file = _file(module)
    parts = module.split(".") if file is not None and file.name == "__init__.py" else module.split(".")[:-1]
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


@functools.cache
def _source(module: str) -> ast.Module | None:
    file = _file(module)
    if file is None:
        return None
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None


def _file(module: str) -> Path | None:
    """The source file of ``module``; nothing is imported to find it."""
    top, *parts = module.split(".")
    for folder in [place.joinpath(*parts) for place in module_folders(top)] if top else []:
        for file in (folder / "__init__.py", folder.with_suffix(".py")):
            if file.is_file():
                return file
    return _single_file(module) if not parts else None


def _single_file(module: str) -> Path | None:
    """The file of a module that is not a package, such as ``mymodule.py`` in the current folder."""
    from importlib.util import find_spec

    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None and spec.has_location else None


def _hint(definition: Definition, argument: str, steps: int = 0) -> Definition | None:
    """The annotation of ``argument``, which a base class may define."""
    node = definition.node
    if isinstance(node, ast.FunctionDef):
        return _argument_hint(node, argument, definition.module)
    if not isinstance(node, ast.ClassDef) or steps > MAX_STEPS:
        return None
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            hint = _argument_hint(statement, argument, definition.module)
            if hint is not None:
                return hint
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.target.id == argument:
            return Definition(statement.annotation, definition.module)
    for base in node.bases:
        owner = _resolved(Definition(base, definition.module))
        if owner is not None and (hint := _hint(owner, argument, steps + 1)) is not None:
            return hint
    return None


def _argument_hint(function: ast.FunctionDef, argument: str, module: str) -> Definition | None:
    arguments = function.args
    for item in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        if item.arg == argument and item.annotation is not None:
            return Definition(item.annotation, module)
    rest = arguments.kwarg.annotation if arguments.kwarg is not None else None
    if isinstance(rest, ast.Subscript) and _last_name(rest.value) == "Unpack":
        options = _resolved(Definition(rest.slice, module))
        return None if options is None else _hint(options, argument)
    return None


def _resolved(definition: Definition) -> Definition | None:
    """What a name stands for; the definition itself if it is not a name."""
    node = definition.node
    return _named(definition.module, node.id) if isinstance(node, ast.Name) else definition


def _words(hint: Definition, steps: int = 0) -> Iterator[str]:
    """The values that an annotation allows, as they are typed."""
    node = hint.node
    if steps > MAX_STEPS:
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            node = ast.parse(node.value, mode="eval").body
        except SyntaxError:
            return
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        yield from _union(hint.module, [node.left, node.right], steps)
    elif isinstance(node, ast.Subscript):
        members = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        kind = _last_name(node.value)
        if kind == "Literal":
            yield from (as_typed(member.value) for member in members if isinstance(member, ast.Constant))
        elif kind in ("Optional", "Union"):
            yield from _union(hint.module, [*members, *([ast.Constant(None)] if kind == "Optional" else [])], steps)
        elif kind in ("Annotated", "Final", "Required", "NotRequired"):
            yield from _words(Definition(members[0], hint.module), steps + 1)
    elif isinstance(node, ast.Name) and node.id == "bool":
        yield from ("true", "false")
    elif isinstance(node, ast.Name) and (meant := _named(hint.module, node.id)) is not None:
        if isinstance(meant.node, ast.ClassDef):
            yield from _members(meant.node)
        else:
            yield from _words(meant, steps + 1)


def _union(module: str, members: list[ast.expr], steps: int) -> Iterator[str]:
    """The values of the members, and null if it is one of them and another one has values."""
    words = [word for member in members for word in _words(Definition(member, module), steps + 1)]
    yield from words
    if words and any(isinstance(member, ast.Constant) and member.value is None for member in members):
        yield "null"


def _members(node: ast.ClassDef) -> Iterator[str]:
    """The names of an enumeration."""
    if any(_last_name(base).endswith(("Enum", "Flag")) for base in node.bases):
        for statement in node.body:
            if isinstance(statement, ast.Assign):
                yield from (target.id for target in statement.targets if isinstance(target, ast.Name))


def _last_name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
