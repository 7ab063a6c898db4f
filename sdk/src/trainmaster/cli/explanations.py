"""An explanation, as a person would say it. Prints nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from trainmaster.cli.text import clean_cell, format_bytes, format_seconds
from trainmaster.documents import (
    Ahead,
    Communication,
    Expectation,
    Explanation,
    Option,
    Ranks,
    Simulation,
)

_EDITABLE = frozenset({"priority", "queue", "limits"})
_BASIS = {
    "progress": "by its own progress",
    "history": "as jobs of this name took",
    "durations": "as jobs that have ended took",
    "grace": "within its grace",
}
_NAMED_MAX = 5
_RANKS_MAX = 32
_SHARES = {
    "data": "data_wait",
    "compute": "compute",
    "comm": "communication",
    "save": "checkpoint",
    "idle": "idle",
}


def tell(said: Explanation) -> Iterator[str]:
    """Yield the lines of an answer: why, who is ahead, when, what would help, what to do."""
    yield clean_cell(_tell_state(said))
    why = ": ".join(part for part in (said.reason or "", said.message) if part)
    if why:
        yield f"  why      {clean_cell(why)}"
    if said.ahead is not None and (said.ahead.num_own or said.ahead.num_others):
        yield f"  ahead    {_tell_ahead(said.ahead)}"
    if said.start is not None:
        yield from _tell_when("starts", said.start, said.asked_at)
    if said.end is not None:
        yield from _tell_when("ends", said.end, said.asked_at)
    if said.ranks is not None:
        yield from _tell_ranks(said.ranks)
    yield from _tell_options(said)
    if isinstance(said, Simulation) and said.communication is not None:
        yield from _tell_communication(said.communication)
    for step in said.next:
        yield f"  next     {clean_cell(step.text)}"
        if step.command and not isinstance(said, Simulation):
            yield f"             {clean_cell(step.command)}"


def _tell_ranks(said: Ranks) -> Iterator[str]:
    if said.message:
        yield f"  ranks    {clean_cell(said.message)}"
    if not any(rank.shares for rank in said.ranks):
        return
    yield f"           {'rank':>4}  {'step':>8}  " + "  ".join(f"{head:>7}" for head in _SHARES)
    for rank in said.ranks[:_RANKS_MAX]:
        shares = rank.shares or {}
        cells = [
            f"{100 * shares[name]:.0f} %" if name in shares else "-" for name in _SHARES.values()
        ]
        step = "-" if rank.step is None else str(rank.step)
        row = "  ".join(f"{cell:>7}" for cell in cells)
        yield f"           {rank.rank:>4}  {step:>8}  {row}  {clean_cell(rank.node)}"


def _tell_state(said: Explanation) -> str:
    if not isinstance(said, Simulation):
        return f"{said.job_id} is {said.state}"
    return "it would start" if said.reason == "WaitingForPlacement" else "it would wait"


def _tell_ahead(ahead: Ahead) -> str:
    parts = []
    if ahead.num_own:
        named = ", ".join(clean_cell(job_id) for job_id in ahead.own_job_ids[:_NAMED_MAX])
        more = ", …" if ahead.num_own > _NAMED_MAX else ""
        parts.append(
            f"{ahead.num_own} of your project ({named}{more}), {ahead.own_gpu_hours:.1f} GPU-hours"
        )
    if ahead.num_others:
        parts.append(f"{ahead.num_others} of others, {ahead.others_gpu_hours:.1f} GPU-hours")
    return "; ".join(parts)


def _tell_when(verb: str, when: Expectation, asked_at: datetime | None) -> Iterator[str]:
    if when.withheld is not None:
        yield f"  {verb:<8} not known: {clean_cell(when.withheld)}"
    elif when.p50_at is not None and asked_at is not None:
        text = _tell_wait(when.p50_at, asked_at)
        if when.p10_at != when.p90_at and when.p10_at is not None and when.p90_at is not None:
            first, last = (_tell_wait(at, asked_at) for at in (when.p10_at, when.p90_at))
            text += f"; most likely {first} to {last}"
        basis = f" ({_BASIS[when.basis]})" if when.basis in _BASIS else ""
        yield f"  {verb:<8} {text}{basis}"
    if when.latest_at is not None:
        yield f"           at the latest {when.latest_at:%Y-%m-%d %H:%M} UTC"


def _tell_wait(at: datetime, asked_at: datetime) -> str:
    seconds = (at - asked_at).total_seconds()
    return "now" if seconds < 1 else f"in {format_seconds(seconds)}"


def _tell_communication(said: Communication) -> Iterator[str]:
    if said.bytes_per_step is not None:
        text = f"each worker sends {format_bytes(said.bytes_per_step)} a step"
        if said.reduction_vs_ddp is not None and said.reduction_vs_ddp > 1.05:
            text += f", {said.reduction_vs_ddp:.0f} times less than plain data parallel"
        yield f"  sends    {text}"
    if said.step_seconds is not None:
        yield f"  takes    {said.step_seconds:.3g} s a step"
    elif said.transfer_seconds is not None:
        yield f"  takes    {said.transfer_seconds:.3g} s a step to send that"
    for what in said.missing:
        yield f"  unknown  {clean_cell(what)}"


def _tell_options(said: Explanation) -> Iterator[str]:
    if said.options:
        yield "  sooner"
    for option in said.options:
        yield from _tell_option(option, said)
    if not said.options_complete:
        yield "           there was no time to try all that might help"


def _tell_option(option: Option, said: Explanation) -> Iterator[str]:
    gain = "at once"
    if option.sooner_seconds is not None:
        gain = f"{format_seconds(option.sooner_seconds)} sooner"
    fields = dict(_flatten(option.change))
    if said.job_id is None:
        flags = " ".join(f"--set {field}={_show(value)}" for field, value in fields.items())
        yield f"    {gain}: {clean_cell(flags)}"
    elif option.resizable:
        command = f"trainmaster resize {said.job_id} --workers {option.change['workers']}"
        yield f"    {gain}: {clean_cell(command)}"
    elif option.change.keys() - {"pool"} <= _EDITABLE:
        fields.pop("pool", None)
        flags = " ".join(f"--set {field}={_show(value)}" for field, value in fields.items())
        yield f"    {gain}: {clean_cell(f'trainmaster edit {said.job_id} {flags}')}"
    else:
        flags = " ".join(f"--set {field}={_show(value)}" for field, value in fields.items())
        yield f"    {gain}: {clean_cell(f'trainmaster cancel {said.job_id}')}"
        yield f"      and submit it again with {clean_cell(flags)}"


def _flatten(change: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in change.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _show(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
