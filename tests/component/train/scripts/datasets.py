"""Checks on what `run.steps` takes and gives; prints the name of each that held."""

import functools
import os
import random
import signal
import traceback
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from trainmaster import run as run_module
from trainmaster import train
from trainmaster._order import order_keys, permute_bits, shuffled
from trainmaster.train.sources import ShuffledOrder

X, Y = torch.arange(20.0).reshape(10, 2), torch.arange(10)
Sample = namedtuple("Sample", "x y")


class Mapped(Dataset[Any]):
    """A dataset that is asked for one sample at a time."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        return X[index], index


class Many(Mapped):
    """One that prefers to be asked for many."""

    def __getitems__(self, indices: list[int]) -> Any:
        return [(X[index], index) for index in indices]


class Noisy(Mapped):
    """One whose samples are different every time they are asked for."""

    def __getitem__(self, index: int) -> Any:
        noise = random.random() + float(np.random.rand()) + torch.rand(())
        return X[index] + noise, index


class Streamed(IterableDataset[Any]):
    """One that cannot be asked for a sample by its number."""

    def __iter__(self) -> Any:
        return iter(range(10))


def collect(dataset: Any, **options: Any) -> list[Any]:
    """Return all batches of a fresh run."""
    run_module._current = None
    with train.start() as run:
        return [samples for _, samples in run.steps(dataset, batch_size=4, **options)]


def message_of(action: Callable[[], Any], *errors: type[Exception]) -> str:
    """Return what an error says that an action must end with."""
    try:
        action()
    except errors as error:
        return str(error)
    raise AssertionError("it was accepted")


def refusal(dataset: Any) -> str:
    return message_of(lambda: collect(dataset), TypeError, ValueError)


def a_tuple_gives_tuples() -> None:
    for dataset in ((X, Y), (X.numpy(), Y.numpy()), TensorDataset(X, Y)):
        batches = collect(dataset, shuffle=False)
        assert [len(y) for _, y in batches] == [4, 4, 2]
        assert torch.equal(torch.cat([x for x, _ in batches]), X)
        assert type(batches[0]) is tuple


def one_array_gives_tensors() -> None:
    for dataset in (X, X.numpy()):
        assert torch.equal(torch.cat(collect(dataset, shuffle=False)), X)


def a_dict_gives_dicts() -> None:
    batches = collect({"x": X, "y": Y}, shuffle=False)
    assert torch.equal(torch.cat([batch["y"] for batch in batches]), Y)


def samples_are_collated() -> None:
    for dataset in (Mapped(), Many(), [(X[index], index) for index in range(10)]):
        batches = collect(dataset, shuffle=False)
        assert torch.equal(torch.cat([x for x, _ in batches]), X)
        assert torch.equal(torch.cat([y for _, y in batches]), Y)


def named_tuples_stay_what_they_are() -> None:
    batches = collect([Sample(X[index], index) for index in range(10)], shuffle=False)
    assert batches[0].y.tolist() == [0, 1, 2, 3]


def the_order_is_that_of_the_pure_function() -> None:
    given = torch.cat([y for _, y in collect((X, Y), epochs=2)]).tolist()
    want = [shuffled(place, 10, order_keys(0, epoch)) for epoch in (0, 1) for place in range(10)]
    assert given == want


def tensors_and_integers_are_shuffled_alike() -> None:
    for size in (1, 2, 3, 10, 1000, 70_000, 2**33):
        keys = order_keys(5, 1)
        positions = torch.arange(min(size, 2000)) + max(0, size - 2000)
        tensors = permute_bits(positions, size, keys).tolist()
        assert tensors == [permute_bits(place, size, keys) for place in positions.tolist()]
    order = ShuffledOrder(5, 70_000, is_shuffled=True)
    taken = torch.cat([order.take(1, first, first + 700) for first in range(0, 70_000, 700)])
    assert taken[::997].tolist() == [
        shuffled(place, 70_000, order_keys(5, 1)) for place in range(0, 70_000, 997)
    ]
    assert taken.sort().values.equal(torch.arange(70_000))


def workers_give_the_same_batches() -> None:
    plain, loaded = collect(Mapped(), epochs=2), collect(Mapped(), epochs=2, loader_workers=2)
    for (x, y), (other_x, other_y) in zip(plain, loaded, strict=True):
        assert x.equal(other_x)
        assert y.equal(other_y)


def noise_does_not_depend_on_the_number_of_workers() -> None:
    batches = [collect(Noisy(), epochs=2, loader_workers=count) for count in (1, 2, 3)]
    for one, two, three in zip(*batches, strict=True):
        assert one[0].equal(two[0])
        assert one[0].equal(three[0])
    first, second = (
        torch.cat([x for x, _ in batches[0][part]]) for part in (slice(3), slice(3, 6))
    )
    assert not first.sort(0).values.equal(second.sort(0).values)  # another epoch, other noise


def workers_draw_nothing_from_the_rank() -> None:
    states = []
    for count in (0, 2):
        run_module._current = None
        with train.start() as run:
            for _ in run.steps(Mapped(), batch_size=4, loader_workers=count):
                pass
            states.append(torch.get_rng_state())
    assert states[0].equal(states[1])


def workers_die_of_sigterm() -> None:
    class Telling(Mapped):
        def __getitem__(self, index: int) -> Any:
            return X[index], int(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)

    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert all(y.all() for _, y in collect(Telling(), loader_workers=1))


def what_has_no_numbers_is_refused() -> None:
    loader = DataLoader(Mapped())
    for dataset in (Streamed(), iter([1, 2]), loader, {"x": [1, 2]}, 7):
        assert "__len__ and __getitem__" in refusal(dataset)


def sizes_that_make_no_sense_are_refused() -> None:
    assert (
        refusal((X, Y[:7])) == "the columns of the dataset have [7, 10] samples: give equally many"
    )
    assert refusal((X[:0],)) == "the dataset is empty"
    assert refusal([]) == "the dataset is empty"
    run_module._current = None
    with train.start() as run:
        refused = message_of(lambda: list(run.steps((X,), batch_size=0)), ValueError)
    assert "at least one" in refused


def gradients_begin_at_zero() -> None:
    run_module._current = None
    with train.start() as run:
        model = run.model(nn.Linear(2, 1))
        run.optimizer(torch.optim.SGD(model.parameters(), lr=0.0))
        norms = []
        for _, (x,) in run.steps((torch.ones(8, 2),), batch_size=4, epochs=2):
            run.backward(model(x).sum())
            norms.append(float(model.weight.grad.norm()))
    assert len(set(norms)) == 1


def nothing_to_save_leaves_no_checkpoint() -> None:
    before = sorted(Path("trainmaster-runs").glob("*"))
    collect((X,))
    assert sorted(Path("trainmaster-runs").glob("*")) == before


def names_are_taken_once() -> None:
    run_module._current = None
    with train.start() as run:
        run.model(nn.Linear(1, 1))
        refused = message_of(lambda: run.model(nn.Linear(1, 1)), run_module.RunError)
        assert "name=" in refused
        run.model(nn.Linear(1, 1), name="other")


def tied_weights_and_extra_state_come_back() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
            self.two.weight = self.one.weight
            self.norm = nn.BatchNorm1d(3)
            self.told: Any = None

        def get_extra_state(self) -> Any:
            return {"told": self.told}

        def set_extra_state(self, state: Any) -> None:
            self.told = state["told"]

    run_module._current = None
    with train.start() as run:
        first = Tied()
        first.told = [1, "two"]
        run.model(first)
        first.norm(torch.randn(5, 3))
        run.log(loss=1.0)
    newest = run_module.current_run().latest_checkpoint()
    assert newest is not None
    Path("resume.json").write_text('{"resume": "' + str(newest.path) + '"}')
    os.environ["TRAINMASTER_RUN"] = "resume.json"
    run_module._current = None
    with train.start(seed=9) as run:
        second = Tied()
        assert not second.one.weight.equal(first.one.weight)
        run.model(second)
    del os.environ["TRAINMASTER_RUN"]
    assert second.one.weight.equal(first.one.weight)
    assert second.two.weight is second.one.weight
    assert second.norm.running_mean.equal(first.norm.running_mean)
    assert second.told == [1, "two"]


def a_state_that_could_not_be_read_back_is_refused() -> None:
    class Secretive:
        def state_dict(self) -> Any:
            return {"function": functools.partial(print)}

        def load_state_dict(self, state: Any) -> None:
            raise AssertionError("never loaded")

    def train_secretly() -> None:
        with train.start() as run:
            run.model(nn.Linear(1, 1))
            run.keep("secret", Secretive())
            run.log(loss=1.0)

    run_module._current = None
    assert "tensors and plain values" in message_of(train_secretly, run_module.RunError)


def a_failing_script_leaves_no_checkpoint() -> None:
    before = sorted(Path("trainmaster-runs").rglob("ready-*"))
    run_module._current = None
    try:
        with train.start() as run:
            run.model(nn.Linear(1, 1))
            run.log(loss=1.0)
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert sorted(Path("trainmaster-runs").rglob("ready-*")) == before


CHECKS: list[Callable[[], None]] = [
    value
    for value in list(globals().values())
    if callable(value)
    and getattr(value, "__module__", "") == __name__
    and "_" in getattr(value, "__name__", "")
]
for check in CHECKS:
    try:
        check()
        print("held", check.__name__, flush=True)
    except Exception:  # noqa: BLE001  the others are to run as well
        print("failed", check.__name__, flush=True)
        traceback.print_exc()
