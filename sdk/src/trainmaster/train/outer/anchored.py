"""The server's side of `local_sgd` and `diloco`: an anchor, moved once per round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from trainmaster.train.outer.anchor import Mirror, OuterOptimizer, add_weighted, fractions
from trainmaster.train.outer.codec import Plain
from trainmaster.train.outer.space import OutOfStep, Peer, Said, Space

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trainmaster.train.outer.codec import Codec
    from trainmaster.train.outer.frames import Message
    from trainmaster.train.outer.rounds import Closed
    from trainmaster.train.outer.space import Clock

_PLAIN = Plain()


class AnchoredSpace(Space):
    """Each round brings deltas of some sections, and is answered with where the anchor is now.

    Buffers come as they are: floating ones are averaged, of the others the first replica's stand.
    """

    def __init__(
        self, described: Mapping[str, Any], server: int, num_replicas: int, clock: Clock
    ) -> None:
        super().__init__(described, server, num_replicas, clock)
        self._outer = OuterOptimizer(described["outer_lr"], described["outer_momentum"])
        self._mirrors: list[Mirror] = []
        self._momenta: list[torch.Tensor | None] = []

    def handle(self, peer: Peer, message: Message) -> None:
        """Take a replica's part of a round."""
        if message.head["op"] == "round":
            roll = {(number, life) for number, life in message.head["roll"]}
            self.rounds.offer(peer.member, Said(peer, message), roll)
            self.settle()
        else:
            tensors = [mirror.true_P for mirror in self._mirrors]
            peer.answer({}, tensors + [each for each in self._momenta if each is not None])

    def _fill(self, message: Message) -> None:
        count = len(self.sections)
        known, rest = message.tensors[:count], message.tensors[count:]
        true = rest[:count] if message.head["has_state"] else known
        momenta = rest[count:] if message.head["has_state"] else []
        for number, section in enumerate(self.sections):
            codec = _codec_of(section.kind, self.codec)
            mirror = Mirror(codec, true[number].clone())
            if not codec.is_exact:
                mirror.known_P.copy_(known[number])
            self._mirrors.append(mirror)
            momentum_P = None
            if section.kind == "value" and self._outer.momentum:
                momentum_P = momenta.pop(0).clone() if momenta else torch.zeros_like(mirror.true_P)
            self._momenta.append(momentum_P)

    def _enter(self, peer: Peer) -> list[torch.Tensor]:
        del peer
        return [mirror.known_P for mirror in self._mirrors]

    def _finish(self, closed: Closed[Said]) -> None:
        said = list(closed.offers.values())
        wanted = said[0].message.head["sections"]
        said = [each for each in said if _is_in_step(each, wanted)]
        shares = fractions([each.message.head["weight"] for each in said])
        answer: list[torch.Tensor] = []
        position = 0
        for number in wanted:
            codec = _codec_of(self.sections[number].kind, self.codec)
            arrived = [each.message.tensors[position : position + codec.num_parts] for each in said]
            position += codec.num_parts
            answer += self._move(number, codec, arrived, shares)
        self._cursor = said[0].message.head["cursor"]
        head = {"after": closed.number, "roll": self.roll(), "gives": bool(closed.admitted)}
        last_s = max(each.peer.asked_at_s for each in said)
        for each in said:
            each.peer.answer(head, answer, waited_s=last_s - each.peer.asked_at_s)

    def _move(
        self,
        number: int,
        codec: Codec,
        arrived: Sequence[Sequence[torch.Tensor]],
        shares: Sequence[float],
    ) -> list[torch.Tensor]:
        """Take in what arrived of one section, and return what travels back."""
        mirror = self._mirrors[number]
        kind = self.sections[number].kind
        if kind == "first":
            mirror.true_P.copy_(arrived[0][0])
            return [mirror.true_P]
        mean_P = torch.empty_like(mirror.true_P)
        one_P = None if codec.is_exact else torch.empty_like(mean_P)
        for place, (parts, share) in enumerate(zip(arrived, shares)):
            if one_P is not None:
                codec.decode(parts, one_P)
            value_P = parts[0] if one_P is None else one_P
            add_weighted(mean_P, value_P, share, is_first=place == 0)
        if kind == "mean":
            mirror.true_P.copy_(mean_P)
        else:
            self._outer.step(mirror.true_P, mean_P, self._momenta[number])
        return mirror.encode()


def _codec_of(kind: str, codec: Codec) -> Codec:
    return codec if kind == "value" else _PLAIN


def _is_in_step(said: Said, wanted: Sequence[int]) -> bool:
    """Whether a replica brings what the first brings; who does not cannot stay."""
    if said.message.head["sections"] == wanted:
        return True
    said.peer.fail(
        OutOfStep(
            f"replica {said.peer.member[0]} brings other parts of the model to the round than "
            "the first: every replica must take the same steps"
        )
    )
    return False
