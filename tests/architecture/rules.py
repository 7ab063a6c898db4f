"""The rules that syntax can decide: each takes one source file and returns its violations.

Pure: text in, `Violation`s out. Which files a rule is asked about, test_rules.py knows.
"""

import ast
import functools
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

COMMIT_HOME = "models/database.py"
ENVIRONMENT_READERS = frozenset(
    {
        "api/settings.py",
        "api/demo/server.py",  # hands its own on to its child
        "api/roles/daemon.py",  # likewise
        "workers/node/__main__.py",
        "workers/node/job_environment.py",
        "workers/supervisor/__main__.py",
        "workers/supervisor/rank_process.py",  # replaces it before user code runs
        "sdk/src/trainmaster/_settings.py",
        "sdk/src/trainmaster/run.py",
    }
)
# Not a word for a concept, so a function that seems to belong there belongs somewhere else.
HOMELESS_NAMES = frozenset({"utils", "util", "helpers", "helper", "misc", "common", "manager"})

_NAIVE_CLOCKS = frozenset({"utcnow", "utcfromtimestamp"})
_EXEMPTION = re.compile(r"#\s*(noqa|type:\s*ignore)\b(?P<rest>.*)", re.IGNORECASE)
_CODES = re.compile(r"^\s*(:\s*[A-Z]+[0-9]+(\s*,\s*[A-Z]+[0-9]+)*|\[[a-z0-9,\s-]+\])")


@dataclass(frozen=True)
class Source:
    """One Python file: its path from the root of the repository, and its text."""

    path: str
    text: str

    @functools.cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=self.path)


@dataclass(frozen=True)
class Violation:
    """Where a rule is broken, and how."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


def commits_outside_database(source: Source) -> list[Violation]:
    """Transactions end in `Database.write()`, nowhere else."""
    if source.path == COMMIT_HOME:
        return []
    return [
        Violation(source.path, node.lineno, "commit() outside models/database.py")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "commit"
    ]


def naive_times(source: Source) -> list[Violation]:
    """Instants are aware: no utcnow, no now() or fromtimestamp() without a zone."""
    return [
        Violation(source.path, node.lineno, "naive time: pass a zone, or take the time as argument")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and _is_datetime(node.func.value)
        and _makes_naive_time(node)
    ]


def inner_imports(source: Source) -> list[Violation]:
    """Imports stand at the top; one inside a function says why on its line."""
    lines = source.text.splitlines()
    return [
        Violation(source.path, node.lineno, "inner import without `# noqa: PLC0415  reason`")
        for function in ast.walk(source.tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and not re.search(
            r"#\s*noqa:.*\bPLC0415\s+\S", "".join(lines[node.lineno - 1 : node.end_lineno])
        )
    ]


def environment_reads(source: Source) -> list[Violation]:
    """The environment is read in a few named places; everything else is given values."""
    if source.path in ENVIRONMENT_READERS:
        return []
    names = {"environ", "environb", "getenv", "putenv"}
    lines = [
        node.lineno
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and node.attr in names and _is_name(node.value, "os")
    ]
    lines += [
        node.lineno
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ImportFrom)
        and node.module == "os"
        and names & {alias.name for alias in node.names}
    ]
    return [Violation(source.path, line, "reads the environment") for line in lines]


def exemptions_without_reason(source: Source) -> list[Violation]:
    """Who silences a tool names the rule and the reason, on the line."""
    return [
        Violation(source.path, line, f"no rule or no reason: {comment}")
        for line, comment in _iter_comments(source)
        if (found := _EXEMPTION.search(comment)) and not _has_code_and_reason(found["rest"])
    ]


def homeless_module(source: Source) -> list[Violation]:
    """A module is named after a concept."""
    parts = (*PurePosixPath(source.path).parts[:-1], PurePosixPath(source.path).stem)
    return [
        Violation(source.path, 1, f"{part!r} is no concept")
        for part in parts
        if part in HOMELESS_NAMES
    ]


def missing_module_docstring(source: Source) -> list[Violation]:
    """A module opens by saying what it is for; an empty `__init__.py` has nothing to say."""
    if not source.text.strip() or ast.get_docstring(source.tree):
        return []
    return [Violation(source.path, 1, "no module docstring")]


def code_in_namespace(source: Source) -> list[Violation]:
    """Importing a part of these packages runs their `__init__.py`: it stays without code."""
    if source.path not in {"api/__init__.py", "scheduler/__init__.py", "workers/__init__.py"}:
        return []
    return [
        Violation(source.path, node.lineno, "code in a package that parts are imported from")
        for node in source.tree.body
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    ]


def foreign_imports(source: Source, *, allowed: frozenset[str]) -> list[Violation]:
    """Only the top-level names in `allowed` are imported, anywhere in the file."""
    found: list[Violation] = []
    for node in ast.walk(source.tree):
        match node:
            case ast.Import(names=aliases):
                names = [alias.name for alias in aliases]
            case ast.ImportFrom(module=str(module), level=0):
                names = [module]
            case _:
                continue
        found += [
            Violation(source.path, node.lineno, f"imports {name}")
            for name in names
            if name.split(".")[0] not in allowed
        ]
    return found


def imported_modules(source: Source) -> set[str]:
    """Return the dotted names that the file imports when it is loaded.

    So not those for types only, and not those inside functions.
    """
    names: set[str] = set()
    later = {
        inner
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and _is_name(node.test, "TYPE_CHECKING"))
        for inner in ast.walk(node)
    }
    for node in ast.walk(source.tree):
        if node in later:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def newer_syntax(source: Source, *, oldest: tuple[int, int]) -> list[Violation]:
    """The file can be read by the oldest Python it must start in."""
    try:
        ast.parse(source.text, filename=source.path, feature_version=oldest)
    except SyntaxError as error:
        return [Violation(source.path, error.lineno or 1, f"newer than {oldest}: {error.msg}")]
    return []


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_datetime(node: ast.expr) -> bool:
    return _is_name(node, "datetime") or (
        isinstance(node, ast.Attribute) and node.attr == "datetime"
    )


def _makes_naive_time(call: ast.Call) -> bool:
    assert isinstance(call.func, ast.Attribute)
    zones = [word for word in call.keywords if word.arg in {"tz", None}]
    match call.func.attr:
        case name if name in _NAIVE_CLOCKS:
            return True
        case "now":
            return not call.args and not zones
        case "fromtimestamp":
            return len(call.args) < 2 and not zones
        case _:
            return False


def _iter_comments(source: Source) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _has_code_and_reason(rest: str) -> bool:
    code = _CODES.match(rest)
    return code is not None and bool(re.search(r"[A-Za-z]{2}", rest[code.end() :]))
