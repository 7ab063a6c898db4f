"""Trains with the recipe `lm` and says how fast.

    lm_speed.py '{"config": {...}, "unmeasured": 2}'

Prints one JSON object as its last line: the readings of tokens per second and of the share of the
peak, without the first ones, in which torch compiles; the most memory, the device, torch.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from trainmaster.recipes import lm


def main(order: dict[str, Any]) -> int:
    """Train in an empty folder; its records are what is read."""
    folder = Path(tempfile.mkdtemp(prefix="lm-speed-"))
    (folder / "run.json").write_text(json.dumps({"config": order["config"]}))
    os.chdir(folder)
    os.environ["TRAINMASTER_RUN"] = "run.json"
    code = lm.main()
    if code:
        return code
    lines = (folder / "trainmaster-runs/1/metrics.jsonl").read_text().splitlines()
    values = [json.loads(line)["values"] for line in lines]
    is_gpu = torch.cuda.is_available()
    result = {
        "device": torch.cuda.get_device_name() if is_gpu else "cpu",
        "torch": torch.__version__,
        "memory_gib": torch.cuda.max_memory_allocated() / 2**30 if is_gpu else None,
        "val_bits_per_byte": values[-1]["val/bits_per_byte"],
    }
    for name in ("tokens_per_second", "mfu"):
        readings = [each[name] for each in values if name in each]
        result[name] = readings[order["unmeasured"] :]
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
