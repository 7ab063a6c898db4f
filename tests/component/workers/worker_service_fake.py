"""A service that speaks the worker protocol and nothing else, strictly, and remembers everything.

It can be away (503, or nobody listening), and it can carry a call out and lose its answer.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

ADMIN_KEY = "tml-admin"
JSON_LIMIT_BYTES = 1024 * 1024


class Problem(Exception):
    """An answer that is not a success."""

    def __init__(self, status: int, code: str, **members: Any) -> None:
        super().__init__(code)
        self.status, self.code, self.members = status, code, members


@dataclass
class Attempt:
    """What the service knows of one attempt."""

    attempt_id: str
    document: dict[str, Any]
    token: str
    epoch: int = 1
    is_wanted: bool = True
    ended: bool = False
    wanted: dict[str, Any] = field(
        default_factory=lambda: {"action": "run", "reason": None, "grace_seconds": 30, "serial": 0}
    )
    logs: dict[tuple[int, str], bytearray] = field(default_factory=dict)
    high_water: dict[str, int] = field(default_factory=dict)
    points: dict[tuple[str, str], list[tuple[int, float, Any]]] = field(default_factory=dict)
    checkpoints: dict[str, dict[str, Any]] = field(default_factory=dict)
    leases: list[dict[str, Any]] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    exit: dict[str, Any] | None = None
    exit_count: int = 0

    def text(self, rank: int, stream: str) -> str:
        return bytes(self.logs.get((rank, stream), b"")).decode()


class FakeService:
    """Start with `start`, look at `attempts`, `calls`, `beats`; stop with `stop`."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.attempts: dict[str, Attempt] = {}
        self.files: dict[str, bytes] = {}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.beats: list[dict[str, Any]] = []
        self.ended: list[dict[str, Any]] = []
        self.calls: list[tuple[str, str, int]] = []
        self.problems: list[str] = []
        self.is_away = False
        self.lose_answer: Callable[[str, str], bool] = lambda _method, _path: False
        self.token_serial = 0
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        service = self

        class Handler(_Handler):
            fake = service

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Close the door; connections under way end, too."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        with self.changed:
            self.changed.notify_all()

    def add_file(self, name: str, content: bytes) -> dict[str, Any]:
        self.files[name] = content
        return {
            "url": f"/v1/attempts/ANY/files/{name}",
            "size_bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "filename": name,
        }

    def add_attempt(self, attempt_id: str, document: dict[str, Any]) -> Attempt:
        attempt = Attempt(attempt_id, document, self._new_token())
        text = json.dumps(document).replace("/v1/attempts/ANY/", f"/v1/attempts/{attempt_id}/")
        attempt.document = json.loads(text)
        with self.changed:
            self.attempts[attempt_id] = attempt
            self.changed.notify_all()
        return attempt

    def want(self, attempt_id: str, **changes: Any) -> None:
        """Change what is wanted of an attempt."""
        with self.changed:
            attempt = self.attempts[attempt_id]
            attempt.wanted = {**attempt.wanted, **changes}
            self.changed.notify_all()

    def wait_until(self, predicate: Callable[[], Any], limit_s: float = 30.0) -> Any:
        deadline = time.monotonic() + limit_s
        with self.changed:
            while not (value := predicate()):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"not within {limit_s} s; calls: {self.calls[-20:]}")
                self.changed.wait(min(left, 0.05))
            return value

    def wait_for_exit(self, attempt_id: str, limit_s: float = 30.0) -> dict[str, Any]:
        exit_record = self.wait_until(lambda: self.attempts[attempt_id].exit, limit_s)
        assert isinstance(exit_record, dict)
        return exit_record

    def count_calls(self, pattern: str) -> int:
        return sum(1 for method, path, _ in self.calls if re.search(pattern, f"{method} {path}"))

    def _new_token(self) -> str:
        self.token_serial += 1
        return f"tma-{self.token_serial}"

    # --- Routes ----------------------------------------------------------------------------

    def route(self, method: str, target: str, token: str, body: bytes) -> tuple[int, Any]:
        parts = urlsplit(target)
        path = [unquote(part) for part in parts.path.split("/")[1:]]
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if path[:2] == ["v1", "nodes"]:
            return self._route_node(method, path[2:], query, token, body)
        if path[:2] == ["v1", "attempts"] and len(path) > 3:
            return self._route_attempt(method, path[2], path[3:], query, token, body)
        raise Problem(404, "not_found")

    def _route_node(
        self, method: str, path: list[str], query: dict[str, str], token: str, body: bytes
    ) -> tuple[int, Any]:
        if method == "POST" and not path:
            if token != ADMIN_KEY:
                raise Problem(401, "unauthorized")
            document = read_json(body, {"name", "pool"})
            with self.changed:
                known = [one for one in self.nodes.values() if one["name"] == document["name"]]
                node = known[0] if known else {"id": f"node_{len(self.nodes) + 1}", **document}
                node["credential"] = f"tmn-{node['id']}-{time.monotonic_ns()}"
                self.nodes[node["id"]] = node
            return (200 if known else 201), node
        if method == "POST" and len(path) == 2 and path[1] == "heartbeat":
            node = self.nodes.get(path[0], {})
            if token != node.get("credential"):
                raise Problem(401, "unauthorized")
            return 200, self._beat(read_json(body, BEAT), float(query.get("wait", "0")))
        raise Problem(404, "not_found")

    def _beat(self, beat: dict[str, Any], wait_s: float) -> dict[str, Any]:
        for one in beat["supervisors"]:
            expect(set(one) == {"attempt_id", "epoch"}, "supervisors")
        deadline = time.monotonic() + wait_s
        with self.changed:
            self.beats.append(beat)
            for one in beat["ended"]:
                expect(set(one) == {"attempt_id", "epoch", "reason", "message"}, "ended")
                self.ended.append(one)
                if one["attempt_id"] in self.attempts:
                    self.attempts[one["attempt_id"]].ended = True
            while True:
                answer = self._answer_beat(beat)
                left = deadline - time.monotonic()
                if answer["assignments"] or answer["stops"] or left <= 0 or not self._server:
                    return answer
                self.changed.wait(left)

    def _answer_beat(self, beat: dict[str, Any]) -> dict[str, Any]:
        alive = {one["attempt_id"] for one in beat["supervisors"]}
        assignments, stops = [], []
        for attempt in self.attempts.values():
            if attempt.ended or not attempt.is_wanted:
                continue
            if attempt.attempt_id not in alive:
                assignments.append(
                    {
                        "attempt_id": attempt.attempt_id,
                        "epoch": attempt.epoch,
                        "token": attempt.token,
                    }
                )
            elif attempt.wanted["action"] == "stop":
                stops.append(
                    {
                        "attempt_id": attempt.attempt_id,
                        "epoch": attempt.epoch,
                        "reason": attempt.wanted["reason"],
                        "grace_seconds": attempt.wanted["grace_seconds"],
                    }
                )
        for one in beat["supervisors"]:
            known = self.attempts.get(one["attempt_id"])
            if known is None or known.ended or known.epoch != one["epoch"]:
                stops.append({**one, "reason": "Stale", "grace_seconds": 0})
        return {"assignments": assignments, "stops": stops, "interval_seconds": 5}

    def _route_attempt(
        self, method: str, attempt_id: str, path: list[str], query: dict[str, str],
        token: str, body: bytes,
    ) -> tuple[int, Any]:  # fmt: skip
        attempt = self.attempts.get(attempt_id)
        if attempt is None or token != attempt.token:
            raise Problem(401, "unauthorized")
        if attempt.ended and path != ["exit"]:
            raise Problem(409, "stale_attempt")
        with self.changed:
            try:
                return self._act(method, attempt, path, query, body)
            finally:
                self.changed.notify_all()

    def _act(
        self, method: str, attempt: Attempt, path: list[str], query: dict[str, str], body: bytes
    ) -> tuple[int, Any]:
        match [method, *path]:
            case ["GET", "assignment"]:
                return 200, attempt.document
            case ["GET", "files", name]:
                return 200, self.files[name]
            case ["POST", "lease"]:
                return 200, self._renew(attempt, read_json(body, LEASE))
            case ["PUT", "logs", rank, stream]:
                return self._append(attempt, (int(rank), stream), int(query["offset"]), body)
            case ["POST", "metrics"]:
                return self._add_points(attempt, read_json(body, METRICS))
            case ["POST", "checkpoints"]:
                return 200, self._declare(attempt, read_json(body, CHECKPOINT))
            case ["PUT", "checkpoints", checkpoint_id, "files", *name]:
                return self._receive(attempt, checkpoint_id, "/".join(name), body)
            case ["POST", "checkpoints", checkpoint_id, "commit"]:
                checkpoint = self._find_checkpoint(attempt, checkpoint_id)
                expect(not missing_files(checkpoint), "files are missing")
                checkpoint["state"] = "committed"
                return 200, {"id": checkpoint_id}
            case ["POST", "reports"]:
                return 200, self._keep_report(attempt, read_json(body, REPORT))
        expect((method, path) == ("POST", ["exit"]), "route")
        return 200, self._end(attempt, read_json(body, EXIT))

    def _renew(self, attempt: Attempt, lease: dict[str, Any]) -> dict[str, Any]:
        phases = {"staging", "starting", "running", "stopping", "finalizing"}
        expect(lease["phase"] in phases, "phase")
        for rank in lease["ranks"]:
            expect({"rank", "pid", "state"} <= set(rank) <= RANK, "ranks")
            expect(rank["state"] in {"starting", "running", "exited"}, "state")
        attempt.leases.append({**lease, "at": time.monotonic()})
        return {
            "lease_seconds": 60,
            "token": attempt.token,
            "wanted": attempt.wanted,
            "rendezvous": lease["rendezvous"],
        }

    def _append(
        self, attempt: Attempt, key: tuple[int, str], offset: int, body: bytes
    ) -> tuple[int, Any]:
        expect(len(body) <= 1024 * 1024, "too large")
        log = attempt.logs.setdefault(key, bytearray())
        if offset != len(log):
            raise Problem(409, "offset_mismatch", length=len(log))
        log += body
        return 200, {"length": len(log)}

    def _add_points(self, attempt: Attempt, batch: dict[str, Any]) -> tuple[int, Any]:
        stream, first, count = batch["stream"], batch["sequence"], batch["count"]
        high = attempt.high_water.get(stream, 0)
        if first + count <= high:
            return 200, {"high_water": high}
        if first != high:
            raise Problem(409, "sequence_mismatch", high_water=high)
        total = 0
        for key, column in batch["columns"].items():
            expect(set(column) == {"steps", "times", "values"}, "column")
            expect(len({len(values) for values in column.values()}) == 1, "uneven column")
            expect("/bad" not in key, "bad key")
            total += len(column["steps"])
        expect(total <= 10_000, "too many points")
        for key, column in batch["columns"].items():
            points = attempt.points.setdefault((stream, key), [])
            points.extend(zip(column["steps"], column["times"], column["values"], strict=True))
        attempt.high_water[stream] = first + count
        return 200, {"high_water": first + count}

    def _keep_report(self, attempt: Attempt, report: dict[str, Any]) -> dict[str, Any]:
        expect(report["sequence"] <= len(attempt.reports), "sequence")
        if report["sequence"] == len(attempt.reports):
            attempt.reports.append(report)
        return {"accepted": True}

    def _declare(self, attempt: Attempt, document: dict[str, Any]) -> dict[str, Any]:
        expect(bool(re.fullmatch(r"ready-\d{12}-[0-9a-f]{8}", document["name"])), "name")
        for checkpoint in attempt.checkpoints.values():
            if checkpoint["name"] == document["name"]:
                break
        else:
            checkpoint = {
                "id": f"ckpt_{len(attempt.checkpoints) + 1}",
                "state": "uploading",
                "received": {},
                **document,
            }
            attempt.checkpoints[checkpoint["id"]] = checkpoint
        prefix = f"/v1/attempts/{attempt.attempt_id}/checkpoints/{checkpoint['id']}/files/"
        return {
            "checkpoint_id": checkpoint["id"],
            "state": checkpoint["state"],
            "uploads": [{"path": name, "url": prefix + name} for name in missing_files(checkpoint)],
        }

    def _receive(
        self, attempt: Attempt, checkpoint_id: str, name: str, body: bytes
    ) -> tuple[int, Any]:
        checkpoint = self._find_checkpoint(attempt, checkpoint_id)
        wanted = next(file for file in checkpoint["files"] if file["path"] == name)
        expect(len(body) == wanted["size_bytes"], "size")
        expect(hashlib.sha256(body).hexdigest() == wanted["sha256"], "hash")
        checkpoint["received"][name] = body
        return 204, None

    def _find_checkpoint(self, attempt: Attempt, checkpoint_id: str) -> dict[str, Any]:
        if checkpoint_id not in attempt.checkpoints:
            raise Problem(404, "not_found")
        return attempt.checkpoints[checkpoint_id]

    def _end(self, attempt: Attempt, record: dict[str, Any]) -> dict[str, Any]:
        expect(record["outcome"] in {"succeeded", "failed", "stopped", "lost"}, "outcome")
        for rank in record["ranks"]:
            expect(set(rank) == {"rank", "code", "signal", "class", "last_step"}, "ranks")
            expect(rank["class"] in {"ok", "user", "infra", "stopped"}, "class")
        if attempt.exit is not None and attempt.exit != record:
            raise Problem(409, "stale_attempt")
        if attempt.ended and attempt.exit is None:
            raise Problem(409, "stale_attempt")
        attempt.exit, attempt.ended = record, True
        attempt.exit_count += 1
        return {"accepted": True, "job_state": "succeeded"}


BEAT = {"boot_id", "version", "address", "capacity", "supervisors", "ended", "health"}
RANK = {
    "rank", "pid", "state", "step", "phase", "times", "memory_peak_bytes", "gpu_memory_peak_bytes",
}  # fmt: skip
LEASE = {"phase", "message", "progress", "ranks", "rendezvous"}
METRICS = {"stream", "sequence", "count", "columns"}
CHECKPOINT = {"name", "step", "metrics", "files"}
REPORT = {"sequence", "kind", "message", "data"}
EXIT = {"outcome", "reason", "message", "ranks"}


def missing_files(checkpoint: dict[str, Any]) -> list[str]:
    return [
        file["path"] for file in checkpoint["files"] if file["path"] not in checkpoint["received"]
    ]


def expect(is_true: bool, what: str) -> None:
    if not is_true:
        raise Problem(422, "invalid", detail=what)


def read_json(body: bytes, members: set[str]) -> dict[str, Any]:
    expect(len(body) <= JSON_LIMIT_BYTES, "too large")

    def refuse(constant: str) -> None:
        raise Problem(400, "invalid", detail=constant)

    document = json.loads(body, parse_constant=refuse)
    expect(set(document) == members, f"members {sorted(document)}")
    assert isinstance(document, dict)
    return document


class _Handler(BaseHTTPRequestHandler):
    fake: FakeService
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_GET  # noqa: N815  the base class names them
    do_PUT = do_GET  # noqa: N815  as above

    def _serve(self) -> None:
        fake = self.fake
        size_bytes = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size_bytes)
        if len(body) < size_bytes:
            self.close_connection = True  # the caller died while it spoke
            return
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        path = urlsplit(self.path).path
        if fake.is_away or fake._server is None:
            self._answer(503, {"code": "away"}, retry_after="0")
            return
        status, value = self._decide(token, body)
        fake.calls.append((self.command, path, status))
        if status >= 400 and status not in (401, 409):
            fake.problems.append(f"{self.command} {self.path}: {status} {value}")
        if fake.lose_answer(self.command, path):
            self.close_connection = True
            self.connection.close()
            return
        self._answer(status, value)

    def _decide(self, token: str, body: bytes) -> tuple[int, Any]:
        try:
            return self.fake.route(self.command, self.path, token, body)
        except Problem as problem:
            return problem.status, {
                "type": "about:blank", "title": problem.code, "status": problem.status,
                "code": problem.code, "detail": problem.code, **problem.members,
            }  # fmt: skip
        except Exception as error:  # noqa: BLE001  seen by the test through `problems`
            return 500, {"code": "broken", "detail": repr(error)}

    def _answer(self, status: int, value: Any, retry_after: str | None = None) -> None:
        raw = value if isinstance(value, bytes) else b"" if value is None else encode(value)
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(raw)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def fingerprint(data: bytes) -> str:
    """Return a short text that differs for different bytes."""
    return base64.b32encode(hashlib.sha256(data).digest()[:10]).decode()
