"""A training run as a script sees it: `with train.start() as run:`.

Joins the pieces; each rule lives in its own module. The script's loop stays the script's.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from trainmaster._order import Cursor, Plan, leave_loop, share_of
from trainmaster.run import RunError, current_run
from trainmaster.train import randomness
from trainmaster.train.accounting import Accounting
from trainmaster.train.agreement import Agreement
from trainmaster.train.frozen import Frozen
from trainmaster.train.losses import LossWatch
from trainmaster.train.metrics import MetricLog
from trainmaster.train.modes import choose_synchronization
from trainmaster.train.saver import Saver
from trainmaster.train.snapshot import Resumed
from trainmaster.train.sources import Share, iter_batches, size_of
from trainmaster.train.stateful import Stateful
from trainmaster.train.timing import CHECKPOINT, COMMUNICATION, COMPUTE, DATA_WAIT, IDLE, PhaseClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from trainmaster._order import Batch
    from trainmaster.run import Run

Kept = TypeVar("Kept")
Optimizer = TypeVar("Optimizer", bound=torch.optim.Optimizer)


@contextlib.contextmanager
def start(
    seed: int = 0,
    *,
    deterministic: bool = False,
    device: str | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Iterator[TrainRun]:
    """Begin a training, or go on with the one that a checkpoint holds.

    On a clean exit a last checkpoint is written, with the metrics logged last.

    Args:
        seed: of weights, order of samples and everything random; same on all ranks.
        deterministic: let torch refuse operations that give other bits each time; slower on a
            GPU. On a CPU runs repeat bit for bit without it.
        device: such as "cpu"; by default this rank's GPU where there is one.
        defaults: configuration for what the job leaves out.

    Raises:
        UnsupportedMode: the job asks for a mechanism that is not there.
        RunError: the checkpoint to resume from cannot be read.
    """
    run = TrainRun(current_run(defaults), seed, deterministic=deterministic, device=device)
    try:
        yield run
    except BaseException:
        run._abandon()
        raise
    run._finish()


class TrainRun:
    """One rank of a training; made by `start`.

    Attributes:
        config: the job's configuration, over the script's defaults.
        inputs: path of each input by name.
        device: where this rank computes.
        rank: number of this rank.
        world_size: number of ranks.
    """

    def __init__(self, run: Run, seed: int, *, deterministic: bool, device: str | None) -> None:
        self._run = run
        self.config = run.config
        self.inputs: dict[str, Path] = run.inputs
        self.rank, self.world_size = run.rank, run.world_size
        self._seed = seed
        if deterministic:
            torch.use_deterministic_algorithms(True)
            torch.backends.cudnn.benchmark = False
        self._frozen = Frozen()
        self._accounting = Accounting(run)
        self._synchronization = choose_synchronization(run, device)
        self._accounting.listen_to(self._synchronization)
        self.device = self._synchronization.device
        found = run.latest_checkpoint()
        self._resumed = Resumed(found.path, found.step) if found else None
        self._cursor = self._resumed.cursor if self._resumed else Cursor()
        if self._resumed and self._resumed.synchronization:
            states, layout = self._resumed.synchronization, self._resumed.layout
            self._synchronization.load_state_dict(states, layout)
        self._loop = 0
        self._is_in_loop = self._was_left = False
        self._batch: Batch | None = None
        self._num_samples = 0
        self._is_stopped = False
        self._things = Stateful()
        self._scaler: Any = None
        self._metrics = MetricLog(run._record)
        self._losses = LossWatch(run)
        self._clock = PhaseClock(
            run._pulse, self._record_shares, is_on_gpu=self.device.type == "cuda"
        )
        saved_step = self._cursor.step if self._resumed else None
        self._saver = Saver(run, self._synchronization, self._metrics, saved_step)
        self._agreement = Agreement(
            run,
            self._synchronization,
            self._accounting,
            self._cursor.step,
            self._saver.is_writing,
        )
        self._synchronization.hand_over(self._things.tell, self._things.hear)
        randomness.seed_everything(seed)
        run.should_stop()  # opens the line on which we are told

    # What a script asks.

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which speaks for all."""
        return self.rank == 0

    @property
    def step(self) -> int:
        """Steps done since the beginning of the job, the current one included."""
        return self._cursor.step

    @property
    def epoch(self) -> int:
        """The epoch of the current batch, from 0, over all loops of the job."""
        return self._batch.epoch if self._batch else self._cursor.epoch

    @property
    def is_epoch_end(self) -> bool:
        """Whether the current batch is the last of its epoch."""
        return self._batch is not None and self._batch.is_last_of_epoch

    @property
    def num_samples(self) -> int:
        """Samples of the current batch that are this rank's.

        0 where the batch has fewer samples than shares: this rank is then given one of another's,
        so that all compute in step, and `backward` lets it count for nothing.
        """
        return self._num_samples

    @property
    def is_stopped(self) -> bool:
        """Whether the training was ended early; what is left will be done when it is resumed."""
        return self._is_stopped

    # What a script hands over.

    def model(
        self,
        module: torch.nn.Module,
        *,
        name: str = "model",
        find_unused_parameters: bool = False,
    ) -> torch.nn.Module:
        """Place a module on this rank's device, give it its saved weights, join the replicas.

        Returns:
            what to call in the training loop. The module itself stays usable, for evaluation.
        """
        _require_new(name, self._things.models)
        module.to(self.device)
        callable_ = self._synchronization.spread(module)
        if self._resumed:
            self._resumed.load_model(name, module, self._synchronization)
        self._things.models[name] = module
        if self._synchronization.settles_parameters:
            self._frozen.add(name, module)
        wrapped = self._synchronization.wrap(
            name, module, callable_, find_unused_parameters=find_unused_parameters
        )
        self._accounting.expect(module)
        return wrapped

    def optimizer(self, optimizer: Optimizer, *, name: str = "optimizer") -> Optimizer:
        """Give an optimizer its saved state; `steps` clears its gradients before each step."""
        _require_new(name, self._things.optimizers)
        self._load_optimizer(name, optimizer)
        self._things.optimizers[name] = optimizer
        self._synchronization.adopt(name, optimizer)
        return optimizer

    def scheduler(self, scheduler: Kept, *, name: str = "scheduler") -> Kept:
        """Give a learning rate scheduler its saved state."""
        self.keep(name, scheduler)
        # Making a scheduler sets the rates of its first step: put the saved ones back.
        for each, optimizer in self._things.optimizers.items():
            self._load_optimizer(each, optimizer)
        return scheduler

    def scaler(self, scaler: Kept, *, name: str = "scaler") -> Kept:
        """Give a gradient scaler its saved state, and let `backward` use it.

        Raises:
            RunError: the model is spread over ranks, or stepped by servers: each rank would judge
                by its own part of the gradients whether to take a step.
        """
        if not self._synchronization.takes_scaler:
            raise RunError(
                "a gradient scaler cannot be used with shard, tensor or pipeline ranks, nor with "
                "sync.mode parameter_server: compute in bfloat16, which needs none, or use data "
                "ranks alone in another mode"
            )
        self._scaler = self.keep(name, scaler)
        return scaler

    def keep(self, name: str, thing: Kept) -> Kept:
        """Make anything with `state_dict` and `load_state_dict` part of every checkpoint."""
        _require_new(name, self._things.kept)
        if self._resumed:
            self._resumed.load_kept(name, thing)
        self._things.kept[name] = thing
        return thing

    def annotate(self, **facts: Any) -> None:
        """Put facts (JSON values) into the meta.json of every checkpoint from now on."""
        self._things.facts.update(facts)

    # The loop.

    def steps(
        self,
        dataset: Any,
        batch_size: int = 64,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        shuffle: bool = True,
        loader_workers: int = 0,
    ) -> Iterator[tuple[int, Any]]:
        """Yield the number of each step, from 1, and this rank's share of its batch.

        The order depends on the seed alone; each sample comes once per epoch, the last batch of
        an epoch may be smaller. Ends early, after a checkpoint, when the run is to stop.

        Args:
            dataset: a tuple or dict of tensors or arrays, a TensorDataset, or anything with
                `__len__` and `__getitem__`.
            batch_size: samples per step, over all shares. A batch has one for each rank, but that
                `tensor` and `pipeline` ranks compute on one together.
            epochs: how often to go through the data; once if `steps` is not given either.
            steps: how many steps to take; with `epochs`, whichever ends first.
            shuffle: False keeps the order of the dataset.
            loader_workers: processes on this rank that load samples ahead.
        """
        _require_samples(batch_size, self._synchronization.layout.shares)
        order = (self._seed, size_of(dataset), shuffle)
        plan = Plan(order, batch_size, 1 if epochs is None and steps is None else epochs, steps)
        loop, self._loop = self._loop, self._loop + 1
        if loop < self._cursor.loop or self._is_stopped:
            return  # done before the checkpoint that we resumed from, or never to be done
        self._leave_loop()
        if self._is_stopped:
            return
        while self._cursor.loop < loop:
            self._cursor = leave_loop(self._cursor)
        self._set_randomness(loop)
        self._cursor = plan.enter(self._cursor)
        steps_total = self._cursor.step - self._cursor.loop_step + plan.steps_total
        self._run.progress(self._cursor.step, steps_total)
        share = Share(plan, self._synchronization.batch_share)
        batches = self._synchronization.batches(plan, self._cursor)
        rest = iter_batches(dataset, batches, share, self.device, loader_workers)
        self._accounting.begin(batch_size, self.device)
        self._is_in_loop = True
        with contextlib.closing(rest), self._clock.loop():
            for batch, samples in rest:
                self._clock.enter(COMPUTE)
                for optimizer in self._things.optimizers.values():
                    optimizer.zero_grad()
                self._batch, self._num_samples = batch, share.count(batch)
                self._cursor = batch.after
                try:
                    yield self._cursor.step, samples
                except GeneratorExit:
                    self._was_left = True
                    raise
                self._clock.enter(COMMUNICATION)
                self._synchronization.after_step(self._cursor.step, self._num_samples)
                self._accounting.step(self._cursor.step, self._num_samples)
                self._run.progress(self._cursor.step, steps_total)
                self._meet(is_in_loop=True)
                if self._is_stopped:
                    return
                self._clock.report()
                self._clock.enter(DATA_WAIT)
        self._leave_loop()

    def backward(self, loss: torch.Tensor) -> None:
        """Compute gradients of the mean loss over the whole batch, of which this is one share.

        Args:
            loss: mean over the samples of this rank's share.

        Raises:
            NonFiniteLoss: it is NaN or infinite, or one before was, and the job's `health.on_nan`
                is "fail".
        """
        self._losses.see(self._cursor.step, loss)
        self._frozen.check()
        self._synchronization.backward(self._weigh(loss))

    def forward_backward(
        self,
        model: torch.nn.Module,
        x: Any,
        y: Any,
        loss_fn: Callable[[Any, Any], torch.Tensor],
        *,
        microbatches: int | None = None,
    ) -> torch.Tensor:
        """Compute the loss and the gradients of a batch in one call, piece by piece if need be.

        The same as `loss_fn(model(x), y)` and `backward`, and the only way to train a model that
        is cut into pipeline stages.

        Args:
            model: what `run.model` returned.
            x: this rank's inputs, a row per sample.
            y: what else the loss needs, a row per sample.
            loss_fn: takes the model's output and `y`; returns the mean over their samples.
            microbatches: pieces that the batch goes through in: more take less memory, and give
                the same. By default 1; in a pipeline twice as many as there are stages.

        Returns:
            the mean loss over this rank's share, detached.
        """
        self._frozen.check()
        loss = self._synchronization.forward_backward(
            model, x, y, loss_fn, microbatches=microbatches, weigh=self._weigh
        )
        self._losses.see(self._cursor.step, loss)
        return loss

    def clip_grad_norm(self, parameters: Iterable[torch.Tensor], max_norm: float) -> torch.Tensor:
        """Scale gradients so that their norm over the whole model is at most `max_norm`.

        Right however the model is spread, which torch's own function is not. With a gradient
        scaler call `scaler.unscale_(optimizer)` before.

        Returns:
            the norm before.
        """
        return self._synchronization.clip_grad_norm(parameters, max_norm)

    def log(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Record metrics of the current step, as rank 0 sees them; waits for nobody.

        Args:
            values: numbers or 0-d tensors by name, for names such as "train/loss".
            more: numbers or 0-d tensors by name.
        """
        if self.is_main:
            self._metrics.add(self._cursor.step, {**(values or {}), **more})

    # Among the shares.

    def share(self, count: int) -> range:
        """Return this rank's share of `count` things, for example of a test set's rows."""
        return share_of(count, *self._synchronization.share)

    def slices(self, count: int, size: int) -> Iterator[slice]:
        """Yield this rank's share of `count` rows in slices of at most `size`, to evaluate on.

        On every rank there are as many, of which some may be empty: the ranks of a model that is
        spread compute in step.
        """
        rows = self.share(count)
        most = -(-count // self._synchronization.share[1])
        for first in range(0, most, size):
            stop = min(rows.start + first + size, rows.stop)
            yield slice(min(rows.start + first, stop), stop)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over the shares of all ranks; every rank must call it.

        After a `break` the replicas become one before. Python must have closed the loop for that,
        which it does at once, but not while something holds it: write `for … in
        tqdm(run.steps(…))`, and do not keep the bar in a variable.
        """
        if self._was_left:
            self._leave_loop()
        self._run._pulse.beat()
        return self._synchronization.sum(values)

    # How it ends.

    def _finish(self) -> None:
        """Write the last checkpoint and leave the group."""
        self._losses.settle()
        if not self._is_stopped:
            self._leave_loop()  # where all may have agreed to stop
        if not self._is_stopped:
            with self._accounting.aside():
                self._saver.save_last(self._things, self._cursor)
        self._metrics.flush()
        self._accounting.finish(self._cursor.step)
        self._synchronization.close()

    def _abandon(self) -> None:
        """Let what is under way come to its end; the group is not left in order, but by dying."""
        with contextlib.suppress(Exception):
            self._metrics.flush()
        with contextlib.suppress(Exception):
            self._saver.wait()

    def _leave_loop(self) -> None:
        """Let the replicas become one where a loop has ended, by itself or by a `break`."""
        if not self._is_in_loop:
            return
        self._is_in_loop = self._was_left = False
        has_ended = False
        while not has_ended and not self._is_stopped:
            meet_in_s = self._agreement.meet_in_s
            has_ended = self._synchronization.end_loop(self._cursor.step, meet_in_s)
            if not has_ended or self._synchronization.ends_together:
                self._meet()  # with those who are in it still, or with all who have left it
                self._clock.enter(IDLE)
        self._cursor = self._synchronization.meeting_at or self._cursor

    def _meet(self, *, is_in_loop: bool = False) -> None:
        """Agree with the other ranks, where they may be together, and do it: save, or stop."""
        if is_in_loop and self._synchronization.ends_together:
            return  # all do so once they have left it
        self._cursor = self._synchronization.meeting_at or self._cursor
        answer = self._agreement.ask(self._cursor.step, is_forced=self.is_epoch_end)
        if answer.save:
            self._clock.enter(CHECKPOINT)
            self._losses.settle()
            with self._accounting.aside():
                self._saver.save(self._things, self._cursor)
        if answer.stop:
            self._is_stopped = True
            self._saver.wait()

    def _weigh(self, loss: torch.Tensor) -> torch.Tensor:
        """Return what gradients are taken of, for a mean over this rank's samples."""
        if self._batch is not None:
            loss = self._synchronization.weigh(loss, self._num_samples, self._batch.count)
        return loss if self._scaler is None else self._scaler.scale(loss)

    def _load_optimizer(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        if self._resumed:
            models = self._things.models
            self._resumed.load_optimizer(name, models, optimizer, self._synchronization)

    def _record_shares(self, shares: Mapping[str, float]) -> None:
        """Record what this rank did with its time; every rank its own, where somebody looks."""
        if self._run.is_supervised:
            self._run._record(self._cursor.step, time.time(), shares)

    def _set_randomness(self, loop: int) -> None:
        """Give this rank its own generators: those it had at the checkpoint, or new ones."""
        if self._resumed and loop == self._resumed.cursor.loop:
            saved = self._resumed.find_randomness(self.rank, self._synchronization.layout)
            if saved is not None:
                randomness.restore(saved, self.device)
                return
        stream = self._synchronization.layout.randomness(self.rank)
        randomness.seed_everything(self._seed, stream, loop, self._cursor.step)


def _require_samples(batch_size: int, num_shares: int) -> None:
    if batch_size < num_shares:
        raise ValueError(
            f"batch_size is {batch_size} in {num_shares} shares: "
            "it counts the samples of all of them, so give at least one for each"
        )


def _require_new(name: str, taken: Mapping[str, Any]) -> None:
    if name in taken:
        raise RunError(f"there is already one called {name!r}: give the second one a name=")
