"""`trainmaster nodes`: the machines."""

from __future__ import annotations

import click

from trainmaster.cli.session import Session, json_option
from trainmaster.cli.text import clean_cell
from trainmaster.documents import Node


@click.command("nodes", short_help="List the machines and what they have.")
@json_option
@click.pass_obj
def command(session: Session) -> None:
    """List the machines that run workers; what is free of what each has."""
    found = list(session.client.nodes.list(limit=100))
    if session.as_json:
        session.emit({"object": "list", "data": [each.raw for each in found]})
        return
    rows = [
        [
            clean_cell(each.name),
            each.id,
            clean_cell(each.pool),
            clean_cell(each.state) or "-",
            *_room(each),
        ]
        for each in found
    ]
    session.print_table(["NAME", "ID", "POOL", "STATE", "CPUS", "MEMORY", "GPUS"], rows)
    for each in found:
        if each.quarantine is not None:
            session.say(f"{clean_cell(each.name)}: {clean_cell(each.quarantine.message)}")
    if not found:
        session.say("no nodes; on each machine that shall train: python -m api node")


def _room(node: Node) -> list[str]:
    """Return what is free of what there is: CPUs, memory, GPUs."""
    capacity, free = node.capacity, node.free
    if capacity is None or free is None:
        return ["-", "-", "-"]
    models = "/".join(sorted({str(gpu.get("model") or "GPU") for gpu in node.gpus}))
    return [
        f"{free.cpus:g}/{capacity.cpus:g}",
        f"{free.memory_gib:.1f}/{capacity.memory_gib:.1f} GiB",
        clean_cell(f"{free.gpus}/{capacity.gpus} {models}") if capacity.gpus else "-",
    ]
