"""What a module says about how its layers may be divided, declared next to it.

    class GPT(nn.Module):
        train_plan = plan(
            tensor={
                "embed.token": "vocab",
                "blocks.*.attention.qkv": "column",
                "blocks.*.attention.out": "row",
                "blocks.*.mlp.up": "column",
                "blocks.*.mlp.down": "row",
                "head": "vocab",
            },
            pipeline=["embed", "blocks", "norm", "head"],
        )

Data and shard parallel need no plan. Knows nothing of processes: it matches names and refuses.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Split = Literal["column", "row", "vocab"]

PROBLEMS_MAX = 5  # said at once

# Which layers can be divided that way, and which dimension of the weight is divided.
_DIVIDED: dict[str, dict[type[nn.Module], int]] = {
    "column": {nn.Linear: 0},
    "row": {nn.Linear: 1},
    "vocab": {nn.Linear: 0, nn.Embedding: 0},
}
_WORDS: dict[tuple[str, type[nn.Module]], str] = {
    ("column", nn.Linear): "outputs",
    ("row", nn.Linear): "inputs",
    ("vocab", nn.Linear): "outputs",
    ("vocab", nn.Embedding): "rows",
}


class CannotSplit(ValueError):
    """A module cannot be divided as the job asks; the message names the layers and the way out."""


@dataclass(frozen=True)
class Plan:
    """How a module may be divided; made by `plan`."""

    tensor: Mapping[str, Split] = field(default_factory=dict)
    pipeline: Sequence[str] = ()
    stages_per_rank: int = 1


def plan(
    *,
    tensor: Mapping[str, Split] | None = None,
    pipeline: Sequence[str] = (),
    stages_per_rank: int = 1,
) -> Plan:
    """Declare how a module may be divided: as its `train_plan`, or handed over with it.

    Args:
        tensor: layers by name, where `*` stands for any one part of a name, and how each divides.
            `column`: a Linear whose outputs are divided, and stay so until a `row` layer.
            `row`: a Linear whose inputs come divided; its output is whole again.
            `vocab`: an Embedding or the Linear of an output head, divided by rows of the
            vocabulary; what comes out is whole. What is not named is on every rank in whole.
            A `column` layer that makes queries, keys and values at once must order its outputs
            by head, so that each rank's part is whole heads.
        pipeline: names of the modules that are applied one after the other, from input to output;
            a ModuleList or Sequential stands for its members. The forward pass must be exactly
            that: each takes the one tensor that the one before returns.
        stages_per_rank: more than 1 gives each rank several shorter stages, which shortens the
            wait at both ends of a step and sends more (the interleaved schedule).

    Raises:
        CannotSplit: a word is not one of those.
    """
    for name, split in (tensor or {}).items():
        if split not in _DIVIDED:
            raise CannotSplit(
                f"plan: {name!r} is to be divided by {split!r}: say one of {', '.join(_DIVIDED)}"
            )
    if isinstance(pipeline, str):
        raise CannotSplit(f"plan: pipeline is {pipeline!r}: give a list of names")
    if stages_per_rank < 1:
        raise CannotSplit(f"plan: stages_per_rank is {stages_per_rank}: give at least 1")
    return Plan(dict(tensor or {}), tuple(pipeline), stages_per_rank)


def find_plan(module: nn.Module, given: Plan | None = None) -> Plan:
    """Return the plan that was handed over, else the module's own, else an empty one."""
    own = given if given is not None else getattr(module, "train_plan", None)
    if own is None:
        return Plan()
    if not isinstance(own, Plan):
        raise CannotSplit(
            f"{type(module).__name__}.train_plan is a {type(own).__name__}: "
            "make it with trainmaster.train.plan(...)"
        )
    return own


def match_layers(module: nn.Module, own: Plan, ways: int) -> dict[str, Split]:
    """Return how each layer that the plan names is divided, by full name.

    Args:
        module: whose layers.
        own: its plan.
        ways: ranks that each layer is divided among.

    Raises:
        CannotSplit: names match nothing, or layers do not divide; all of them are named.
    """
    kind = type(module).__name__
    if not own.tensor:
        raise CannotSplit(
            f"parallel.tensor is {ways}, and {kind} does not say which layers to divide: give it "
            "train_plan = train.plan(tensor={...}), or divide it with parallel.shard, which "
            "needs no plan"
        )
    layers = {name: each for name, each in module.named_modules() if name}
    found: dict[str, Split] = {}
    problems: list[str] = []
    for pattern, split in own.tensor.items():
        matched = [name for name in layers if _matches(pattern, name)]
        if not matched:
            problems.append(f"{pattern!r} is no layer of {kind}{_guess(pattern, list(layers))}")
        for name in matched:
            problems += _find_problems(name, layers[name], split, ways)
            if found.setdefault(name, split) != split:
                problems.append(f"{name} is to be divided by {found[name]} and by {split}")
    if len(problems) > PROBLEMS_MAX:
        problems[PROBLEMS_MAX:] = [f"and {len(problems) - PROBLEMS_MAX} more"]
    if problems:
        raise CannotSplit(f"parallel.tensor = {ways}: " + "; ".join(problems))
    return found


def find_links(module: nn.Module, own: Plan, num_stages: int) -> dict[str, nn.Module]:
    """Return the modules that a pipeline is made of, in order, by full name.

    Raises:
        CannotSplit: there is no plan, a name is none of the module's, something of the module is
            in no link, or there are fewer links than stages.
    """
    kind = type(module).__name__
    if not own.pipeline:
        raise CannotSplit(
            f"parallel.pipeline makes {num_stages} stages, and {kind} does not say what it is made "
            "of: give it train_plan = train.plan(pipeline=[...]), its modules from input to "
            "output, or divide it with parallel.shard, which needs no plan"
        )
    children = dict(module.named_modules())
    links: dict[str, nn.Module] = {}
    for name in own.pipeline:
        if name not in children or not name:
            raise CannotSplit(
                f"the pipeline's {name!r} is no module of {kind}{_guess(name, list(children))}"
            )
        child = children[name]
        members = child.named_children() if isinstance(child, _LISTS) else [("", child)]
        links.update({f"{name}.{each}".rstrip("."): member for each, member in members})
    tensors = [*module.named_parameters(), *module.named_buffers()]
    outside = [name for name, _ in tensors if not any(_is_in(name, link) for link in links)]
    if outside:
        raise CannotSplit(
            f"{', '.join(outside)} of {kind} would be in no stage of the pipeline, which is made "
            f"of {', '.join(own.pipeline)}: move it into one of these, or name its module too"
        )
    if len(links) < num_stages:
        raise CannotSplit(
            f"{kind} has {len(links)} links ({', '.join(links)}) for {num_stages} stages: "
            "lower parallel.pipeline or the plan's stages_per_rank"
        )
    return links


_LISTS = (nn.ModuleList, nn.Sequential)


def _find_problems(name: str, layer: nn.Module, split: Split, ways: int) -> list[str]:
    for kind, dimension in _DIVIDED[split].items():
        if isinstance(layer, kind):
            size = layer.weight.shape[dimension]
            what = f"{name} has {size} {_WORDS[split, kind]}, which do not divide by {ways}"
            larger = -(-size // ways) * ways
            problem = f"{what}: make them {larger}, or leave it out of the plan"
            return [problem] if size % ways else []
    takes = " and ".join(kind.__name__ for kind in _DIVIDED[split])
    what = f"{name} is a {type(layer).__name__}, and {split} divides {takes} only"
    return [f"{what}: leave it out of the plan"]


def _matches(pattern: str, name: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", r"[^.]+"), name) is not None


def _is_in(name: str, link: str) -> bool:
    return name.startswith(link + ".")


def _guess(name: str, names: list[str]) -> str:
    similar = difflib.get_close_matches(name, [each for each in names if each], 1)
    return f" (did you mean {similar[0]!r}?)" if similar else ""
