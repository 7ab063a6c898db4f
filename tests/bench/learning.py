"""What fewer bytes are worth: time to a loss on a slow link, and the loss at equal tokens."""

from __future__ import annotations

from tests.bench.bench import Bench
from tests.bench.figures import Figure, Series, Target
from tests.bench.language_gangs import FAST_MBIT, SLOW_MBIT, Mode, train
from tests.bench.networks import find_obstacle

NAME = "learning"
_ALONE = Mode("one rank", {"data": 1})
_DDP = Mode("DDP", {"data": 2})
_SEMI = Mode(
    "local_sgd every 128 int4",
    {"data": 2},
    {"mode": "local_sgd", "every": 128, "compression": "int4"},
)
_RARE = {"every": 100, "compression": "int8"}
_EQUAL_TOKENS = (
    Mode("local_sgd every 100 int8", {"data": 2}, {"mode": "local_sgd", **_RARE}),
    Mode(
        "diloco every 100 int8",
        {"data": 2},
        {"mode": "diloco", **_RARE, "outer_lr": 1.0, "outer_momentum": 0.4},
    ),
)


def measure(bench: Bench) -> list[Figure]:
    """Return the figures; 20 minutes. Nothing without root."""
    obstacle = find_obstacle()
    if obstacle is not None:
        bench.say(f"left out: {obstacle}")
        return []
    return [*_race(bench), *_go_on(bench), *_begin(bench)]


def _race(bench: Bench) -> list[Figure]:
    """Two ranks and 100 Mbit/s: how long until a loss is reached that DDP reaches."""
    plan = {"context": 64, "batch": 8, "steps": bench.count(256, 128), "validate_every": 16}
    theirs = train(bench, _DDP, plan, SLOW_MBIT)
    target_bits = theirs.ranks[0]["bits"][-1][2]
    plan = {**plan, "steps": 3 * plan["steps"], "validate_every": 128, "target_bits": target_bits}
    ours = train(bench, _SEMI, plan, SLOW_MBIT)
    reached = ours.ranks[0]["bits"][-1][2]
    bench.say(
        f"{target_bits:.3f} bits a byte: {_DDP.name} in {theirs.num_steps} steps and "
        f"{theirs.trained_s:.1f} s at {theirs.utilization:.1%}; {_SEMI.name} {reached:.3f} in "
        f"{ours.num_steps} steps and {ours.trained_s:.1f} s at {ours.utilization:.1%}"
    )
    return [
        Figure(
            name=f"{SLOW_MBIT:.0f} Mbit/s: time to a loss, {_SEMI.name}",
            unit="s",
            values=Series((ours.trained_s if reached <= target_bits else float("inf"),)),
            baseline=Series((theirs.trained_s,)),
            baseline_name="DDP",
            target=Target(of="ratio", bound="at most", limit=0.35),
            details={"target_bits": target_bits, "steps": [ours.num_steps, theirs.num_steps]},
        ),
        Figure(
            name=f"{SLOW_MBIT:.0f} Mbit/s: utilization, {_SEMI.name}",
            unit="%",
            values=Series((100 * ours.utilization,)),
            baseline=Series((100 * theirs.utilization,)),
            baseline_name="DDP",
            target=Target(of="figure", bound="at least", limit=95.0),
        ),
    ]


def _go_on(bench: Bench) -> list[Figure]:
    """From a model that has learnt for a while, with as many tokens each, the rate falling to 0."""
    weights = str(bench.folder / "learnt.pt")
    plan = {"context": 64, "batch": 16, "steps": bench.count(2000, 200), "end": weights}
    train(bench, _ALONE, plan, FAST_MBIT)
    plan = {
        "context": 64, "batch": 8, "steps": bench.count(1000, 200), "lr": 1e-3, "decays": True,
        "begin": weights, "validate_every": 10_000,
    }  # fmt: skip
    theirs = train(bench, _DDP, plan, FAST_MBIT)
    figures = []
    for mode in _EQUAL_TOKENS:
        ours = train(bench, mode, plan, FAST_MBIT)
        factor = theirs.sent_per_step(["gradients"]) / ours.sent_per_step(["outer"])
        on_interfaces = theirs.per_step("interface_bytes") / ours.per_step("interface_bytes")
        bench.say(
            f"going on, {mode.name}: {ours.bits:.4f} bits a byte beside {theirs.bits:.4f}, "
            f"{factor:.1f} times fewer bytes; on the interfaces {on_interfaces:.1f} times"
        )
        figures += [
            Figure(
                name=f"fewer bytes, {mode.name}",
                unit="times",
                values=Series((factor,)),
                target=Target(of="figure", bound="at least", limit=390.0),
                details={"on_interfaces": on_interfaces},
            ),
            _compare(
                f"bits a byte at equal tokens, {mode.name}",
                ours.bits,
                theirs.bits,
                1.01 if mode is _EQUAL_TOKENS[0] else None,
            ),
        ]
    return figures


def _begin(bench: Bench) -> list[Figure]:
    """From nothing, where few rounds cost most: no target, so that nobody is surprised."""
    plan = {"context": 64, "batch": 8, "steps": bench.count(800, 200), "validate_every": 10_000}
    theirs = train(bench, _DDP, plan, FAST_MBIT)
    figures = []
    for mode in _EQUAL_TOKENS:
        ours = train(bench, mode, plan, FAST_MBIT)
        bench.say(f"from nothing, {mode.name}: {ours.bits:.4f} beside {theirs.bits:.4f}")
        name = f"the same from nothing, {mode.name}"
        figures.append(_compare(name, ours.bits, theirs.bits, None))
    return figures


def _compare(name: str, ours: float, theirs: float, limit: float | None) -> Figure:
    target = None if limit is None else Target(of="ratio", bound="at most", limit=limit)
    return Figure(
        name=name,
        unit="bits",
        values=Series((ours,)),
        baseline=Series((theirs,)),
        baseline_name="DDP",
        target=target,
    )
