"""What a spec gets that does not say it itself."""

import pytest

from api.jobs.submission import read_submission
from scheduler.core.spec_rules import World


@pytest.mark.parametrize(
    ("limits", "want"),
    [
        pytest.param({}, 7, id="the service's grace period"),
        pytest.param({"grace_seconds": 2}, 2, id="or its own"),
    ],
)
def test_a_spec_gets_the_grace_period_of_the_service(limits: dict[str, int], want: int) -> None:
    document = {"code": "file_1", "entrypoint": "train.py", "limits": limits}

    submission = read_submission(document, World(), {}, grace_seconds=7)

    assert submission.document["limits"]["grace_seconds"] == want
    assert submission.spec.limits.grace_seconds == want
