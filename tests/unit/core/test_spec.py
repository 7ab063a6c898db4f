"""Reading, writing and naming specs."""

import dataclasses
import typing

from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.spec import (
    CheckpointPolicy,
    JobSpec,
    KeepBest,
    Parallel,
    ResourceRequest,
    canonical_json,
    content_hash,
    read_spec,
    write_spec,
)


def test_a_short_document_gets_every_default() -> None:
    spec = read_spec({"recipe": "image-classifier", "workers": 2, "config": {"epochs": 3}})

    assert spec == JobSpec(recipe="image-classifier", workers=2, config={"epochs": 3})
    assert write_spec(spec)["priority"] == 50


def test_nested_parts_are_read_as_their_types() -> None:
    document = {
        "recipe": "r",
        "args": ["--a"],
        "resources": {"cpus": 0.5},
        "checkpoint": {"keep_best": {"metric": "val/accuracy"}},
    }

    spec = read_spec(document)

    assert spec.args == ("--a",)
    assert spec.resources == ResourceRequest(cpus=0.5)
    assert spec.checkpoint == CheckpointPolicy(keep_best=KeepBest(metric="val/accuracy"))


def test_a_layout_says_how_many_workers() -> None:
    assert JobSpec(parallel=Parallel(data=2, tensor=3)).num_workers == 6
    assert JobSpec(workers=4).num_workers == 4
    assert JobSpec().num_workers == 1


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(config=st.dictionaries(st.text(), _json, max_size=4), workers=st.integers(1, 99))
def test_what_is_written_reads_back_equal(config: dict[str, object], workers: int) -> None:
    spec = JobSpec(recipe="r", config=config, workers=workers, args=("x",), parallel=Parallel())

    assert read_spec(write_spec(spec)) == spec


@given(st.permutations(["recipe", "workers", "priority"]))
def test_the_hash_does_not_depend_on_the_order_of_keys(order: list[str]) -> None:
    values = {"recipe": "r", "workers": 2, "priority": 50}

    assert content_hash({key: values[key] for key in order}) == content_hash(values)


def test_the_canonical_form_is_utf8_without_spaces() -> None:
    assert canonical_json({"b": 1, "a": "é"}) == '{"a":"é","b":1}'.encode()


def test_every_field_has_a_default() -> None:
    required = {
        field.name
        for field in dataclasses.fields(JobSpec)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }

    assert required == set()
    assert typing.get_type_hints(JobSpec)
