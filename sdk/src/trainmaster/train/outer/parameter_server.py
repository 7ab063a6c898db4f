"""`parameter_server`: gradients go to the servers, parameters come back."""

from __future__ import annotations

import types
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from trainmaster._job_errors import RunError
from trainmaster._order import Batch, Cursor
from trainmaster.train.outer.anchor import follow
from trainmaster.train.outer.codec import ErrorFeedback
from trainmaster.train.outer.frames import Message
from trainmaster.train.outer.joined import Joined, Seat
from trainmaster.train.outer.layout import join_by_name, local_of, split_by_name
from trainmaster.train.outer.parameters import describe_groups, describe_optimizer
from trainmaster.train.outer.tree import flatten, unflatten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trainmaster._order import Plan
    from trainmaster.train.outer.codec import Codec
    from trainmaster.train.outer.layout import Flat, Place
    from trainmaster.train.outer.link import Link


class ParameterServer(Joined):
    """Replaces each optimizer's `step`: the servers step, with all gradients or with each.

    With `staleness` 0 replicas go in step, and a step is one with the mean gradient of the whole
    batch. With a bound, or None for no bound, each takes pieces of the data as fast as it can.
    """

    def __init__(
        self,
        link: Link,
        seat: Seat,
        *,
        staleness: int | None = 0,
        compensation: float = 0.0,
        guard: bool = True,
        compression: str | None = None,
    ) -> None:
        """`seat` and `link` as `join_outer` makes them; the rest as in the job's `sync`."""
        super().__init__(link, seat, compression)
        self.in_step = staleness == 0
        self._settings = {"staleness": staleness, "compensation": compensation, "guard": guard}
        self._optimizers: dict[str, torch.optim.Optimizer] = {}
        self._names: dict[torch.Tensor, str] = {}
        self._strands: dict[str, list[_Strand]] = {}
        self._numbers: dict[str, list[dict[str, Any]]] = {}
        self._weight = 1.0
        self._pushed: set[str] = set()
        self._buffers: list[torch.Tensor] = []
        self._versions: list[int] = []
        self._plan: dict[str, Any] = {}
        self._answer: dict[str, Any] = {}

    def adopt(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        """Take over an optimizer with its state: from now on its `step` is the servers'."""
        if self._described is not None:
            raise RunError(
                f"the optimizer {name!r} comes after the first step: with sync.mode "
                "parameter_server, give all optimizers to run.optimizer() before the first loop"
            )
        self._optimizers[name] = optimizer
        _replace_step(optimizer, lambda: self._push(name))

    def weigh(self, loss: torch.Tensor, num_samples: int, num_samples_all: int) -> torch.Tensor:
        """Return the loss as it is; the server weighs the gradient by its samples."""
        del num_samples_all
        self._weight = float(num_samples)
        return loss

    def batches(self, plan: Plan, cursor: Cursor) -> Iterator[Batch]:
        """Yield what is left of a loop: whole batches in step, else the pieces we are given."""
        if self.in_step:
            yield from super().batches(plan, cursor)
            return
        self.begin(cursor)
        self._plan, self._cursor = asdict(plan), cursor
        self._ask_for_piece()
        while True:
            if "piece" in self._answer:
                piece = self._answer.pop("piece")
                self._cursor = Cursor.from_dict(piece["after"])
                yield Batch(**{**piece, "after": self._cursor})
            elif "rest" not in self._answer:
                raise RunError(
                    "with staleness other than 0 each replica is given its samples as it goes, so "
                    "none can be loaded ahead: leave out loader_workers"
                )
            elif self._answer["rest"] == "end":
                return
            else:
                self._ask_for_piece()

    def after_step(self, step: int, num_samples: int) -> None:
        """Say so where an optimizer took no step, so that nobody waits; get the next piece."""
        del num_samples
        if self.in_step:
            self._pass(step)
            for name in self._optimizers:
                if name not in self._pushed:
                    self._push(name, is_absent=True)
            self._look_at_roll(step)
            self._share_buffers()
            self._give()
        else:
            self._give()
            self._ask_for_piece()
        self._pushed.clear()

    def end_loop(self, step: int, meet_in_s: float | None = None) -> bool:
        """Meet the others, where a `break` has left a loop out of step.

        What this replica was working on counts as done. It waits until the others have left the
        loop, too, or done it, or meet; the rest of the batch that the last of them leaves is not
        done.
        """
        del step
        self._give()  # a `break` comes before `after_step`
        if self.in_step or not self._plan or self._answer.get("rest") == "end":
            return True
        self._rest()
        head = {"op": "leave", "plan": self._plan, "cursor": vars(self._cursor)}
        message = Message({**head, "meet_in_s": meet_in_s})
        self._answer = self._link.ask(message, "data").head
        self._settle()
        return bool(self._answer["rest"] == "end")

    def may_meet(self, step: int) -> bool:
        """Whether all have stopped to meet, or go in step anyway."""
        del step
        return self.in_step or "rest" in self._answer

    def want_to_meet(self) -> None:
        """Let nobody begin another batch, so that all stop soon."""
        if not self.in_step:
            self._link.ask(Message({"op": "hold"}), "data")

    @property
    def meeting_at(self) -> Cursor | None:
        """Where in the data all are, while they have stopped to meet, or are at the end."""
        return Cursor.from_dict(self._answer["cursor"]) if "rest" in self._answer else None

    @property
    def ends_together(self) -> bool:
        """Whether the loop is over for all, and not for this replica alone."""
        return self._answer.get("rest") == "end" and not self._answer["is_late"]

    def state_dict(self) -> dict[str, Any]:
        """Return what the servers know beyond the parameters, and what is not sent yet.

        The state of the optimizers goes where it always is: into the optimizers.
        """
        strands = [strand for group in self._strands.values() for strand in group]
        flats = [strand.flat for strand in strands]
        mine: dict[str, Any] = {}
        if not self._codec.is_exact:
            mine["residuals"] = split_by_name(flats, [each.feedback.residual_P for each in strands])
        if self._seat.replica != 0:
            return {"mine": mine}
        request = {server: Message({"op": "state"}) for server in range(self._link.num_servers)}
        true: dict[str, torch.Tensor] = {}
        for server, answer in self._link.exchange(request, "state").items():
            flats = self._flats_of(server)
            true.update(split_by_name(flats, answer.tensors[: len(flats)]))
            states = unflatten(answer.head["optimizers"], answer.tensors[len(flats) :])
            self._keep_optimizer_states(states)
        return {"shared": {} if self._codec.is_exact else {"true": true}, "mine": mine}

    # How it begins.

    def _place(self) -> list[Place]:
        places = []
        owners = {
            parameter: group
            for group, optimizer in self._optimizers.items()
            for each in optimizer.param_groups
            for parameter in each["params"]
        }
        for name, module in self._models.items():
            for key, parameter in module.named_parameters():
                if parameter in owners:
                    full = f"{name}/{key}"
                    self._names[parameter] = full
                    group = owners[parameter]
                    place = self._add_place(full, parameter, group, "value", parameter.dtype)
                    places.append(place)
            self._buffers += list(module.buffers())
        self._versions = [buffer._version for buffer in self._buffers]
        return places

    def _describe(self) -> dict[str, Any]:
        optimizers = {
            name: describe_optimizer(optimizer, self._names)
            for name, optimizer in self._optimizers.items()
        }
        self._numbers = {name: each["groups"] for name, each in optimizers.items()}
        return {"space": "served", "optimizers": optimizers, **self._settings}

    def _bring(self, server: int) -> tuple[dict[str, Any], list[torch.Tensor]]:
        flats = self._flats_of(server)
        tensors = [flat.read().cpu() for flat in flats]
        has_state = "true" in self._saved
        if has_state:
            tensors += [join_by_name(flat, self._saved["true"]) for flat in flats]
        mine = {name for flat in flats for name in flat.section.names}
        states = {
            group: {
                self._names[parameter]: dict(state)
                for parameter, state in optimizer.state.items()
                if self._names[parameter] in mine
            }
            for group, optimizer in self._optimizers.items()
        }
        described, more = flatten(states)
        return {"has_state": has_state, "optimizers": described}, [*tensors, *more]

    def _begun(self) -> None:
        parameters = {name: parameter for parameter, name in self._names.items()}
        for flat in self._flats:
            strand = _Strand(flat, [parameters[name] for name in flat.section.names], self._codec)
            self._strands.setdefault(flat.section.group, []).append(strand)
            if "residuals" in self._saved_mine and strand.feedback.residual_P is not None:
                saved = join_by_name(flat, self._saved_mine["residuals"])
                strand.feedback.residual_P.copy_(saved)

    # What happens in a step.

    def _push(self, name: str, *, is_absent: bool = False) -> None:
        """Send the gradients of one optimizer, and take over the parameters that come back."""
        optimizer, strands = self._optimizers[name], self._strands[name]
        self._pushed.add(name)
        numbers = describe_groups(optimizer)
        if len(numbers) != len(self._numbers[name]):
            raise RunError(
                f"the optimizer {name!r} has another number of parameter groups than at the first "
                "step, which the servers keep: with sync.mode parameter_server, add all groups "
                "before the first loop"
            )
        is_new, self._numbers[name] = numbers != self._numbers[name], numbers
        head: dict[str, Any] = {
            "op": "push",
            "group": name,
            "weight": None if is_absent else self._weight,
            "numbers": numbers if is_new else None,
            "roll": self._roll,
            # In step, the first of those to come is where this step ends.
            "cursor": vars(self._ahead[0] if self._ahead else self._cursor),
            "ends_step": len(self._pushed) == len(self._optimizers),
        }
        messages: dict[int, Message] = {}
        for server in range(self._link.num_servers):
            mine = [strand for strand in strands if strand.flat.section.server == server]
            if mine:
                absent = [each for strand in mine for each in strand.find_absent()]
                parts = [] if is_absent else [part for strand in mine for part in strand.leave()]
                messages[server] = Message({**head, "absent": absent}, parts)
        answers = self._link.exchange(messages, "push", is_gated=not self.in_step)
        for server, answer in answers.items():
            rest = answer.tensors
            for strand in strands:
                if strand.flat.section.server == server:
                    rest = strand.go(rest)
        counters = self._link.counters
        counters.rounds += 1
        head = answers[min(answers)].head
        self._roll = head.get("roll", self._roll)
        self._gives |= any(answer.head["gives"] for answer in answers.values())
        counters.staleness[head["stale"]] += 1
        counters.gaps[head["gap"]] += 1

    def _ask_for_piece(self) -> None:
        head = {"op": "piece", "plan": self._plan, "cursor": vars(self._cursor)}
        is_bounded = self._settings["staleness"] is not None
        answer = self._link.ask(Message({**head, "is_patient": not is_bounded}), "data")
        if answer.head.get("rest") == "wait":
            self._rest()
            answer = self._link.ask(Message({**head, "is_patient": True}), "data")
            if "piece" in answer.head:
                self._work()
        self._answer = answer.head
        if "rest" in self._answer:
            self._settle()

    def _say(self, head: dict[str, Any], tensors: Sequence[torch.Tensor] = ()) -> Message:
        self._rest()
        answer = super()._say(head, tensors)
        self._work()
        return answer

    def _take(self) -> None:
        self._rest()  # who is to tell us must not wait for us at the gate
        super()._take()
        self._work()

    def _rest(self) -> None:
        """Hold up nobody who is ahead, while this replica has nothing to do.

        Else who waits at the gate for it would never come to where it waits for them.
        """
        self._tell_gates("rest")

    def _work(self) -> None:
        """Be one of those who may be waited for again, and one of the slowest."""
        self._tell_gates("work")

    def _tell_gates(self, operation: str) -> None:
        if self._described is not None and self._settings["staleness"]:
            everybody = range(self._link.num_servers)
            self._link.exchange({each: Message({"op": operation}) for each in everybody}, "data")

    def _settle(self) -> None:
        """Be the same as everybody, while nobody is at work."""
        request = {server: Message({"op": "pull"}) for server in range(self._link.num_servers)}
        for server, answer in self._link.exchange(request, "pull").items():
            for flat, value_P in zip(self._flats_of(server), answer.tensors):
                flat.flat_P.copy_(value_P)
        for strand in (each for group in self._strands.values() for each in group):
            strand.begin_at(strand.flat.flat_P)
        self._share_buffers()
        self.maximum([0])  # nobody goes on before all have what is there now

    def _share_buffers(self) -> None:
        """Give all replicas the mean of the buffers that have changed, such as running means."""
        versions = [buffer._version for buffer in self._buffers]
        changed = [
            buffer
            for buffer, now, before in zip(self._buffers, versions, self._versions)
            if buffer.is_floating_point() and (now != before or not self.in_step)
        ]
        if changed:
            totals, count = self._add_up(changed)
            for buffer, total in zip(changed, totals):
                buffer.copy_(total / count)
        self._versions = [buffer._version for buffer in self._buffers]

    def _keep_optimizer_states(self, states: dict[str, dict[str, dict[str, Any]]]) -> None:
        parameters = {name: parameter for parameter, name in self._names.items()}
        for group, by_name in states.items():
            for name, state in by_name.items():
                parameter = parameters[name]
                self._optimizers[group].state[parameter] = {
                    key: _placed(value, parameter) for key, value in state.items()
                }


class _Strand:
    """One section: gradients that go, parameters that come.

    Attributes:
        feedback: of the gradients.
    """

    def __init__(self, flat: Flat, parameters: list[torch.nn.Parameter], codec: Codec) -> None:
        self.flat = flat
        self._parameters = parameters
        self._codec = codec
        self.feedback = ErrorFeedback(codec, flat.flat_P)
        self._known_P = None if codec.is_exact else flat.flat_P.clone()
        self._views = flat.section.split(flat.flat_P)

    def find_absent(self) -> list[str]:
        """Return the parameters that have no gradient."""
        pairs = zip(self.flat.section.names, self._parameters)
        return [name for name, parameter in pairs if parameter.grad is None]

    def leave(self) -> list[torch.Tensor]:
        """Return what travels to the server."""
        for view, parameter in zip(self._views, self._parameters):
            if parameter.grad is None:
                view.zero_()
            else:
                view.copy_(local_of(parameter.grad))
        return [part.cpu() for part in self.feedback.encode(self.flat.flat_P)]

    def go(self, arrived: list[torch.Tensor]) -> list[torch.Tensor]:
        """Take over the parameters from the first tensors that arrived, and return the others."""
        count = self._codec.num_parts
        parts = [part.to(self.flat.flat_P.device) for part in arrived[:count]]
        if self._known_P is None:
            self.flat.write(parts[0])
        else:
            follow(self._codec, parts, self._known_P)
            self.flat.write(self._known_P)
        return arrived[count:]

    def begin_at(self, value_P: torch.Tensor) -> None:
        """Take over the parameters as they are."""
        if self._known_P is not None:
            self._known_P.copy_(value_P)
        self.flat.write(value_P)


def _placed(value: Any, parameter: torch.Tensor) -> Any:
    """Return a state as the optimizer itself would have it: counts stay on the CPU."""
    is_like = isinstance(value, torch.Tensor) and value.dim() > 0
    return value.to(parameter.device) if is_like else value


def _replace_step(optimizer: torch.optim.Optimizer, push: Callable[[], None]) -> None:
    """Let an optimizer's `step` be another, as schedules and scalers expect it to look."""

    def step(self: torch.optim.Optimizer, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        push()
        self._opt_called = True  # where a schedule looks whether it was called too early
        return loss

    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]  # likewise
    optimizer.step = types.MethodType(step, optimizer)
