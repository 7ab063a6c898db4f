"""Claims about how ranks find each other; each function is one test."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import torch
from torch.distributed import TCPStore

from trainmaster._job_errors import RunError
from trainmaster.run import Run
from trainmaster.train import store
from trainmaster.train.outer.joining import join_outer
from trainmaster.train.outer.link import Wires
from trainmaster.train.outer.rendezvous import Surroundings, meet
from trainmaster.train.outer.serve import Settings, start_server
from trainmaster.train.world import World

HOST = "127.0.0.1"
LIMIT_S = 30.0


def free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])


def refusal(action: Callable[[], object]) -> str:
    try:
        action()
    except RunError as error:
        return str(error)
    return ""


def fork(action: Callable[[], bool]) -> int:
    """Run something in a process of its own that exits with 0 if it is true."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if action() else 1
        finally:
            os._exit(code)
    return pid


def exit_code(pid: int) -> int | None:
    """Return how a process ended; None, and kill it, if it did not in time."""
    deadline_s = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline_s:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def claim_who_finds_no_store_is_told_where_it_looked_and_what_to_do() -> None:
    store.MEET_TIMEOUT_S = 0.5
    port = free_port()

    said = refusal(lambda: meet(Surroundings(1, HOST, port, True, "1/0"), 1, 2))

    assert f"rank 1 finds no store at {HOST}:{port}" in said, said
    assert "MASTER_ADDR and MASTER_PORT" in said, said


def claim_a_server_that_never_comes_is_named_with_the_rank_that_starts_it() -> None:
    store.MEET_TIMEOUT_S = 0.5
    kept = TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
    here = Surroundings(1, HOST, kept.port, True, "1/0", token="00" * 32)
    store.open_store(HOST, kept.port, 0, "trainmaster/outer/1/0").set("token", "given")

    said = refusal(lambda: meet(here, 1, 2))

    assert "rank 0 has not said where server 0 listens" in said, said
    assert "its log tells why" in said, said


def claim_the_store_is_where_the_others_look_for_it_and_nowhere_else() -> None:
    for address, other in (("127.0.0.1", "127.0.0.2"), ("127.0.1.1", HOST), ("::1", HOST)):
        port = free_port()
        ranks = [Surroundings(rank, address, port, False, "1/0", "00" * 32) for rank in (0, 1)]

        meetings = [meet(each, 1, 2) for each in ranks]

        assert meetings[0].addresses == meetings[1].addresses
        with socket.socket() as stranger:
            assert stranger.connect_ex((other, port)) != 0, (address, other)
        links = [Wires(meetings[rank].addresses, bytes(32), rank, 0) for rank in (0, 1)]
        for link in links:
            link.close()


def claim_a_store_is_found_behind_an_address_that_is_not_the_machines_own() -> None:
    port = free_port()
    translated = "192.0.2.1"  # of those that documentation has for itself

    server = start_server(Settings(0, 1, "00" * 32, HOST, (translated, port), 5.0))

    with socket.create_connection((HOST, port), timeout=LIMIT_S):
        Wires([(HOST, server)], bytes(32), 0, 0).close()


def claim_a_mode_that_is_none_is_refused_with_those_that_are() -> None:
    said = refusal(lambda: join_outer({"sync": {"mode": "fast"}}, {}, replica=0, num_replicas=1))

    assert "'fast' is none of local_sgd, diloco, parameter_server: name one" in said, said


def claim_ranks_that_start_again_do_not_take_the_dead_for_their_peers() -> None:
    port = free_port()
    timeout = timedelta(seconds=LIMIT_S)

    def keep() -> bool:
        kept = TCPStore(HOST, port, is_master=True, wait_for_workers=False, timeout=timeout)
        signal.pause()
        return kept is not None

    def live(rank: int, restart: int) -> bool:
        places = {
            "RANK": str(rank),
            "WORLD_SIZE": "4",
            "MASTER_ADDR": HOST,
            "MASTER_PORT": str(port),
            "TORCHELASTIC_RESTART_COUNT": str(restart),
        }
        world = World(Run({}, places), "cpu", members=(rank, 2), name="0")
        return world.sum(torch.ones(1)).item() == 2.0  # without goodbye, as if killed

    keeper = fork(keep)
    try:
        first = [fork(partial(live, rank, 0)) for rank in (0, 1)]
        assert [exit_code(pid) for pid in first] == [0, 0]

        early = fork(partial(live, 1, 1))  # asks for its peer's address before that has said it
        time.sleep(1.0)
        second = [fork(partial(live, 0, 1)), early]

        assert [exit_code(pid) for pid in second] == [0, 0]
    finally:
        os.kill(keeper, signal.SIGKILL)
        os.waitpid(keeper, 0)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
