"""`local_sgd` and `diloco`: replicas step alone, and every so often move together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from trainmaster.train.outer.anchor import follow
from trainmaster.train.outer.codec import ErrorFeedback, Plain
from trainmaster.train.outer.frames import Message
from trainmaster.train.outer.joined import Joined, Seat
from trainmaster.train.outer.layout import join_by_name, split_by_name

if TYPE_CHECKING:
    from trainmaster.train.outer.codec import Codec
    from trainmaster.train.outer.layout import Flat, Kind, Place
    from trainmaster.train.outer.link import Link


class LocalRounds(Joined):
    """Steps alone; after every `every` steps sends how far it came from the anchor, and goes there.

    With `fragments` the model goes in as many parts, at different steps, each once in `every`:
    the same bytes, in smaller pieces. What is left over when a loop ends gets a round of its own,
    so that every replica's last steps count.

    Source:
        local SGD: Stich, ICLR 2019; DiLoCo: Douillard et al., 2023; fragments: Streaming DiLoCo
        (Douillard et al., 2025), without its overlap of communication and computation.
    """

    def __init__(
        self,
        link: Link,
        seat: Seat,
        *,
        every: int,
        outer_lr: float = 1.0,
        outer_momentum: float = 0.0,
        fragments: int = 1,
        compression: str | None = None,
    ) -> None:
        """`seat` and `link` as `join_outer` makes them; the rest as in the job's `sync`."""
        if every < 1 or not 1 <= fragments <= every:
            raise ValueError(
                f"every = {every} with fragments = {fragments}: a round comes at least every "
                "step, and has at most one fragment for each step"
            )
        super().__init__(link, seat, compression)
        self._every, self._fragments = every, fragments
        self._outer = {"outer_lr": outer_lr, "outer_momentum": outer_momentum}
        self._strands: list[_Strand] = []
        self._step = 0
        self._synced_at: list[int] = []

    def weigh(self, loss: torch.Tensor, num_samples: int, num_samples_all: int) -> torch.Tensor:
        """Return the loss such that the mean over replicas is that over all samples of a batch.

        Deltas are then averaged equally. This way, unlike with deltas weighted by samples, one
        step per round is data parallel training exactly, also with momentum.
        """
        if num_samples * self._seat.num_replicas == num_samples_all:
            return loss
        return loss * (num_samples * self._seat.num_replicas / num_samples_all)

    def after_step(self, step: int, num_samples: int) -> None:
        """Do the rounds that are due."""
        del num_samples
        self._pass(step)
        self._step = step
        due = [each for each in range(self._fragments) if self._is_due(each, step)]
        if due:
            self._round(due)
            self._look_at_roll(step)
            self._give()

    def end_loop(self, step: int, meet_in_s: float | None = None) -> bool:
        """Do a round for the steps since the last."""
        del meet_in_s
        self._step = max(self._step, step)  # a `break` comes before `after_step`
        left = [each for each in range(self._fragments) if self._synced_at[each] != self._step]
        if left:
            self._round(left)
            self._look_at_roll(self._step)
            self._give()
        return True

    def may_meet(self, step: int) -> bool:
        """Whether a whole interval is over; with one fragment all replicas are then the same."""
        return step % self._every == 0

    def state_dict(self) -> dict[str, Any]:
        """Return anchor and outer momentum, and what this replica has not sent yet."""
        values = [strand for strand in self._strands if strand.is_value]
        flats = [strand.flat for strand in values]
        mine: dict[str, Any] = {}
        if not self._codec.is_exact:
            mine["residuals"] = split_by_name(flats, [each.feedback.residual_P for each in values])
        if self._fragments > 1:
            mine["parameters"] = split_by_name(flats, [flat.read() for flat in flats])
        if self._seat.replica != 0:
            return {"mine": mine}
        answer = self._link.ask(Message({"op": "state"}), "state")
        true, momenta = answer.tensors[: len(self._flats)], answer.tensors[len(self._flats) :]
        shared = {
            "known": split_by_name(self._flats, [each.anchor_P for each in self._strands]),
            "true": split_by_name(self._flats, true) if not self._codec.is_exact else {},
            "momentum": split_by_name(flats, momenta),
            "synced_at": list(self._synced_at),
        }
        return {"shared": shared, "mine": mine}

    def _is_due(self, fragment: int, step: int) -> bool:
        return (step + fragment * self._every // self._fragments) % self._every == 0

    def _place(self) -> list[Place]:
        learned = [
            (f"{name}/{key}", parameter)
            for name, module in self._models.items()
            for key, parameter in module.named_parameters()
            if parameter.requires_grad
        ]
        parts = divide([parameter.numel() for _, parameter in learned], self._fragments)
        self._fragments = max(parts, default=0) + 1
        places = []
        for (name, parameter), part in zip(learned, parts):
            # Sums of many small numbers: sixteen bits would lose most of them.
            dtype = torch.promote_types(parameter.dtype, torch.float32)
            places.append(self._add_place(name, parameter, str(part), "value", dtype))
        for name, module in self._models.items():
            for key, buffer in module.named_buffers():
                kind: Kind = "mean" if buffer.is_floating_point() else "first"
                places.append(self._add_place(f"{name}/{key}", buffer, "0", kind, buffer.dtype))
        return places

    def _describe(self) -> dict[str, Any]:
        return {"space": "anchored", **self._outer}

    def _bring(self, server: int) -> tuple[dict[str, Any], list[torch.Tensor]]:
        flats, saved = self._flats_of(server), self._saved
        if not saved:
            return {"has_state": False}, [flat.read().cpu() for flat in flats]
        known = [join_by_name(flat, saved["known"]) for flat in flats]
        true = [join_by_name(flat, saved["true"] or saved["known"]) for flat in flats]
        values = [flat for flat in flats if flat.section.kind == "value"]
        momenta = [join_by_name(flat, saved["momentum"]) for flat in values if saved["momentum"]]
        return {"has_state": True}, [*known, *true, *momenta]

    def _begun(self) -> None:
        self._strands = [_Strand(flat, self._codec) for flat in self._flats]
        self._step = self.joined_at.step if self.joined_at else self._cursor.step
        self._synced_at = [self._step] * self._fragments
        if self.joined_at is not None:
            return
        synced_at = self._saved.get("synced_at", ())
        if len(synced_at) == self._fragments:  # else the job has been given other fragments
            self._synced_at = list(synced_at)
        for strand in self._strands:
            residual_P = strand.feedback.residual_P
            if residual_P is not None and "residuals" in self._saved_mine:
                residual_P.copy_(join_by_name(strand.flat, self._saved_mine["residuals"]))
            if strand.is_value and "parameters" in self._saved_mine:
                strand.flat.write(join_by_name(strand.flat, self._saved_mine["parameters"]))

    def _round(self, due: list[int]) -> None:
        """Bring the fragments that are due to the server, and go to where the anchor is then."""
        groups = {str(each) for each in due}
        numbers = [
            number
            for number, strand in enumerate(self._strands)
            if strand.flat.section.group in groups
        ]
        head = {
            "op": "round",
            "sections": numbers,
            "weight": 1.0,
            "roll": self._roll,
            "cursor": vars(self._cursor),
        }
        tensors = [part for number in numbers for part in self._strands[number].leave()]
        answer = self._link.ask(Message(head, tensors), "round")
        self._roll, self._gives = answer.head["roll"], answer.head["gives"]
        rest = answer.tensors
        for number in numbers:
            rest = self._strands[number].go(rest)
        for fragment in due:
            self._synced_at[fragment] = self._step
        self._link.counters.rounds += 1


def divide(sizes: list[int], num_parts: int) -> list[int]:
    """Return the part, from 0, of each of some tensors: neighbours, in parts of like size.

    Where large tensors leave a part with nothing, there are fewer parts.
    """
    begins = [sum(sizes[:number]) * num_parts // max(1, sum(sizes)) for number in range(len(sizes))]
    numbers = {part: number for number, part in enumerate(sorted(set(begins)))}
    return [numbers[begin] for begin in begins]


class _Strand:
    """One section, the anchor of it, and what compression has left out.

    Attributes:
        anchor_P: where the replicas parted, as far as they know.
        feedback: of what is sent; nothing for buffers, which travel as they are.
    """

    def __init__(self, flat: Flat, codec: Codec) -> None:
        self.flat = flat
        self.anchor_P = flat.flat_P.clone()
        self.is_value = flat.section.kind == "value"
        self._codec = codec if self.is_value else Plain()
        self.feedback = ErrorFeedback(self._codec, self.anchor_P)

    def leave(self) -> list[torch.Tensor]:
        """Return what travels to the server."""
        value_P = self.flat.read()
        if self.is_value:
            torch.sub(self.anchor_P, value_P, out=value_P)
        return [part.cpu() for part in self.feedback.encode(value_P)]

    def go(self, arrived: list[torch.Tensor]) -> list[torch.Tensor]:
        """Take over the anchor from the first tensors that arrived, and return the others."""
        count = self._codec.num_parts
        parts = [part.to(self.anchor_P.device) for part in arrived[:count]]
        follow(self._codec, parts, self.anchor_P)
        self.flat.write(self.anchor_P)
        return arrived[count:]
