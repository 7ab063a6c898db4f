"""A trace is read exactly, or refused with the line, the fact and the way out."""

from pathlib import Path

import pytest

from scheduler.sim.trace import BadTrace, TraceJob, parse_trace, read_trace, write_trace
from tests.sim.traces import cluster_of, job

CLUSTER = cluster_of(2)
HEAD = "job_id,submit_s,gpus,duration_s,vc,limit_s"


def test_columns_are_found_by_name_and_others_are_ignored() -> None:
    text = "model,gpus,job_id,duration_s,submit_s\nbert,4,a,1.5,10\nvgg,16,b,2,3.25\n"

    jobs = parse_trace(text, CLUSTER)

    assert jobs == (job("b", 3.25, 16, 2), job("a", 10, 4, 1.5))


def test_tenant_and_limit_are_optional_line_by_line() -> None:
    text = f"{HEAD}\na,0,1,5,red,60\nb,0,1,5,,\n"

    jobs = parse_trace(text, CLUSTER)

    assert jobs == (job("a", 0, 1, 5, vc="red", limit_s=60), job("b", 0, 1, 5))


def test_equal_submits_keep_the_order_of_the_file() -> None:
    text = f"{HEAD}\nz,5,1,1,,\ny,0,1,1,,\na,5,1,1,,\n"

    jobs = parse_trace(text, CLUSTER)

    assert [one.job_id for one in jobs] == ["y", "z", "a"]


def test_a_limit_below_the_duration_is_kept() -> None:
    assert parse_trace(f"{HEAD}\na,0,1,100,,60\n", CLUSTER) == (job("a", 0, 1, 100, limit_s=60),)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        pytest.param(
            ["job_id,submit_s,duration_s", "a,0,1"],
            "trace, line 1: no column gpus: the first line names the columns, "
            "job_id,submit_s,gpus,duration_s[,vc][,limit_s]",
            id="a missing column",
        ),
        pytest.param(
            [],
            "trace, line 1: no column job_id, submit_s, gpus, duration_s: the first line names "
            "the columns, job_id,submit_s,gpus,duration_s[,vc][,limit_s]",
            id="an empty file",
        ),
        pytest.param(
            [HEAD],
            "trace: has no jobs: put one job on each line after the first",
            id="no jobs",
        ),
        pytest.param(
            [HEAD, "a,0,1,5,,", "b,soon,1,5,,"],
            "trace, line 3: submit_s is 'soon': write seconds as a number, such as 5400",
            id="a submit that is no number",
        ),
        pytest.param(
            [HEAD, "a,0,1,nan,,"],
            "trace, line 2: duration_s is 'nan': write seconds as a number, such as 5400",
            id="a duration that is not a number",
        ),
        pytest.param(
            [HEAD, "a,1e300,1,5,,"],
            "trace, line 2: submit_s is '1e300': write seconds as a number, such as 5400",
            id="a submit beyond all time",
        ),
        pytest.param(
            [HEAD, "a,0"],
            "trace, line 2: duration_s is '': write seconds as a number, such as 5400",
            id="a line that is cut off",
        ),
        pytest.param(
            [HEAD, "a,0,1.5,5,,"],
            "trace, line 2: gpus is '1.5': write a whole number, such as 8",
            id="half a GPU",
        ),
        pytest.param(
            [HEAD, "a,0,0,5,,"],
            "trace, line 2: gpus is 0: leave out jobs without GPUs",
            id="no GPUs",
        ),
        pytest.param(
            [HEAD, "a,0,17,5,,"],
            "trace, line 2: the job wants 17 GPUs, 2 nodes x 8 have 16: "
            "raise --nodes, or leave it out",
            id="a job larger than the cluster",
        ),
        pytest.param(
            [HEAD, "a,0,1,0,,"],
            "trace, line 2: duration_s is 0: a job runs for at least 0.001 s; "
            "leave out jobs that never ran",
            id="a job that never ran",
        ),
        pytest.param(
            [HEAD, "a,0,1,5,,-1"],
            "trace, line 2: limit_s is -1: leave it empty when there was no limit",
            id="a negative limit",
        ),
        pytest.param(
            [HEAD, ",0,1,5,,"],
            "trace, line 2: job_id is empty: give each job its own id",
            id="no id",
        ),
        pytest.param(
            [HEAD, "a,0,1,5,,", "b,0,1,5,,", "a,9,1,5,,"],
            "trace, line 4: job_id 'a' is already on line 2: give each job its own id",
            id="an id that comes twice",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_way_out(lines: list[str], message: str) -> None:
    with pytest.raises(BadTrace) as caught:
        parse_trace("\n".join(lines), CLUSTER)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        pytest.param(None, "No such file or directory", id="no file"),
        pytest.param(b"\xff\xfe\x00", "is not UTF-8 text", id="bytes that are no text"),
        pytest.param(b"job_id,submit_s,gpus,duration_s\na,0,1,\0", "line", id="a null byte"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(
    tmp_path: Path, content: bytes | None, fact: str
) -> None:
    path = tmp_path / "trace.csv"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(BadTrace, match=fact):
        read_trace(path, CLUSTER)


def test_a_spreadsheets_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("\ufeffjob_id,submit_s,gpus,duration_s\r\na,0,1,5\r\n", encoding="utf-8")

    assert read_trace(path, CLUSTER) == (job("a", 0, 1, 5),)


def test_a_trace_that_is_written_is_read_back_the_same() -> None:
    jobs: tuple[TraceJob, ...] = (
        job("a", 0, 1, 5.125, vc="red, or blue", limit_s=60),
        job('b "quoted"', 1e6, 16, 0.001),
    )

    assert parse_trace(write_trace(jobs), CLUSTER) == jobs
