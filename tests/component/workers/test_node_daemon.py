"""The daemon itself: one per folder, registered, adopted by what it finds."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path

from tests.component.workers.node_harness import Node, assignment, bundle, wait_until
from tests.component.workers.worker_service_fake import FakeService


def test_only_one_daemon_uses_a_folder(any_node: Node) -> None:
    second = any_node.launch()

    assert second.wait(15) == 75
    log = (any_node.folder.parent / "daemon.log").read_text()
    assert "another daemon uses" in log


def test_without_credential_and_key_it_says_so_and_ends(
    idle_node: Node, service: FakeService
) -> None:
    idle_node.key = None

    assert idle_node.launch().wait(15) == 78
    assert "start it with an admin key" in (idle_node.folder.parent / "daemon.log").read_text()


def test_a_wrong_key_is_an_error_not_a_loop(idle_node: Node, service: FakeService) -> None:
    idle_node.key = "tml-wrong"

    assert idle_node.launch().wait(15) == 78


def test_it_registers_once_and_keeps_its_credential(any_node: Node, service: FakeService) -> None:
    path = any_node.folder / "credential.json"
    credential = json.loads(path.read_text())
    any_node.stop()
    any_node.key = None

    any_node.start()

    assert json.loads(path.read_text()) == credential
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert service.count_calls("POST /v1/nodes$") == 1
    assert credential["node_id"] == "node_1"


def test_it_registers_again_when_its_credential_has_died(
    any_node: Node, service: FakeService
) -> None:
    service.nodes["node_1"]["credential"] = "another"

    service.wait_until(lambda: service.count_calls("POST /v1/nodes$") == 2)

    beats = len(service.beats)
    service.wait_until(lambda: len(service.beats) > beats)


def test_it_tells_what_the_machine_has(any_node: Node, service: FakeService) -> None:
    beat = service.beats[0]

    assert beat["capacity"]["cpu_milli"] > 0
    assert beat["capacity"]["memory_mib"] > 0
    assert beat["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert (beat["supervisors"], beat["ended"]) == ([], [])


def test_a_stop_that_takes_its_time_makes_no_storm_of_heartbeats(
    any_node: Node, service: FakeService
) -> None:
    script = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(100)
"""
    attempt = service.add_attempt("att_1", assignment(service, bundle(train=script)))
    service.wait_until(lambda: "ready" in attempt.text(0, "stdout"))
    beats = len(service.beats)

    service.want("att_1", action="stop", reason="CancelRequested", grace_seconds=3)

    service.wait_for_exit("att_1")
    assert len(service.beats) - beats < 25


def test_when_the_daemon_is_gone_its_fork_servers_leave(
    idle_node: Node, service: FakeService
) -> None:
    idle_node.options = ["--orphan", "1"]
    idle_node.start()
    assert len(idle_node.list_fork_servers()) == 2

    idle_node.kill()

    wait_until(lambda: not idle_node.list_fork_servers(), limit_s=10)


def test_when_the_daemon_is_told_to_end_its_fork_servers_leave_at_once(
    any_node: Node,
) -> None:
    any_node.stop()

    wait_until(lambda: not any_node.list_fork_servers(), limit_s=4)


def test_an_idle_node_costs_next_to_nothing(any_node: Node, service: FakeService) -> None:
    def cpu_s() -> float:
        ticks = 0
        for pid in any_node.list_processes():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / 100

    service.add_attempt("att_1", assignment(service, bundle(train="print('ran')")))
    service.wait_for_exit("att_1")
    wait_until(any_node.is_quiet)
    before, started_at = cpu_s(), time.monotonic()

    beats = len(service.beats)
    service.wait_until(lambda: len(service.beats) >= beats + 4)

    assert (cpu_s() - before) / (time.monotonic() - started_at) < 0.03


def test_folders_of_failed_runs_are_kept_up_to_a_number(
    idle_node: Node, service: FakeService
) -> None:
    idle_node.options = ["--keep-failed", "1"]
    idle_node.start()
    code = bundle(train="raise ValueError")
    for number in (1, 2):
        service.add_attempt(f"att_{number}", assignment(service, code))
        service.wait_for_exit(f"att_{number}")
        wait_until(idle_node.is_quiet)

    kept = [path.name.partition("-")[2] for path in (idle_node.folder / "kept").iterdir()]

    assert kept == ["att_2"]
