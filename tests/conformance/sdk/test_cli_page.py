"""The commands that the documentation shows work as shown."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.conformance.sdk.fake_service import KEY, FakeService
from tests.docs.pages import ROOT, parse_blocks

THIS_TEST = "tests/conformance/sdk/test_cli_page.py::test_commands_of_the_page_work"


def test_commands_of_the_page_work(
    run: Callable[..., Result],
    service: FakeService,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINMASTER_URL", service.url)
    (tmp_path / "key.txt").write_text(f"{KEY}\n")
    service.changes["job_0001"] = [{"state": "succeeded"}]
    for stream in ("logs", "metrics"):
        service.streams[f"/v1/jobs/job_0001/{stream}/stream"] = [("", "end", {})]
    service.add_checkpoint("job_0001", {"model.safetensors": b"weights"})
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    blocks = [each for each in parse_blocks("docs/cli.md", page) if THIS_TEST in each.marker]

    for step in blocks[0].steps:
        words, _, source = step.command.partition(" < ")
        typed = (tmp_path / source).read_text() if source else None
        result = run(*shlex.split(words)[1:], input=typed)

        assert result.exit_code == 0, f"{step.command}\n{result.output}"

    assert (tmp_path / "weights" / "model.safetensors").read_bytes() == b"weights"
