"""`python -m scheduler.sim` prints a table or JSON, and refuses what it cannot use in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scheduler.sim.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
FIELDS = [
    *("policy", "jobs", "avg_jct_s", "p99_jct_s", "avg_queue_s", "makespan_s", "gpu_utilization"),
    *("evictions_per_job", "evictions_max", "wasted_gpu_fraction", "jain"),
    *("eta_coverage", "eta_given_fraction", "wall_s"),
]


@pytest.fixture
def trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["synthetic", "--jobs", "150", "--nodes", "2", "--load", "1.2"]) == 0
    path = tmp_path / "trace.csv"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    return path


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*arguments, "--nodes", "2", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return json.loads(captured.out)


def test_one_policy_is_one_object_with_every_figure(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = run_json(capsys, str(trace))

    assert list(document) == FIELDS
    assert (document["policy"], document["jobs"]) == ("trainmaster", 150)
    assert 0 <= document["eta_coverage"] <= 1


def test_several_policies_are_a_list_in_the_order_they_were_named(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = run_json(capsys, str(trace), "--policy", "srtf,fifo")
    every = run_json(capsys, str(trace), "--policy", "all")

    assert [document["policy"] for document in some] == ["srtf", "fifo"]
    assert {document["policy"] for document in every} == {
        *("trainmaster", "fifo", "easy", "srtf", "las")
    }


def test_two_runs_differ_in_their_wall_time_only(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (run_json(capsys, str(trace), "--policy", "all") for _ in range(2))

    for document in first + second:
        del document["wall_s"]
    assert json.dumps(first) == json.dumps(second)


def test_limits_and_the_price_of_a_resume_reach_the_policies(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    easy = run_json(capsys, str(trace), "--policy", "easy")
    easy_without = run_json(capsys, str(trace), "--policy", "easy", "--limits", "none")
    srtf_free = run_json(capsys, str(trace), "--policy", "srtf", "--resume-seconds", "0")

    assert easy["avg_jct_s"] < easy_without["avg_jct_s"]
    assert srtf_free["evictions_per_job"] > 0
    assert srtf_free["wasted_gpu_fraction"] == 0


def test_people_get_a_table_with_a_line_for_each_policy(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(trace), "--nodes", "2", "--policy", "fifo,easy"]) == 0

    heading, fifo, easy = capsys.readouterr().out.splitlines()
    assert heading.split() == FIELDS
    assert [line.split()[0] for line in (fifo, easy)] == ["fifo", "easy"]
    assert len(fifo.split()) == len(easy.split()) == len(FIELDS)
    assert len(heading) == len(fifo) == len(easy)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["missing.csv"], "missing.csv: No such file", id="no such file"),
        pytest.param(
            ["TRACE", "--nodes", "1", "--gpus-per-node", "2"], "line ", id="a gang too large"
        ),
        pytest.param(["TRACE", "--policy", "magic"], "'magic' is no policy", id="no such policy"),
        pytest.param(["TRACE", "--nodes", "0"], "'0' is no whole number", id="no nodes"),
        pytest.param(["TRACE", "--resume-seconds", "-1"], "no number of seconds", id="a gain"),
        pytest.param(["TRACE", "--limits", "all"], "invalid choice", id="no such limits"),
        pytest.param([], "TRACE.csv", id="no trace"),
        pytest.param(["synthetic", "--load", "0"], "'0' is no load", id="no load"),
    ],
)
def test_what_cannot_be_done_is_said_without_a_traceback(
    trace: Path, arguments: list[str], message: str
) -> None:
    arguments = [str(trace) if argument == "TRACE" else argument for argument in arguments]

    done = subprocess.run(
        [sys.executable, "-m", "scheduler.sim", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_it_runs_without_any_installed_package(trace: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "scheduler.sim", str(trace), "--policy", "all"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 6
