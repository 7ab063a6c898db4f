"""What cannot be divided says so: which layer, of what size, and what to do."""

import json
from pathlib import Path

import pytest

from tests.component.train.inner.oracle import SCRIPTS
from tests.component.train.ranks import Forge

pytestmark = pytest.mark.torch

WANTED = {
    "no tensor plan": ["Odd does not say", "train_plan = train.plan(tensor={...})", "shard"],
    "no such layer": ["'blocks.*.mlp.upp' is no layer of GPT", "did you mean 'blocks.2.mlp.up'?"],
    "does not divide": [
        "embed.token has 24 rows, which do not divide by 5: make them 25",
        "blocks.0.attention.qkv has 48 outputs, which do not divide by 5: make them 50",
        "; and 9 more",
    ],
    "vocabulary does not divide": ["embed.token has 24 rows"],
    "not that kind": ["first is a Conv1d, and column divides Linear only: leave it out"],
    "no such way": ["'head' is to be divided by 'rows': say one of column, row, vocab"],
    "no plan": ["Net.train_plan is a dict: make it with trainmaster.train.plan(...)"],
    "no pipeline plan": ["Odd does not say", "train_plan = train.plan(pipeline=[...])", "shard"],
    "no such link": ["'block' is no module of GPT (did you mean 'blocks'?)"],
    "outside of all links": ["scale, shift, passes of Odd would be in no stage", "layers, head"],
    "too few links": ["GPT has 6 links (embed, blocks.0,", "for 8 stages: lower"],
    "returns no tensor": ["pipeline stage 1 returns a tuple"],
    "depends on values": ["pipeline stage 1 cannot be computed on a tensor without data"],
    "tied but divided differently": [
        "embed.token.weight and head.weight are one parameter",
        "vocab",
    ],
    "tied on three ranks": ["links.0.weight, links.1.weight, links.2.weight are one parameter"],
    "several types": ["0.bias (torch.float32), 1.bias (torch.float64): make them one type"],
    "another state": ["missing ['a'], unknown ['c']"],
}


@pytest.fixture(scope="module")
def said(_session_forge: Forge, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each case was told."""
    folder: Path = tmp_path_factory.mktemp("refusals")
    gang = _session_forge.run(SCRIPTS / "refusals.py", folder)
    messages: dict[str, str] = json.loads(gang.said("result"))
    return messages


@pytest.mark.parametrize("case", WANTED)
def test_what_cannot_be_divided_is_named_with_the_way_out(said: dict[str, str], case: str) -> None:
    assert [part for part in WANTED[case] if part not in said[case]] == [], said[case]


def test_every_refusal_is_tested(said: dict[str, str]) -> None:
    assert set(said) == set(WANTED)
