"""The syntax rules hold for every file here, and each of them catches a planted violation."""

import functools
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.architecture import rules
from tests.architecture.rules import Source, Violation

ROOT = Path(__file__).resolve().parents[2]
SERVICE = ("api", "models", "scheduler", "workers")
SHIPPED = (*SERVICE, "migrations", "sdk/src")
EVERYTHING = (*SHIPPED, "tests")
SDK = "sdk/src/trainmaster"

STANDARD = frozenset(sys.stdlib_module_names)
standard_library_core = functools.partial(rules.foreign_imports, allowed=STANDARD | {"scheduler"})
standard_library_workers = functools.partial(rules.foreign_imports, allowed=STANDARD | {"workers"})
standard_library_run = functools.partial(rules.foreign_imports, allowed=STANDARD | {"trainmaster"})
python_3_9 = functools.partial(rules.newer_syntax, oldest=(3, 9))
python_3_10 = functools.partial(rules.newer_syntax, oldest=(3, 10))

Rule = Callable[[Source], list[Violation]]


@pytest.mark.parametrize(
    ("rule", "folders"),
    [
        pytest.param(rules.commits_outside_database, SERVICE, id="only Database.write() commits"),
        pytest.param(rules.naive_times, EVERYTHING, id="every instant is aware"),
        pytest.param(rules.inner_imports, EVERYTHING, id="imports stand at the top"),
        pytest.param(rules.environment_reads, SHIPPED, id="the environment has few readers"),
        pytest.param(rules.exemptions_without_reason, EVERYTHING, id="exemptions carry a reason"),
        pytest.param(rules.homeless_module, EVERYTHING, id="modules are named after concepts"),
        pytest.param(
            rules.missing_module_docstring, EVERYTHING, id="modules say what they are for"
        ),
        pytest.param(rules.code_in_namespace, SERVICE, id="namespaces hold no code"),
        pytest.param(standard_library_core, ["scheduler/core"], id="the core is standard library"),
        pytest.param(standard_library_workers, ["workers"], id="the node is standard library"),
        pytest.param(python_3_9, ["workers"], id="the node starts in Python 3.9"),
        pytest.param(python_3_10, ["sdk/src"], id="the SDK starts in Python 3.10"),
    ],
)
def test_no_file_breaks_the_rule(rule: Rule, folders: list[str]) -> None:
    sources = [source for folder in folders for source in read_sources(folder)]

    violations = [violation for source in sources for violation in rule(source)]

    assert sources, f"nothing to check in {folders}"
    assert not violations, "\n".join(map(str, violations))


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(standard_library_run, id="the standard library"),
        pytest.param(python_3_9, id="Python 3.9"),
    ],
)
def test_trainmaster_run_needs_no_more_than(rule: Rule) -> None:
    sources = read_sdk_closure("trainmaster.run")

    violations = [violation for source in sources for violation in rule(source)]

    assert {f"{SDK}/run.py", f"{SDK}/_spool.py"} <= {source.path for source in sources}
    assert not violations, "\n".join(map(str, violations))


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (rules.commits_outside_database, "api/jobs/service.py", "session.commit()"),
        (rules.naive_times, "api/x.py", "datetime.now()"),
        (rules.naive_times, "api/x.py", "datetime.datetime.utcnow()"),
        (rules.naive_times, "api/x.py", "datetime.fromtimestamp(0)"),
        (rules.inner_imports, "api/x.py", "def f():\n    import json"),
        (rules.inner_imports, "api/x.py", "def f():\n    import json  # noqa: PLC0415"),
        (rules.environment_reads, "api/x.py", "import os\nos.environ['A']"),
        (rules.environment_reads, "api/x.py", "import os\nos.getenv('A')"),
        (rules.environment_reads, "api/x.py", "from os import environ"),
        (rules.exemptions_without_reason, "api/x.py", "x = 1  # noqa"),
        (rules.exemptions_without_reason, "api/x.py", "x = 1  # noqa: E501"),
        (rules.exemptions_without_reason, "api/x.py", "x = 1  # type: ignore[arg-type]"),
        (rules.homeless_module, "api/utils.py", ""),
        (rules.homeless_module, "workers/helpers/x.py", ""),
        (rules.missing_module_docstring, "api/x.py", "x = 1"),
        (rules.code_in_namespace, "scheduler/__init__.py", "from scheduler import core"),
        (standard_library_core, "scheduler/core/x.py", "import sqlalchemy"),
        (standard_library_core, "scheduler/core/x.py", "def f():\n    from pydantic import x"),
        (standard_library_workers, "workers/node/x.py", "from models import job"),
        (standard_library_run, "sdk/src/trainmaster/run.py", "import httpx"),
        (python_3_9, "workers/node/x.py", "match x:\n    case 1:\n        pass"),
        (python_3_10, "sdk/src/x.py", "try:\n    pass\nexcept* ValueError:\n    pass"),
    ],
)
def test_each_rule_catches_a_planted_violation(rule: Rule, path: str, text: str) -> None:
    assert rule(Source(path, text))


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (rules.commits_outside_database, "models/database.py", "session.commit()"),
        (rules.naive_times, "api/x.py", "datetime.now(UTC); datetime.fromtimestamp(0, tz=UTC)"),
        (rules.inner_imports, "api/x.py", "def f():\n    import a  # noqa: PLC0415  slow to load"),
        (rules.environment_reads, "api/settings.py", "import os\nos.environ['A']"),
        (rules.exemptions_without_reason, "api/x.py", "x = 1  # noqa: E501  one long address"),
        (rules.exemptions_without_reason, "x.py", "x = 1  # type: ignore[misc]  untyped package"),
        (rules.missing_module_docstring, "api/__init__.py", ""),
        (rules.code_in_namespace, "scheduler/__init__.py", '"""The scheduler."""'),
        (
            standard_library_core,
            "scheduler/core/x.py",
            "from scheduler.core import spec\nimport re",
        ),
    ],
)
def test_no_rule_cries_wolf(rule: Rule, path: str, text: str) -> None:
    assert not rule(Source(path, text))


def test_the_linter_exempts_no_other_readers_of_the_environment() -> None:
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]

    exempt = {
        path
        for path, codes in ruff["lint"]["per-file-ignores"].items()
        if "TID251" in codes and not path.startswith("tests/")
    }

    assert exempt <= rules.ENVIRONMENT_READERS


def read_sources(start: str) -> list[Source]:
    """Return the Python files at or below `start`."""
    place = ROOT / start
    found = [place] if place.is_file() else sorted(place.rglob("*.py"))
    return [
        Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
        for path in found
    ]


def read_sdk_closure(start: str) -> list[Source]:
    """Return the file of the SDK's module `start` and of every module of the SDK it leads to."""
    closure: dict[str, Source] = {}
    waiting = {"trainmaster", start}
    while waiting:
        name = waiting.pop()
        path = "sdk/src/" + name.replace(".", "/")
        if name in closure or not name.startswith("trainmaster"):
            continue
        for file in (f"{path}.py", f"{path}/__init__.py"):
            if (ROOT / file).is_file():
                [closure[name]] = read_sources(file)
                waiting |= rules.imported_modules(closure[name])
    return list(closure.values())
