"""The recipe `export`: the weights of a checkpoint as one safetensors file.

Exporting what was exported gives the same bytes again, so an attempt that begins after one which
had committed its file and then died does no harm. Nothing is unpickled.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from trainmaster._checkpoint_folder import FILE_BYTES_MAX
from trainmaster._spool import only_finite
from trainmaster.recipes import default_config
from trainmaster.recipes._tensor_files import (
    BadTensorFile,
    Slot,
    StoredTensor,
    order_slots,
    read_header,
    render_header,
)
from trainmaster.run import RunError, current_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from trainmaster.run import Run

OUTPUT = "model.safetensors"
SUFFIX = ".safetensors"
PIECE_BYTES = 16 * 1024 * 1024
_MIB = 1024 * 1024
_META_BYTES_MAX = 16 * _MIB
_PART = re.compile(r"-\d{5}-of-\d{5}$")  # of a model that others have split over several files
_OURS = "trainmaster."

_FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
_TARGETS = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}


class CannotExport(Exception):
    """The checkpoint cannot become one file; the message says what to do."""


@dataclass(frozen=True)
class Export:
    """What the file will hold.

    Attributes:
        tensors: by their names in it.
        metadata: of the whole.
        metrics: of the checkpoint.
    """

    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]
    metrics: Mapping[str, float]


def plan_export(folder: Path, *, checkpoint_id: str | None, step: int) -> Export:
    """Return what the weights in a checkpoint's folder become.

    Several models keep apart by their names, as in `encoder.0.weight`. A name that shares the
    memory of another one is not stored twice: it is in the metadata with the name it stands for,
    as `safetensors.torch.save_model` has it and `load_model` reads it.

    Raises:
        CannotExport: there are no weights, or two tensors have one name.
        BadTensorFile: a file cannot be read.
    """
    paths = sorted(path for path in folder.rglob(f"*{SUFFIX}") if path.is_file())
    if not paths:
        held = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
        raise CannotExport(
            f"the checkpoint of step {step} holds no {SUFFIX} file, only {', '.join(held[:5])}: "
            "weights are exported from safetensors files, which trainmaster.train writes"
        )
    meta = _read_meta(folder)
    models = _group_by_model(paths, folder)
    tensors: dict[str, StoredTensor] = {}
    carried: dict[str, str] = {}
    for model, files in models.items():
        prefix = f"{model}." if len(models) > 1 else ""
        for path in files:
            found, metadata = read_header(path)
            named = {prefix + tensor.name: tensor for tensor in found}
            if twice := sorted(named.keys() & tensors.keys()):
                raise CannotExport(f"two tensors are called {twice[0]}: nothing tells them apart")
            tensors |= named
            shared = {**meta.get("tied", {}).get(model, {}), **metadata}
            for alias, name in shared.items():
                if prefix + name in named:
                    carried[prefix + alias] = prefix + name
            # What an export says of where it comes from stays when it is exported again.
            carried |= {key: text for key, text in metadata.items() if key.startswith(_OURS)}
    versions = meta.get("versions", {})
    own = {
        **({"checkpoint": checkpoint_id} if checkpoint_id else {}),
        "step": str(step),
        **{name: str(versions[name]) for name in ("trainmaster", "torch") if name in versions},
    }
    metadata = {f"{_OURS}{name}": text for name, text in own.items()}
    if any(key.startswith(_OURS) for key in carried):
        metadata = {}
    return Export(tensors, {**carried, **metadata, "format": "pt"}, meta.get("metrics", {}))


def write_export(export: Export, target: Path, dtype: str) -> Iterator[int]:
    """Write the file; yields the bytes written so far.

    Args:
        export: what it holds.
        target: the file.
        dtype: keep, fp32, bf16 or fp16.

    Raises:
        CannotExport: it would be too large, or a weight is too large for the dtype.
    """
    kinds = {
        name: _TARGETS.get(dtype, tensor.dtype) if tensor.dtype in _FLOATS else tensor.dtype
        for name, tensor in export.tensors.items()
    }
    slots = order_slots(_plan_slot(name, export.tensors[name], kinds[name]) for name in kinds)
    header = render_header(slots, export.metadata)
    size_bytes = len(header) + sum(slot.size_bytes for slot in slots)
    if size_bytes > FILE_BYTES_MAX:
        raise CannotExport(
            f"the file would have {size_bytes / 2**30:.1f} GiB, and one of a checkpoint has at "
            f"most {FILE_BYTES_MAX / 2**30:.0f}: choose a smaller dtype, such as bf16"
        )
    written = len(header)
    with target.open("wb") as file:
        file.write(header)
        for slot in slots:
            tensor = export.tensors[slot.name]
            for piece in tensor.read(PIECE_BYTES):
                written += file.write(_convert(piece, tensor, slot))
                yield written


def _group_by_model(paths: list[Path], folder: Path) -> dict[str, list[Path]]:
    models: dict[str, list[Path]] = {}
    for path in paths:
        relative = path.relative_to(folder).as_posix().removesuffix(SUFFIX)
        models.setdefault(_PART.sub("", relative).replace("/", "."), []).append(path)
    return models


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / "meta.json"
    if not path.is_file() or path.stat().st_size > _META_BYTES_MAX:
        return {}
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    is_ours = isinstance(meta, dict) and isinstance(meta.get("tied"), dict) and "format" in meta
    return meta if is_ours else {}


def _plan_slot(name: str, tensor: StoredTensor, dtype: str) -> Slot:
    size_bytes = tensor.size_bytes
    if dtype != tensor.dtype:
        if tensor.size_bytes != tensor.num_items * _FLOATS[tensor.dtype].itemsize:
            raise BadTensorFile(f"tensor {tensor.name} has another size than its shape says")
        size_bytes = tensor.num_items * _FLOATS[dtype].itemsize
    return Slot(name, dtype, tensor.shape, size_bytes)


def _convert(piece: bytearray, tensor: StoredTensor, slot: Slot) -> bytes | bytearray:
    if slot.dtype == tensor.dtype:
        return piece
    before = torch.frombuffer(piece, dtype=_FLOATS[tensor.dtype])
    if before.itemsize < 4:
        before = before.float()  # half of what is asked of it below, torch has not for 8 bits
    after = before.to(_FLOATS[slot.dtype])
    if bool((after.isinf() & ~before.isinf()).any()):
        largest = before[before.isfinite()].abs().max().item()
        raise CannotExport(
            f"tensor {slot.name} holds {largest:.3g}, which is too large for the dtype that was "
            "asked for: choose bf16 or fp32"
        )
    return bytes(after.view(torch.uint8).numpy())


def export(run: Run) -> None:
    """Export the checkpoint that the run begins with, and commit it.

    Raises:
        CannotExport, BadTensorFile: it cannot be exported.
        RunError, CheckpointNotCommitted: the file could not be committed.
    """
    source = run.latest_checkpoint()
    if source is None:
        raise CannotExport("the job begins with no checkpoint: name one in resume_from")
    resume = run.description.get("resume")  # off the service a path
    checkpoint_id = resume.get("checkpoint_id") if isinstance(resume, dict) else None
    plan = plan_export(source.path, checkpoint_id=checkpoint_id, step=source.step)
    total = max(1, sum(tensor.size_bytes for tensor in plan.tensors.values()) // _MIB)
    folder = run.checkpoint_dir()
    try:
        for written in write_export(plan, folder / OUTPUT, run.config["dtype"]):
            run.progress(min(written // _MIB, total - 1), total)
            if run.should_stop():
                shutil.rmtree(folder)
                return
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    run.commit_checkpoint(folder, source.step, **only_finite(plan.metrics))
    run.progress(total, total)
    count = len(plan.tensors)
    sys.stdout.write(f"{count} tensors of step {source.step}, dtype {run.config['dtype']}\n")


def main() -> int:
    """Run the recipe; return the exit code."""
    run = current_run(default_config("export"))
    try:
        export(run)
    except (CannotExport, BadTensorFile, RunError) as error:
        sys.stderr.write(f"export: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
