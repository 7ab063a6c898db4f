"""Trains as one replica of an outer group; writes what came out to <rank>.json.

training.py '{"sync": {...}, "optimizer": "sgd", "size": 96, "batch_size": 16, "epochs": 3,
              "mutation": null, "stop": null, "resume": false, "has_norm": false}'

`stop` saves after that step and ends; `meet_after` asks to meet after that step, saves where all
meet, and ends; `resume` goes on from there.
"""

import os
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[5]))

from tests.component.train.outer.scripts.mutations import mutate
from tests.component.train.outer.scripts.replicas import (
    Training,
    arguments,
    make_plan,
    train_alone,
    write,
)
from trainmaster.train.outer import join_outer

settings = arguments()
plan = make_plan(
    settings["size"], settings["batch_size"], settings.get("epochs"), settings.get("steps")
)
decays = bool(settings.get("decays"))
more = {"has_norm": True} if settings.get("has_norm") else {}
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
if settings["sync"] is None:
    write("0.json", {"parameters": train_alone(settings["optimizer"], plan, decays=decays, **more)})
    sys.exit(0)
if settings.get("mutation"):
    mutate(settings["mutation"])
description = {"sync": settings["sync"], "outer": {"grace_s": 5}}
slots = settings.get("slots", 1)
replica, num_replicas = rank // slots, world // slots
outer = join_outer(
    description,
    dict(os.environ),
    replica=replica,
    num_replicas=num_replicas,
    slot=rank % slots,
    num_slots=slots,
)
training = Training(outer, replica, num_replicas, settings["optimizer"], plan, **more)
training.decays = decays
if settings.get("resume"):
    training.load()
training.hand_over()
for step in training.steps():
    if step == settings.get("stop"):
        training.save()
        break
    if step >= settings.get("meet_after", step + 1) and outer.meeting_at is None:
        outer.want_to_meet()
    if outer.meeting_at is not None:
        training.cursor = outer.meeting_at
        training.save()
        break
counters = outer.counters()
outer.close()
write(
    f"{rank}.json",
    {
        "parameters": training.parameters(),
        "used": training.used,
        "ends": training.ends,
        "counters": asdict(counters),
    },
)
