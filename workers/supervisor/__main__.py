"""The supervisor's command line; how the zip file starts. Standard library only.

python -I -S supervisor.zip run <run dir> [--salvage]
python -I -S supervisor.zip zygote <socket> <owner lock> <orphan seconds> <ready fd>
python -I -S supervisor.zip nursery <descriptor>
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from workers.supervisor import nursery, rank_process, supervise, wire, zygote


def main(arguments: list[str]) -> int:
    """Do what the arguments say; return the exit code."""
    os.umask(0o077)
    if arguments[:1] == ["run"] and len(arguments) in (2, 3):
        return supervise.run_supervisor(
            Path(arguments[1]), is_salvage=arguments[2:] == ["--salvage"]
        )
    if arguments[:1] == ["zygote"] and len(arguments) == 5:
        zygote.run_zygote(
            Path(arguments[1]),
            owner_lock=Path(arguments[2]),
            orphan_s=float(arguments[3]),
            ready_fd=int(arguments[4]),
        )
        return 0
    if arguments[:1] == ["nursery"] and len(arguments) == 2:
        return _run_nursery(int(arguments[1]))
    sys.stderr.write(f"{__doc__}\n")
    return 64


def _run_nursery(descriptor: int) -> int:
    connection = wire.Wire(socket.socket(fileno=descriptor))
    os.set_inheritable(descriptor, False)
    opening = connection.receive()
    if opening is None:
        return 0
    return nursery.Nursery(connection, opening, rank_process.launch_by_exec).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
