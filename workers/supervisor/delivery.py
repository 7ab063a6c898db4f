"""Everything a run has to say to the service, carried there to the last byte; then its exit."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

from workers.supervisor.checkpoints import Committer, Uploader, list_committed, list_ready
from workers.supervisor.exits import clean_text
from workers.supervisor.files import find_json, is_disk_full, open_regular, write_json
from workers.supervisor.forwarder import Forwarder
from workers.supervisor.http import Refused
from workers.supervisor.layout import RunFolder
from workers.supervisor.link import GivenUp, Link, Stale
from workers.supervisor.logs import LogTail
from workers.supervisor.pulse import find_pulse
from workers.supervisor.reports import ReportTail
from workers.supervisor.spool import SpoolTail

Wait = Callable[[float], bool]

_LOOK_S = 1.0


class Delivery:
    """The logs, metrics and checkpoints of the ranks of one run."""

    def __init__(self, link: Link, run: RunFolder, ranks: Sequence[int]) -> None:
        self._run = run
        self._link = link
        self._ranks = list(ranks)
        self._spools = {rank: SpoolTail(run.spool / f"{rank}.jsonl", rank) for rank in ranks}
        logs = [
            LogTail(run.log(rank, stream), rank, stream)
            for rank in ranks
            for stream in ("stdout", "stderr")
        ]
        reports = ReportTail(run.reports)
        self._forwarder = Forwarder(link, [*logs, *self._spools.values(), reports])
        self._uploader = Uploader(link, self.tell_user)
        self.committer = Committer(run.checkpoints, self._uploader)
        self._is_started = False

    def start(self) -> None:
        """Begin to forward, and to upload what is ready already; once."""
        if self._is_started:
            return
        self._is_started = True
        self._forwarder.start()
        for ready in list_ready(self._run.checkpoints):
            self._uploader.add(ready)

    def tell_user(self, sentence: str) -> None:
        """Say something in the log of this node's first rank, where a user looks."""
        sys.stderr.write(f"{sentence}\n")
        if self._ranks:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            with contextlib.suppress(OSError):
                handle = open_regular(self._run.log(min(self._ranks), "stderr"), flags)
                with os.fdopen(handle, "ab", buffering=0) as log:
                    log.write(f"trainmaster: {sentence}\n".encode("utf-8", "backslashreplace"))

    def settle_exit(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return the exit to report after `finish`, now that all checkpoints are known.

        No success when one is lost for good, and the newest is named where the training went
        astray after it. It is written down again if it is another than before.
        """
        if record["outcome"] == "succeeded" and self._uploader.lost:
            message = clean_text(self._uploader.lost[0])
            record = {**record, "outcome": "failed", "reason": "UserCodeError", "message": message}
        elif record["reason"] == "NonFiniteLoss":
            kept = _name_newest(self._run)
            if kept in record["message"]:
                return record  # a salvage has it from the file
            record = {**record, "message": clean_text(f"{record['message']} {kept}")}
        else:
            return record
        write_exit(self._run, record)
        return record

    def find_last_steps(self) -> dict[int, Any]:
        """Return how far each rank is, by its metrics or its page; None where both are bare."""
        found: dict[int, Any] = {}
        for rank, spool in self._spools.items():
            pulse = find_pulse(self._run.pulse(rank))
            said = (spool.find_last_step(), None if pulse is None else pulse.step)
            found[rank] = max((step for step in said if step is not None), default=None)
        return found

    def finish(self, wait: Wait) -> None:
        """Deliver what is left, now that the ranks are gone.

        `wait(seconds)` is asked while it takes long and says True to give up.

        Raises:
            Stale: the service has disowned the attempt.
            GivenUp: something is left, for a salvage.
        """
        self.start()
        self.committer.finish()
        self._uploader.finish()
        while not self._uploader.join(_LOOK_S) and not wait(0.0):
            pass
        self._forwarder.finish()  # last: the uploader may have told the user something
        while not self._forwarder.join(_LOOK_S) and not wait(0.0):
            pass
        if self._forwarder.is_delivered and self._uploader.is_delivered:
            return
        self._forwarder.abandon()
        self._uploader.abandon()
        if self._link.is_stale.is_set():
            raise Stale("the service has disowned the attempt")
        raise GivenUp("the service was away for too long")


def _name_newest(run: RunFolder) -> str:
    """Say which checkpoint a training that went astray can go on from."""
    steps = [int(path.name.split("-")[1]) for path in list_committed(run.checkpoints)]
    resume = (find_json(run.run_file) or {}).get("resume")
    step = max(steps, default=resume["step"] if resume else None)
    if step is None:
        return "There is no checkpoint from before it."
    return f"The newest checkpoint, of step {step}, is from before it."


def write_exit(run: RunFolder, record: dict[str, Any]) -> None:
    """Write down what became of the run, before anybody is told; nothing runs any more.

    Where that cannot be, because the job has removed the folder or filled the disk, it is only
    told.
    """
    _try_to_write(run, {"record": record, "reported": False})


def mark_exit(run: RunFolder, **marks: Any) -> None:
    """Add to the exit record how telling it went."""
    _try_to_write(run, {**(find_json(run.exit_record) or {}), **marks})


def _try_to_write(run: RunFolder, value: dict[str, Any]) -> None:
    try:
        write_json(run.exit_record, value)
    except OSError as error:
        sys.stderr.write(f"the exit is not written down: {error}\n")
        if is_disk_full(error):
            # Only ranks needed these; without them there may be room.
            for folder in (run.tmp, run.code, run.restored):
                shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                write_json(run.exit_record, value)


def report_exit(link: Link, run: RunFolder, record: dict[str, Any], wait: Wait) -> bool:
    """Tell the service, until it answers or `wait` gives up; mark the record. True if it took it.

    Raises:
        Stale, GivenUp: as `Link`.
    """
    try:
        link.call_patiently("POST", "exit", record, wait=wait)
    except Refused as error:
        mark_exit(run, refused=str(error))
        return False
    mark_exit(run, reported=True)
    return True


def mark_stale(run: RunFolder, link: Link, error: Stale) -> None:
    """Note that the service has disowned the attempt, so that nobody salvages it in vain."""
    if link.is_unauthorized:
        mark_exit(run, unauthorized=str(error))
    else:
        mark_exit(run, stale=str(error))
