"""What the service accepts of `sync` is what the library has, whose modules need torch."""

from __future__ import annotations

import itertools
import json
import subprocess
from typing import get_args

import pytest

from scheduler.core import mode_rules
from scheduler.core.spec import SyncMode
from tests.services import JOB_PYTHON
from trainmaster import _communication

pytestmark = pytest.mark.torch

# Joins nobody: what a mode would begin with says that it was chosen.
ASK = """
import json, sys
from types import SimpleNamespace
from trainmaster.train import modes

class Chosen:
    COMPRESSIONS = modes.Allreduce.COMPRESSIONS
    def __init__(self, *_): pass

modes.Allreduce = modes.Replicas = Chosen
known = []
for mode, compression in json.loads(sys.argv[1]):
    run = SimpleNamespace(description={"sync": {"mode": mode, "compression": compression}})
    try:
        modes.choose_synchronization(run, None)
    except modes.UnsupportedMode:
        continue
    known.append([mode, compression])
print(json.dumps(known))
"""
COMPRESSIONS = ("none", "fp16", "bf16", "int8", "int4", "topk")


def test_the_rules_accept_each_compression_that_a_mode_of_the_library_has_and_no_other() -> None:
    modes = [mode for mode in get_args(SyncMode) if mode != "gossip"]
    asked = list(itertools.product(modes, COMPRESSIONS))

    answer = subprocess.run(
        [JOB_PYTHON, "-c", ASK, json.dumps(asked)], capture_output=True, timeout=120, check=True
    )

    known = [tuple(pair) for pair in json.loads(answer.stdout)]
    accepted = [pair for pair in asked if pair[1] in mode_rules.COMPRESSIONS[pair[0]]]
    assert known == accepted


def test_a_round_comes_as_often_where_nobody_says() -> None:
    assert mode_rules.EVERY == _communication.EVERY
