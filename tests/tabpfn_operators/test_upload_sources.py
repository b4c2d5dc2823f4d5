"""Every kind of source through both clients: what arrives, why it is decoded, what is recorded, what stays behind."""

import asyncio
import logging
import os
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.feather as feather
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest

from tabpfn_assets import FitParameters
from tabpfn_operators import AsyncClient, Client
from tabpfn_operators.errors import InvalidInputError, LimitExceededError, SourceChangedError
from tabpfn_operators.reading import Reading
from tabpfn_operators.tables._files import opener_of
from tabpfn_operators.tables._filters import parse_filters

PREPARE = "/tabpfn/prepare_train_set_upload"
SUBMIT = "/tabpfn/submit_fit_job"
CLASSIFICATION = FitParameters(task="classification")


def plain(rows=40, first=0):
    numbers = range(first, first + rows)
    return pa.table(
        {
            "x": [i * 37 % 100 / 8 for i in numbers],
            "count": [i * 11 % 7 for i in numbers],
            "word": [f"w{i % 5}" for i in numbers],
            "outcome": [("no", "yes")[i % 2] for i in numbers],
        }
    )


def rich(rows=40, first=0):
    """The columns whose types are easily lost on the way."""
    numbers = range(first, first + rows)
    start = datetime(2026, 11, 21, tzinfo=UTC)
    return pa.table(
        {
            "x": pa.array([None if i % 9 == 4 else i / 8 for i in numbers], pa.float32()),
            "category": pa.array([f"c{i % 3}" for i in numbers]).dictionary_encode(),
            "when": pa.array([start + timedelta(hours=i) for i in numbers], pa.timestamp("us", "Europe/Berlin")),
            "day": pa.array([(start + timedelta(days=i)).date() for i in numbers]),
            "price": pa.array([Decimal(i) / 4 for i in numbers], pa.decimal128(9, 2)),
            "large": pa.array([f"l{i}" for i in numbers], pa.large_string()),
            "outcome": [("no", "yes")[i % 2] for i in numbers],
        }
    )


@pytest.fixture
def send(client, uploaded):
    """Upload and return the record with X and y as the emulator holds them."""

    def upload(source, target="outcome", task="classification", **options):
        train_set = client.upload_train_set(source, target, task=task, **options)
        return (
            train_set,
            uploaded(train_set.train_set_upload_id, "x_train"),
            uploaded(train_set.train_set_upload_id, "y_train"),
        )

    return upload


@pytest.fixture
def memory():
    """fsspec's storage in memory, empty before and after."""
    fs = fsspec.filesystem("memory")
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


@pytest.fixture
def spool_home(tmp_path, monkeypatch):
    """The folder that temporary files go to."""
    home = tmp_path / "spool-home"
    home.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    return home


@pytest.fixture
def reasons(caplog):
    """Why sources were decoded, as the log says it."""
    caplog.set_level(logging.INFO, logger="tabpfn_operators")

    def told():
        parts = [record.getMessage().partition("because of: ") for record in caplog.records]
        return [reason.rstrip(".") for _, found, reason in parts if found]

    return told


# What arrives


def part_files(folder, tables):
    folder.mkdir(exist_ok=True)
    paths = [folder / f"part-{number}.parquet" for number in range(9, 9 + len(tables))]  # 9, 10: natural order matters
    for path, table in zip(paths, tables, strict=True):
        pq.write_table(table, path)
    return [str(path) for path in paths]


SPLICED = {
    "path": lambda folder: part_files(folder, [rich()])[0],
    "pathlib": lambda folder: Path(part_files(folder, [rich()])[0]),
    "list": lambda folder: part_files(folder, [rich(25), rich(15, 25)]),
    "glob": lambda folder: part_files(folder, [rich(25), rich(15, 25)]) and str(folder / "part-*.parquet"),
    "folder": lambda folder: part_files(folder, [rich(25), rich(15, 25)]) and str(folder),
    "url": lambda folder: part_files(folder, [rich()]) and f"file://{folder}/part-9.parquet",
}


@pytest.mark.parametrize("kind", SPLICED)
@pytest.mark.parametrize("decoded", [False, True], ids=["spliced", "decoded"])
def test_parquet_arrives_as_pyarrow_reads_it(send, tmp_path, reasons, journal, kind, decoded):
    source = SPLICED[kind](tmp_path / "data")
    seen = []
    train_set, x, y = send(source, recompress=("zstd", 3) if decoded else None, progress=seen.append)
    table = rich()
    assert x.schema.equals(table.schema.remove(table.schema.get_field_index("outcome")))
    # By value: part files have dictionaries of their own, which Arrow takes for unequal.
    assert x.to_pylist() == table.drop_columns(["outcome"]).to_pylist()
    assert y.equals(table.select(["outcome"]))
    assert train_set.rows == 40
    assert train_set.bytes_sent == sum(row["bytes_in"] for row in journal.puts())
    assert reasons() == (["recompression"] if decoded else [])
    assert {step.step for step in seen} == ({"prepare", "upload"} if decoded else {"upload"})


def test_storage_that_is_no_disk(send, memory):
    with memory.open("/lake/train.parquet", "wb") as file:
        pq.write_table(rich(), file)
    train_set, x, _ = send("memory://lake/train.parquet")
    assert x.equals(rich().drop_columns(["outcome"]))
    assert train_set.source.uris == ("memory://lake/train.parquet",)


def write_csv(table, path):
    pcsv.write_csv(table, path)


def write_tsv(table, path):
    pcsv.write_csv(table, path, pcsv.WriteOptions(delimiter="\t"))


def write_json_lines(table, path):
    table.to_pandas().to_json(path, orient="records", lines=True)


def write_ipc(table, path):
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


FORMATS = {
    ".csv": ("CSV source", write_csv),
    ".csv.gz": ("CSV source", lambda table, path: table.to_pandas().to_csv(path, index=False)),
    ".tsv": ("CSV source", write_tsv),
    ".jsonl": ("JSON source", write_json_lines),
    ".orc": ("ORC source", orc.write_table),
    ".feather": ("Feather or Arrow IPC source", feather.write_feather),
    ".arrow": ("Feather or Arrow IPC source", write_ipc),
}


@pytest.mark.parametrize("pattern", [False, True], ids=["file", "pattern"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_other_formats_are_decoded(send, tmp_path, reasons, suffix, pattern):
    reason, write = FORMATS[suffix]
    (tmp_path / "data").mkdir()
    path = str(tmp_path / "data" / f"train{suffix}")
    write(plain(), path)
    # The pattern does not tell what it finds.
    train_set, x, y = send(str(tmp_path / "data" / "*") if pattern else path)
    assert x.equals(plain().drop_columns(["outcome"]))
    assert y.equals(plain().select(["outcome"]))
    assert reasons() == [reason]
    assert train_set.source.uris == (path,)


def test_a_signed_address_is_no_suffix():
    assert opener_of("https://host/data.csv?signature=abc") is opener_of("data.csv") is not None
    assert opener_of("https://host/data.parquet?name=data.csv") is None


def test_a_reading_shows_no_secret():
    assert "hunter2" not in repr(Reading("s3://key:hunter2@bucket/data.csv", {"secret": "hunter2"}, "hunter2"))


def frame():
    table = rich().to_pandas()
    return table.set_index(table.pop("x").rename("x").fillna(0.0))


IN_MEMORY = {
    "Table": rich,
    "RecordBatch": lambda: rich().to_batches()[0],
    "RecordBatchReader": lambda: rich().to_reader(max_chunksize=7),
}


@pytest.mark.parametrize("kind", IN_MEMORY)
def test_tables_in_memory(send, reasons, kind):
    train_set, x, y = send(IN_MEMORY[kind]())
    assert x.equals(rich().drop_columns(["outcome"]))
    assert y.equals(rich().select(["outcome"]))
    assert (train_set.source.uris, train_set.rows) == ((), 40)
    assert reasons() == [f"{'Table' if kind == 'RecordBatch' else kind} source"]


def test_a_data_frame_is_sent_without_its_index(send):
    _, x, _ = send(frame())
    assert x.column_names == ["category", "when", "day", "price", "large"]
    back = x.to_pandas()
    assert back["category"].dtype == "category"
    assert str(back["when"].dtype) == "datetime64[us, Europe/Berlin]"


def test_a_data_frame_and_its_file_arrive_alike(send, tmp_path):
    table = frame()
    table.to_parquet(tmp_path / "train.parquet")
    _, from_memory, _ = send(table)
    _, from_file, _ = send(str(tmp_path / "train.parquet"))
    assert from_file.column_names == from_memory.column_names, "the index column stays at home"
    assert from_file.to_pandas().equals(from_memory.to_pandas())


def test_part_files_that_differ_are_unified(send, tmp_path, reasons):
    first = plain(10).set_column(1, "count", pa.array(range(10), pa.int32()))
    second = plain(10, 10).drop_columns(["word"])
    part_files(tmp_path / "data", [first, second])
    _, x, y = send(str(tmp_path / "data"))
    assert x.schema.field("count").type == pa.int64()
    assert x["count"].to_pylist() == [*range(10), *second["count"].to_pylist()]
    assert x["word"].null_count == 10
    assert y["outcome"].to_pylist() == plain(20)["outcome"].to_pylist()
    assert len(reasons()) == 1


def test_hive_folders_are_columns(send, tmp_path, reasons):
    for day in (1, 2, 10):
        folder = tmp_path / "data" / f"day={day}" / "zone=a%20b"
        folder.mkdir(parents=True)
        pq.write_table(plain(10, day), folder / "part.parquet")
    _, x, _ = send(str(tmp_path / "data"))
    assert x.column_names == ["x", "count", "word", "day", "zone"]
    assert x["day"].to_pylist() == [1] * 10 + [2] * 10 + [10] * 10
    assert set(x["zone"].to_pylist()) == {"a b"}
    assert reasons() == ["hive partition columns"]


def test_a_hive_folder_can_be_the_target(send, tmp_path):
    for label in ("no", "yes"):
        folder = tmp_path / "data" / f"label={label}"
        folder.mkdir(parents=True)
        pq.write_table(plain(10).drop_columns(["outcome"]), folder / "part.parquet")
    train_set, x, y = send(str(tmp_path / "data"), "label")
    assert train_set.classes == ("no", "yes")
    assert "label" not in x.column_names
    assert y["label"].to_pylist() == ["no"] * 10 + ["yes"] * 10


FILTERS = [
    [("count", ">", 2), ("word", "in", ["w1", "w2"])],
    '[["count", ">", 2], ["word", "in", ["w1", "w2"]]]',
    (pc.field("count") > 2) & pc.field("word").isin(["w1", "w2"]),
]


@pytest.mark.parametrize("filters", FILTERS, ids=["lists", "json", "expression"])
def test_a_row_filter(send, write, reasons, filters):
    kept = plain().filter(FILTERS[2])
    assert 2 < kept.num_rows < 40
    # What a filter needs is read, and sent only where it is a feature.
    train_set, x, y = send(write(plain()), filters=filters, features=["x"])
    assert x.equals(kept.select(["x"]))
    assert y.equals(kept.select(["outcome"]))
    assert train_set.rows == kept.num_rows
    assert reasons() == ["a row filter"]


def test_casts(send, write, reasons):
    train_set, x, _ = send(write(plain()), casts={"count": "string", "x": "float"})
    assert [(feature.name, feature.dtype) for feature in train_set.features] == [
        ("x", "float"),
        ("count", "string"),
        ("word", "string"),
    ]
    assert x["count"].to_pylist() == [str(value) for value in plain()["count"].to_pylist()]
    assert reasons() == ["casts"]


def test_column_names_with_dots(send, write):
    table = pa.table({"a": [1, 2, 3], "a.b": [4, 5, 6], ".c[0]": [7, 8, 9], "y.z": ["u", "v", "u"], "y": [0, 0, 1]})
    for options in ({}, {"recompress": ("zstd", 3)}, {"filters": [("a.b", ">=", 4), (".c[0]", "<", 10)]}):
        train_set, x, y = send(write(table), "y.z", features=[".c[0]", "a"], **options)
        assert x.equals(table.select([".c[0]", "a"]))
        assert y.equals(table.select(["y.z"]))
        assert train_set.classes == ("u", "v")


@pytest.mark.parametrize("decoded", [False, True], ids=["spliced", "decoded"])
def test_a_target_that_is_dictionary_encoded(send, write, decoded):
    labels = pa.array(["b", "a", "b", "a"]).dictionary_encode()
    table = pa.table({"x": [1, 2, 3, 4], "y": labels})
    train_set, _, y = send(write(table), "y", recompress=("zstd", 3) if decoded else None)
    assert train_set.classes == ("a", "b")
    assert y.equals(table.select(["y"]))


@pytest.mark.parametrize("stored", [False, True], ids=["memory", "file"])
def test_views_as_other_libraries_make_them(send, write, stored):
    words = pa.array(["b", "a", "b", "a"]).cast(pa.string_view())
    table = pa.table({"x": words, "z": [1, 2, 3, 4], "y": words})
    source = write(table) if stored else table
    train_set, x, _ = send(source, "y")
    assert (train_set.classes, x["x"].to_pylist()) == (("a", "b"), ["b", "a", "b", "a"])
    train_set, x, _ = send(source, "y", filters=[[("x", "==", "b")], [("z", "==", 4)]])
    assert (train_set.rows, x.to_pydict()) == (3, {"x": ["b", "b", "a"], "z": [1, 3, 4]})


def test_features_in_the_order_asked_for(send, write):
    wanted = ["word", "x", "count"]
    for options in ({}, {"recompress": ("snappy", None)}):
        train_set, x, _ = send(write(plain()), features=wanted, **options)
        assert x.equals(plain().select(wanted))
        assert [feature.name for feature in train_set.features] == wanted


def test_damaged_pages_of_a_later_part_are_not_blamed_on_the_first(client, tmp_path):
    first, second = part_files(tmp_path / "data", [plain(), plain()])
    content = bytearray(Path(second).read_bytes())
    chunk = pq.ParquetFile(second).metadata.row_group(0).column(3)
    start = chunk.dictionary_page_offset
    content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    Path(second).write_bytes(content)
    with pytest.raises(InvalidInputError, match=rf"^{first} \(or a part file behind it\) cannot be read"):
        client.upload_train_set([first, second], "outcome", task="classification")


def test_two_thousand_columns(send, write):
    table = pa.table({**{f"c{i}": [i, i + 1, i + 2] for i in range(2_000)}, "y": [1.0, 2.0, 3.0]})
    train_set, x, _ = send(write(table), "y", task="regression", exclude=["c7"])
    assert x.equals(table.drop_columns(["c7", "y"]))
    assert len(train_set.features) == 1_999


def test_compression_that_is_asked_for(send, write, emulator_folder):
    train_set, _, _ = send(write(plain()), recompress=("gzip", 9))
    (part,) = Path(emulator_folder, "uploads", train_set.train_set_upload_id, "x_train").glob("*.part")
    group = pq.ParquetFile(part).metadata.row_group(0)
    assert {group.column(i).compression for i in range(3)} == {"GZIP"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("zst", "recompress is a codec"),
        (("nope", 3), "recompress is a codec"),
        ((), "recompress is a codec"),
        (9, "recompress is a codec"),
        (("zstd", 99), r"zstd has no level 99; allowed: -\d+ to 22"),
        (("zstd", "9"), "zstd has no level '9'"),
        (("zstd", True), "zstd has no level True"),
        (("snappy", 1), "snappy has no level 1; allowed: none"),
    ],
)
def test_compression_that_is_not_there(client, write, journal, value, words):
    with pytest.raises(InvalidInputError, match=words):
        client.upload_train_set(write(plain()), "outcome", task="classification", recompress=value)
    assert PREPARE not in journal.routes()


@pytest.mark.parametrize("value", ["zstd", ("zstd",), ["zstd", None]])
def test_a_codec_alone_has_its_usual_level(client, write, value):
    def upload(recompress):
        return client.upload_train_set(write(plain()), "outcome", task="classification", recompress=recompress)

    first = upload(("zstd", None))
    assert upload(value).train_set_upload_id == first.train_set_upload_id, "equal bytes are known to the server"


# Test sets


def test_filters_and_casts_of_a_test_set(client, write, uploaded, reasons):
    model = client.fit(write(plain()), "outcome", parameters=CLASSIFICATION, streamed=True)
    # The test set has text where the model was fitted with numbers, and columns of its own.
    table = plain(30).set_column(1, "count", plain(30)["count"].cast(pa.string())).append_column("keep", [[1, 0] * 15])
    test_set = client.upload_test_set(model, write(table), casts={"count": "int64"}, filters=[("keep", "==", 1)])
    x = uploaded(test_set.test_set_upload_id, "x_test")
    kept = table.filter(pc.field("keep") == 1)
    assert x.equals(plain(30).drop_columns(["outcome"]).filter(pa.array([True, False] * 15)))
    assert test_set.rows == kept.num_rows == 15
    assert reasons() == ["a row filter"]


def test_predictions_of_the_rows_that_a_filter_keeps(client, write, tmp_path):
    model = client.fit(write(plain()), "outcome", parameters=CLASSIFICATION, streamed=True)
    kept = plain(30).filter(pc.field("count") > 3)
    whole = client.predict(model, kept, str(tmp_path / "whole"))
    some = client.predict(model, write(plain(30)), str(tmp_path / "some"), filters='[["count", ">", 3]]')
    assert some.rows == whole.rows == kept.num_rows
    names = [f"{tmp_path}/{name}/predictions.parquet" for name in ("whole", "some")]
    first, second = map(pq.read_table, names)
    assert first.equals(second)
    assert (whole.source.uris, len(some.source.uris)) == ((), 1)


def test_rows_that_only_a_scan_counts_are_held_against_the_limit(client, control, write, journal, spool_home):
    model = client.fit(write(plain()), "outcome", parameters=CLASSIFICATION, streamed=True)
    before = len(journal.puts())
    control.configure(limits={"test_set_max_rows": 5})
    with pytest.raises(LimitExceededError, match="10 rows, the server takes 5"):
        client.upload_test_set(model, write(plain(20)), filters=[("outcome", "=", "no")])
    assert len(journal.puts()) == before
    assert os.listdir(spool_home) == []


def test_a_filter_that_keeps_no_row(client, write, journal, spool_home):
    with pytest.raises(InvalidInputError, match="0 rows are too few to train on"):
        client.fit(write(plain()), "outcome", parameters=CLASSIFICATION, filters=[("count", ">", 99)])
    assert PREPARE not in journal.routes()
    assert os.listdir(spool_home) == []


# What can be read once


@pytest.fixture
def useless_duplicate(client, control, write):
    """Let the server name equal content that is of no use for the next fit."""
    client.upload_train_set(plain(), "outcome", task="classification")
    gone = {"status": 404, "error_code": "NOT_FOUND", "error": "The train set upload does not exist."}
    control.inject(kind="status", route=SUBMIT, method="POST", **gone)


def test_a_reader_is_read_once_and_sent_twice(client, useless_duplicate, journal):
    model = client.fit(plain().to_reader(max_chunksize=7), "outcome", parameters=CLASSIFICATION)
    assert model.rows == 40
    assert [row["status"] for row in journal.rows(PREPARE)] == [409, 200]


# What is recorded


def fingerprints(uploads):
    return [train_set.source.fingerprint for train_set in uploads]


def test_equal_reads_have_equal_fingerprints(client, connect, emulator, bearer, write, tmp_path):
    path = write(plain())
    options = {"task": "classification", "filters": [("count", ">", 1)], "casts": {"count": "double"}}
    with Client(bearer, base_url=emulator) as other:
        ways = [
            (client.upload_train_set(path, "outcome", **options), other.upload_train_set(path, "outcome", **options)),
            (
                client.upload_train_set(path, "outcome", task="classification"),
                other.upload_train_set(path, "outcome", task="classification", recompress=("zstd", 3)),
            ),
            (
                client.upload_train_set(plain(), "outcome", task="classification"),
                other.upload_train_set(plain(), "outcome", task="classification"),
            ),
        ]
    assert [one.source for one, _ in ways] == [other.source for _, other in ways]
    assert len(set(fingerprints(one for one, _ in ways))) == 3


def test_other_reads_have_other_fingerprints(client, write, tmp_path):
    def sent(source, **options):
        return client.upload_train_set(source, "outcome", task="classification", **options).source.fingerprint

    path = write(plain())
    some, more = [*range(100)], [*range(50), -1, *range(51, 100)]
    found = [
        sent(path),
        sent(path, features=["x", "count"]),
        sent(path, features=["count", "x"]),
        sent(path, filters=[("count", ">", 1)]),
        sent(path, filters=[("count", ">", 2)]),
        # Arrow prints neither of the two lists whole.
        sent(path, filters=[("count", "in", some)]),
        sent(path, filters=[("count", "in", more)]),
        sent(path, casts={"count": "double"}),
        sent(path, casts={"count": "float"}),
        sent([path, write(plain(5), "more.parquet")]),
        sent([write(plain(5), "more.parquet"), path]),
        sent(plain()),
        sent(plain(39)),
    ]
    assert len(set(found)) == len(found)
    write(plain(41))
    assert sent(path) not in found


def test_a_set_of_values_has_one_fingerprint():
    # Each process orders the set in its own way.
    words = [f"w{i}" for i in range(40)]
    found = parse_filters([("word", "in", set(words))], plain().schema)
    assert found.digest == parse_filters([("word", "in", sorted(words))], plain().schema).digest


def test_a_file_in_another_partition_has_another_fingerprint(client, tmp_path):
    (tmp_path / "day=1").mkdir()
    pq.write_table(plain(), tmp_path / "day=1" / "part.parquet")
    before = client.upload_train_set(str(tmp_path), "outcome", task="classification")
    os.rename(tmp_path / "day=1", tmp_path / "day=2")
    after = client.upload_train_set(str(tmp_path), "outcome", task="classification")
    assert before.source.fingerprint != after.source.fingerprint


def test_several_files_are_recorded_in_order(client, tmp_path):
    paths = part_files(tmp_path / "data", [plain(10), plain(10, 10), plain(10, 20)])
    model = client.fit(str(tmp_path / "data"), "outcome", parameters=CLASSIFICATION, streamed=True)
    assert model.source.uris == tuple(paths)
    assert model.source.size_bytes == sum(map(os.path.getsize, paths))
    assert model.source.rows == model.rows == 30


def test_the_command_line_shows_records_without_a_file(cli, client, write, tmp_path):
    model = client.fit(plain(), "outcome", parameters=CLASSIFICATION)
    record = tmp_path / "model.json"
    record.write_text(model.model_dump_json())
    ran = cli("wait", record)
    assert ran.code == 0, ran.err
    assert "a table in memory" in ran.out


# What is announced


@pytest.mark.parametrize("decoded", [False, True], ids=["spliced", "decoded"])
def test_a_checksum_lets_the_server_find_equal_content(client, write, journal, decoded):
    options = {"recompress": ("zstd", 3)} if decoded else {}
    path = write(rich())
    first, second = [
        client.upload_train_set(path, "outcome", task="classification", checksum=True, **options) for _ in range(2)
    ]
    assert (first.duplicate, second.duplicate) == (False, True)
    assert len(journal.puts()) == 2


# What is left behind


@pytest.mark.parametrize("source", [plain, lambda: plain().to_reader(max_chunksize=7)], ids=["table", "reader"])
def test_the_spool_is_gone_when_the_upload_is_done(client, spool_home, source):
    seen = []
    client.upload_train_set(
        source(),
        "outcome",
        task="classification",
        progress=lambda step: seen.append((step.step, os.listdir(spool_home))),
    )
    assert all(folders for _, folders in seen)
    assert {step for step, _ in seen} == {"prepare", "upload"}
    assert os.listdir(spool_home) == []


@pytest.mark.parametrize("options", [{}, {"filters": [("count", ">=", 0)]}], ids=["spliced", "decoded"])
@pytest.mark.parametrize("at", ["prepare", "upload"])
def test_a_source_that_changes_is_never_fitted_on(client, write, journal, spool_home, options, at):
    if at == "prepare" and not options:
        at = "upload"
    path = write(plain(400))

    def overwrite(step):
        if step.step == at:
            write(plain(401))

    with pytest.raises(SourceChangedError, match=f"{path} changed"):
        client.fit(path, "outcome", parameters=CLASSIFICATION, progress=overwrite, **options)
    assert SUBMIT not in journal.routes()
    assert "/tabpfn/fit" not in journal.routes()
    assert os.listdir(spool_home) == []


class Slow:
    """A table that is handed out slowly."""

    def __init__(self):
        self.given = 0

    def batches(self):
        for batch in plain(4_000).to_batches(max_chunksize=4):
            self.given += 1
            time.sleep(0.01)
            yield batch


@pytest.mark.parametrize("moment", ["reading", "spooling"])
def test_a_cancelled_upload_leaves_no_spool(emulator, bearer, spool_home, write, moment):
    path = write(plain(200_000))
    slow = Slow()
    steps = []
    source = pa.RecordBatchReader.from_batches(plain().schema, slow.batches()) if moment == "reading" else path

    def look(step):
        steps.append(step)
        time.sleep(0.05)

    async def cancelled():
        async with AsyncClient(bearer, base_url=emulator) as client:
            task = asyncio.create_task(
                client.upload_train_set(
                    source, "outcome", task="classification", recompress=("zstd", 19), progress=look
                )
            )
            patience = time.monotonic() + 60
            while not (slow.given or os.listdir(spool_home)) and time.monotonic() < patience:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return os.listdir(spool_home)

    assert asyncio.run(cancelled()) == []


def test_nothing_blocks_the_loop(emulator, bearer, write, monkeypatch):
    threads = set()
    opened = Reading.open

    def watched(self):
        threads.add(threading.current_thread())
        return opened(self)

    monkeypatch.setattr(Reading, "open", watched)

    async def run():
        async with AsyncClient(bearer, base_url=emulator) as client:
            await client.plan_train_set(write(plain()), "outcome")
            await client.upload_train_set(write(plain()), "outcome", task="classification")

    asyncio.run(run())
    assert threads
    assert threading.main_thread() not in threads
