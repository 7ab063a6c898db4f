"""The server's side of `parameter_server`: gradients in, parameters out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from trainmaster.train.outer.anchor import Mirror, add_weighted, fractions
from trainmaster.train.outer.gate import Gate
from trainmaster.train.outer.guard import Guard, compensate
from trainmaster.train.outer.parameters import ServedOptimizer
from trainmaster.train.outer.space import Peer, Said, Space
from trainmaster.train.outer.tree import flatten, unflatten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trainmaster.train.outer.frames import Message
    from trainmaster.train.outer.layout import Section
    from trainmaster.train.outer.rounds import Closed, Member
    from trainmaster.train.outer.space import Clock


@dataclass
class Reader:
    """What one replica has of one optimizer's parameters.

    Attributes:
        mirrors: one for each section.
        num_pushes: pushes that had been applied when it last read.
    """

    mirrors: list[Mirror]
    num_pushes: int = 0


@dataclass
class Served:
    """One of the job's optimizers, with its parameters on this server.

    Attributes:
        sections: what of the space's sections is its.
        optimizer: steps them.
        shared: what all replicas have, where they go in step.
        readers: what each replica has, where they do not.
        num_pushes: gradients applied.
    """

    sections: list[Section]
    optimizer: ServedOptimizer
    gate: Gate[Member]
    guard: Guard
    shared: list[Mirror] = field(default_factory=list)
    readers: dict[Member, Reader] = field(default_factory=dict)
    num_pushes: int = 0


class ServedSpace(Space):
    """Takes the gradients of one optimizer at a time and answers with its parameters.

    In step (`staleness` 0) a push is one round: one step with the mean of all gradients. Else it
    is one step of its own, on arrival, and the answer waits until the gate is open.
    """

    def __init__(
        self, described: Mapping[str, Any], server: int, num_replicas: int, clock: Clock
    ) -> None:
        super().__init__(described, server, num_replicas, clock)
        self._staleness: int | None = described["staleness"]
        self._is_in_step = self._staleness == 0
        self.admits_at_once = not self._is_in_step
        self._compensation: float = described["compensation"]
        self._served: dict[str, Served] = {}
        for group, optimizer in described["optimizers"].items():
            mine = [section for section in self.sections if section.group == group]
            served = ServedOptimizer(optimizer, mine)
            guard = Guard(served, is_on=described["guard"])
            self._served[group] = Served(mine, served, Gate(self._staleness), guard)
        self._reading: dict[Member, tuple[Peer, str, int]] = {}

    def handle(self, peer: Peer, message: Message) -> None:
        """Take a gradient, or what else a replica says."""
        operation = message.head["op"]
        if operation == "push" and self._is_in_step:
            roll = {(number, life) for number, life in message.head["roll"]}
            self._ends_step = message.head["ends_step"]
            self.rounds.offer(peer.member, Said(peer, message), roll)
            self.settle()
        elif operation == "push":
            self._push(peer, message)
        elif operation == "pull":
            peer.answer({}, self._enter(peer))
        elif operation == "rest":
            for served in self._served.values():
                served.gate.leave(peer.member)
            peer.answer({})
            self._let_read()
        elif operation == "work":
            for served in self._served.values():
                served.gate.enter(peer.member)
            peer.answer({})
        else:
            self._tell_state(peer)

    # In step.

    def _finish(self, closed: Closed[Said]) -> None:
        said = list(closed.offers.values())
        first = said[0].message.head
        served = self._served[first["group"]]
        pushed = [each for each in said if each.message.head["weight"] is not None]
        for each in said:
            if each.message.head["numbers"] is not None:
                served.optimizer.set_numbers(each.message.head["numbers"])
                break
        if pushed:
            absent = set.intersection(*(set(each.message.head["absent"]) for each in pushed))
            served.optimizer.step(self._mean(served, pushed), absent)
        answer = [part for mirror in served.shared for part in mirror.encode()]
        self._cursor = first["cursor"]
        last_s = max(each.peer.asked_at_s for each in said)
        head = {
            "after": closed.number,
            "roll": self.roll(),
            "gives": bool(closed.admitted),
            "stale": 0,
            "gap": 0,
        }
        for each in said:
            each.peer.answer(head, answer, waited_s=last_s - each.peer.asked_at_s)

    def _mean(self, served: Served, pushed: Sequence[Said]) -> list[torch.Tensor]:
        """Return the mean gradient of each section, in the order of replicas."""
        shares = fractions([each.message.head["weight"] for each in pushed])
        means = [section.empty() for section in served.sections]
        for place, (said, share) in enumerate(zip(pushed, shares)):
            for mean_P, gradient_P in zip(means, self._decode(served, said.message)):
                add_weighted(mean_P, gradient_P, share, is_first=place == 0)
        return means

    # Out of step.

    def _push(self, peer: Peer, message: Message) -> None:
        head = message.head
        served = self._served[head["group"]]
        reader = served.readers[peer.member]
        stale = served.num_pushes - reader.num_pushes
        if head["numbers"] is not None:
            served.optimizer.set_numbers(head["numbers"])
        if head["weight"]:
            gradients = self._decode(served, message)
            if self._compensation:
                gradients = [
                    compensate(gradient_P, mirror.true_P, mirror.known_P, self._compensation)
                    for gradient_P, mirror in zip(gradients, reader.mirrors)
                ]
            served.guard.step(peer.member, gradients, head["absent"], stale)
            served.num_pushes += 1
        served.gate.push(peer.member)
        self._reading[peer.member] = (peer, head["group"], stale)
        self._let_read()

    def _let_read(self) -> None:
        """Answer everybody for whom what is there is fresh enough."""
        now_s = self._clock()
        for member, (peer, group, stale) in sorted(self._reading.items(), key=lambda each: each[0]):
            served = self._served[group]
            if served.gate.may_read(member):
                del self._reading[member]
                gap = served.gate.read(member)
                head = {"stale": stale, "gap": gap, "gives": self.handover.is_wanted}
                peer.answer(head, self._read(served, member), now_s - peer.asked_at_s)

    def _read(self, served: Served, member: Member) -> list[torch.Tensor]:
        reader = served.readers[member]
        reader.num_pushes = served.num_pushes
        ahead = served.guard.look_ahead(member) or [None] * len(reader.mirrors)
        pairs = zip(reader.mirrors, ahead)
        return [part for mirror, wanted_P in pairs for part in mirror.encode(wanted_P)]

    # Both.

    def _decode(self, served: Served, message: Message) -> list[torch.Tensor]:
        """Return a gradient of each section; views of what arrived where nothing was encoded."""
        parts, count = message.tensors, self.codec.num_parts
        if self.codec.is_exact:
            return list(parts)
        gradients = [section.empty() for section in served.sections]
        for number, gradient_P in enumerate(gradients):
            self.codec.decode(parts[number * count : (number + 1) * count], gradient_P)
        return gradients

    def _fill(self, message: Message) -> None:
        count = len(self.sections)
        known, rest = message.tensors[:count], message.tensors[count:]
        has_state = message.head["has_state"]
        true = rest[:count] if has_state else known
        states = unflatten(message.head["optimizers"], rest[count:] if has_state else rest)
        by_section = dict(zip(self.sections, zip(known, true)))
        for group, served in self._served.items():
            for section, flat_P in zip(served.sections, served.optimizer.flats):
                flat_P.copy_(by_section[section][1])
                if self._is_in_step:
                    mirror = Mirror(self.codec, flat_P)
                    if not self.codec.is_exact:
                        mirror.known_P.copy_(by_section[section][0])
                    served.shared.append(mirror)
            served.optimizer.load_state(states[group])

    def _enter(self, peer: Peer) -> list[torch.Tensor]:
        """Return the parameters as they are for a replica that begins, or pulls out of turn."""
        known: dict[Section, torch.Tensor] = {}
        for served in self._served.values():
            if self._is_in_step:
                mirrors = served.shared
            else:
                flats = served.optimizer.flats
                mirrors = [Mirror(self.codec, flat_P, is_copy=True) for flat_P in flats]
                served.readers[peer.member] = Reader(mirrors, served.num_pushes)
                served.gate.enter(peer.member)
                served.guard.enter(peer.member)
            known.update(zip(served.sections, (mirror.known_P for mirror in mirrors)))
        return [known[section] for section in self.sections]

    def _forget(self, peer: Peer) -> None:
        self._reading.pop(peer.member, None)
        for served in self._served.values():
            served.readers.pop(peer.member, None)
            served.gate.leave(peer.member)
            served.guard.leave(peer.member)
        self._let_read()

    def _tell_state(self, peer: Peer) -> None:
        for served in self._served.values():
            served.guard.settle()
        states = {group: served.optimizer.state() for group, served in self._served.items()}
        described, tensors = flatten(states)
        true = dict(
            each
            for served in self._served.values()
            for each in zip(served.sections, served.optimizer.flats)
        )
        live = [*(true[each] for each in self.sections), *tensors]
        # A large answer is sent in the background, and others may push meanwhile.
        peer.answer({"optimizers": described}, [each.clone() for each in live])
