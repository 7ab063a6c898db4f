"""Metric points: what storing them costs the service, and how fast a long series is read.

Points go in through the worker protocol with the token of a real attempt, in batches of 1,000.
The cost is the CPU time of the service's process, with everything else that it does meanwhile.
Beside it the least that could be done with the same bytes in Python: parse them, pack the
columns, insert each as a row with the same durability; no web server, no token, no checks.
"""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import statistics
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.bench import Bench, upload_script, wait_for_quiet
from tests.bench.figures import Figure, Series, Target
from tests.bench.processes import cpu_s
from tests.bench.worker import Caller, HeldAttempt, PretendedNode
from tests.services import Service
from trainmaster import Client

NAME = "metrics"
_BATCH_POINTS = 1000
_SERIES_POINTS = 100_000
_SERIES_KEY = "train/loss"
_POOL = "bench"
_STARTED_AT = 1_700_000_000.0

_ONE_KEY = ("train/loss",)
_TEN_KEYS = tuple(f"train/metric_{number}" for number in range(10))


class _Stream:
    """One attempt's stream of spool lines, and the connection that it goes through."""

    def __init__(self, client: Client, code: str, node: PretendedNode, port: int) -> None:
        self.job = client.jobs.submit(code=code, entrypoint="small_job.py", pool=_POOL)
        self._node = node
        self._attempt: HeldAttempt = node.take_attempt()
        self._caller = Caller(port, self._attempt.token)
        self._sequence = 0
        self._chance = random.Random(0)

    def renew(self) -> None:
        """Keep the attempt alive."""
        self._node.beat()
        self._node.renew(self._attempt)

    def make_batches(self, count: int, keys: tuple[str, ...]) -> list[bytes]:
        """Return the next batches; all of them have to be sent, in order."""
        lines = _BATCH_POINTS // len(keys)
        batches = []
        for _ in range(count):
            document = self._make_batch(keys, lines)
            batches.append(json.dumps(document, separators=(",", ":")).encode())
            self._sequence += lines
        return batches

    def send(self, batches: list[bytes]) -> None:
        """Send batches, each when the one before is stored."""
        path = f"/v1/attempts/{self._attempt.id}/metrics"
        for batch in batches:
            self._caller.send("POST", path, batch)

    def _make_batch(self, keys: tuple[str, ...], lines: int) -> dict[str, Any]:
        steps = list(range(self._sequence + 1, self._sequence + lines + 1))
        times = [_STARTED_AT + 0.0237 * step for step in steps]
        columns = {
            key: {"steps": steps, "times": times, "values": [self._chance.random() for _ in steps]}
            for key in keys
        }
        return {"stream": "0", "sequence": self._sequence, "count": lines, "columns": columns}


def measure(bench: Bench) -> list[Figure]:
    """Return cost of storing, with one key and with ten, and time to read; 40 s."""
    folder = bench.make_folder("bare-metrics")
    # The service's own node waits in another pool: attempts of this one are ours to hold.
    with bench.service("metrics", NODE_POOL="other") as service, service.client() as client:
        admin_key = (service.folder / "admin.key").read_text().strip()
        node = PretendedNode(service.port, admin_key, pool=_POOL)
        code = upload_script(client, "small_job.py")
        with _bare_store(folder / "bare.db") as bare:
            stored = [
                _measure_storing(bench, service, _Stream(client, code, node, service.port), bare, k)
                for k in (_ONE_KEY, _TEN_KEYS)
            ]
        series = _Stream(client, code, node, service.port)
        series.send(series.make_batches(_SERIES_POINTS // _BATCH_POINTS, (_SERIES_KEY,)))
        read = _measure_reading(bench, service.port, admin_key, series.job.id)
    return [*stored, read]


def _measure_storing(
    bench: Bench,
    service: Service,
    stream: _Stream,
    bare: sqlite3.Connection,
    keys: tuple[str, ...],
) -> Figure:
    ours: list[float] = []
    theirs: list[float] = []
    count = bench.count(400, 100)
    stream.send(stream.make_batches(20, keys))
    for _ in range(bench.count(5, 2)):
        stream.renew()
        batches = stream.make_batches(count, keys)
        wait_for_quiet()
        before_s = cpu_s(service.pid)
        stream.send(batches)
        ours.append(count * _BATCH_POINTS / (cpu_s(service.pid) - before_s))
        before_s = time.process_time()
        for batch in batches:
            _store_bare(bare, batch)
        theirs.append(count * _BATCH_POINTS / (time.process_time() - before_s))
        bench.say(f"{ours[-1]:,.0f} points per CPU-second beside {theirs[-1]:,.0f}")
    text = f"{len(keys)} key{'s' if len(keys) > 1 else ''}"
    return Figure(
        name=f"metric points stored, {text} a batch",
        unit="per CPU-s",
        values=Series(tuple(ours)),
        baseline=Series(tuple(theirs)),
        baseline_name="parse, pack, insert",
        target=Target(of="figure", bound="at least", limit=100_000.0),
        details={"bytes_a_batch": len(batches[0]), "batches_a_round": count},
    )


def _measure_reading(bench: Bench, port: int, key: str, job_id: str) -> Figure:
    """Measure the series over HTTP, beside reading all of its points."""
    caller = Caller(port, key)
    path = f"/v1/jobs/{job_id}/metrics?key={_SERIES_KEY}"

    def read(query: str) -> float:
        started = time.perf_counter()
        answer = caller.send("GET", path + query)
        took_s = time.perf_counter() - started
        lengths.append(len(answer))
        return took_s

    lengths: list[int] = []
    first_s = read("&points=1000")
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(bench.count(21, 5)):
        ours.append(read("&points=1000"))
        theirs.append(read(""))
    caller.close()
    bench.say(f"{1e3 * statistics.median(ours):.1f} ms for 1,000 of {_SERIES_POINTS:,} points")
    return Figure(
        name="100,000 points read as 1,000",
        unit="ms",
        values=Series(tuple(1e3 * one for one in ours)),
        baseline=Series(tuple(1e3 * one for one in theirs)),
        baseline_name="all of them",
        target=Target(of="figure", bound="at most", limit=100.0),
        details={
            "first_ms": round(1e3 * first_s, 1),
            "bytes": lengths[-2],
            "bytes_of_all": lengths[-1],
        },
    )


@contextlib.contextmanager
def _bare_store(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(
        "CREATE TABLE chunks (id INTEGER PRIMARY KEY, key TEXT, steps BLOB, times BLOB, seen BLOB)"
    )
    try:
        yield connection
    finally:
        connection.close()


def _store_bare(connection: sqlite3.Connection, batch: bytes) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for key, column in json.loads(batch)["columns"].items():
        packed = (
            array("q", column["steps"]).tobytes(),
            array("d", column["times"]).tobytes(),
            array("d", column["values"]).tobytes(),
        )
        connection.execute(
            "INSERT INTO chunks (key, steps, times, seen) VALUES (?, ?, ?, ?)", (key, *packed)
        )
    connection.execute("COMMIT")
