"""Claims about how a server is started beside a rank; each function is one test."""

import os
import sys
import time
from collections.abc import Callable

from trainmaster._job_errors import RunError
from trainmaster.train.outer import serve
from trainmaster.train.outer.serve import Settings, start_server

SETTINGS = Settings(3, 1, "00" * 32, "127.0.0.1", None, 5.0)


def refusal_of(server: Callable[..., None]) -> str:
    """Return what a rank is told whose server does this instead of serving."""
    assert serve._may_fork()
    serve.serve = server
    try:
        start_server(SETTINGS)
    except RunError as error:
        return str(error)
    return ""


def has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def claim_a_server_that_fails_at_once_says_why_and_is_not_left_behind() -> None:
    def fail(*_: object) -> None:
        raise ValueError("the moon is full")

    said = refusal_of(fail)

    assert "server 3 of the outer group did not start" in said, said
    assert "(ValueError: the moon is full)" in said, said
    assert "a free port on 127.0.0.1" in said, said
    assert not has_children()


def claim_a_server_that_dies_without_a_word_is_noticed() -> None:
    said = refusal_of(lambda *_: os._exit(9))

    assert "did not start (it ended without a word)" in said, said
    assert not has_children()


def claim_a_server_that_is_begun_anew_and_fails_says_why() -> None:
    serve._COMMAND = "raise SystemExit('the moon is full')"
    serve._may_fork = lambda: False
    said = ""

    try:
        start_server(SETTINGS)
    except RunError as error:
        said = str(error)

    assert "did not start (the moon is full)" in said, said


def claim_a_server_that_does_not_come_up_is_given_up() -> None:
    serve.START_TIMEOUT_S = 1.0

    said = refusal_of(lambda *_: time.sleep(3600))

    assert "did not start (not there within 1 s)" in said, said
    assert not has_children()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
