"""Where each rank of a job stands."""

import collections
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster._layout import DIMENSIONS, Layout, Place, UnfitLayout

counts = st.integers(1, 4)
layouts = st.builds(Layout, data=counts, shard=counts, tensor=counts, pipeline=counts)


@given(layouts)
def test_every_rank_has_a_place_of_its_own_and_every_place_a_rank(layout: Layout) -> None:
    places = [layout.place(rank) for rank in range(layout.size)]

    assert [layout.rank(place) for place in places] == list(range(layout.size))
    ranges = [range(count) for count in layout.counts().values()]
    assert places == [Place(*each) for each in itertools.product(*ranges)]


@given(layouts)
def test_the_ranks_of_a_replica_are_neighbours(layout: Layout) -> None:
    replicas = [layout.place(rank).data for rank in range(layout.size)]

    assert replicas == sorted(replicas)
    assert set(collections.Counter(replicas).values()) == {layout.replica_size}


@given(layouts)
def test_a_share_is_taken_by_the_ranks_of_one_data_and_shard_place(layout: Layout) -> None:
    takers = collections.Counter(layout.share(rank) for rank in range(layout.size))

    assert set(takers) == set(range(layout.shares))
    assert set(takers.values()) == {layout.tensor * layout.pipeline}
    for rank in range(layout.size):
        place = layout.place(rank)
        assert divmod(layout.share(rank), layout.shard) == (place.data, place.shard)


@given(layouts)
def test_one_rank_speaks_for_each_share(layout: Layout) -> None:
    heads = [layout.share(rank) for rank in range(layout.size) if layout.is_share_head(rank)]

    assert sorted(heads) == list(range(layout.shares))


@given(layouts)
def test_only_those_that_divide_a_layer_draw_the_same_numbers(layout: Layout) -> None:
    streams = collections.defaultdict(set)
    for rank in range(layout.size):
        place = layout.place(rank)
        streams[layout.randomness(rank)].add((place.data, place.pipeline, place.shard))

    assert len(streams) == layout.size // layout.tensor
    assert all(len(places) == 1 for places in streams.values())


@given(layouts)
def test_a_description_says_the_same(layout: Layout) -> None:
    described = {name: getattr(layout, name) for name in DIMENSIONS}

    assert Layout.from_description(described, layout.size) == layout


@pytest.mark.parametrize(
    ("parallel", "want"),
    [
        pytest.param(None, Layout(data=4), id="nothing said is all data parallel"),
        pytest.param({"shard": 4}, Layout(shard=4), id="what is left out is one"),
        pytest.param({"data": None, "tensor": 4}, Layout(tensor=4), id="null is one"),
    ],
)
def test_a_description_may_be_short(parallel: dict[str, int | None] | None, want: Layout) -> None:
    assert Layout.from_description(parallel, 4) == want


@pytest.mark.parametrize(
    ("parallel", "message"),
    [
        ({"data": 2, "tensor": 3}, "data 2 x pipeline 1 x shard 1 x tensor 3 = 6 ranks.* has 4"),
        ({"data": 0}, "parallel.data is 0"),
        ({"shard": "two"}, "parallel.shard is 'two'"),
        ({"tensor": True}, "parallel.tensor is True"),
        ({"expert": 2}, "parallel.expert is unknown"),
    ],
)
def test_what_is_no_layout_is_refused_with_the_way_out(
    parallel: dict[str, object], message: str
) -> None:
    with pytest.raises(UnfitLayout, match=message):
        Layout.from_description(parallel, 4)


def test_a_replica_is_a_world_of_its_own() -> None:
    layout = Layout(data=3, shard=2, tensor=2)

    assert layout.replica() == Layout(shard=2, tensor=2)
    assert layout.replica().size == layout.replica_size
    with pytest.raises(UnfitLayout, match="no rank 12"):
        layout.place(12)
