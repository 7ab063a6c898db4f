"""The command line as a whole: its commands, its page, the values of its flags."""

import importlib
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from trainmaster.cli import COMMANDS, program
from trainmaster.cli import session as exit_codes
from trainmaster.cli.spec import parse_value, set_path

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "cli.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_itself(name: str) -> None:
    module = importlib.import_module(f"trainmaster.cli.commands.{COMMANDS[name][0]}")

    assert module.command.name == name
    assert module.command.short_help == COMMANDS[name][1]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_json(name: str) -> None:
    result = CliRunner().invoke(program, [name, "--help"])

    assert result.exit_code == 0
    assert "--json" in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_has_every_command_with_every_flag(name: str) -> None:
    module = importlib.import_module(f"trainmaster.cli.commands.{COMMANDS[name][0]}")
    section = PAGE.split(f"### `trainmaster {name}")[1].split("\n### ")[0]

    flags = [option for each in module.command.params for option in each.opts if option[:2] == "--"]

    assert [flag for flag in flags if flag not in section and flag != "--json"] == []


def test_the_page_has_every_exit_code() -> None:
    codes = {value for name, value in vars(exit_codes).items() if re.match(r"EXIT_[A-Z]+$", name)}
    numbers = {code for code in codes if isinstance(code, int)} | {0}

    assert {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)} == numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.1", 0.1),
        ("true", True),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ('"3"', "3"),
        ("adam", "adam"),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("", ""),
        ("1e-3", 0.001),
    ],
)
def test_values_are_json_where_they_can_be(text: str, value: object) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_a_dotted_path_makes_its_objects() -> None:
    spec: dict[str, object] = {"sync": {"mode": "allreduce"}}

    set_path(spec, "sync.every", 4)
    set_path(spec, "checkpoint.keep_best.count", 1)

    assert spec == {
        "sync": {"mode": "allreduce", "every": 4},
        "checkpoint": {"keep_best": {"count": 1}},
    }
