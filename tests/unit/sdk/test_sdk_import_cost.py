"""Importing the library costs nothing; help needs no HTTP library."""

import subprocess
import sys
from pathlib import Path

SDK = Path(__file__).resolve().parents[3] / "sdk" / "src"

LOADED = f"""
import sys
sys.path.insert(0, {str(SDK)!r})
before = set(sys.modules)
{{statement}}
print(*sorted(name.partition(".")[0] for name in set(sys.modules) - before))
"""


def modules_after(statement: str, *flags: str) -> set[str]:
    """Return the top-level names that a statement loads in a fresh interpreter."""
    script = LOADED.format(statement=statement)
    done = subprocess.run(
        [sys.executable, *flags, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_package_loads_nothing_but_itself_and_the_standard_library() -> None:
    loaded = modules_after("import trainmaster", "-I", "-S")

    assert loaded - {"trainmaster"} <= sys.stdlib_module_names
    assert not loaded & {"typing", "dataclasses", "re", "json"}, "too much for an import"


def test_errors_need_no_http_library() -> None:
    loaded = modules_after("from trainmaster import JobFailed, APIError", "-I", "-S")

    assert loaded - {"trainmaster"} <= sys.stdlib_module_names


def test_help_loads_neither_http_nor_drawing() -> None:
    statement = """
from trainmaster.cli import program
try:
    program.main(["--help"], prog_name="trainmaster")
except SystemExit as end:
    assert end.code == 0
"""

    loaded = modules_after(statement)

    assert not loaded & {"httpx", "httpcore", "rich", "anyio"}


def test_everything_promised_is_there() -> None:
    statement = """
import trainmaster
for name in trainmaster.__all__:
    assert getattr(trainmaster, name).__name__
assert isinstance(trainmaster.__version__, str)
assert set(trainmaster.__all__) <= set(dir(trainmaster))
try:
    trainmaster.nonsense
except AttributeError as error:
    assert "nonsense" in str(error)
else:
    raise AssertionError
"""

    modules_after(statement)
