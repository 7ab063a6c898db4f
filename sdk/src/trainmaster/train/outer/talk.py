"""The small talk of replicas: the largest, the sum, everything. Through the first server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainmaster.train.outer.space import OutOfStep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from trainmaster.train.outer.frames import Message
    from trainmaster.train.outer.rounds import Member
    from trainmaster.train.outer.space import Clock, Peer


@dataclass(frozen=True)
class _Said:
    """A message, who said it, and where in the training."""

    peer: Peer
    message: Message
    place: int


class Talk:
    """One question at a time, to which everybody says something and hears the same.

    Those who speak at the same place in the training belong together. It is over when each of
    them has spoken: who is not there yet is waited for, unless it waits for something else and so
    cannot come; who is further is not. So a replica that joins, and asks where the others are
    no more, hears itself.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._said: dict[Member, _Said] = {}

    def offer(self, peer: Peer, message: Message, place: int) -> None:
        """A replica says something at a place, which is larger for who is further."""
        self._said[peer.member] = _Said(peer, message, place)

    def lose(self, peer: Peer) -> None:
        """A replica is gone, and what it said with it."""
        self._said.pop(peer.member, None)

    def settle(self, present: Sequence[Peer], place_of: Callable[[Peer], int]) -> None:
        """Answer everybody to whom nobody else can come."""
        while self._said:
            place = min(each.place for each in self._said.values())
            if any(not peer.is_asking and place_of(peer) <= place for peer in present):
                return
            together = [each for _, each in sorted(self._said.items()) if each.place == place]
            for each in together:
                del self._said[each.peer.member]
            _answer(together)


def _answer(said: Sequence[_Said]) -> None:
    """Answer those who have spoken together, in the order of replicas."""
    messages = [each.message for each in said]
    different = next((each for each in said if _kind_of(each) != _kind_of(said[0])), None)
    if different is not None:
        error = OutOfStep(
            f"replica {said[0].peer.member[0]} calls {_kind_of(said[0])}, "
            f"replica {different.peer.member[0]} {_kind_of(different)}: every rank must call the "
            "same in the same order, so look for a run.sum() that not all ranks come to"
        )
        for each in said:
            each.peer.fail(error)
        return
    kind = messages[0].head["kind"]
    head, tensors = ANSWERS[kind](said)
    last_s = max(each.peer.asked_at_s for each in said)
    for peer in (each.peer for each in said):
        # Only replica 0 is to collect what everybody has, so only it is sent that.
        is_for_me = kind != "gather" or peer.member[0] == 0
        peer.answer(
            head if is_for_me else {},
            tensors if is_for_me else [],
            waited_s=last_s - peer.asked_at_s,
        )


def _kind_of(said: _Said) -> str:
    """Return what a replica calls, such that those who call the same are given the same text."""
    head, kind = said.message.head, said.message.head["kind"]
    if kind == "maximum":
        return f"the maximum of {len(head['values'])} numbers"
    if kind == "sum":
        sizes = [tensor.numel() for tensor in said.message.tensors]
        return f"the sum of tensors of {', '.join(map(str, sizes))} numbers"
    return str(kind)


def _maximum(said: Sequence[_Said]) -> tuple[dict[str, Any], list[torch.Tensor]]:
    columns = zip(*(each.message.head["values"] for each in said))
    return {"values": [max(column) for column in columns]}, []


def _sum(said: Sequence[_Said]) -> tuple[dict[str, Any], list[torch.Tensor]]:
    totals = [tensor.clone() for tensor in said[0].message.tensors]
    for each in said[1:]:
        for total_P, tensor_P in zip(totals, each.message.tensors):
            total_P.add_(tensor_P)
    return {"count": len(said)}, totals


def _gather(said: Sequence[_Said]) -> tuple[dict[str, Any], list[torch.Tensor]]:
    described = [
        [each.peer.member[0], each.message.head["value"], len(each.message.tensors)]
        for each in said
    ]
    # Copied: who is not to have them is answered at once, and what it says next comes into the same
    # memory, while these may still be on their way to replica 0.
    tensors = [tensor.clone() for each in said for tensor in each.message.tensors]
    return {"values": described}, tensors


ANSWERS: dict[str, Callable[[Sequence[_Said]], tuple[dict[str, Any], list[torch.Tensor]]]] = {
    "maximum": _maximum,
    "sum": _sum,
    "gather": _gather,
}
