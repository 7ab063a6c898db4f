"""Tokens per second of GPT-2 with 124 million parameters on one GPU, beside the GPU's peak.

    python -m tests.bench.lm_mfu --python python3 --config '{"batch_size": 128}'

measures alone, without the rest of the benchmarks: it needs nothing but the job's interpreter.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.figures import Figure, Series, Target

if TYPE_CHECKING:
    from tests.bench.bench import Bench

NAME = "lm_mfu"
ROOT = Path(__file__).resolve().parents[2]
JOB_PYTHON = ROOT / ".venv-job/bin/python"
LIMIT_S = 600.0
_SCRIPT = Path(__file__).resolve().parent / "scripts" / "lm_speed.py"
_CONTEXT = 1024
_UNMEASURED = 2  # readings of ten steps each
# 64 windows of 1,024 tokens: the unmodified architecture, all of the recipe's defaults.
CONFIG: Mapping[str, Any] = {
    "model": "gpt2-124m",
    "batch_size": 64,
    "lr": 0.0006,
    "validate_every": 1_000_000,
    "validation_tokens": 16_384,
}


def measure(bench: Bench) -> list[Figure]:
    """Return the figure; none where there is no GPU whose peak we know. Two minutes."""
    if not has_gpu(JOB_PYTHON):
        bench.say("skipped: the job environment sees no CUDA GPU")
        return []
    config = {**CONFIG, "steps": bench.count(100, 40)}
    found = train(JOB_PYTHON, config)
    bench.say(f"{found['device']}, torch {found['torch']}")
    if not found["mfu"]:
        bench.say(f"skipped: the peak of {found['device']} is not known")
        return []
    return [
        Figure(
            name="GPT-2 124M, one GPU",
            unit="tokens/s",
            values=Series(tuple(found["tokens_per_second"])),
            baseline=Series(_peak_rates(found)),
            baseline_name="at its peak in bf16",
            target=Target(of="ratio", bound="at least", limit=0.45),
            details={**summarize(found, config), "config": dict(config)},
        )
    ]


def has_gpu(python: Path) -> bool:
    """Return whether an interpreter's torch sees a GPU."""
    asked = [str(python), "-c", "import sys, torch; sys.exit(not torch.cuda.is_available())"]
    return subprocess.run(asked, timeout=120).returncode == 0


def train(python: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Train in a process of its own and return what it says."""
    order = {"config": dict(config), "unmeasured": _UNMEASURED}
    done = subprocess.run(
        [str(python), str(_SCRIPT), json.dumps(order)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env={**os.environ, "PYTHONPATH": str(ROOT / "sdk" / "src")},
    )
    if done.returncode != 0:
        raise RuntimeError(f"the training failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def summarize(found: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of one training, medians of its readings."""
    rate = statistics.median(found["tokens_per_second"])
    return {
        "device": found["device"],
        "torch": found["torch"],
        "tokens_per_second": round(rate),
        "mfu": round(statistics.median(found["mfu"]), 4) if found["mfu"] else None,
        "step_ms": round(1e3 * config["batch_size"] * config.get("context", _CONTEXT) / rate, 2),
        "memory_gib": found["memory_gib"] and round(found["memory_gib"], 1),
        "val_bits_per_byte": round(found["val_bits_per_byte"], 4),
    }


def _peak_rates(found: Mapping[str, Any]) -> tuple[float, ...]:
    pairs = zip(found["tokens_per_second"], found["mfu"], strict=True)
    return tuple(rate / share for rate, share in pairs)


def main(arguments: list[str]) -> int:
    """Measure once and print one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.lm_mfu", description=__doc__)
    parser.add_argument("--python", type=Path, default=JOB_PYTHON)
    parser.add_argument("--config", type=json.loads, default={}, help="over the defaults; JSON")
    parser.add_argument("--cpu", action="store_true", help="also without a GPU, to try it out")
    chosen = parser.parse_args(arguments)
    if not chosen.cpu and not has_gpu(chosen.python):
        print(json.dumps({"skipped": f"the torch of {chosen.python} sees no CUDA GPU"}))
        return 0
    config = {**CONFIG, "steps": 60, **chosen.config}
    print(json.dumps({**summarize(train(chosen.python, config), config), "config": config}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
