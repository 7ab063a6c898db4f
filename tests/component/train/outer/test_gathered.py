"""What is gathered for a checkpoint is what each replica had then, whatever it says next."""

from pathlib import Path

import pytest

from tests.component.train.outer.claims import SCRIPTS
from tests.component.train.ranks import Forge

pytestmark = pytest.mark.torch


def test_the_next_message_of_a_replica_does_not_change_what_it_has_given(
    forge: Forge, tmp_path: Path
) -> None:
    gang = forge.run(SCRIPTS / "gathered.py", tmp_path)

    assert gang.said("arrived") == "[7.0, 7.0, 7.0, 7.0]"
