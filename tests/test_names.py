"""Public names of classes and former names of arguments, in stored configurations, in run keys and on the command line."""

from __future__ import annotations

from typing import Any

import pytest

from altprop.commands.messages.hydra_errors import problems_of as problems_of_error
from altprop.config.checks.targets import locate, signature_of
from altprop.config.checks.validation import problems_of
from altprop.config.compose import compose
from altprop.config.key import run_key
from altprop.names import RENAMED_ARGUMENTS, with_public_names

FORMER_PATH = "altprop.algorithms.asynchronous_greedy.AsynchronousGreedy"


@pytest.mark.parametrize(("max_reuse", "max_uses"), [(None, None), (4, 3)])
def test_former_arguments_are_read_and_keep_their_key(max_reuse: int | None, max_uses: int | None) -> None:
    stored: dict[str, Any] = {"algorithm": {"_target_": FORMER_PATH, "max_reuse": max_reuse, "order": "random"}, "list": [1]}
    present = with_public_names(stored)
    node = {"_target_": "altprop.algorithms.AsynchronousGreedy", "max_uses": max_uses, "order": "random"}
    assert present == {"algorithm": node, "list": [1]}
    assert with_public_names(present) == present
    assert run_key(present) == run_key(stored)
    assert run_key(with_public_names({**stored, "algorithm": {**stored["algorithm"], "max_reuse": 7}})) != run_key(stored)


@pytest.mark.parametrize("path", RENAMED_ARGUMENTS)
def test_present_names_are_arguments_and_former_names_are_not(path: str) -> None:
    target = locate(path)
    assert target is not None
    signature = signature_of(target)
    assert signature is not None
    for renamed in RENAMED_ARGUMENTS[path]:
        assert renamed.name in signature.parameters
        assert renamed.former not in signature.parameters


def test_a_former_argument_on_the_command_line_is_answered_with_the_present_one() -> None:
    line = "algorithm.max_reuse: is now called max_uses; max_uses = max_reuse - 1; try: algorithm.max_uses={}"
    arguments = ["algorithm=asynchronous_greedy", "algorithm.max_reuse=3"]
    with pytest.raises(Exception, match="max_reuse") as raised:
        compose(arguments)
    assert [str(problem) for problem in problems_of_error(raised.value, "train", arguments)] == [line.format(2)]
    config = compose(["algorithm=asynchronous_greedy", "+algorithm.max_reuse=null"])
    assert line.format("null") in [str(problem) for problem in problems_of(config)]
