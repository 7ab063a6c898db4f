"""What is pure, or needs one process only: each claim of the scripts is one test."""

from pathlib import Path

import pytest

from tests.component.train.outer.claims import SCRIPTS, claims_of
from tests.component.train.ranks import Forge

pytestmark = pytest.mark.torch

CLAIMS = [
    pytest.param(script.name, claim, id=f"{script.stem.removeprefix('claims_')}-{claim[6:]}")
    for script in sorted(SCRIPTS.glob("claims_*.py"))
    for claim in claims_of(script.name)
]


@pytest.mark.parametrize(("script", "claim"), CLAIMS)
def test_a_claim_holds(forge: Forge, tmp_path: Path, script: str, claim: str) -> None:
    forge.run(SCRIPTS / script, tmp_path, claim)
