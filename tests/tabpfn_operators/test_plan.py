"""What an upload would send, told before any byte moves: by both clients, by the library alone, by the command line."""

import json

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tabpfn_assets import Feature
from tabpfn_operators import target as targets
from tabpfn_operators.errors import InvalidInputError, LimitExceededError
from tabpfn_operators.plan import plan_train_set
from tabpfn_operators.reading import Reading
from tabpfn_operators.server import ModelLimit

MOVING = {"/tabpfn/prepare_train_set_upload", "/storage"}


def customers(rows=40):
    return pa.table(
        {
            "age": pa.array(range(rows), pa.int32()),
            "spent": [i / 4 for i in range(rows)],
            "city": [f"c{i % 3}" for i in range(rows)],
            "churn": [("no", "yes")[i % 2] for i in range(rows)],
        }
    )


def planned(source, target="churn", *, limit=None, largest_file=None, reading=None, **options):
    options = {"task": None, "features": None, "exclude": (), **options}
    return plan_train_set(
        Reading(source, **(reading or {})), target, limit=limit or ModelLimit(), largest_file=largest_file, **options
    )


# A source that can be sent


def test_a_plan_tells_what_leaves(client, write, journal):
    path = write(customers())
    plan = client.plan_train_set(path, "churn", task="classification", exclude=["spent"])
    assert (plan.url, plan.files, plan.rows, plan.cells) == (path, 1, 40, 80)
    assert plan.features == (Feature(name="age", dtype="int32"), Feature(name="city", dtype="string"))
    assert (plan.feature_names, plan.stays) == (("age", "city"), ("spent",))
    assert (plan.target, plan.target_dtype) == ("churn", "string")
    assert (plan.nulls, plan.classes, plan.reason) == (0, ("no", "yes"), None)
    assert (plan.problems, plan.over_limit) == ((), ())
    plan.raise_problems()
    assert not MOVING & set(journal.routes())


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_an_upload_sends_the_bytes_that_were_planned(client, write, journal, task):
    target = "churn" if task == "classification" else "spent"
    path = write(customers())
    plan = client.plan_train_set(path, target, task=task)
    train_set = client.upload_train_set(path, target, task=task)
    assert sum(plan.bytes_to_send) == train_set.bytes_sent
    assert sorted(plan.bytes_to_send) == sorted(row["bytes_in"] for row in journal.puts())
    assert (plan.features, plan.classes, plan.rows) == (train_set.features, train_set.classes, train_set.rows)


@pytest.mark.parametrize(
    ("reading", "reason"),
    [
        ({"filters": [("age", ">=", 30)]}, "a row filter"),
        ({"casts": {"age": "int64"}}, "casts"),
        ({"recompress": ("zstd", 9)}, "recompression"),
    ],
)
def test_why_rows_would_be_decoded(write, reading, reason):
    plan = planned(write(customers()), reading=reading)
    assert (plan.reason, plan.bytes_to_send) == (reason, None)
    assert plan.rows == (10 if "filters" in reading else 40)
    assert plan.features[0].dtype == ("int64" if "casts" in reading else "int32")


def test_rows_that_only_a_scan_counts(tmp_path):
    path = str(tmp_path / "customers.csv")
    pcsv.write_csv(customers(), path)
    good, bad = planned(path), planned(path, "nowhere")
    assert (good.rows, good.cells, good.reason) == (40, 120, "CSV source")
    assert (bad.rows, bad.cells, bad.nulls, bad.classes) == (None, None, None, None)


def test_a_table_in_memory():
    plan = planned(customers())
    assert (plan.url, plan.files, plan.rows, plan.reason) == ("Table", 0, 40, "Table source")


def test_without_a_task_labels_are_counted_and_numbers_are_not(write, monkeypatch):
    path = write(customers())
    assert planned(path, "city").classes == ("c0", "c1", "c2")
    assert planned(path, "spent").classes is None
    assert planned(path, "age").classes == tuple(range(40))
    monkeypatch.setattr(targets, "MAX_COLLECTED_CLASSES", 10)
    assert planned(path, "age").classes is None
    assert planned(path, "age").problems == ()
    assert "has more than 10 classes" in planned(path, "age", task="classification").problems[0]


@pytest.mark.parametrize("values", [[0.5, None, 1.5], [True, False, None]], ids=["numbers", "booleans"])
def test_without_a_task_the_target_may_be_of_either(write, values):
    plan = planned(write({"x": [1, 2, 3], "y": values}), "y")
    assert (plan.nulls, len(plan.problems)) == (1, 1)
    assert planned(write({"x": [1, 2], "y": [b"a", b"b"]}), "y").problems != ()


# How little is read


@pytest.fixture
def ranges(monkeypatch):
    """The byte ranges that are read of storage in memory, and an empty storage."""
    read = []
    cat_file = MemoryFileSystem.cat_file

    def counting(self, path, start=None, end=None, **options):
        read.append((start, end))
        return cat_file(self, path, start=start, end=end, **options)

    def refusing(self, *_args, **_options):
        raise AssertionError("a file is read by named ranges, never opened")

    fs = fsspec.filesystem("memory")
    monkeypatch.setattr(MemoryFileSystem, "cat_file", counting)
    yield read, lambda: monkeypatch.setattr(MemoryFileSystem, "_open", refusing)
    monkeypatch.undo()
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


@pytest.fixture
def large(ranges):
    """A file whose footer is far from its data: 40,000 rows, the target before a feature of 640 kB."""
    random = np.random.default_rng(0)
    nulls = np.zeros(40_000, bool)
    nulls[[3, 39_999]] = True
    table = pa.table(
        {
            "whole": pa.array(random.integers(0, 1_000_000, 40_000), mask=nulls),
            "fraction": random.random(40_000),
            "x": random.random(40_000),
            "z": random.random(40_000),
        }
    )
    with fsspec.open("memory://lake/large.parquet", "wb") as file:
        pq.write_table(table, file, row_group_size=10_000)
    read, forbid_opening = ranges
    forbid_opening()
    read.clear()
    return "memory://lake/large.parquet", fsspec.filesystem("memory").size("/lake/large.parquet"), read


def test_nulls_of_whole_numbers_come_from_the_statistics(large):
    url, size, read = large
    plan = planned(url, "whole", task="regression")
    assert (plan.rows, plan.nulls, plan.classes) == (40_000, 2, None)
    assert "missing or not finite in 2 of 40,000 rows" in plan.problems[0]
    assert read, "the footer is read"
    assert all(start >= size - (64 << 10) for start, _ in read), "and nothing else"


def test_of_a_fraction_only_the_target_is_read(large):
    url, size, read = large
    plan = planned(url, "fraction", task="regression")
    assert (plan.nulls, plan.problems) == (0, ())
    data = sum(stop - start for start, stop in read if start < size - (64 << 10))
    assert 40_000 * 8 < data < 2 * 40_000 * 8, "statistics do not count NaN and infinity"


# A source that cannot be sent


def broken():
    return pa.table(
        {
            "list": [[1], [2], [3], [4]],
            "bytes": [b"a", b"b", b"c", b"d"],
            "fine": [1, 2, 3, 4],
            "y": ["a", None, "b", "c"],
        }
    )


FIT = {"target": "churn"}
BAD = {
    "columns": (
        broken,
        {"exclude": ["nowhere"]},
        {},
        ["'nowhere' is not there", "'list' is nested", "'bytes' is binary"],
    ),
    "target": (
        broken,
        {"exclude": ["list", "bytes"]},
        {"max_cols": 0},
        ["missing or not finite in 1 of 4", "1 feature columns, "],
    ),
    "no target": (broken, {"target": "nowhere"}, {}, ["'nowhere' is not among the columns", "'list'", "'bytes'"]),
    "target is excluded": (customers, {**FIT, "exclude": ["churn"]}, {}, ["'churn' is among the excluded"]),
    "target is a feature": (customers, {**FIT, "features": ["age", "churn"]}, {}, ["'churn' is among the features"]),
    "no feature": (customers, {**FIT, "features": []}, {}, ["no feature column is left"]),
    "none left": (customers, {**FIT, "exclude": ["age", "spent", "city"]}, {}, ["no feature column is left"]),
    "limits": (customers, FIT, {"train_set_max_rows": 39, "max_classes": 1}, ["40 rows, ", "2 classes, "]),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("decoded", [False, True], ids=["spliced", "decoded"])
def test_a_plan_lists_what_the_upload_would_refuse(client, control, write, journal, case, decoded):
    table, options, limits, words = BAD[case]
    control.configure(limits=limits)
    options = {"target": "y", "task": "classification", **options, "recompress": ("zstd", 3) if decoded else None}
    path = write(table())
    plan = client.plan_train_set(path, **options)
    found = (*plan.problems, *plan.over_limit)
    assert len(found) == len(words), found
    assert all(word in text for word, text in zip(words, found, strict=True))
    assert plan.bytes_to_send is None or not plan.problems or not decoded
    with pytest.raises(InvalidInputError) as told:
        plan.raise_problems()
    with pytest.raises(InvalidInputError) as refused:
        client.upload_train_set(path, **options)
    assert (str(refused.value), refused.value.problems) == (str(told.value), found)
    assert type(refused.value) is type(told.value) is (InvalidInputError if plan.problems else LimitExceededError)
    assert not MOVING & set(journal.routes())


def test_more_bytes_than_the_server_takes(write):
    plan = planned(write(customers()), task="classification", largest_file=100)
    assert plan.over_limit == (
        f"{max(plan.bytes_to_send):,} bytes to send, the server takes 100 in one file; send fewer rows or columns",
    )


def test_binary_views(write):
    table = pa.table({"x": pa.array([b"a", b"b"]).cast(pa.binary_view()), "y": [1, 2]})
    (problem,) = planned(write(table), "y").problems
    assert problem == "column 'x' is binary; decode it or leave it out with exclude"


def test_columns_that_are_there_twice(write):
    table = pa.Table.from_arrays([pa.array([1, 2])] * 3 + [pa.array(["a", "b"])], names=["a", "a", "b", "y"])
    plan = planned(write(table), "y")
    assert plan.problems == ("column 'a' is there more than once; rename one of them",)
    assert plan.feature_names == ("b",)
    twice = planned(write(table.rename_columns(["a", "b", "y", "y"])), "y")
    assert twice.target_dtype is None
    assert "column 'y' is there more than once; rename one of them" in twice.problems


def test_a_source_that_cannot_be_read_has_no_plan(client, tmp_path):
    with pytest.raises(InvalidInputError, match="does not exist"):
        client.plan_train_set(str(tmp_path / "nowhere.parquet"), "y")


# The command line


@pytest.fixture
def path(write):
    return write(customers())


def test_the_command_prints_every_column_that_leaves(cli, path, journal):
    ran = cli("plan", path, "--target", "churn", "--task", "classification", "--exclude", "spent")
    assert (ran.code, ran.err) == (0, "")
    lines = [line.split() for line in ran.out.splitlines()]
    for line in (["age", "int32", "features"], ["city", "string", "features"], ["churn", "string", "target"]):
        assert line in lines
    for words in ("rows                 40\n", "2: no, yes", "2 (80 cells)", "stay at home         spent", "checked"):
        assert words in ran.out
    assert not MOVING & set(journal.routes())


def test_the_command_prints_two_thousand_columns(cli, write):
    wide = write({**{f"column {i}": [i, i] for i in range(2_000)}, "y": [0, 1]})
    ran = cli("plan", wide, "--target", "y", "--offline")
    assert [line for line in ran.out.splitlines() if line.startswith("column 1999 ")] == [
        next(line for line in ran.out.splitlines() if line.split()[:2] == ["column", "1999"])
    ]
    assert sum(line.endswith("features") for line in map(str.rstrip, ran.out.splitlines())) == 2_000


def test_the_command_as_json(cli, path, journal):
    ran = cli("plan", path, "--target", "churn", "--json", "--feature", "city", "--feature", "age")
    assert (ran.code, ran.err) == (0, "")
    plan = json.loads(ran.out)
    assert [feature["name"] for feature in plan["features"]] == ["city", "age"]
    assert (plan["rows"], plan["cells"], plan["nulls"], plan["classes"]) == (40, 80, 0, ["no", "yes"])
    assert (plan["stays"], plan["problems"], plan["over_limit"]) == (["spent"], [], [])
    assert (plan["decoded_because_of"], plan["limits_checked"]) == (None, True)
    assert all(size > 0 for size in plan["bytes_to_send"])


def test_the_command_without_a_token(cli, path, journal, monkeypatch):
    monkeypatch.delenv("TABPFN_TOKEN")
    ran = cli("plan", path, "--target", "churn", "--offline")
    assert (ran.code, ran.err) == (0, "")
    assert "not checked (offline)" in ran.out
    assert journal.routes() == []
    assert cli("plan", path, "--target", "churn").code == 2


def test_the_command_filters_and_casts(cli, path):
    arguments = ("--filters", '[["age", ">", 29]]', "--cast", "spent=float", "--recompress", "zstd:9", "--offline")
    ran = cli("plan", path, "--target", "churn", "--json", *arguments)
    plan = json.loads(ran.out)
    assert (plan["rows"], plan["features"][1]["dtype"], plan["bytes_to_send"]) == (10, "float", None)
    assert plan["decoded_because_of"] == "a row filter"
    assert (
        "known once written: rows are decoded because of a row filter"
        in cli("plan", path, "--target", "churn", *arguments).out
    )


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_prints_the_plan_before_what_is_wrong(cli, write, journal, as_json):
    path = write(broken())
    ran = cli("plan", path, "--target", "nowhere", *(["--json"] if as_json else []))
    assert ran.code == 2
    assert "'nowhere' is not among the columns" in ran.err
    assert "'list' is nested" in ran.err
    if as_json:
        assert len(json.loads(ran.out)["problems"]) == 3
    else:
        assert ["fine", "int64", "features"] in [line.split() for line in ran.out.splitlines()]
        assert ["target", "nowhere"] in [line.split() for line in ran.out.splitlines()]
    assert not MOVING & set(journal.routes())


def test_the_command_over_the_limits(cli, control, path):
    control.configure(limits={"train_set_max_rows": 39})
    assert cli("plan", path, "--target", "churn", "--offline").code == 0
    ran = cli("plan", path, "--target", "churn")
    assert ran.code == 2
    assert "40 rows, the server takes 39" in ran.err


def test_column_names_are_no_markup(cli, write):
    names = ["[red]a[/red]", "[/]", "b\\", ":smile:", "[link=x]"]
    path = write({**{name: [1, 2] for name in names}, "[bold]y": ["[u]", "v"], "home[/home]": [1, 2]})
    ran = cli("plan", path, "--target", "[bold]y", "--exclude", "home[/home]", "--offline")
    assert (ran.code, ran.err) == (0, "")
    shown = {line.split()[0] for line in ran.out.splitlines() if line.rstrip().endswith(("features", "target"))}
    assert shown >= {*names, "[bold]y"}
    assert "home[/home]" in ran.out
    assert "2: [u], v" in ran.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--cast", "age"), "--cast is COLUMN=TYPE, for instance code=string; not 'age'"),
        (("--cast", "=int64"), "not '=int64'"),
        (("--cast", "age="), "not 'age='"),
        (("--cast", "age=number"), "names the type 'number', which Arrow does not know"),
        (("--recompress", "zstd:high"), "--recompress is CODEC:LEVEL, for instance zstd:9; not 'zstd:high'"),
        (("--recompress", "nope"), "recompress is a codec"),
        (("--recompress", "zstd:99"), "zstd has no level 99"),
        (("--filters", "age > 17"), "The filter is no JSON"),
        (("--filters", '[["nowhere", ">", 17]]'), "The filter names column 'nowhere', which is not there"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "fit"])
def test_options_that_cannot_be_used(cli, path, journal, command, arguments, words):
    task = ("--task", "classification")
    ran = cli(command, path, "--target", "churn", *task, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert not MOVING & set(journal.routes())
