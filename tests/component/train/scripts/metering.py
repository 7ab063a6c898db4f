"""Checks on the metrics of communication, by a clock that is turned by hand."""

import socket
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from trainmaster._communication import Prediction
from trainmaster.train.accounting.account import add_servers
from trainmaster.train.accounting.ledger import Ledger, Totals
from trainmaster.train.accounting.meter import SHARED_STEPS, Meter
from trainmaster.train.accounting.sockets import Connections


class Setting:
    """A meter of two ranks that reports every ten seconds, and all that it looks at."""

    def __init__(self) -> None:
        self.ledger, self.now_s = Ledger(), 0.0
        self.said: list[tuple[int, dict[str, float]]] = []
        self.totals: Callable[[], Totals] = self.ledger.totals
        self.meter = Meter(
            self._read,
            lambda step, values: self.said.append((step, dict(values))),
            num_ranks=2,
            clock=lambda: self.now_s,
            every_s=10.0,
        )

    def _read(self) -> Totals:
        return self.totals()  # which a check may have replaced

    def step(self, step: int, *, sent: float = 600.0, exposed_s: float = 0.5) -> None:
        self.ledger.add("gradients", "all_reduce", sent, sent)
        self.ledger.wait(exposed_s)
        self.now_s += 2.5
        self.meter.step(step, num_samples=8)


def it_speaks_once_in_a_while_of_the_steps_since() -> None:
    setting = Setting()
    setting.ledger.add("buffers", "broadcast", 1e9, 1e9)  # before the first step
    setting.meter.begin()
    for step in range(1, 9):
        setting.step(step)
    assert [step for step, _ in setting.said] == [4, 8]
    for _, values in setting.said:
        assert values["comm/bytes_logical_per_step"] == 600
        assert values["comm/bytes_logical_per_step/gradients"] == 600
        assert "comm/bytes_logical_per_step/buffers" not in values
        assert values["comm/bytes_per_sample"] == 2 * 600 / 8
        assert values["comm/exposed_seconds"] == 0.5
        assert values["comm/utilization"] == 1 - 0.5 / 2.5


def what_is_left_is_said_at_the_end_and_only_once() -> None:
    setting = Setting()
    setting.step(1)
    setting.meter.report(1)
    setting.meter.report(1)
    assert [step for step, _ in setting.said] == [1]


def it_says_how_wrong_the_prediction_was() -> None:
    setting = Setting()
    setting.meter.expect(Prediction({"gradients": 500.0}, ddp_bytes_per_step=2400.0))
    setting.ledger.add("other", "all_reduce", 100, 100)  # small talk, which nobody predicts
    setting.step(1)
    setting.meter.report(1)
    ((_, values),) = setting.said
    assert abs(values["comm/prediction_error"] - 0.2) < 1e-12
    assert values["comm/reduction_vs_ddp"] == 2400 / 600


def only_whole_rounds_are_compared_with_the_prediction() -> None:
    """Rounds of 600 bytes every three steps, reports every four."""
    setting = Setting()
    setting.meter.expect(Prediction({"gradients": 200.0}), round_steps=3)
    setting.meter.begin()
    for step in range(1, 15):
        setting.step(step, sent=600 if step % 3 == 0 else 0)
    setting.meter.report(14)
    errors = {step: values.get("comm/prediction_error") for step, values in setting.said}
    assert errors == {4: 0.0, 8: 0.0, 12: 0.0, 14: None}, errors


def what_could_not_be_predicted_has_no_error() -> None:
    setting = Setting()
    setting.meter.expect(Prediction({"gradients": 500.0}, 2400.0, missing=("the batch size",)))
    setting.step(1)
    setting.meter.report(1)
    assert "comm/prediction_error" not in setting.said[0][1]


def a_wait_is_for_bytes_or_for_the_slowest() -> None:
    ours, theirs = Setting(), Setting()
    for step, (own_s, other_s) in enumerate([(0.9, 0.1), (0.1, 0.5), (1.0, 0.2)], start=1):
        ours.step(step, exposed_s=own_s)
        theirs.step(step, exposed_s=other_s)
    largest = [max(pair) for pair in zip(ours.meter.offer(), theirs.meter.offer(), strict=True)]
    assert len(largest) == SHARED_STEPS
    ours.meter.take(largest)
    ours.meter.report(3)
    ((_, values),) = ours.said
    assert abs(values["sync/wait_transfer"] * 3 - 0.4) < 1e-5
    assert abs(values["sync/wait_straggler"] * 3 - 1.6) < 1e-5
    assert values["sync/wait_gate"] == 0


def without_having_asked_nobody_tells_the_causes_apart() -> None:
    setting = Setting()
    setting.step(1)
    setting.meter.report(1)
    assert not [name for name in setting.said[0][1] if name.startswith("sync/")]


def servers_are_part_of_it() -> None:
    counted: Any = SimpleNamespace(
        sent={"push": 400, "talk": 40},
        received={"push": 800, "talk": 40},
        transfer_s=0.5,
        straggler_s=0.25,
        gate_s=1.0,
        staleness={0: 90, 3: 9, 7: 1},
    )
    setting = Setting()
    setting.totals = lambda: add_servers(setting.ledger.totals(), counted, 4)
    setting.step(1, sent=0, exposed_s=0)
    setting.meter.report(1)
    ((_, values),) = setting.said
    assert values["comm/bytes_logical_per_step/outer"] == 900  # a quarter stays where it is
    assert values["comm/bytes_logical_per_step/other"] == 60
    assert values["sync/wait_transfer"] == 0.5
    assert values["sync/wait_straggler"] == 0.25
    assert values["sync/wait_gate"] == 1.0
    assert values["sync/staleness_mean"] == (27 + 7) / 100
    assert values["sync/staleness_p95"] == 3
    assert values["sync/staleness_max"] == 7


def the_kernel_counts_every_connection() -> None:
    connections = Connections()
    before = connections.read()
    assert before
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as one:
            other, _ = server.accept()
            with other:
                one.sendall(bytes(100_000))
                received = 0
                while received < 100_000:
                    received += len(other.recv(1 << 16))
                while_open = connections.read()
        after = connections.read()
    assert while_open
    assert after
    for wire in (while_open, after):  # what is closed is not forgotten
        assert 100_000 < wire.sent - before.sent < 110_000
        assert 100_000 < wire.received - before.received < 110_000


CHECKS: list[Callable[[], None]] = [
    value
    for value in list(globals().values())
    if callable(value)
    and getattr(value, "__module__", "") == __name__
    and "_" in getattr(value, "__name__", "")
]
for check in CHECKS:
    try:
        check()
        print("held", check.__name__, flush=True)
    except Exception:  # noqa: BLE001  the others are to run as well
        print("failed", check.__name__, flush=True)
        traceback.print_exc()
