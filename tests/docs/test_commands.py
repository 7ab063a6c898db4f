"""Every command in the documentation is run: here, or by the test that its block names.

The blocks marked `run` of one page are run in order, in one shell, in an empty folder, with a
service of its own behind the address that the pages use.
"""

import ast
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.docs.pages import COMMAND_LANGUAGES, ROOT, Block, Step, list_pages, parse_blocks
from tests.docs.sessions import prints_as_shown, run_steps

DOCUMENTED_ADDRESS = "127.0.0.1:8700"
START_LIMIT_S = 60.0
PAGE_LIMIT_S = 180.0


def read_blocks(page: Path) -> list[Block]:
    """Return the blocks of a page, paths shown from the root of the repository."""
    return parse_blocks(page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8"))


BLOCKS = [block for page in list_pages() for block in read_blocks(page)]
COMMANDS = [block for block in BLOCKS if block.language in COMMAND_LANGUAGES]
RUN_PAGES = sorted({block.path for block in COMMANDS if block.is_run})


@pytest.mark.parametrize("page", list_pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_of_a_page_is_run_somewhere(page: Path) -> None:
    blocks = [block for block in read_blocks(page) if block.language in COMMAND_LANGUAGES]

    problems = [problem for block in blocks for problem in find_problems(block, ROOT)]

    assert not problems, "\n".join(problems)


@pytest.mark.torch
@pytest.mark.parametrize("path", RUN_PAGES)
def test_commands_print_what_the_page_shows(
    path: str, tmp_path: Path, service: Mapping[str, str]
) -> None:
    blocks = [block for block in COMMANDS if block.path == path and block.is_run]
    address = service["TRAINMASTER_BIND"]
    steps = [
        Step(
            step.command.replace(DOCUMENTED_ADDRESS, address),
            step.output.replace(DOCUMENTED_ADDRESS, address),
        )
        for block in blocks
        for step in block.steps
    ]

    outcomes = run_steps(steps, folder=tmp_path, environment=service, timeout_s=PAGE_LIMIT_S)

    assert all(outcome.is_as_shown for outcome in outcomes), "\n\n".join(map(str, outcomes))


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"])
def test_shown_python_is_python(block: Block) -> None:
    ast.parse(block.text, filename=f"{block.path}:{block.line}")


PAGE = """# A page

<!-- run -->
```console
$ echo one && \\
  echo two
one
two
$ x=3
$ echo job_01hq $x
job_7zz3 3
```

```bash
echo unmarked
```

<!-- tested in here.py::test_there -->

```console
$ make demo
```
"""


def test_blocks_are_read_with_their_markers_and_steps() -> None:
    blocks = parse_blocks("page.md", PAGE)

    assert [block.marker for block in blocks] == ["run", "", "tested in here.py::test_there"]
    assert [step.command for step in blocks[0].steps] == [
        "echo one && \\\n  echo two",
        "x=3",
        "echo job_01hq $x",
    ]
    assert blocks[0].steps[0].output == "one\ntwo\n"
    assert blocks[2].tested_in == ("here.py", "test_there")


def test_steps_share_one_shell_and_are_compared_up_to_ids(tmp_path: Path) -> None:
    steps = parse_blocks("page.md", PAGE)[0].steps

    outcomes = run_steps(steps, folder=tmp_path, environment=os.environ, timeout_s=20)

    assert all(outcome.is_as_shown for outcome in outcomes), "\n".join(map(str, outcomes))


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(Step("echo two", "one\n"), id="other output"),
        pytest.param(Step("false", ""), id="a failing command"),
        pytest.param(Step("exit 0", ""), id="a shell that leaves"),
    ],
)
def test_a_command_that_does_not_do_as_shown_is_noticed(tmp_path: Path, step: Step) -> None:
    [outcome] = run_steps([step], folder=tmp_path, environment=os.environ, timeout_s=20)

    assert not outcome.is_as_shown


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("job_01h  queued", "job_9zz    queued", True),
        ("job_01h queued", "att_9zz queued", False),
        ("accuracy 0.9722", "accuracy 0.9801", True),
        ("epochs 3", "epochs 4", False),
        ("first\n...\nlast", "first\n2\n3\nlast", True),
        ("first\n...\nlast", "first\nlast", True),
        ("first\n...\nlast", "firstlast", False),
        ("at 2026-01-02T03:04:05Z", "at 2027-11-12T13:14:15.161Z", True),
        ("", "anything", True),
    ],
)
def test_outputs_are_compared_by_what_they_say(shown: str, printed: str, same: bool) -> None:
    assert prints_as_shown(shown, printed) is same


def test_a_block_that_nobody_runs_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "here.py").write_text("def test_elsewhere(): pass")
    run, unmarked, misdirected = parse_blocks("page.md", PAGE)

    assert not find_problems(run, tmp_path)
    assert find_problems(unmarked, tmp_path)
    assert find_problems(misdirected, tmp_path)


def find_problems(block: Block, root: Path) -> list[str]:
    """Return why a block of commands is run by no test."""
    where = f"{block.path}:{block.line}"
    if block.is_run:
        return []
    if block.tested_in is None:
        return [f"{where}: put `<!-- run -->` or `<!-- tested in path::test -->` before the block"]
    path, name = block.tested_in
    file = root / path
    tests = ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if file.is_file() else ()
    if any(isinstance(node, ast.FunctionDef) and node.name == name for node in tests):
        return []
    return [f"{where}: {path} has no {name}"]


@pytest.fixture
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """A service with a node, in a home folder of its own; gives its environment. 2 s."""
    home = tmp_path_factory.mktemp("home")
    environment = {
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TRAINMASTER_BIND": f"127.0.0.1:{find_free_port()}",
        "TRAINMASTER_URL": "",
        "COLUMNS": "100",
    }
    environment["TRAINMASTER_URL"] = f"http://{environment['TRAINMASTER_BIND']}"
    log = home / "service.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-m", "api", "all"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            await_ready(process, environment["TRAINMASTER_URL"], log)
            yield environment
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


def await_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Return when the service says that it is ready; fail with its log when it is not in time."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail(f"the service does not become ready:\n{log.read_text(errors='replace')[-4000:]}")


def find_free_port() -> int:
    """Return a port of the loopback address that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
