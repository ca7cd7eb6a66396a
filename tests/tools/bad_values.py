"""Tries bad values for every key of every configuration group, and prints what altprop does with them.

    python -m tests.tools.bad_values                          # 3,000 values, drawn from all groups
    python -m tests.tools.bad_values --groups model trainer --limit 500 --seed 1
    python -m tests.tools.bad_values --accepted               # also list every value that a run trained with

The keys come from the composed configurations and from the signatures of their classes. A value is refused, or a run of one step
starts with it. Each value has a process of its own with limited memory and time, so a crash or a hang ends only that process.
The exit code is 1 if a value led to a traceback, a crash, a hang or a message of several lines.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import pickle
import random
import re
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("OMP_NUM_THREADS", "1")

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ValidationError

from altprop.commands.calls import call_validate
from altprop.commands.entry import execute, one_line_of
from altprop.commands.main import COMMANDS
from altprop.commands.messages.command_line import CompositionError
from altprop.commands.train import check_task
from altprop.config.build import build
from altprop.config.checks.targets import locate, signature_of
from altprop.config.checks.validation import SETTINGS, problems_of
from altprop.config.compose import all_choices, compose, config_loader
from altprop.config.project import CONF
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.training.run import train

Verdict = Literal["refused", "accepted", "traceback", "crash", "hang", "several lines"]
FAULTS: tuple[Verdict, ...] = ("traceback", "crash", "hang", "several lines")
GROUPS = ("dataset", "model", "algorithm", "optimizer", "schedule", "metrics", "logger", "task")
"""Groups whose choices are nodes."""
TINY = (
    "dataset.limit_train=8", "dataset.limit_test=4", "dataset.batch_size=4", "dataset.eval_batch_size=4",
    "dataset.drop_last=true", "trainer.limit_batches=1", "trainer.duration=1st", "trainer.device=cpu", "trainer.figures=false",
    "~logger",
)  # fmt: skip
NUMBERS = ("-1", "0", "1", "0.5", "-0.5", "1.5", "nan", "inf", "-inf", "1e300", "1000000000000", "99999999999999999999", "100000")
OTHERS = (
    "null", "None", "true", "maybe", "''", "abc", "../x", "'a b;c'", '"two\\nlines"', "~/x", "/dev/null", "'=1'", "<b>", 
    "ünïcode", "[]", "{}", "[null]", "[nan]", "[-1]", "[0]", "[abc]", "[[1]]", "[1,2,3,4,5,6,7,8,9]", "{a:1}",
    "{_target_:nowhere.Nothing}", "{_target_:torch.nn.ReLU}", "'${nothing}'", "'${oc.env:NO_SUCH_VARIABLE}'", "???",
)  # fmt: skip
SWEEPS = (
    "seed=range(3,1)", "seed=choice()", "seed=0,x", "seed=-1,0", "model=glob(zzz*)", "seed=range(0,1e9)", "seed=", "seed=0,",
    "optimizer.lr=interval(1,0)",
)  # fmt: skip
NEEDED = {
    "algorithm/weights/": "algorithm/weights=dynamic_sparse",
    "algorithm/head": "algorithm=decoupled_greedy",
    "algorithm/estimator": "model/units=sign_step",
    "model/units": "algorithm/estimator=saturated_ste",
}
"""Start of a group within a group -> the choice that it belongs to."""
ON_PURPOSE = {
    r"~.*": "an argument that is left out has its default",
    r"[\w.]+=null": "null means something for this key",
    r"(resources|cluster|trainer|paper)=\[\]": "no choice of a group: the defaults of the schema remain",
    r"(group|tags|name|paths\.\w+|paper\.\w+|cluster\.(account|constraint|qos|partition|setup|sbatch))=.*": "any text",
    r"(seed|[\w.]+\.seed)=\d+": "every seed is as good as another",
    r"trainer\.(profile_steps|limit_batches|log_every|keep|keep_epochs)=[\d\[\],]+": "a count may exceed the run",
    r"cluster\.(time|signal_delay|max_timeouts|at_once|per_gpu|workers)=\d+": "only a site knows its limits",
    r"optimizer\.(weight_decay|eps|momentum)=[\d.]+": "within the range of the mathematics",
    r"schedule\.scheduler\.(gamma|\w+_momentum|threshold|power|factor)=[\d.]+": "within the range of the mathematics",
}
"""Pattern of overrides that a run may train with -> why; every other value that is accepted is listed as nonsense."""
MEMORY = 3 * 2**30
"""Bytes that a trial may allocate in addition to what the parent process has."""
SECONDS = 60
"""CPU seconds that a trial may take."""


@dataclass(frozen=True)
class Case:
    """One bad value: the base configuration's overrides and the override that is tried."""

    base: tuple[str, ...]
    override: str
    command: str = "train"
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What happened, with the messages or the end of the traceback."""

    case: Case
    verdict: Verdict
    text: str
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the values and print a summary. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", nargs="*", default=[], help=f"{', '.join((*GROUPS, 'settings', 'commands', 'sweeps'))}; all")
    parser.add_argument("--limit", type=int, default=3000, help="number of values, drawn from all")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw")
    parser.add_argument("--accepted", action="store_true", help="list the values that a run trained with")
    options = parser.parse_args(arguments)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # relative paths are tried, too
        cases = list(all_cases(options.groups, folder))
        if len(cases) > options.limit:
            cases = sorted(random.Random(options.seed).sample(cases, options.limit), key=lambda case: (case.command, case.base))
        print(f"{len(cases)} values, collected in {time.perf_counter() - began:.0f} s", flush=True)
        outcomes = []
        for outcome in run_cases(cases):
            outcomes.append(show(outcome))
            if len(outcomes) % 200 == 0:
                print(f"{len(outcomes)} tried, {time.perf_counter() - began:.0f} s", flush=True)
    if options.accepted:
        for outcome in outcomes:
            if outcome.verdict == "accepted":
                reason = reason_for(outcome.case.override)
                print(f"accepted{f' ({reason})' if reason else ''}: {outcome.case.override}    {' '.join(outcome.case.base[:2])}")
    counts = Counter(outcome.verdict for outcome in outcomes)
    print(", ".join(f"{counts[verdict]} {verdict}" for verdict in ("refused", "accepted", *FAULTS)), end="")
    open_cases = [outcome for outcome in outcomes if outcome.verdict == "accepted" and not reason_for(outcome.case.override)]
    print(f"; {len(open_cases)} accepted without a reason; {time.perf_counter() - began:.0f} s")
    return int(any(counts[verdict] for verdict in FAULTS))


def reason_for(override: str) -> str:
    """Why a run may train with ``override``; empty if there is no reason."""
    return next((reason for pattern, reason in ON_PURPOSE.items() if re.fullmatch(pattern, override.lstrip("+"))), "")


def show(outcome: Outcome) -> Outcome:
    """Print ``outcome`` if it is a fault. Returns it."""
    if outcome.verdict in FAULTS:
        case = outcome.case
        print(f"{outcome.verdict}: {case.command} {' '.join(case.flags)} {case.override}    with {' '.join(case.base)}")
        print("    " + "\n    ".join(outcome.text.strip().splitlines()[-8:]), flush=True)
    return outcome


# -- cases ---------------------------------------------------------------------------------------------------------------------


def all_cases(groups: Sequence[str], folder: str) -> Iterator[Case]:
    """The cases of ``groups``, of all if there are none. Runs are written below ``folder``."""
    tiny = (*TINY, f"paths.outputs={folder}")
    seen: set[tuple[str, str]] = set()
    with config_loader() as composer:
        choices = {group: all_choices(composer.loader, group) for group in GROUPS}
    for group in GROUPS:
        if groups and group not in groups:
            continue
        for choice in choices[group]:
            classes = set(re.findall(r"_target_: (\S+)", (CONF / group / f"{choice}.yaml").read_text()))
            if classes and all((name, "") in seen for name in classes):
                continue
            folder_of_choice, _, name = f"{group}/{choice}".rpartition("/")
            needed = next((text for start, text in NEEDED.items() if folder_of_choice.startswith(start)), None)
            base = repaired((*([needed] if needed else []), f"{folder_of_choice}={name}", *tiny))
            if base is not None:
                yield from node_cases(group, base, seen)
    if not groups or "settings" in groups:
        yield from setting_cases(tiny)
    if not groups or "commands" in groups:
        for command in (name for name in COMMANDS if name != "train"):
            yield from command_cases(command, folder)
    if not groups or "sweeps" in groups:
        for text in SWEEPS:
            yield Case((*tiny, "task=validate", "cluster=inline"), text, flags=("-m",))


def repaired(overrides: tuple[str, ...]) -> tuple[str, ...] | None:
    """``overrides`` with the fixes of the problems of a choice that does not work alone; None if that takes too many."""
    for _ in range(5):
        try:
            problems = problems_of(compose(overrides))
        except CompositionError:
            return None
        fixes = [problem.fix for problem in problems if problem.fix and " " not in problem.fix and "…" not in problem.fix]
        if not fixes or fixes[0] in overrides:
            return overrides
        overrides = (*overrides, fixes[0])
    return overrides


def node_cases(group: str, base: tuple[str, ...], seen: set[tuple[str, str]]) -> Iterator[Case]:
    """Bad values of every argument of the nodes of ``group`` that ``seen`` does not contain."""
    config: Any = OmegaConf.to_container(compose(base), resolve=False)
    yield from (Case(base, f"{group}={value}") for value in OTHERS if (group, value) not in seen)
    seen.update((group, value) for value in OTHERS)
    for path, node in nodes(group, config.get(group)):
        target = str(node["_target_"])
        located = locate(target)
        signature = signature_of(located) if located is not None else None
        arguments = dict.fromkeys([*node, *(signature.parameters if signature is not None else ())])
        for name in arguments:
            if (target, name) in seen:
                continue
            seen.add((target, name))
            prefix = "" if name in node else "+"
            for value in values_for(node.get(name)):
                yield Case(base, f"{prefix}{path}.{name}={value}")
        if (target, "") not in seen:
            seen.add((target, ""))
            yield from (Case(base, text) for text in wrong_keys(path, list(node)))


def nodes(key: str, value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The nodes with a target at and below ``key``."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield key, value
        for name, child in value.items():
            yield from nodes(f"{key}.{name}", child)


def values_for(value: Any) -> Iterator[str]:
    """Bad values in place of ``value``: numbers, text, containers, and misspellings if it is text."""
    yield from NUMBERS
    yield from OTHERS
    if isinstance(value, str) and len(value) > 2 and value.isidentifier():
        yield from (value[:-1], value.upper(), f"{value}x")


def wrong_keys(path: str, names: list[str]) -> Iterator[str]:
    """Misspelt keys, and Hydra's words where they do not belong."""
    for name in [name for name in names if not name.startswith("_")][:3]:
        yield f"{path}.{name[:-1] or 'x'}=1"
        yield f"+{path}.{name}x=1"
        yield f"{path.replace('.', '/')}.{name}=1"
        yield f"~{path}.{name}"
    for word in ("_recursive_", "_args_", "_convert_"):
        yield f"+{path}.{word}=[1]"
    yield f"~{path}._target_"


def setting_cases(tiny: tuple[str, ...]) -> Iterator[Case]:
    """Bad values of root keys and of the keys of ``trainer``, ``paths``, ``cluster`` and the like."""
    config: Any = OmegaConf.to_container(compose(tiny), resolve=False)
    for root in (*SETTINGS, "name", "group", "seed", "resume", "run", "tags"):
        node = config.get(root)
        paths = {f"{root}.{name}": child for name, child in node.items()} if isinstance(node, Mapping) else {root: node}
        for path, value in paths.items():
            yield from (Case(tiny, f"{path}={bad}") for bad in values_for(value))
        if isinstance(node, Mapping):
            yield from (Case(tiny, text) for text in wrong_keys(root, list(node)))
            yield from (Case(tiny, f"{root}={bad}") for bad in OTHERS)
    for name, values in {"metric": OTHERS, "patience": NUMBERS, "min_delta": NUMBERS, "nothing": ("1",)}.items():
        yield from (Case(tiny, f"trainer.early_stopping={{{name}:{value}}}") for value in values)


def command_cases(command: str, folder: str) -> Iterator[Case]:
    """Bad values of the keys of a command other than ``train``."""
    config: Any = OmegaConf.to_container(compose(config_name=command), resolve=False)
    base = (f"paths.outputs={folder}", f"paths.data={folder}")
    for name in config:
        if name not in ("paths", "dataset"):
            yield from (Case(base, f"{name}={value}", command) for value in (*NUMBERS, *OTHERS))
        yield from (Case(base, text, command) for text in (f"{name[:-1]}q=1", f"+{name}x=1", f"{name}.a=1"))


# -- trials --------------------------------------------------------------------------------------------------------------------


def run_cases(cases: Sequence[Case]) -> Iterator[Outcome]:
    """Try every case in a process of its own."""
    base: tuple[str, ...] | None = None
    config, known = DictConfig({}), frozenset[str]()
    for case in cases:
        if case.command == "train" and case.base != base:
            base, config = case.base, compose(case.base)
            known = frozenset(map(str, problems_of(config)))
        yield tried(case, config, known)


def tried(case: Case, config: DictConfig, known: frozenset[str]) -> Outcome:
    """The outcome of ``case`` in a forked process; ``config`` is its base, and ``known`` the problems of that."""
    reader, writer = os.pipe()
    began = time.perf_counter()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        status = 1
        with contextlib.suppress(BaseException):
            answer = trial(case, config, known)
            os.write(writer, pickle.dumps(answer)[:60_000])
            status = 0
        os._exit(status)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], 4 * SECONDS)
    content = os.read(reader, 65_536) if ready else b""
    os.close(reader)
    if not ready:
        os.kill(child, signal.SIGKILL)
    _, code = os.waitpid(child, 0)
    seconds = time.perf_counter() - began
    if content:
        verdict, text = pickle.loads(content)
        return Outcome(case, verdict, text, seconds)
    number = os.WTERMSIG(code) if os.WIFSIGNALED(code) else 0
    hang = not ready or number == signal.SIGXCPU
    return Outcome(case, "hang" if hang else "crash", f"signal {number}" if number else "no answer", seconds)


def trial(case: Case, config: DictConfig, known: frozenset[str]) -> tuple[Verdict, str]:
    """Validate the configuration of ``case`` and, if it is valid, train one step with it. Runs in the child process."""
    os.setpgid(0, 0)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, in_use + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # Python's own streams write to them
        os.dup2(null, stream)
    try:
        lines = messages(case, config, known)
    except (ConfigError, RunFailed) as error:
        lines = str(error).splitlines() if isinstance(error, RunFailed) else [str(problem) for problem in error.problems]
        lines = lines or ["(empty)"]
    except SystemExit as stop:
        lines = [] if not stop.code else [f"exit {stop.code}"]
    except BaseException as error:
        described = one_line_of(error) if isinstance(error, Exception) else error
        if isinstance(described, RunFailed):
            return "refused", str(described)
        return "traceback", traceback.format_exc()
    if not lines:
        return "accepted", ""
    several = [line for line in lines if "\n" in line or not line.strip()]
    return ("several lines" if several else "refused"), "\n".join(lines)


def messages(case: Case, config: DictConfig, known: frozenset[str]) -> list[str]:
    """What altprop says against ``case``; nothing if it has trained a step. Raises whatever the run raises."""
    if case.command != "train" or case.flags:
        return said_by_command(case)
    try:
        set_value(config, case.override)
    except CompositionError as error:
        if isinstance(error, ValidationError) and not takes_the_whole_command(case):
            return [f"{case.override}: {type(error).__name__}"]  # the schema refuses its type; the whole command takes a second
        problems: list[Problem] = call_validate([*case.base, case.override])
        return [str(problem) for problem in problems if str(problem) not in known]
    lines = list(map(str, problems_of(config)))
    if lines:
        return [line for line in lines if line not in known] or lines
    parts, task = build(config)
    if getattr(task, "func", task) is train:
        train(parts)
    return []


def takes_the_whole_command(case: Case) -> bool:
    """Whether the message about a value of a wrong type is looked at, which takes a second: for one value in eight."""
    return zlib.crc32(case.override.encode()) % 8 == 0


def set_value(config: DictConfig, text: str) -> None:
    """Apply the override ``text`` to ``config``, which is much quicker than composing. Raises whatever Hydra raises."""
    with config_loader() as composer:
        override = OverridesParser.create(config_loader=composer.loader).parse_override(text)
        assert isinstance(composer.loader, ConfigLoaderImpl)
        if composer.loader.repository.group_exists(str(override.key_or_group)) or override.is_delete():
            raise HydraException("only the whole command can choose and delete")
        ConfigLoaderImpl._apply_overrides_to_config([override], config)


def said_by_command(case: Case) -> list[str]:
    """Run a command in this process. Raises whatever it raises."""
    sys.argv = [case.command, *case.flags, *case.base, case.override]
    run = getattr(importlib.import_module(f"altprop.commands.{case.command}"), COMMANDS[case.command])
    execute(case.command, run, check_task if case.command == "train" else None)
    return []


if __name__ == "__main__":
    sys.exit(main())
