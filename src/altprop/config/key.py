"""The key of a run: twelve hexadecimal digits that identify what it computes, on any machine and for any user."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from altprop.names import key_name, public_name, with_key_arguments

VOLATILE = (
    # the name of a run and what it is compared with
    "name",
    "group",
    "tags",
    "paper",
    # how it is started and what it is used for
    "run",
    "trust_run",
    "resume",
    "task",
    # where it runs and what it reports
    "hydra",
    "paths",
    "cluster",
    "resources",
    "logger",
    "trainer.device",
    "trainer.threads",
    "trainer.cuda_graph",
    "trainer.log_every",
    "trainer.checkpoint_every",
    "trainer.keep",
    "trainer.keep_epochs",
    "trainer.save_initial",
    "trainer.evaluate_first",
    "trainer.figures",
    "trainer.probe_every",
    "trainer.profile_steps",
    "dataset.workers",
    "dataset.prefetch",
)
"""Dotted keys that do not change what a run computes and therefore do not enter its key."""

ADDED_KEYS: Mapping[str, Any] = {
    "metrics": None,
    "model.weights_from": None,
    "trainer.evaluate_test": "always",
    "trainer.cuda_graph": False,
}
"""Dotted keys that were added after the first runs -> the value that means the same as leaving the key out."""
ADDED_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "altprop.algorithms.ForwardForward": {"skip_first": True},
    "altprop.models.ResNet": {"stages": None},
    "altprop.models.VGG": {"width": 1.0},
    "altprop.weights.Binary": {"dense": []},
    "altprop.weights.IterativeBinary": {"dense": []},
}
"""Public name of a class -> its arguments that were added after the first runs, with such values."""


def run_key(config: Mapping[str, Any]) -> str:
    """The key of the resolved, plain ``config``: SHA-256 over its canonical JSON without :data:`VOLATILE`.

    Classes count by name, regardless of the file that defines them (:func:`altprop.names.key_name`).
    Numbers count by value (``1``, ``1.0`` and ``1e0`` are the same, ``true`` is different), and the order of keys does not count.
    Paths below ``paths.data`` or ``paths.outputs`` count relative to it, so a run has the same key on another machine.
    Options that were added after the first runs count only if they are used (:func:`without_unused_options`).
    """
    config = without_unused_options(config)
    folders = {f"<{name}>": path for name, path in (config.get("paths") or {}).items() if isinstance(path, str) and path}
    text = json.dumps(_canonical(config, "", folders), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def without_unused_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``config`` without the :data:`ADDED_KEYS` and :data:`ADDED_ARGUMENTS` that have the values listed there.

    A configuration that does not use such an option therefore keeps the run key that it had before the option existed.
    """
    return _without_unused(config, "")


def _without_unused(node: Mapping[str, Any], key: str) -> dict[str, Any]:
    target = node.get("_target_")
    arguments = ADDED_ARGUMENTS.get(public_name(target), {}) if isinstance(target, str) else {}
    used = {}
    for name, child in node.items():
        path = f"{key}.{name}" if key else str(name)
        value = _without_unused(child, path) if isinstance(child, Mapping) else child
        neutral = [table[entry] for table, entry in ((ADDED_KEYS, path), (arguments, name)) if entry in table]
        if not any(value == each or (each is None and value == {}) for each in neutral):
            used[name] = value
    return used


def is_volatile(key: str) -> bool:
    """Whether the dotted ``key`` is one of :data:`VOLATILE` or is below one."""
    return any(key == volatile or key.startswith(f"{volatile}.") for volatile in VOLATILE)


def _canonical(value: Any, key: str, folders: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        arguments = with_key_arguments(value)
        if key == "dataset.validation" and not arguments.get("size") and arguments.get("how") == "stratified":
            arguments = {**arguments, "how": "tail"}  # no image is held out, and the default was another one once
        children = {str(name): (child, f"{key}.{name}" if key else str(name)) for name, child in arguments.items()}
        return {name: _canonical(child, path, folders) for name, (child, path) in children.items() if path not in VOLATILE}
    if isinstance(value, (list, tuple)):
        return [_canonical(child, key, folders) for child in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        if key == "_target_" or key.endswith("._target_"):
            return key_name(value)
        for name, folder in folders.items():
            if value == folder or value.startswith(folder.rstrip("/") + "/"):
                return name + value[len(folder.rstrip("/")) :]
    return value
