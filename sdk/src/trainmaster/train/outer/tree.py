"""Nested plain values with tensors in them, as JSON and a list of tensors, and back.

For what is said once: states and small talk. Exact: every bit, every type of key. No pickle.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from trainmaster.train.outer.layout import dtype_name, to_dtype


def flatten(value: Any) -> tuple[Any, list[torch.Tensor]]:
    """Return JSON values and the flat tensors that they refer to.

    Raises:
        TypeError: something in it is neither a tensor nor a plain value.
    """
    tensors: list[torch.Tensor] = []
    return _flatten(value, tensors), tensors


def unflatten(described: Any, tensors: list[torch.Tensor]) -> Any:
    """Return what `flatten` was given; tensors are copied."""
    kind, content = described
    if kind == "tensor":
        number, shape, dtype = content
        return tensors[number].to(to_dtype(dtype), copy=True).view(shape)
    if kind in ("dict", "counter"):
        pairs = {unflatten(key, tensors): unflatten(each, tensors) for key, each in content}
        return Counter(pairs) if kind == "counter" else pairs
    if kind in ("list", "tuple"):
        members = [unflatten(each, tensors) for each in content]
        return tuple(members) if kind == "tuple" else members
    if kind == "bytes":
        return bytes.fromhex(content)
    return content


def _flatten(value: Any, tensors: list[torch.Tensor]) -> list[Any]:
    if isinstance(value, torch.Tensor):
        shape, dtype = list(value.shape), dtype_name(value.dtype)
        tensors.append(value.detach().to("cpu").reshape(-1))
        return ["tensor", [len(tensors) - 1, shape, dtype]]
    if isinstance(value, dict):
        pairs = [[_flatten(key, tensors), _flatten(each, tensors)] for key, each in value.items()]
        return ["counter" if isinstance(value, Counter) else "dict", pairs]
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return [kind, [_flatten(each, tensors) for each in value]]
    if isinstance(value, (bytes, bytearray)):
        return ["bytes", bytes(value).hex()]
    if value is None or isinstance(value, (bool, int, float, str)):
        return ["plain", value]
    raise TypeError(
        f"a {type(value).__name__} is neither a tensor nor a plain value, so it cannot be sent: "
        "let state_dict() return tensors, numbers and text"
    )
