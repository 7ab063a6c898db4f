"""Durable submits a second from 8 clients, beside a bare FastAPI route that inserts one row.

Both stand on SQLite with WAL and `synchronous=FULL` on the same disk, behind the same web server;
both are asked by the same clients, in turns. The jobs are held, so that nothing runs.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.bench import SCRIPTS, Bench, upload_script, wait_for_quiet
from tests.bench.figures import Figure, Series, Target
from tests.bench.processes import cpu_s
from tests.services import ROOT, free_port

NAME = "submits"
_CLIENTS = 8
_AHEAD_S = 0.3
_TARGET = Target(of="ratio", bound="at least", limit=0.5)


@dataclass(frozen=True)
class _Round:
    """What 8 clients got in one round."""

    per_s: float
    latency_p50_s: float
    latency_p95_s: float
    server_cpu_s_each: float


@dataclass(frozen=True)
class _Server:
    """Who is asked, and how."""

    pid: int
    port: int
    path: str
    headers: Mapping[str, str]
    with_keys: bool = False


def measure(bench: Bench) -> list[Figure]:
    """Return submits with idempotency keys, as the SDK sends them, and without; 15 s a round."""
    seconds = 3.0 if not bench.is_quick else 1.0
    rounds: dict[str, list[_Round]] = {"bare": [], "plain": [], "keyed": []}
    folder = bench.make_folder("bare")
    with bench.service("submits") as service, service.client() as client, _bare(folder) as bare:
        key = (service.folder / "admin.key").read_text().strip()
        plain = _Server(service.pid, service.port, "/v1/jobs", {"Authorization": f"Bearer {key}"})
        keyed = _Server(plain.pid, plain.port, plain.path, plain.headers, with_keys=True)
        servers = {"bare": bare, "plain": plain, "keyed": keyed}
        document = {
            "name": "held",
            "code": upload_script(client, "small_job.py"),
            "entrypoint": "small_job.py",
            "hold": True,
        }
        for server in servers.values():
            _ask(server, document, seconds=0.5)
        for _ in range(bench.count(7, 2)):
            for name, server in servers.items():
                wait_for_quiet()
                rounds[name].append(_ask(server, document, seconds=seconds))
            bench.say(", ".join(f"{name} {rounds[name][-1].per_s:,.0f}/s" for name in servers))
    base = Series(tuple(each.per_s for each in rounds["bare"]))
    return [
        Figure(
            name=f"submits, {_CLIENTS} clients{text}",
            unit="/s",
            values=Series(tuple(each.per_s for each in rounds[name])),
            baseline=base,
            baseline_name="bare route",
            target=_TARGET,
            details={"service": _explain(rounds[name]), "bare_route": _explain(rounds["bare"])},
        )
        for name, text in (("plain", ""), ("keyed", ", with idempotency keys"))
    ]


def _ask(server: _Server, document: Mapping[str, Any], *, seconds: float) -> _Round:
    orders = {
        "port": server.port,
        "path": server.path,
        "headers": server.headers,
        "with_keys": server.with_keys,
        "document": document,
        "seconds": seconds,
    }
    clients = [
        subprocess.Popen(
            [sys.executable, "-I", "-S", str(SCRIPTS / "poster.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(_CLIENTS)
    ]
    try:
        answers = _direct(clients, orders, server.pid)
    finally:
        for client in clients:
            client.kill()
            client.wait()
    return answers


def _direct(
    clients: Sequence[subprocess.Popen[str]], orders: Mapping[str, Any], server_pid: int
) -> _Round:
    for client in clients:
        _tell(client, json.dumps(orders))
    for client in clients:
        _hear(client)
    cpu_before_s = cpu_s(server_pid)
    start_at = time.time() + _AHEAD_S
    for client in clients:
        _tell(client, repr(start_at))
    results = [json.loads(_hear(client)) for client in clients]
    spent_s = cpu_s(server_pid) - cpu_before_s
    latencies_s = sorted(one for result in results for one in result["latencies_s"])
    took_s = max(result["ended_at"] for result in results) - start_at
    return _Round(
        per_s=len(latencies_s) / took_s,
        latency_p50_s=statistics.median(latencies_s),
        latency_p95_s=latencies_s[int(0.95 * len(latencies_s))],
        server_cpu_s_each=spent_s / len(latencies_s),
    )


def _tell(client: subprocess.Popen[str], line: str) -> None:
    assert client.stdin is not None
    client.stdin.write(f"{line}\n")
    client.stdin.flush()


def _hear(client: subprocess.Popen[str]) -> str:
    assert client.stdout is not None
    line = client.stdout.readline()
    if not line:
        raise RuntimeError("a client ended early: its reason is above")
    return line


@contextlib.contextmanager
def _bare(folder: Path) -> Iterator[_Server]:
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.bare_server", str(folder / "bare.db"), str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError("the bare server did not start: its reason is above")
            yield _Server(process.pid, port, "/documents", {})
        finally:
            process.terminate()


def _explain(rounds: Sequence[_Round]) -> dict[str, float]:
    return {
        "latency_p50_ms": round(1e3 * statistics.median(r.latency_p50_s for r in rounds), 2),
        "latency_p95_ms": round(1e3 * statistics.median(r.latency_p95_s for r in rounds), 2),
        "server_cpu_ms_each": round(
            1e3 * statistics.median(r.server_cpu_s_each for r in rounds), 3
        ),
    }
