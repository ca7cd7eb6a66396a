"""Flags may stand anywhere, and an agent's ``--key=value`` is an override."""

from __future__ import annotations

import pytest
from hydra._internal.utils import get_args

from altprop.commands.messages.arguments import flags_first
from altprop.problems import ConfigError


@pytest.mark.parametrize(
    ("typed", "parsed"),
    [
        ("seed=0,1 -m model=mlp", "-m seed=0,1 model=mlp"),
        ("seed=0 --cfg job model=mlp --resolve", "--cfg job --resolve seed=0 model=mlp"),
        ("seed=0 --cfg=job -p trainer", "--cfg=job -p trainer seed=0"),
        ("-cjob seed=0", "-cjob seed=0"),
        ("seed=0 --info defaults model=mlp", "--info defaults seed=0 model=mlp"),
        ("--info seed=0", "--info=all seed=0"),
        ("model=mlp --config-dir my/conf seed=0", "--config-dir my/conf model=mlp seed=0"),
        ("--optimizer.lr=0.01 --seed=1 --+optimizer.fused=true", "optimizer.lr=0.01 seed=1 +optimizer.fused=true"),
        ("-sc query=bash", "-sc query=bash"),
        ("~logger +a=-1", "~logger +a=-1"),
    ],
)
def test_flags_come_first(typed: str, parsed: str) -> None:
    arguments = flags_first(typed.split())
    assert arguments == parsed.split()
    get_args(arguments)


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("--multrun seed=0", "command line: there is no flag --multrun; flags: "),
        ("--multrun seed=0", "try: --multirun"),
        ("--optimizer.lr 0.01", "try: optimizer.lr=0.01"),
        ("--learning-rate 0.01", "try: learning_rate=0.01"),
        ("-x", "try: x=…"),
        ("--cfg jobs", "command line: --cfg jobs is no choice; it takes job | hydra | all"),
        ("seed=0 --config-dir", "command line: --config-dir has no value; it takes a value"),
    ],
)
def test_a_wrong_flag_is_one_line(typed: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        flags_first(typed.split())
    assert line in str(caught.value.problems[0])
