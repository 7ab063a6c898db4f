"""Claims that are tested in the job environment: functions of scripts, by their names."""

import ast
from pathlib import Path

SCRIPTS = Path(__file__).parent / "scripts"


def claims_of(script: str) -> list[str]:
    """Return the names of a script's functions that begin with `claim_`."""
    tree = ast.parse((SCRIPTS / script).read_text())
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("claim_")
    ]
