"""`python -m api <role>`: arguments only."""

from __future__ import annotations

import argparse
import importlib
import sys

from api.settings import BadSettings, load_settings

_ROLES = {
    "all": ("api.roles.serve", "API, scheduler, housekeeping and a node, on this machine"),
    "api": ("api.roles.serve", "the HTTP API alone"),
    "scheduler": ("api.roles.serve", "the scheduler alone"),
    "housekeeping": ("api.roles.serve", "retention and clean-up alone"),
    "node": ("api.roles.node", "the daemon of this machine"),
    "demo": ("api.demo.play", "train a small job to the end and fetch its checkpoint"),
    "migrate": ("api.roles.maintain", "bring the database to the newest revision"),
    "revision": ("api.roles.maintain", "draft the next migration: revision TEXT"),
    "openapi": ("api.roles.maintain", "print the OpenAPI document"),
    "settings": ("api.roles.maintain", "print the settings in force, secrets masked"),
}


def main(arguments: list[str]) -> int:
    """Run one role and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m api",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"  {role:<13}{text}" for role, (_, text) in _ROLES.items()),
    )
    parser.add_argument("role", choices=_ROLES, metavar="role", help="one of those below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the role")
    chosen = parser.parse_args(arguments)
    try:
        settings = load_settings()
    except BadSettings as error:
        sys.stderr.write(f"trainmaster: bad settings:\n{error}\n")
        return 2
    # Each role loads only what it runs: a node daemon has no use for a web server.
    module = importlib.import_module(_ROLES[chosen.role][0])
    status: int = module.run(chosen.role, settings, chosen.arguments)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
