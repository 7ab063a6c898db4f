"""Which module runs a recipe, as the recipes' descriptions say. Knows no HTTP."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path


@functools.cache
def list_modules(recipes_dir: Path) -> Mapping[str, str]:
    """Return recipe name to module. Read once: recipes come with the service."""
    found = {}
    for path in sorted(recipes_dir.glob("*.json")):
        description = json.loads(path.read_bytes())
        found[description["name"]] = description["module"]
    return found
