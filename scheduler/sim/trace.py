"""A trace: jobs as an accounting log remembers them. Reads one from CSV; simulates nothing.

Columns: `job_id`, `submit_s`, `gpus`, `duration_s`; optional `vc` (the tenant) and `limit_s`.
Others are ignored. Seconds may have decimals; from here on instants and durations are whole
milliseconds.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

REQUIRED_COLUMNS = ("job_id", "submit_s", "gpus", "duration_s")
DEFAULT_TENANT = "default"
# Beyond this, a column in milliseconds or a date was taken for seconds; 10^12 s are 31,000 years.
SECONDS_MAX = 1_000_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Equal machines in one pool."""

    num_nodes: int
    gpus_per_node: int

    @property
    def num_gpus(self) -> int:
        """GPUs of all nodes."""
        return self.num_nodes * self.gpus_per_node


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceJob:
    """One job: what a policy may see, and how long it runs, which only an oracle may.

    Attributes:
        gpus: of the whole gang, > 0.
        duration_ms: the service it needs on its GPUs, > 0.
        limit_ms: what its user declared; an estimate, it stops nothing. None: not declared.
    """

    job_id: str
    submit_ms: int
    gpus: int
    duration_ms: int
    vc: str = DEFAULT_TENANT
    limit_ms: int | None = None


class BadTrace(ValueError):
    """The trace cannot be used; the message says where, why and what to do."""


def read_trace(path: Path, cluster: Cluster) -> tuple[TraceJob, ...]:
    """Return the jobs of a CSV file in submit order; equal instants keep the file's order.

    Raises:
        BadTrace: the file cannot be read, or a line of it cannot be used on this cluster.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadTrace(f"{path}: {error.strerror}: name a CSV file that can be read") from error
    except UnicodeDecodeError as error:
        raise BadTrace(f"{path}: is not UTF-8 text: save it as CSV in UTF-8") from error
    return parse_trace(text, cluster, name=str(path))


def parse_trace(text: str, cluster: Cluster, *, name: str = "trace") -> tuple[TraceJob, ...]:
    """Return the jobs of a CSV text, as `read_trace` does; `name` opens the messages."""
    rows = csv.DictReader(io.StringIO(text, newline=""))
    _check_columns(rows.fieldnames or (), name)
    jobs: list[TraceJob] = []
    lines: dict[str, int] = {}
    try:
        for row in rows:
            where = f"{name}, line {rows.line_num}"
            job = _parse_job(row, cluster, where)
            if job.job_id in lines:
                raise BadTrace(
                    f"{where}: job_id {job.job_id!r} is already on line {lines[job.job_id]}: "
                    "give each job its own id"
                )
            lines[job.job_id] = rows.line_num
            jobs.append(job)
    except csv.Error as error:
        raise BadTrace(f"{name}, line {rows.line_num}: {error}: is it a CSV file?") from error
    if not jobs:
        raise BadTrace(f"{name}: has no jobs: put one job on each line after the first")
    return tuple(sorted(jobs, key=lambda job: job.submit_ms))


def write_trace(jobs: Iterable[TraceJob]) -> str:
    """Return the jobs as CSV, so that `parse_trace` gives the same jobs back."""
    out = io.StringIO(newline="")
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow((*REQUIRED_COLUMNS, "vc", "limit_s"))
    for job in jobs:
        limit_s = "" if job.limit_ms is None else _render_s(job.limit_ms)
        rows.writerow(
            (
                job.job_id,
                _render_s(job.submit_ms),
                job.gpus,
                _render_s(job.duration_ms),
                job.vc,
                limit_s,
            )
        )
    return out.getvalue()


def _check_columns(columns: Iterable[str], name: str) -> None:
    missing = [column for column in REQUIRED_COLUMNS if column not in columns]
    if missing:
        raise BadTrace(
            f"{name}, line 1: no column {', '.join(missing)}: "
            f"the first line names the columns, {','.join(REQUIRED_COLUMNS)}[,vc][,limit_s]"
        )


def _parse_job(row: Mapping[str, str | None], cluster: Cluster, where: str) -> TraceJob:
    job_id = _text(row, "job_id")
    if not job_id:
        raise BadTrace(f"{where}: job_id is empty: give each job its own id")
    limit = _text(row, "limit_s")
    duration_ms = _parse_ms(row, "duration_s", where)
    if duration_ms <= 0:
        raise BadTrace(
            f"{where}: duration_s is {_text(row, 'duration_s')}: "
            "a job runs for at least 0.001 s; leave out jobs that never ran"
        )
    return TraceJob(
        job_id=job_id,
        submit_ms=_parse_ms(row, "submit_s", where),
        gpus=_parse_gpus(row, cluster, where),
        duration_ms=duration_ms,
        vc=_text(row, "vc") or DEFAULT_TENANT,
        limit_ms=_parse_limit(row, where) if limit else None,
    )


def _parse_gpus(row: Mapping[str, str | None], cluster: Cluster, where: str) -> int:
    text = _text(row, "gpus")
    try:
        gpus = int(text)
    except ValueError:
        raise BadTrace(f"{where}: gpus is {text!r}: write a whole number, such as 8") from None
    if gpus <= 0:
        raise BadTrace(f"{where}: gpus is {gpus}: leave out jobs without GPUs")
    if gpus > cluster.num_gpus:
        raise BadTrace(
            f"{where}: the job wants {gpus} GPUs, {cluster.num_nodes} nodes x "
            f"{cluster.gpus_per_node} have {cluster.num_gpus}: raise --nodes, or leave it out"
        )
    return gpus


def _parse_limit(row: Mapping[str, str | None], where: str) -> int:
    limit_ms = _parse_ms(row, "limit_s", where)
    if limit_ms <= 0:
        raise BadTrace(
            f"{where}: limit_s is {_text(row, 'limit_s')}: leave it empty when there was no limit"
        )
    return limit_ms


def _parse_ms(row: Mapping[str, str | None], column: str, where: str) -> int:
    text = _text(row, column)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if math.isnan(seconds) or abs(seconds) > SECONDS_MAX:
        raise BadTrace(f"{where}: {column} is {text!r}: write seconds as a number, such as 5400")
    return round(seconds * 1000)


def _text(row: Mapping[str, str | None], column: str) -> str:
    return (row.get(column) or "").strip()


def _render_s(duration_ms: int) -> str:
    return str(duration_ms // 1000) if duration_ms % 1000 == 0 else f"{duration_ms / 1000:.3f}"
