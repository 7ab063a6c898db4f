"""The small talk of replicas: the largest, the sum, everything. Through the first server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trainmaster.train.outer.frames import Message
    from trainmaster.train.outer.rounds import Member
    from trainmaster.train.outer.space import Clock, Peer


class Talk:
    """One question at a time, to which everybody says something and hears the same.

    It is over when all who are there have spoken, or when those who have not are waiting for
    something else: nobody could come any more. So a replica that joins, and asks at another step
    than the rest, hears itself.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._said: dict[Member, tuple[Peer, Message]] = {}

    def offer(self, peer: Peer, message: Message) -> None:
        """A replica says something."""
        self._said[peer.member] = (peer, message)

    def lose(self, peer: Peer) -> None:
        """A replica is gone, and what it said with it."""
        self._said.pop(peer.member, None)

    def settle(self, present: Sequence[Peer]) -> None:
        """Answer everybody, if nobody else can come."""
        if not self._said or not all(peer.is_asking for peer in present):
            return
        said = [each for _, each in sorted(self._said.items())]
        self._said.clear()
        last_s = max(peer.asked_at_s for peer, _ in said)
        kind = said[0][1].head["kind"]
        answer = ANSWERS[kind]([message for _, message in said])
        for peer, _ in said:
            # Only replica 0 is to collect what everybody has, so only it is sent that.
            is_for_me = kind != "gather" or peer.member[0] == 0
            head, tensors = answer if is_for_me else ({}, [])
            peer.answer(head, tensors, waited_s=last_s - peer.asked_at_s)


def _maximum(messages: Sequence[Message]) -> tuple[dict[str, Any], list[torch.Tensor]]:
    columns = zip(*(message.head["values"] for message in messages))
    return {"values": [max(column) for column in columns]}, []


def _sum(messages: Sequence[Message]) -> tuple[dict[str, Any], list[torch.Tensor]]:
    totals = [tensor.clone() for tensor in messages[0].tensors]
    for message in messages[1:]:
        for total_P, tensor_P in zip(totals, message.tensors):
            total_P.add_(tensor_P)
    return {"count": len(messages)}, totals


def _gather(messages: Sequence[Message]) -> tuple[dict[str, Any], list[torch.Tensor]]:
    described = [[message.head["value"], len(message.tensors)] for message in messages]
    tensors = [tensor for message in messages for tensor in message.tensors]
    return {"values": described}, tensors


ANSWERS: dict[str, Callable[[Sequence[Message]], tuple[dict[str, Any], list[torch.Tensor]]]] = {
    "maximum": _maximum,
    "sum": _sum,
    "gather": _gather,
}
