"""Runs a recipe in double precision, perhaps with a mistake: in_double.py <module> <mutation>.

Without dropout or random shifts the training is then that of one process, but for the order of
sums; a mistake is one that the comparison of losses must catch.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[4]))
from tests.component.train.inner.scripts import mutations as inner
from tests.component.train.outer.scripts import mutations as outer
from trainmaster.train import TrainRun
from trainmaster.train.allreduce import Allreduce

MODULE, MUTATION = sys.argv[1], sys.argv[2]


def widen(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(each.double() if each.is_floating_point() else each for each in inputs)


def place(self: TrainRun, module: nn.Module, **more: Any) -> nn.Module:
    module.double().register_forward_pre_hook(widen)
    return plain(self, module, **more)


def stay_apart(_self: Any, _name: str, _bare: Any, module: nn.Module, **_options: Any) -> nn.Module:
    return module


plain = TrainRun.model
setattr(TrainRun, "model", place)  # noqa: B010  mypy knows that it is a method
if MUTATION == "gradients stay where they are":
    setattr(Allreduce, "wrap", stay_apart)  # noqa: B010  as above
elif MUTATION in inner.MUTATIONS:
    inner.apply(MUTATION)
elif MUTATION != "none":
    outer.mutate(MUTATION)

sys.exit(importlib.import_module(MODULE).main())
