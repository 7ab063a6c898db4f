"""The document schema of a job spec and the core's spec are one and the same."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from api.jobs import spec_schema
from scheduler.core import spec as core
from scheduler.core.spec import read_spec, write_spec

PAIRS = [
    (spec_schema.JobSpecDocument, core.JobSpec),
    (spec_schema.ResourcesDocument, core.ResourceRequest),
    (spec_schema.ParallelDocument, core.Parallel),
    (spec_schema.SyncDocument, core.Sync),
    (spec_schema.EnvironmentDocument, core.EnvironmentRequest),
    (spec_schema.KeepBestDocument, core.KeepBest),
    (spec_schema.CheckpointPolicyDocument, core.CheckpointPolicy),
    (spec_schema.RetryDocument, core.RetrySpec),
    (spec_schema.LimitsDocument, core.Limits),
    (spec_schema.HealthDocument, core.Health),
    (spec_schema.ElasticDocument, core.Elastic),
]


def _core_default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    if field.default is dataclasses.MISSING:
        return PydanticUndefined
    if dataclasses.is_dataclass(field.default):
        return write_spec(typing.cast(Any, field.default))
    return list(field.default) if isinstance(field.default, tuple) else field.default


def _document_default(default: Any) -> Any:
    return default.model_dump() if isinstance(default, BaseModel) else default


@pytest.mark.parametrize(("document", "spec"), PAIRS, ids=[pair[1].__name__ for pair in PAIRS])
def test_fields_and_defaults_are_equal(document: type[BaseModel], spec: Any) -> None:
    ours = {name: _document_default(field.default) for name, field in document.model_fields.items()}
    cores = {field.name: _core_default(field) for field in dataclasses.fields(spec)}

    assert ours == cores
    assert list(ours) == list(cores)


@pytest.mark.parametrize(("document", "spec"), PAIRS, ids=[pair[1].__name__ for pair in PAIRS])
def test_what_may_be_null_is_equal(document: type[BaseModel], spec: Any) -> None:
    def may_be_null(kind: Any) -> bool:
        if typing.get_origin(kind) is typing.Annotated:
            return may_be_null(typing.get_args(kind)[0])
        is_union = isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
        return is_union and types.NoneType in typing.get_args(kind)

    hints = typing.get_type_hints(spec)
    ours = {name for name, field in document.model_fields.items() if may_be_null(field.annotation)}

    assert ours == {name for name, kind in hints.items() if may_be_null(kind)}


def test_every_part_of_the_spec_is_mirrored() -> None:
    parts = {
        kind
        for kind in vars(core).values()
        if dataclasses.is_dataclass(kind) and isinstance(kind, type)
    }

    assert parts == {spec for _, spec in PAIRS}


@given(st.data())
def test_a_read_document_written_again_is_the_same(data: st.DataObject) -> None:
    document = data.draw(
        st.fixed_dictionaries(
            {},
            optional={
                "name": st.text(st.characters(categories=["L"]), min_size=1, max_size=20),
                "workers": st.integers(1, 4096) | st.none(),
                "priority": st.integers(0, 100),
                "args": st.lists(
                    st.text(st.characters(exclude_characters="\0"), max_size=5), max_size=3
                ),
                "parallel": st.fixed_dictionaries({}, optional={"data": st.integers(1, 8)}),
                "checkpoint": st.fixed_dictionaries(
                    {}, optional={"keep_best": st.just({"metric": "m"}) | st.none()}
                ),
                "config": st.dictionaries(st.text(max_size=3), st.floats(allow_nan=False)),
            },
        )
    )

    whole = spec_schema.JobSpecDocument.model_validate(document).model_dump()

    assert write_spec(read_spec(whole)) == whole
