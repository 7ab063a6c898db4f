"""A replica joined to the others by servers: what all modes of the outer group have in common."""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from trainmaster._job_errors import RunError
from trainmaster._order import Cursor
from trainmaster.train.outer.codec import make_codec
from trainmaster.train.outer.frames import Message
from trainmaster.train.outer.layout import Flat, Place, dtype_name, lay_out, local_of
from trainmaster.train.outer.tree import flatten, unflatten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from trainmaster._order import Batch, Plan
    from trainmaster.train.outer.counters import Snapshot
    from trainmaster.train.outer.layout import Kind
    from trainmaster.train.outer.link import Link


@dataclass(frozen=True)
class Seat:
    """Which replica this is, of how many; and how many shares a batch has."""

    replica: int
    num_replicas: int


class Joined:
    """Takes over the models, meets the other replicas before the first batch, and talks with them.

    Attributes:
        in_step: whether all replicas take the same steps.
        joined_at: where in the data the others were when this replica found them at work; None
            if all began together.
        joined_step: after which step a replica joined last, this one or another; None if none has.
    """

    in_step = True

    def __init__(self, link: Link, seat: Seat, compression: str | None) -> None:
        self._link, self._seat = link, seat
        self._codec = make_codec(compression)
        self._models: dict[str, torch.nn.Module] = {}
        self._tensors: dict[str, torch.Tensor] = {}
        self._flats: list[Flat] = []
        self._described: dict[str, Any] | None = None
        self._roll: list[Any] = []
        self._saved: dict[str, Any] = {}
        self._saved_mine: dict[str, Any] = {}
        self._cursor = Cursor()
        self._ahead: deque[Cursor] = deque()
        self._known_roll: list[Any] = []
        self._gives = False
        self._tell: Callable[[], dict[str, Any]] = dict
        self._hear: Callable[[dict[str, Any]], None] = lambda _: None
        self.joined_at: Cursor | None = None
        self.joined_step: int | None = None

    # What the session hands over.

    def wrap(
        self, name: str, module: torch.nn.Module, *, find_unused_parameters: bool = False
    ) -> torch.nn.Module:
        """Take over a model with its weights; what it computes with stays as it is."""
        del find_unused_parameters
        if self._described is not None:
            raise RunError(
                f"the model {name!r} comes after the first step: with sync.mode other than "
                "allreduce, give all models to run.model() before the first loop"
            )
        self._models[name] = module
        return module

    def adopt(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        """Take over an optimizer with its state, if the mode needs to."""

    def hand_over(
        self, tell: Callable[[], dict[str, Any]], hear: Callable[[dict[str, Any]], None]
    ) -> None:
        """Say what else is the same on all replicas, between steps, and who joins is to have.

        Args:
            tell: returns it by name: tensors and plain values; of what is more, nothing is sent.
            hear: is given what another replica's `tell` has returned, before the first batch.
        """
        self._tell, self._hear = tell, hear

    def weigh(self, loss: torch.Tensor, num_samples: int, num_samples_all: int) -> torch.Tensor:
        """Return the loss to differentiate, given the mean loss over this replica's samples."""
        raise NotImplementedError

    # The loop.

    def batches(self, plan: Plan, cursor: Cursor) -> Iterator[Batch]:
        """Yield what is left of a loop; meets the other replicas before the first batch."""
        self.begin(cursor)
        found = self.joined_at
        if found is not None and found.loop >= cursor.loop and found.step > cursor.step:
            if found.loop > cursor.loop:
                return  # the others have done this loop
            cursor = found
        for batch in plan.batches(cursor):
            self._ahead.append(batch.after)  # whoever loads samples ahead is further than the steps
            yield batch

    def after_step(self, step: int, num_samples: int) -> None:
        """Do what is due after a step of the script."""
        raise NotImplementedError

    def end_loop(self, step: int, meet_in_s: float | None = None) -> bool:
        """Do what is due once a loop over the data has ended, after some step.

        Args:
            step: the last.
            meet_in_s: after how long from now all are to meet, if others go on until then.

        Returns:
            whether it is over. Else others are in it still and have stopped to meet: take part,
            and call this again.
        """
        raise NotImplementedError

    def may_meet(self, step: int) -> bool:
        """Whether the replicas may agree on something after this step, such as to save."""
        raise NotImplementedError

    def want_to_meet(self) -> None:
        """Ask that `may_meet` be true soon, on all replicas; where it is often, nothing happens."""

    @property
    def meeting_at(self) -> Cursor | None:
        """Where in the data all are, while they have stopped to meet; None while they go on."""
        return None

    @property
    def ends_together(self) -> bool:
        """Whether a loop is over for all who do not go in step, who now meet for the last time."""
        return False

    def begin(self, cursor: Cursor) -> None:
        """Meet the other replicas, once: all start from what the first has brought.

        Who comes later is given what they have by then.
        """
        if self._described is not None:
            return
        self._cursor = cursor
        places = self._place()
        sections = lay_out(places, self._link.num_servers)
        self._flats = [
            Flat(section, [self._tensors[name] for name in section.names]) for section in sections
        ]
        layout = [section.to_dict() for section in sections]
        self._described = {**self._describe(), "compression": self._codec.name, "layout": layout}
        after, takes = 0, False
        for server in range(self._link.num_servers):
            answer = self._ask_to_begin(server, after)
            if server == 0:
                takes = answer.head["takes"]
                after, self._roll = answer.head["after"], answer.head["roll"]
                theirs = Cursor.from_dict(answer.head["cursor"])
                self.joined_at = theirs if theirs.step > cursor.step else None
            for flat, known_P in zip(self._flats_of(server), answer.tensors):
                flat.flat_P.copy_(known_P)
                flat.write(flat.flat_P)
        self._known_roll = self._roll
        self.joined_step = self.joined_at.step if self.joined_at else None
        if self.joined_at is not None:
            self._say_aloud(
                f"found the others at work and joins them at step {self.joined_at.step}"
            )
        self._begun()
        if takes:
            self._take()

    # Small talk.

    def maximum(self, values: Sequence[int]) -> list[int]:
        """Return the largest of each value over all replicas."""
        answer = self._say({"kind": "maximum", "values": list(values)})
        return list(answer.head["values"])

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all replicas, on its own device."""
        return self._add_up([values])[0][0]

    def gather(self, state: dict[str, Any]) -> dict[int, dict[str, Any]] | None:
        """Return on replica 0 everybody's state by number, of those that are there; else None."""
        described, tensors = flatten(state)
        answer = self._say({"kind": "gather", "value": described}, tensors)
        if "values" not in answer.head:
            return None
        states, rest = {}, answer.tensors
        for replica, value, count in answer.head["values"]:
            states[replica] = unflatten(value, rest[:count])
            rest = rest[count:]
        return states

    def _say(self, head: dict[str, Any], tensors: Sequence[torch.Tensor] = ()) -> Message:
        """Say something to all replicas, and return what all are answered."""
        return self._link.ask(Message({"op": "talk", **head}, list(tensors)), "talk")

    def _add_up(self, values: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], int]:
        """Return the sum of each tensor over all replicas, and how many they were."""
        flat = [value.detach().to("cpu").reshape(-1) for value in values]
        answer = self._say({"kind": "sum"}, flat)
        totals = [
            total.to(value.device, copy=True).view(value.shape)
            for value, total in zip(values, answer.tensors)
        ]
        return totals, answer.head["count"]

    # Checkpoints.

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs beside models and optimizers, at a step of `may_meet`.

        Every replica must call it, and all states together be kept, in the order of replicas.
        What all share is in replica 0's.
        """
        raise NotImplementedError

    def load_state_dict(self, states: Sequence[Mapping[str, Any] | None]) -> None:
        """Put back what all replicas returned; must come before the first loop.

        With another number of replicas what each had for itself is dropped: rounding that error
        feedback would have made good. So it is where a replica was missing, whose state is None.
        """
        first, mine = states[0], None
        if len(states) == self._seat.num_replicas:
            mine = states[self._seat.replica]
        self._saved = dict((first or {}).get("shared", {}))
        self._saved_mine = dict((mine or {}).get("mine", {}))

    def counters(self) -> Snapshot:
        """Return bytes and waits since the beginning."""
        return self._link.counters.snapshot()

    def close(self) -> None:
        """Say goodbye."""
        self._link.close()

    # For the modes.

    def _place(self) -> list[Place]:
        """Return what the replicas share."""
        raise NotImplementedError

    def _describe(self) -> dict[str, Any]:
        """Return what the servers must know."""
        raise NotImplementedError

    def _bring(self, server: int) -> tuple[dict[str, Any], list[torch.Tensor]]:
        """Return head and tensors of what the first replica fills a server's space with."""
        raise NotImplementedError

    def _begun(self) -> None:
        """Get ready for the first step; the models are the same on all replicas by now."""

    def _take(self) -> None:
        """Take over what the others have for themselves, at the end of a step of one of them."""
        answer = self._link.ask(Message({"op": "take"}), "begin")
        if "state" not in answer.head:
            self._say_aloud("finds nobody who could tell what the script keeps: that begins anew")
            return
        state = unflatten(answer.head["state"], answer.tensors)
        for name, why in state["left_out"].items():
            self._say_aloud(f"begins with a new {name}, as the others cannot send theirs: {why}")
        self._hear(state["told"])

    def _say_aloud(self, what: str) -> None:
        sys.stderr.write(f"trainmaster: replica {self._seat.replica} {what}\n")
        sys.stderr.flush()

    def _give(self) -> None:
        """Let who has just joined take over what is ours; we are at the end of a step."""
        if not self._gives:
            return
        self._gives = False
        answer = self._link.ask(Message({"op": "give"}), "begin")
        if answer.head.get("wanted"):
            told, left_out = self._tell(), {}
            for name in list(told):
                try:
                    flatten(told[name])
                except TypeError as error:  # no reason for us to end
                    left_out[name] = str(error)
                    del told[name]
            described, tensors = flatten({"told": told, "left_out": left_out})
            self._link.ask(Message({"op": "give", "state": described}, tensors), "begin")

    def _pass(self, step: int) -> None:
        """Remember where in the data a step has ended."""
        while self._ahead and self._cursor.step < step:
            self._cursor = self._ahead.popleft()

    def _look_at_roll(self, step: int) -> None:
        """Take note of who has joined in the rounds of a step."""
        if any(member not in self._known_roll for member in self._roll):
            self.joined_step = step
        self._known_roll = self._roll

    def _add_place(
        self, name: str, tensor: torch.Tensor, group: str, kind: Kind, dtype: torch.dtype
    ) -> Place:
        local = local_of(tensor.detach())
        self._tensors[name] = local
        return Place(name, group, kind, tuple(local.shape), dtype_name(dtype))

    def _flats_of(self, server: int) -> list[Flat]:
        return [flat for flat in self._flats if flat.section.server == server]

    def _ask_to_begin(self, server: int, after: int) -> Message:
        head: dict[str, Any] = {
            "op": "begin",
            "described": self._described,
            "after": after,
            "brings": False,
            "cursor": self._cursor.to_dict(),
        }
        answer = self._link.ask(Message(head), "begin", server=server)
        if answer.head.get("wanted"):
            more, tensors = self._bring(server)
            message = Message({**head, **more, "brings": True}, tensors)
            answer = self._link.ask(message, "begin", server=server)
        return answer
