"""Which rows each prediction of a batch takes, and how they are read."""

import inspect
import random
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tabpfn_assets import ScoringPlan
from tabpfn_operators.errors import LimitExceededError
from tabpfn_operators.reading import Reading
from tabpfn_operators.scoring._plan import Shard, cut, plan_id
from tabpfn_operators.scoring._rows import RowGroups, count_rows, group_rows, rows_of, to_send

GROUPS = st.lists(st.integers(0, 40), max_size=30)


def write_parts(folder, layout):
    """Write part files of the row groups in `layout`."""
    folder.mkdir()
    start = 0
    tables = []
    for number, groups in enumerate(layout):
        with pq.ParquetWriter(folder / f"part-{number:03d}.parquet", numbered(0, 0).schema) as writer:
            for rows in groups:
                table = numbered(start, rows)
                writer.write_table(table, row_group_size=max(rows, 1))
                tables.append(table)
                start += rows
    return pa.concat_tables([numbered(0, 0), *tables])


def numbered(start, rows):
    numbers = range(start, start + rows)
    return pa.table(
        {
            "n": pa.array(numbers, pa.int64()),
            "text": pa.array([None if n % 7 == 0 else f"t{n % 5}" for n in numbers], pa.string()),
            "x": pa.array([n / 3 for n in numbers], pa.float64()),
        }
    )


@given(GROUPS, st.none() | st.integers(1, 60))
def test_every_row_is_in_one_shard_in_order_and_within_the_limit(groups, most):
    rows = sum(groups)
    for layout in (groups, None):
        shards = cut(layout, rows, most)
        assert [row for shard in shards for row in range(shard.start, shard.stop)] == list(range(rows))
        assert [shard.index for shard in shards] == list(range(len(shards)))
        assert all(1 <= shard.rows <= (most or rows) for shard in shards)
        assert cut(layout, rows, most) == shards
        assert len({shard.name for shard in shards}) == len(shards)


@given(GROUPS, st.integers(1, 60))
def test_a_row_group_is_cut_only_where_it_is_larger_than_a_shard(groups, most):
    shards = cut(groups, sum(groups), most)
    start = 0
    for rows in groups:
        inside = [shard for shard in shards if shard.start < start + rows and shard.stop > start]
        if 0 < rows <= most:
            assert len(inside) == 1
        elif rows:
            assert (inside[0].start, inside[-1].stop) == (start, start + rows)
            assert len(inside) == -(-rows // most)
            assert max(shard.rows for shard in inside) - min(shard.rows for shard in inside) <= 1
        start += rows
    for one, other in pairwise(shards):
        # Two neighbours that could have been one are parts of one large row group.
        together = one.rows + other.rows <= most
        assert not together or any(rows > most for rows in groups)


@given(st.integers(0, 10**6), st.integers(1, 10**6).filter(lambda most: most > 500))
def test_a_source_that_is_decoded_gives_full_shards_and_the_rest(rows, most):
    sizes = [shard.rows for shard in cut(None, rows, most)]
    assert sizes == [most] * (rows // most) + [rows % most] * (rows % most > 0)


def test_known_cuts():
    assert [shard.rows for shard in cut([4, 4, 4], 12, 8)] == [8, 4]
    assert [shard.rows for shard in cut([0, 3, 0, 25, 2, 0], 30, 10)] == [3, 9, 8, 8, 2]
    assert cut([], 0, 5) == ()
    assert cut([2, 3], 5, None) == (Shard(0, 0, 5),)
    assert (Shard(7, 20, 5).stop, Shard(7, 20, 5).name) == (25, "00007")


@pytest.mark.parametrize("most", [0, -1])
def test_a_model_that_takes_not_even_one_row(most):
    with pytest.raises(LimitExceededError, match="not even one row"):
        cut([1], 1, most)


def test_row_groups_that_are_not_the_source_s():
    with pytest.raises(ValueError, match="3 rows, the source 4"):
        cut([1, 2], 4, 2)


def test_the_plan_id_changes_with_everything_that_the_parts_depend_on():
    facts = {
        "fitted_train_set_id": "model-1",
        "fingerprint": "f" * 64,
        "output_type": "quantiles",
        "quantiles": (0.1, 0.9),
        "keep": ("id",),
        "wide": True,
        "partition_by": (),
    }
    shards = cut([5, 5], 10, 5)
    known = plan_id(shards, **facts)
    assert known == "3ee0c861c28cd0a6901b7bb7d937f1e7"  # as any other machine and version has it
    others = {
        "fitted_train_set_id": "model-2",
        "fingerprint": "e" * 64,
        "output_type": "full",
        "quantiles": None,
        "keep": ("id", "day"),
        "wide": False,
        "partition_by": ("id",),
    }
    assert others.keys() == inspect.signature(plan_id).parameters.keys() - {"shards"}
    found = {plan_id(shards, **{**facts, name: value}) for name, value in others.items()}
    found |= {known, plan_id(cut([10], 10, 10), **facts), plan_id(cut([5, 6], 11, 5), **facts)}
    assert len(found) == len(others) + 3
    assert plan_id(list(shards), **{**facts, "keep": ["id"], "quantiles": [0.1, 0.9]}) == known
    assert all(len(each) == 32 and set(each) <= set("0123456789abcdef") for each in found)


def test_a_plan_of_many_shards_stays_small_and_survives_json():
    shards = cut(None, 10**7, 2_500)
    plan = ScoringPlan(
        plan_id=plan_id(
            shards,
            fitted_train_set_id="model-1",
            fingerprint="f" * 64,
            output_type="probas",
            quantiles=None,
            keep=(),
            wide=True,
            partition_by=(),
        ),
        fitted_train_set_id="model-1",
        source={"uris": ["s3://KEY:SECRET@bucket/table/"], "rows": 10**7},
        output_type="probas",
        rows=10**7,
        shards=len(shards),
        rows_per_shard=2_500,
        spliced=0,
        bytes_to_send=None,
    )
    text = plan.model_dump_json()
    assert ScoringPlan.model_validate_json(text) == plan
    assert len(text) < 1_000
    assert "SECRET" not in text
    with pytest.raises(ValidationError, match="plan_id"):
        ScoringPlan.model_validate({**plan.model_dump(), "plan_id": "../other"})


LAYOUTS = st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=4).filter(
    lambda layout: any(map(sum, layout))
)


@settings(deadline=None, max_examples=50)
@given(LAYOUTS, st.randoms(use_true_random=False))
def test_rows_by_their_numbers_are_a_slice_of_the_table(tmp_path_factory, layout, rng):
    folder = tmp_path_factory.mktemp("rows") / "table"
    table = write_parts(folder, layout)
    reading = Reading(str(folder))
    sources = [reading.open(), Reading(str(folder), recompress="zstd").open(), Reading(table).open()]
    assert group_rows(sources[0]) == tuple(rows for groups in layout for rows in groups)
    assert group_rows(sources[1]) is group_rows(sources[2]) is None
    for _ in range(5):
        start, stop = sorted(rng.randrange(table.num_rows + 3) for _ in range(2))
        columns = rng.sample(table.column_names, rng.randint(1, 3))
        expected = table.select(columns).slice(start, stop - start)
        for source in sources:
            batches = list(rows_of(source, start, stop, columns))
            assert pa.Table.from_batches(batches, expected.schema).equals(expected)
            assert all(batch.num_rows for batch in batches)


def test_only_the_row_groups_and_files_of_the_rows_are_read(tmp_path):
    table = write_parts(tmp_path / "table", [[10, 10], [10], [10, 10]])
    source = Reading(str(tmp_path / "table")).open()
    (tmp_path / "table" / "part-000.parquet").unlink()
    (tmp_path / "table" / "part-002.parquet").unlink()
    (batch,) = rows_of(source, 22, 29, ["n"])
    assert batch.column("n").to_pylist() == list(range(22, 29))
    found = RowGroups.of(source).overlapping(25, 30)
    assert [stored.path for stored in found.objects] == [str(tmp_path / "table" / "part-001.parquet")]
    found.check_unchanged()
    assert pa.Table.from_batches(found.batches(["x", "n"])).equals(table.select(["x", "n"]).slice(20, 10))
    assert list(rows_of(source, 22, 29, [])) == []


def test_many_columns_are_read_in_turns(tmp_path):
    rng = random.Random(3)
    table = pa.table({f"c{i}": [rng.random() for _ in range(50)] for i in range(40)})
    pq.write_table(table, tmp_path / "wide.parquet", row_group_size=20)
    source = Reading(str(tmp_path / "wide.parquet")).open()
    columns = rng.sample(table.column_names, 30)
    expected = table.select(columns).slice(13, 30)
    assert pa.Table.from_batches(rows_of(source, 13, 43, columns)).equals(expected)


def test_rows_are_counted_where_nothing_else_tells(tmp_path):
    table = write_parts(tmp_path / "table", [[30, 20], [10]])
    assert count_rows(Reading(str(tmp_path / "table")).open()) == 60
    filtered = Reading(str(tmp_path / "table"), filters=[["n", ">=", 15]]).open()
    assert filtered.rows is None
    assert count_rows(filtered) == 45
    (tmp_path / "table.csv").write_text("a,b\n" + "1,2\n" * 17)
    assert count_rows(Reading(str(tmp_path / "table.csv")).open()) == 17
    assert count_rows(Reading(table).open()) == 60


def test_what_is_sent_is_known_from_footers(tmp_path):
    write_parts(tmp_path / "table", [[10, 10], [25, 5]])
    source = Reading(str(tmp_path / "table")).open()
    whole = cut(group_rows(source), 50, 40)
    assert [shard.rows for shard in whole] == [20, 30]
    groups = RowGroups.of(source)
    sizes = [groups.whole(shard).virtual(["x"]).size for shard in whole]
    assert to_send(source, whole, ["x"]) == (2, sum(sizes))
    assert to_send(source, cut(group_rows(source), 50, 20), ["x"]) == (2, None)
    assert to_send(Reading(str(tmp_path / "table"), recompress="zstd").open(), whole, ["x"]) == (0, None)
