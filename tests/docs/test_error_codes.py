"""The table of error codes is that of the code: every code, with the status it is answered with."""

import importlib
import pkgutil
import re
from collections.abc import Iterator

import api
import scheduler.core.errors
from api.errors import status_of
from scheduler.core.errors import ServiceError
from tests.docs.pages import ROOT

ABSTRACT = {"service_error"}


def _list_errors(kind: type[ServiceError]) -> Iterator[type[ServiceError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _list_errors(child)


def _codes_by_status() -> dict[str, set[int]]:
    for module in pkgutil.walk_packages(api.__path__, "api."):
        if (
            ".demo" not in module.name
            and ".roles" not in module.name
            and "__main__" not in module.name
        ):
            importlib.import_module(module.name)
    found: dict[str, set[int]] = {}
    for kind in _list_errors(scheduler.core.errors.ServiceError):
        if kind.code not in ABSTRACT:
            found.setdefault(kind.code, set()).add(status_of(kind.__new__(kind)).value)
    return found


def test_every_code_is_documented_with_its_status() -> None:
    text = (ROOT / "docs/http-api.md").read_text()
    rows = re.findall(r"^\| ([\d, ]+) \| (.*) \|$", text, re.MULTILINE)
    documented = {
        code: {int(status) for status in statuses.split(", ")}
        for statuses, codes in rows
        for code in re.findall(r"`([a-z_]+)`", codes)
    }

    codes = _codes_by_status()

    assert set(documented) == set(codes)
    assert [code for code, statuses in codes.items() if not statuses <= documented[code]] == []
