"""Claims about who computes on which samples; each function is one test."""

import random
import sys
from collections import Counter

from trainmaster._order import Batch, Cursor, Plan
from trainmaster.train.outer.dispatch import Dispatcher, Rest


class Play:
    """Replicas that ask at random, die, come back, and want to meet."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.size, self.num_replicas = self.random.randint(1, 60), self.random.randint(1, 5)
        epochs = self.random.choice([1, 2, 3, None])
        steps = self.random.randint(1, 20) if epochs is None else None
        batch_size = self.random.randint(self.num_replicas, 20)
        self.plan = Plan((0, self.size, True), batch_size, epochs, steps)
        self.dispatcher = Dispatcher(self.plan, self.plan.enter(Cursor()), self.num_replicas)
        self.live = set(range(self.num_replicas))
        self.constant = set(self.live)
        self.work: dict[int, Batch] = {}
        self.done: Counter[tuple[int, int]] = Counter()
        self.last: Counter[tuple[int, int]] = Counter()
        self.meetings = 0
        for replica in self.live:
            self.dispatcher.enter(replica)

    def live_and_die(self) -> None:
        if self.random.random() < 0.03 and len(self.live) > 1:
            replica = self.random.choice(sorted(self.live))
            self.live.discard(replica)
            self.constant.discard(replica)
            self.work.pop(replica, None)
            self.dispatcher.leave(replica)
        replica = self.random.randrange(self.num_replicas)
        if self.random.random() < 0.03 and replica not in self.live:
            self.live.add(replica)
            self.dispatcher.enter(replica)

    def finish(self, replica: int) -> None:
        piece = self.work.pop(replica, None)
        if piece is not None:
            self.done.update((piece.epoch, piece.first + each) for each in range(piece.count))
            self.last[piece.epoch, replica] += piece.is_last_of_epoch

    def check_cut(self) -> None:
        cursor = self.dispatcher.cursor
        epochs = [(epoch, sample) for epoch in range(cursor.epoch) for sample in range(self.size)]
        begun = [(cursor.epoch, sample) for sample in range(cursor.position)]
        assert not self.work
        assert self.done == dict.fromkeys(epochs + begun, 1)

    def run(self, *, with_deaths: bool) -> None:
        while True:
            if with_deaths:
                self.live_and_die()
            if self.random.random() < 0.05:
                self.dispatcher.hold()
            replica = self.random.choice(sorted(self.live))
            self.finish(replica)
            answer = self.dispatcher.ask(replica)
            if not isinstance(answer, Rest):
                self.work[replica] = answer
            elif answer is not Rest.WAIT:
                self.check_cut()
                if answer is Rest.END:
                    return
                self.meetings += 1
                self.dispatcher.go_on()


def claim_each_sample_comes_once_per_epoch_whoever_dies_or_joins() -> None:
    meetings = 0
    for seed in range(400):
        play = Play(seed)

        play.run(with_deaths=True)

        assert play.dispatcher.cursor.loop_step == play.plan.steps_total
        meetings += play.meetings
    assert meetings > 300


def claim_each_replica_has_one_last_piece_per_epoch() -> None:
    for seed in range(400):
        play = Play(seed)

        play.run(with_deaths=False)

        for epoch in range(play.dispatcher.cursor.epoch):
            assert [play.last[epoch, replica] for replica in range(play.num_replicas)] == [
                1
            ] * play.num_replicas


def claim_a_slow_replica_takes_fewer_pieces() -> None:
    plan = Plan((0, 4096, True), 64, 1, None)
    dispatcher = Dispatcher(plan, plan.enter(Cursor()), 4)
    for replica in range(4):
        dispatcher.enter(replica)
    due, taken = dict.fromkeys(range(4), 0), Counter[int]()
    while due:
        replica = min(due, key=lambda each: (due[each], each))
        if isinstance(dispatcher.ask(replica), Rest):
            del due[replica]
            continue
        taken[replica] += 1
        due[replica] += 4 if replica == 3 else 1

    assert taken.total() == 256
    assert taken[0] / taken[3] > 3.5


def claim_pieces_are_the_shares_of_the_batches_that_replicas_in_step_take() -> None:
    plan = Plan((0, 103, True), 16, 2, None)
    dispatcher = Dispatcher(plan, plan.enter(Cursor()), 3)
    dispatcher.enter(0)
    steps: Counter[int] = Counter()
    while not isinstance(piece := dispatcher.ask(0), Rest):
        steps[piece.after.step] += piece.count

    assert steps == {
        batch.after.step: batch.count for batch in plan.batches(Cursor(order=plan.order))
    }


if __name__ == "__main__":
    globals()[sys.argv[1]]()
