"""Claims about gradients that come late; each function is one test."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[5]))

import torch
from sklearn.model_selection import train_test_split
from torch.nn import functional

from tests.component.train.outer.scripts.mutations import mutate
from tests.component.train.outer.scripts.replicas import Training, make_plan
from tests.component.train.outer.scripts.stage import Stage
from trainmaster._order import Cursor
from trainmaster.recipes._labelled_images import load_digits
from trainmaster.train.outer.frames import Message
from trainmaster.train.outer.guard import compensate, slow_down
from trainmaster.train.outer.joined import Seat
from trainmaster.train.outer.joining import make_joined
from trainmaster.train.outer.link import Alone

ASYNCHRONOUS = {"mode": "parameter_server", "staleness": None}


def train_on_stage(
    sync: dict[str, Any], num_replicas: int, order: list[int] | None = None
) -> tuple[list[Training], list[int]]:
    """Return what replicas in threads have learned, and who spoke when."""
    stage = Stage(num_replicas, order)
    plan = make_plan(97, 16, 3)
    trainings = [
        Training(stage.join(sync, replica), replica, num_replicas, "momentum", plan)
        for replica in range(num_replicas)
    ]

    def act(replica: int) -> None:
        trainings[replica].hand_over()
        trainings[replica].run()

    stage.act(act)
    return trainings, stage.order


def claim_an_order_of_arrival_played_again_gives_the_same_bits() -> None:
    for sync in (ASYNCHRONOUS, {**ASYNCHRONOUS, "staleness": 1, "compression": "int8"}):
        one, order = train_on_stage(sync, 3)
        again, _ = train_on_stage(sync, 3, order)

        assert one[0].parameters() == again[0].parameters() == again[2].parameters()
        assert [each.used for each in one] == [each.used for each in again]


def claim_an_update_lost_in_the_replay_would_be_seen() -> None:
    one, order = train_on_stage(ASYNCHRONOUS, 3)
    mutate("lose a push")
    again, _ = train_on_stage(ASYNCHRONOUS, 3, order)

    assert one[0].parameters() != again[0].parameters()


def claim_compensation_of_strength_0_is_none() -> None:
    one, order = train_on_stage(ASYNCHRONOUS, 3)
    same, _ = train_on_stage({**ASYNCHRONOUS, "compensation": 0.0}, 3, order)
    other, _ = train_on_stage({**ASYNCHRONOUS, "compensation": 0.04}, 3, order)

    assert one[0].parameters() == same[0].parameters()
    assert one[0].parameters() != other[0].parameters()


def claim_compensation_is_exact_on_a_quadratic_whose_diagonal_it_knows() -> None:
    # f = sum of h x² / 2 has gradient h x. Read at 1, that is h; with strength 1 / h, strength
    # times gradient squared is the Hessian, h.
    h = torch.tensor(4.0, dtype=torch.float64)
    read = torch.ones(5, dtype=torch.float64)
    now = torch.linspace(-2, 2, 5, dtype=torch.float64)

    compensated = compensate(h * read, now, read, float(1 / h))

    assert torch.equal(compensated, h * now)


def claim_compensation_with_the_wrong_sign_would_be_seen() -> None:
    sync = {**ASYNCHRONOUS, "compensation": 0.04}
    one, order = train_on_stage(sync, 3)
    mutate("compensate the wrong way")
    other, _ = train_on_stage(sync, 3, order)

    assert one[0].parameters() != other[0].parameters()


def claim_what_is_handed_out_for_a_checkpoint_does_not_change_with_later_steps() -> None:
    link = Alone()
    outer = make_joined(ASYNCHRONOUS, link, Seat(0, 1))
    training = Training(outer, 0, 1, "momentum", make_plan(96, 16, 1))
    training.hand_over()
    held: list[tuple[torch.Tensor, torch.Tensor]] = []
    for step in training.steps():
        if step == 2:
            answer = link.ask(Message({"op": "state"}), "state")
            held = [(each, each.clone()) for each in answer.tensors]

    assert len(held) == 5  # the parameters end to end, and four momenta
    for kept, then in held:
        assert torch.equal(kept, then)


def claim_staleness_is_what_it_was() -> None:
    delay = 4
    _, trainings = train_round_robin(delay, num_pushes=40)

    for training in trainings:
        snapshot = training.outer.counters()
        # The first gradients of all are computed on the same parameters.
        assert set(snapshot.staleness) <= set(range(delay + 1))
        assert snapshot.staleness[delay] >= 40 // (delay + 1) - 1


def claim_the_rate_falls_with_delay_beyond_what_is_free() -> None:
    assert [slow_down(stale, 4) for stale in (0, 1, 4, 8, 16)] == [1.0, 1.0, 1.0, 0.5, 0.25]


def train_round_robin(
    delay: int, *, num_pushes: int, guard: bool = True, seed: int = 0
) -> tuple[float, list[Training]]:
    """Return test accuracy, in percent, after gradients that each come a constant delay late.

    scikit-learn's digits, a network of 128, SGD with lr 0.05 and momentum 0.9, 64 samples.
    """
    images = load_digits()
    y = torch.as_tensor(images.y_N)
    known, test = map(
        torch.as_tensor,
        train_test_split(range(len(y)), test_size=0.2, stratify=y, random_state=0),
    )
    x = torch.as_tensor(images.x).reshape(len(images.x), -1) / 16
    num_replicas = delay + 1
    stage = Stage(num_replicas)
    plan = make_plan(len(known), 64 * num_replicas, None, num_pushes)
    trainings = []
    for replica in range(num_replicas):
        outer = stage.join({**ASYNCHRONOUS, "guard": guard}, replica)
        training = Training(outer, replica, num_replicas, "sgd", plan)
        torch.manual_seed(seed)
        training.network = torch.nn.Sequential(
            torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
        )
        training.optimizer = torch.optim.SGD(training.network.parameters(), lr=0.05, momentum=0.9)
        training.hand_over()
        trainings.append(training)
    stage.act(lambda replica: trainings[replica].outer.begin(Cursor()))
    order = iter_batches(known, seed)
    gradients: list[Any] = [None] * num_replicas
    for number in range(num_pushes + num_replicas):
        training = trainings[number % num_replicas]
        if gradients[number % num_replicas] is not None:
            training.optimizer.step()
        rows = next(order)
        training.optimizer.zero_grad()
        functional.cross_entropy(training.network(x[rows]), y[rows]).backward()
        gradients[number % num_replicas] = True
    with torch.no_grad():
        network = trainings[(num_pushes - 1) % num_replicas].network
        right = (network(x[test]).argmax(1) == y[test]).float().mean()
    return 100 * float(right), trainings


def iter_batches(rows: torch.Tensor, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from rows[torch.randperm(len(rows), generator=generator)].split(64)[:-1]


def claim_late_gradients_with_momentum_still_learn() -> None:
    # Of 360 test images; 97.4 % without any delay.
    assert train_round_robin(4, num_pushes=1500)[0] >= 96.5
    assert train_round_robin(16, num_pushes=1500)[0] >= 95.0


def claim_without_the_guard_they_learn_nothing() -> None:
    assert train_round_robin(4, num_pushes=600, guard=False)[0] < 30


if __name__ == "__main__":
    globals()[sys.argv[1]]()
