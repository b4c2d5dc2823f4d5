"""Stored files as rows: what Arrow reads of them at once is what comes batch by batch."""

import gzip
import json
import os
from datetime import UTC, datetime

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.dataset as ds
import pyarrow.feather as feather
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as encryption
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from tabpfn_operators import parquet
from tabpfn_operators.errors import InvalidInputError, SourceChangedError, StorageError
from tabpfn_operators.tables import _files as files
from tabpfn_operators.tables import open_table, why_not_spliced

ROWS = pa.table(
    {
        "n": pa.array(range(1000), pa.int64()),
        "x": [n / 7 for n in range(1000)],
        "text": [f"t{n % 13}" if n % 5 else None for n in range(1000)],
        "flag": [n % 3 == 0 for n in range(1000)],
    }
)


def read(source, columns=None):
    schema = pa.schema([source.schema.field(name) for name in columns or source.names])
    return pa.Table.from_batches(source.batches(columns or source.names), schema=schema)


def write_csv(table, path, **options):
    pcsv.write_csv(table, path, pcsv.WriteOptions(quoting_style="needed", **options))


def write_json(table, path):
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))


def write_stream(table, path):
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=130)


def zipped(write):
    def write_zipped(table, path):
        plain = path.with_name("plain")
        write(table, plain)
        path.write_bytes(gzip.compress(plain.read_bytes()))

    return write_zipped


WRITERS = {
    "rows.csv": write_csv,
    "rows.CSV": write_csv,
    "rows.csv.gz": zipped(write_csv),
    "rows.tsv": lambda table, path: write_csv(table, path, delimiter="\t"),
    "rows.jsonl": write_json,
    "rows.ndjson": write_json,
    "rows.json.gz": zipped(write_json),
    "rows.orc": lambda table, path: orc.write_table(table, path, stripe_size=1 << 12),
    "rows.feather": lambda table, path: feather.write_feather(table, path, chunksize=130),
    "rows.arrow": write_stream,
    "rows.parquet": lambda table, path: pq.write_table(table, path, row_group_size=130),
    "rows": pq.write_table,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_its_rows_in_order_any_number_of_times(tmp_path, monkeypatch, name):
    monkeypatch.setattr(files, "BLOCK_BYTES", 4096)
    WRITERS[name](ROWS, tmp_path / name)
    source = open_table(str(tmp_path / name))
    assert source.schema.equals(ROWS.schema)
    for _ in range(2):
        assert read(source).equals(ROWS)
    assert read(source, ["flag", "n"]).equals(ROWS.select(["flag", "n"]))
    assert source.rows in {1000, None}
    assert source.size == (tmp_path / name).stat().st_size
    assert len(source.objects) == len(source.digests) == 1
    source.check_unchanged()
    assert why_not_spliced(str(tmp_path / name)) in {source.reason, None}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_is_filtered_and_cast(tmp_path, monkeypatch, name):
    monkeypatch.setattr(files, "BLOCK_BYTES", 4096)
    WRITERS[name](ROWS, tmp_path / name)
    source = open_table(str(tmp_path / name), filters='[["n", ">=", 500], ["text", "==", "t3"]]', casts={"n": "double"})
    expected = ROWS.filter((pc.field("n") >= 500) & (pc.field("text") == "t3"))
    assert source.rows is None
    assert read(source, ["x", "n"]).equals(
        expected.select(["x", "n"]).cast(source.schema.empty_table().select(["x", "n"]).schema)
    )
    assert source.schema.field("n").type == pa.float64()


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_is_written_to_meanwhile(tmp_path, name):
    WRITERS[name](ROWS, tmp_path / name)
    source = open_table(str(tmp_path / name))
    WRITERS[name](ROWS.slice(0, 10), tmp_path / ("other" + name))
    os.replace(tmp_path / ("other" + name), tmp_path / name)
    with pytest.raises(SourceChangedError):
        read(source)
    with pytest.raises(SourceChangedError):
        source.check_unchanged()


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("content", [b"", b"\x00\x01\xff\xfe" * 50, b"{]\n" * 30])
def test_what_is_no_such_file_is_named(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    if "csv" in name.lower() or "tsv" in name:
        content = content.replace(b"{]", b"")  # any text is CSV
        path.write_bytes(content)
    if not content.strip() and content and not name.endswith("gz"):
        return
    with pytest.raises(InvalidInputError) as caught:
        read(open_table(str(path)))
    assert str(path) in str(caught.value)


# Text formats: types are decided by the first block


def lines(*rows):
    return "".join(f"{row}\n" for row in rows)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (lines("a,b c", *["1,2"] * 2000, "1,2.5"), "b c"),
        (lines("a,b c", *["1,2"] * 2000, "x,2"), "a"),
        (lines("a,b c", *["1,"] * 2000, "1,x"), "b c"),
    ],
)
def test_a_csv_column_that_changes_its_type_is_named_with_the_remedy(tmp_path, monkeypatch, text, name):
    monkeypatch.setattr(files, "BLOCK_BYTES", 4096)
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(
        InvalidInputError, match=f"column '{name}' has values of another type.*casts.*Parquet"
    ) as caught:
        read(open_table(str(path)))
    assert "2.5" not in str(caught.value)  # values stay where they are
    with pytest.raises(InvalidInputError, match=f"column '{name}'"):
        read(open_table(str(path)), [name])
    assert read(open_table(str(path), casts={name: "string"}), [name]).num_rows == 2001


def test_an_empty_csv_field_is_missing_and_quoted_lines_go_on(tmp_path):
    (tmp_path / "rows.csv").write_text('a,b\n1,"two\nlines"\n2,\n,c\n')
    assert read(open_table(str(tmp_path / "rows.csv"))).to_pydict() == {
        "a": [1, 2, None],
        "b": ["two\nlines", None, "c"],
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a,b\n" + b"1,2\n" * 2000 + b"1,2,3\n", "a line of 3 columns where the first has 2"),
        (b"a,b\n" + b"x,2\n" * 2000 + b"\xff,3\n", "column 'a' is not UTF-8"),
        (b"a,b\nx," + b"y" * 20000 + b"\n", "a line of more than 4,096 bytes"),
    ],
)
def test_a_csv_that_cannot_be_parsed(tmp_path, monkeypatch, content, words):
    monkeypatch.setattr(files, "BLOCK_BYTES", 4096)
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(InvalidInputError, match=words):
        read(open_table(str(tmp_path / "rows.csv")))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"a": 1}] * 2000 + [{"a": "x"}], "column 'a' has values of more than one type"),
        ([{"a": 1}] * 2000 + [{"a": 1.5}], "column 'a' has values of more than one type"),
        ([{"a": 1}] * 2000 + [{"a": 1, "b": 2}], "column 'b' first appears after"),
        ([{"a": 1}, {"a": "x"}], "column 'a' has values of more than one type"),
        ([[1, 2]], "no JSON lines"),
        ([{"a": "x" * 70000}], "a line of more than 65,536 bytes"),
    ],
)
def test_json_lines_that_differ(tmp_path, monkeypatch, rows, words):
    monkeypatch.setattr(files, "BLOCK_BYTES", 4096)
    (tmp_path / "rows.jsonl").write_text(lines(*map(json.dumps, rows)))
    with pytest.raises(InvalidInputError, match=words):
        read(open_table(str(tmp_path / "rows.jsonl")))


def test_a_cast_widens_what_json_lines_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BLOCK_BYTES", 4096)
    rows = [{"b": "x", "a": 1}] * 2000 + [{"a": 1.5}]
    (tmp_path / "rows.jsonl").write_text(lines(*map(json.dumps, rows)).removesuffix("\n"))
    found = read(open_table(str(tmp_path / "rows.jsonl"), casts={"a": "double"}))
    assert found.column_names == ["b", "a"]
    assert found.column("a").to_pylist() == [row["a"] for row in rows]
    assert found.column("b").to_pylist() == [row.get("b") for row in rows]


@pytest.mark.parametrize("turn_bytes", [1, 4_000])
@pytest.mark.parametrize("name", ["rows.orc", "rows.feather"])
def test_columns_of_large_pieces_are_read_in_turns(tmp_path, monkeypatch, name, turn_bytes):
    monkeypatch.setattr(files, "TURN_BYTES", turn_bytes)
    monkeypatch.setattr(files, "BATCH_BYTES", 8_000)
    table = pa.concat_tables([ROWS, ROWS])
    (feather.write_feather if name == "rows.feather" else orc.write_table)(table, tmp_path / name)
    source = open_table(str(tmp_path / name))
    for columns in (table.column_names, ["text", "n"]):
        assert read(source, columns).equals(table.select(columns))
        assert turn_bytes > 1 or max(batch.num_rows for batch in source.batches(columns)) <= 250


def test_feather_of_the_first_version(tmp_path):
    (tmp_path / "rows.feather").write_bytes(b"FEA1" + b"\0" * 100)
    with pytest.raises(InvalidInputError, match="Feather version 1"):
        open_table(str(tmp_path / "rows.feather"))


# Parquet


class Keys(encryption.KmsClient):
    def wrap_key(self, key_bytes, master_key_identifier):
        return key_bytes.hex()

    def unwrap_key(self, wrapped_key, master_key_identifier):
        return bytes.fromhex(wrapped_key.decode() if isinstance(wrapped_key, bytes) else wrapped_key)


@pytest.mark.parametrize("plaintext_footer", [False, True])
def test_an_encrypted_file_is_refused(tmp_path, plaintext_footer):
    path = tmp_path / "rows.parquet"
    settings = encryption.EncryptionConfiguration(
        footer_key="f", column_keys={"k": ["n"]}, plaintext_footer=plaintext_footer
    )
    factory = encryption.CryptoFactory(lambda config: Keys())
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), settings)
    with pq.ParquetWriter(path, ROWS.schema, encryption_properties=properties) as writer:
        writer.write_table(ROWS)
    with pytest.raises(InvalidInputError, match="is encrypted, and no key is at hand") as caught:
        open_table(str(path))
    assert str(path) in str(caught.value)


def test_row_groups_that_statistics_rule_out_are_not_read(tmp_path, monkeypatch):
    path = tmp_path / "rows.parquet"
    pq.write_table(ROWS, path, row_group_size=100)
    asked = []
    real = parquet.batches
    monkeypatch.setattr(parquet, "batches", lambda *args: asked.append(args[2]) or real(*args))
    assert read(open_table(str(path), filters=[("n", ">=", 750)])).equals(ROWS.slice(750))
    assert asked == [[7, 8, 9]]
    assert read(open_table(str(path), filters=[("n", ">", 5000)])).num_rows == 0
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        (["x", "==", None], [3, 5]),
        (["x", "!=", None], [0, 1, 2, 4]),
        (["x", "!=", 1], [3, 4]),
        (pc.invert(pc.field("x") <= 1), [3, 4]),
    ],
    ids=str,
)
def test_statistics_do_not_hide_what_is_no_number(tmp_path, condition, rows):
    table = pa.table({"x": [1.0, 1.0, 1.0, float("nan"), 2.0, None], "n": range(6)})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=2)
    filters = [condition] if isinstance(condition, list) else condition
    found = read(open_table(str(tmp_path / "rows.parquet"), filters=filters), ["n"])
    assert found.column("n").to_pylist() == rows


def test_part_files_that_unify(tmp_path):
    small = pa.table({"n": pa.array([1, 2], pa.int32()), "kind": pd.Categorical(["a", "b"])})
    large = pa.table({"n": pa.array([2**40], pa.int64()), "extra": ["x"], "kind": pd.Categorical(["c"])})
    paths = [str(tmp_path / f"part-{number}.parquet") for number in range(3)]
    for path, table in zip(paths, (small, large, small.slice(0, 0)), strict=True):
        pq.write_table(table, path)
    source = open_table(paths)
    assert (source.rows, source.reason) == (3, "part files whose schemas differ")
    assert source.url == f"{paths[0]} (and 2 more)"
    assert source.schema.field("n").type == pa.int64()
    assert [read(source).to_pydict()[name] for name in ("n", "extra", "kind")] == [
        [1, 2, 2**40],
        [None, None, "x"],
        ["a", "b", "c"],
    ]
    assert read(source, ["extra"]).to_pydict() == {"extra": [None, None, "x"]}


def test_part_files_that_do_not_unify(tmp_path):
    pq.write_table(pa.table({"n": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"n": ["x"]}), tmp_path / "2.parquet")
    with pytest.raises(InvalidInputError, match=r"Column 'n' is string in .*2\.parquet and int64"):
        open_table(str(tmp_path))


@pytest.mark.parametrize(
    "values",
    [
        ["1", "2"],
        ["1", "x"],
        ["-1", "07"],
        ["3000000000", "1"],
        ["1", None],
        ["1.5", "2"],
        ["true", "false"],
        ["a b", "c"],
    ],
)
def test_partition_columns_are_typed_as_by_pyarrow(tmp_path, values):
    for number, value in enumerate(values):
        spelled = "__HIVE_DEFAULT_PARTITION__" if value is None else value.replace(" ", "%20")
        folder = tmp_path / f"key={spelled}"
        folder.mkdir()
        pq.write_table(pa.table({"n": [number, number + 10]}), folder / "part.parquet")
    source = open_table(str(tmp_path))
    assert source.reason == "hive partition columns"
    assert source.rows == 4
    expected = ds.dataset(tmp_path, partitioning="hive").to_table().sort_by("n")
    assert source.schema.equals(expected.schema)
    assert read(source).sort_by("n").equals(expected)
    assert sorted(read(source, ["key"]).column(0).to_pylist(), key=str) == sorted(
        expected.column("key").to_pylist(), key=str
    )


def test_part_files_that_a_folder_rules_out_are_not_read(tmp_path, monkeypatch):
    for year in (2024, 2025, 2026):
        (tmp_path / f"year={year}").mkdir()
        pq.write_table(pa.table({"n": [year]}), tmp_path / f"year={year}" / "part.parquet")
    asked = []
    real = parquet.batches
    monkeypatch.setattr(parquet, "batches", lambda *args: asked.append(args[0].url) or real(*args))
    found = read(open_table(str(tmp_path), filters=[("year", ">", 2024), ("n", "!=", 2025)]))
    assert found.to_pydict() == {"n": [2026], "year": [2026]}
    assert ["2024" in url for url in asked].count(True) == 0


def test_folders_of_different_keys(tmp_path):
    for key in ("a=1", "b=1"):
        (tmp_path / key).mkdir()
        pq.write_table(pa.table({"n": [1]}), tmp_path / key / "part.parquet")
    with pytest.raises(InvalidInputError, match="key=value folders"):
        open_table(str(tmp_path))


# Casts


@pytest.mark.parametrize(
    ("casts", "words"),
    [
        ({"m": "int64"}, "column 'm', which is not there"),
        ({"n": "number"}, "column 'n' names the type 'number'"),
        ({"n": 7}, "column 'n' names the type 7"),
        ({"n": "date32"}, r"Column 'n' is int64 and cannot become date32"),
        ({"n": "int8"}, r"Column 'n' \(int64\) has values that are no int8"),
        ({"x": "int64"}, r"Column 'x' \(double\) has values that are no int64"),
        ({"text": "int64"}, r"Column 'text' \(string\) has values that are no int64"),
        ('{"n": "int8"', "no JSON"),
        (["n"], "Casts map column names"),
    ],
)
def test_a_cast_that_changes_values_is_refused(tmp_path, casts, words):
    pq.write_table(ROWS, tmp_path / "rows.parquet")
    with pytest.raises(InvalidInputError, match=words):
        read(open_table(str(tmp_path / "rows.parquet"), casts=casts))


def test_casts_from_json_and_by_type(tmp_path):
    table = pa.table({"when": ["2026-11-21T00:00:00", None], "n": [1, 2]})
    pq.write_table(table, tmp_path / "rows.parquet")
    source = open_table(str(tmp_path / "rows.parquet"), casts='{"n": "int8", "when": "timestamp[us]"}')
    assert read(source).to_pylist()[0] == {"when": datetime(2026, 11, 21), "n": 1}  # noqa: DTZ001
    zone = pa.timestamp("us", "UTC")
    (tmp_path / "rows.csv").write_text("when\n2026-11-21T00:00:00Z\n")
    found = read(
        open_table(str(tmp_path / "rows.csv"), casts={"when": zone}, filters=[["when", ">", "2026-11-20T00:00Z"]])
    )
    assert found.to_pylist() == [{"when": datetime(2026, 11, 21, tzinfo=UTC)}]


def test_pandas_does_not_undo_a_cast(tmp_path):
    frame = pd.DataFrame({"kind": pd.Categorical(["a", "b"]), "other": pd.Categorical(["a", "b"])})
    frame.to_parquet(tmp_path / "rows.parquet")
    found = read(open_table(str(tmp_path / "rows.parquet"), casts={"kind": "string"}))
    assert found.schema.field("kind").type == pa.string()
    described = json.loads(
        open_table(str(tmp_path / "rows.parquet"), casts={"kind": "string"}).schema.metadata[b"pandas"]
    )
    assert [column["name"] for column in described["columns"]] == ["other"]


# The reason


@pytest.mark.parametrize(
    ("source", "options", "reason"),
    [
        ("s3://bucket/rows.parquet", {}, None),
        ("s3://bucket/folder", {}, None),
        (["a.parquet", "b.pq"], {"filters": [], "casts": {}, "recompress": None}, None),
        ("a.parquet", {"filters": "[]", "casts": "{}"}, None),
        ("a.parquet", {"filters": [("n", ">", 1)]}, "a row filter"),
        ("a.parquet", {"filters": pc.field("n") > 1}, "a row filter"),
        ("a.parquet", {"filters": '[["n", ">", 1]]'}, "a row filter"),
        ("a.parquet", {"casts": {"n": "int8"}}, "casts"),
        ("a.parquet", {"recompress": ("zstd", 9)}, "recompression"),
        ("folder", {"partition_columns": ("year",)}, "hive partition columns"),
        ("folder", {"other": "part files differ"}, "part files differ"),
        ("folder/*.csv", {"filters": [("n", ">", 1)]}, "CSV source"),
        ("https://host/rows.CSV.gz?token=x", {}, "CSV source"),
        (["a.parquet", "b.orc"], {}, "ORC source"),
        ("a.feather", {}, "Feather or Arrow IPC source"),
        ("a.ndjson", {}, "JSON source"),
        (pd.DataFrame({"a": [1]}), {}, "DataFrame source"),
        (ROWS, {}, "Table source"),
        (ROWS.to_batches()[0], {}, "Table source"),
        (ROWS.to_reader(), {}, "RecordBatchReader source"),
    ],
)
def test_why_a_source_is_decoded(source, options, reason):
    assert why_not_spliced(source, **options) == reason


# The storage


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "rows.jsonl", "rows.orc", "rows.feather"])
@pytest.mark.parametrize("opened", [False, True])
def test_what_a_storage_library_raises_is_worded_without_its_text(tmp_path, monkeypatch, name, opened):
    WRITERS[name](ROWS, tmp_path / name)
    fs = MemoryFileSystem()
    fs.pipe_file(f"/{name}", (tmp_path / name).read_bytes())

    class StoreError(Exception):
        pass

    def refuse(*args):
        raise StoreError("https://store/rows?sig=secret")

    try:
        source = open_table(f"memory://{name}") if opened else None
        monkeypatch.setattr(MemoryFile, "read", refuse)
        hidden = name == "rows.orc"  # its reader makes an OSError of everything
        kind, word = (InvalidInputError, "OSError") if hidden else (StorageError, "StoreError")
        with pytest.raises(kind, match=word) as caught:
            read(source or open_table(f"memory://{name}"))
    finally:
        fs.rm_file(f"/{name}")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
