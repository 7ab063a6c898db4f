"""A service of a few lines, over real sockets, that fails on demand.

It answers as docs/openapi.json says and keeps everything in memory. A `Fault` spoils the next
request that it matches: after its effect (`drop`), instead of it (`status`), or within its body.
"""

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

KEY = "tml-test-key"
TERMINAL = {"succeeded", "failed", "cancelled"}
WORKERZ = {"pointer": "/workerz", "code": "unknown", "message": "did you mean workers?"}


@dataclass
class Fault:
    """Spoils `count` requests whose method and path begin with these.

    drop: do it, then hang up instead of answering. status: answer this, do nothing. cut_after:
    send so many bytes of the body, then hang up. flip: change the byte at this offset of the body.
    location: answer 307 to there.
    """

    method: str
    path: str
    drop: bool = False
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    flip: int | None = None
    location: str | None = None
    count: int = 1


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class FakeService:
    """Start with `with FakeService() as service`; its state may be changed at any time."""

    def __init__(self, *, require_key: bool = True) -> None:
        self.require_key = require_key
        self.jobs: dict[str, dict[str, Any]] = {}
        self.changes: dict[str, list[dict[str, Any]]] = {}
        """What becomes of a job with each long poll, one after the other."""
        self.streams: dict[str, list[tuple[str, str, Any]]] = {}
        """By path: id, event and data of each server-sent event."""
        self.lists: dict[str, list[dict[str, Any]]] = {}
        self.documents: dict[str, Any] = {}
        self.contents: dict[str, bytes] = {}
        self.replies_of_keys: dict[str, tuple[int, dict[str, Any]]] = {}
        self.verdict: dict[str, Any] = {"verdict": "exact", "reason": "SameFiles"}
        """What becomes of verifications."""
        self.export_ends: dict[str, Any] = {"state": "succeeded"}
        """What becomes of jobs that export."""
        self.foreseen: dict[str, Any] | None = None
        """What the ranks of a simulated job send."""
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.service = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "FakeService":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add_job(self, state: str = "queued", **fields: Any) -> str:
        """Add a job and return its id."""
        job_id = f"job_{len(self.jobs) + 1:04d}"
        self.jobs[job_id] = {
            "id": job_id,
            "object": "job",
            "name": "digits",
            "project": "default",
            "state": state,
            "reason": None,
            "message": None,
            "state_changed_at": "2026-01-02T03:04:05.678Z",
            "terminal": state in TERMINAL,
            "conditions": [],
            "spec": {"recipe": "image-classifier", "workers": 1},
            "priority": 50,
            "progress": {"step": None, "total_steps": None},
            "attempt": None,
            "created_at": "2026-01-02T03:04:05Z",
            "started_at": None,
            "finished_at": None,
            "labels": {},
            "version": 1,
            **fields,
        }
        return job_id

    def explained(self, job_id: str | None, **fields: Any) -> dict[str, Any]:
        """Return an explanation of a job that waits."""
        return {
            "object": "explanation",
            "job_id": job_id,
            "project": "default",
            "state": "queued",
            "reason": "HigherPriorityAhead",
            "message": "3 jobs go first",
            "asked_at": "2026-01-02T03:00:00Z",
            "numbers": {"needed_gpus": 8},
            "ahead": {
                "own_job_ids": ["job_0009"],
                "num_own": 1,
                "own_gpu_hours": 2.0,
                "num_others": 2,
                "others_gpu_hours": 30.0,
            },
            "start": {
                "p10_at": "2026-01-02T03:30:00Z",
                "p50_at": "2026-01-02T04:00:00Z",
                "p90_at": "2026-01-02T06:00:00Z",
                "withheld": None,
                "latest_at": "2026-01-03T00:00:00Z",
            },
            "end": None,
            "options": [
                {
                    "change": {"workers": 4},
                    "start_at": "2026-01-02T03:00:00Z",
                    "sooner_seconds": 3600.0,
                },
                {
                    "change": {"queue": "side", "pool": "side"},
                    "start_at": "2026-01-02T03:30:00Z",
                    "sooner_seconds": None,
                },
                {
                    "change": {"limits": {"wall_seconds": 1800}},
                    "start_at": "2026-01-02T03:30:00Z",
                    "sooner_seconds": 1800.0,
                },
            ],
            "options_complete": True,
            "next": [{"text": "wait its turn", "command": None}],
            **fields,
        }

    def simulated(self, **fields: Any) -> dict[str, Any]:
        """Return what would become of a spec."""
        said = {**self.explained(None), "object": "simulation", "would_be_accepted": True}
        return {**said, "errors": [], "communication": self.foreseen, "spec": None, **fields}

    def change_job(self, job_id: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Change a job as a new version."""
        job = self.jobs[job_id]
        job |= changes
        job["terminal"] = job["state"] in TERMINAL
        job["version"] += 1
        return job

    def add_checkpoint(
        self, job_id: str, files: Mapping[str, bytes], *, step: int = 100, **fields: Any
    ) -> str:
        """Add a committed checkpoint and return its id."""
        listed = self.lists.setdefault(f"/v1/jobs/{job_id}/checkpoints", [])
        checkpoint_id = f"ckpt_{len(self.documents) + 1:04d}"
        document = {
            "id": checkpoint_id,
            "object": "checkpoint",
            "job_id": job_id,
            "attempt_id": "att_1",
            "attempt": 1,
            "step": step,
            "metrics": {"val/accuracy": 0.97},
            "state": "committed",
            "size_bytes": sum(map(len, files.values())),
            "files": [
                {"path": path, "size_bytes": len(data), "sha256": sha256(data)}
                for path, data in files.items()
            ],
            "pinned": False,
            "created_at": "2026-01-02T03:04:05Z",
            **fields,
        }
        if document["state"] == "committed":
            listed.insert(0, document)
        self.documents[f"/v1/checkpoints/{checkpoint_id}"] = document
        for path, data in files.items():
            self.contents[f"/v1/checkpoints/{checkpoint_id}/files/{path}"] = data
        return checkpoint_id

    def add_verification(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Add a verification that each long poll takes one step further."""
        verification_id = f"ver_{len(self.documents) + 1:04d}"
        document = {
            "id": verification_id,
            "object": "verification",
            "state": "reference",
            "verdict": None,
            "reason": None,
            "message": "",
            "reference_job_id": self.add_job(spec=spec),
            "interrupted_job_id": None,
            "interruption": None,
            "comparison": None,
            "spec": spec,
            "version": 1,
            "created_at": "2026-01-02T03:04:05Z",
        }
        self.documents[f"/v1/verifications/{verification_id}"] = document
        return document

    def carry_on(self, document: dict[str, Any]) -> None:
        """Take a verification one step further."""
        document["version"] += 1
        if document["state"] == "reference":
            document["interrupted_job_id"] = self.add_job(spec=document["spec"])
            document["interruption"] = {"save_at_step": 3, "kill_at_step": 5}
            document["state"] = "interrupted"
        elif document["state"] == "interrupted":
            document |= {"state": "finished", "message": "so it is", **self.verdict}

    def requests(self, method: str, path: str) -> list[Seen]:
        """Return what arrived for a path, oldest first."""
        return [each for each in self.seen if each.method == method and each.path == path]

    def take_fault(self, method: str, path: str) -> Fault | None:
        """Return the fault of a request and count it."""
        with self.lock:
            for fault in self.faults:
                if fault.count and fault.method == method and path.startswith(fault.path):
                    fault.count -= 1
                    return fault
        return None


def sha256(data: bytes) -> str:
    """Return the hash in hex."""
    return hashlib.sha256(data).hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    service: FakeService


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def setup(self) -> None:
        super().setup()
        assert isinstance(self.server, _Server)
        self.service = self.server.service

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        self.route = unquote(parts.path)
        self.query: dict[str, str] = {}
        for name, value in parse_qsl(parts.query):
            self.query[name] = f"{self.query[name]} {value}" if name in self.query else value
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        seen = Seen(self.command, self.route, self.query, dict(self.headers), body)
        self.service.seen.append(seen)
        self.fault = self.service.take_fault(self.command, self.route)
        if self.fault and self.fault.location:
            self._send(307, b"", {"Location": self.fault.location})
        elif self.fault and self.fault.status:
            self._problem(self.fault.status, "injected", headers=self.fault.headers)
        elif self.service.require_key and self.headers.get("Authorization") != f"Bearer {KEY}":
            self._problem(401, "unauthenticated", "a key is needed")
        else:
            getattr(self, f"_{self.command.lower()}")(seen)

    do_GET = do_POST = do_PATCH = do_DELETE = _handle  # noqa: N815  the names http.server calls

    def _get(self, seen: Seen) -> None:
        service = self.service
        if self.route in service.streams:
            self._stream(service.streams[self.route])
        elif self.route in service.contents:
            self._content(service.contents[self.route])
        elif self.route in service.documents:
            document = service.documents[self.route]
            if "wait" in seen.query and document.get("object") == "verification":
                service.carry_on(document)
            self._json(200, document)
        elif self.route in service.lists:
            self._page(service.lists[self.route])
        elif self.route == "/v1/jobs":
            self._page(list(service.jobs.values()))
        elif (job := service.jobs.get(self.route.removeprefix("/v1/jobs/"))) is not None:
            changes = service.changes.get(job["id"])
            if "wait" in seen.query and changes:
                service.change_job(job["id"], changes.pop(0))
            self._json(200, job, {"ETag": f'"{job["version"]}"'})
        else:
            self._problem(404, "not_found", "no such thing")

    def _post(self, seen: Seen) -> None:
        service = self.service
        key = seen.headers.get("Idempotency-Key", "")
        with service.lock:
            if key in service.replies_of_keys:
                status, document = service.replies_of_keys[key]
            else:
                status, document = self._act(seen)
                service.replies_of_keys[key] = (status, document)
        if status >= 400:
            self._problem(status, document["code"], document["detail"], more=document)
        else:
            self._json(status, document, {"Location": f"/v1/jobs/{document.get('id')}"})

    def _act(self, seen: Seen) -> tuple[int, dict[str, Any]]:
        service = self.service
        if self.route == "/v1/files":
            file: dict[str, Any] = {"id": f"file_{len(service.contents) + 1}", **self.query}
            file |= {"size_bytes": len(seen.body), "sha256": sha256(seen.body)}
            service.contents[f"/v1/files/{file['id']}/content"] = seen.body
            return 201, file
        if self.route in {"/v1/jobs", "/v1/jobs/validate", "/v1/jobs/simulate"}:
            return self._take_spec(json.loads(seen.body))
        if self.route == "/v1/jobs/verify-resume":
            spec = json.loads(seen.body)
            if "workerz" in spec:
                return 422, {"code": "invalid_spec", "detail": "is wrong", "errors": [WORKERZ]}
            return 201, service.add_verification(spec)
        if self.route == "/v1/quotas":
            quotas = service.lists.setdefault(self.route, [])
            quotas.append({"id": f"quo_{len(quotas) + 1}", "version": 1, **json.loads(seen.body)})
            return 201, quotas[-1]
        if self.route.startswith("/v1/checkpoints/") and self.route.endswith("/export"):
            return self._export(self.route.split("/")[3], json.loads(seen.body))
        return self._act_on_job(seen)

    def _act_on_job(self, seen: Seen) -> tuple[int, dict[str, Any]]:
        service = self.service
        job_id, _, action = self.route.removeprefix("/v1/jobs/").partition("/")
        job = service.jobs.get(job_id)
        if job is None:
            return 404, {"code": "not_found", "detail": "no such job"}
        if action in {"fork", "rerun"}:
            body = json.loads(seen.body or b"{}")
            return 201, service.jobs[service.add_job(spec={**job["spec"], "forked": body})]
        if job["state"] == "succeeded":
            return 409, {"code": "illegal_transition", "detail": f"{job_id} is succeeded"}
        if action == "resize":
            asked = {"state": "stopping", "resizing_to": json.loads(seen.body)["workers"]}
            return 200, service.change_job(job_id, asked)
        states = {"cancel": "cancelled", "pause": "paused", "resume": "queued"}
        return 200, service.change_job(job_id, {"state": states[action]})

    def _export(self, checkpoint_id: str, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        service = self.service
        if f"/v1/checkpoints/{checkpoint_id}" not in service.documents:
            return 404, {"code": "not_found", "detail": "no such checkpoint"}
        job_id = service.add_job(spec={"recipe": "export", "config": request})
        service.changes[job_id] = [dict(service.export_ends)]
        for stream in ("logs", "metrics"):
            service.streams[f"/v1/jobs/{job_id}/{stream}/stream"] = [("", "end", {})]
        service.add_checkpoint(job_id, {"model.safetensors": b"exported"})
        return 201, service.jobs[job_id]

    def _take_spec(self, spec: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        service, call = self.service, self.route.rpartition("/")[2]
        errors = [WORKERZ] if "workerz" in spec else []
        if call == "simulate":
            return 200, service.simulated(
                would_be_accepted=not errors, errors=errors, spec=None if errors else spec
            )
        if call == "validate":
            return 200, {"valid": not errors, "errors": errors, "spec": None if errors else spec}
        if errors:
            return 422, {"code": "invalid_spec", "detail": "is wrong", "errors": errors}
        return 201, service.jobs[service.add_job(spec=spec, name=spec.get("name", "digits"))]

    def _find_quota(self) -> dict[str, Any] | None:
        quotas = self.service.lists.get("/v1/quotas", [])
        return next((each for each in quotas if self.route == f"/v1/quotas/{each['id']}"), None)

    def _patch(self, seen: Seen) -> None:
        quota = self._find_quota()
        if quota is not None:
            quota.update(json.loads(seen.body))
            self._json(200, quota)
            return
        job = self.service.jobs[self.route.removeprefix("/v1/jobs/")]
        tag = seen.headers.get("If-Match")
        if tag not in {None, "*", f'"{job["version"]}"'}:
            self._problem(412, "stale_version", "it changed since you read it")
            return
        job = self.service.change_job(job["id"], json.loads(seen.body))
        self._json(200, job, {"ETag": f'"{job["version"]}"'})

    def _delete(self, _: Seen) -> None:
        quota = self._find_quota()
        if quota is not None:
            self.service.lists["/v1/quotas"].remove(quota)
        self._send(204, b"", {})

    def _page(self, items: list[dict[str, Any]]) -> None:
        limit = int(self.query.get("limit", 20))
        start = int(self.query.get("after", 0))
        stop = start + limit
        has_more = stop < len(items)
        page = {"object": "list", "data": items[start:stop], "has_more": has_more}
        self._json(200, {**page, "next_cursor": str(stop) if has_more else None})

    def _content(self, data: bytes) -> None:
        start, status, headers = 0, 200, {"Accept-Ranges": "bytes"}
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            if start >= len(data):
                self._problem(416, "bad_range", "the range is outside of the file")
                return
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._send(status, data[start:], headers, content_type="application/octet-stream")

    def _stream(self, events: list[tuple[str, str, Any]]) -> None:
        last = int(self.headers.get("Last-Event-ID", 0))
        text = ": welcome\n\n"
        for event_id, name, data in events:
            if not event_id or int(event_id) > last:
                head = f"id: {event_id}\n" if event_id else ""
                text += f"{head}event: {name}\ndata: {json.dumps(data)}\n\n"
        body = text.encode()
        if self.fault and self.fault.cut_after is not None:
            body = body[: self.fault.cut_after]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def _problem(
        self,
        status: int,
        code: str,
        detail: str = "injected",
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        document = {"type": "about:blank", "title": code, "status": status, "code": code}
        body = json.dumps({**document, "detail": detail, **(more or {})}).encode()
        sent = {"X-Request-Id": "req_1", **(headers or {})}
        self._send(status, body, sent, content_type="application/problem+json")

    def _json(self, status: int, document: Any, headers: Mapping[str, str] | None = None) -> None:
        self._send(status, json.dumps(document).encode(), headers or {})

    def _send(
        self,
        status: int,
        body: bytes,
        headers: Mapping[str, str],
        content_type: str = "application/json",
    ) -> None:
        fault = self.fault
        if fault and fault.drop:
            self.close_connection = True
            return
        if fault and fault.flip is not None and fault.flip < len(body):
            flipped = bytes([body[fault.flip] ^ 1])
            body = body[: fault.flip] + flipped + body[fault.flip + 1 :]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault and fault.cut_after is not None:
            self.wfile.write(body[: fault.cut_after])
            self.close_connection = True
            return
        self.wfile.write(body)
