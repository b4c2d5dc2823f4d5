"""A footer that lies: an error of ours or a correct result, never a crash, a hang, or memory without bound."""

import json
import os
import random
import subprocess
import sys

# In a process of its own, because pyarrow, which judges the results, is fed with the same damaged files.
PROGRAM = r'''
import io, json, logging, random, sys, traceback
import pyarrow as pa
import pyarrow.parquet as pq
from tabpfn_operators.errors import TabPFNError
from tabpfn_operators.splice import splice

path, seed, cases = sys.argv[1], sys.argv[2], int(sys.argv[3])
logging.disable(logging.CRITICAL)

def sources():
    rows = 60
    table = pa.table({
        "number": [k % 9 for k in range(rows)],
        "text": [f"w{k % 7}" for k in range(rows)],
        "kind": pa.array(["a", "b", "c"] * 20).dictionary_encode(),
        "when": pa.array(range(rows), pa.timestamp("us", "UTC")),
        "list": [[k, k] for k in range(rows)],
        "struct": [{"a": k, "b": None} for k in range(rows)],
    })
    for options in (
        {"row_group_size": 25},
        {"write_page_index": True, "bloom_filter_options": {"number": {"ndv": 5}}, "compression": "zstd"},
        {"row_group_size": 9, "use_dictionary": False, "sorting_columns": [pq.SortingColumn(0)], "store_schema": False},
    ):
        file = io.BytesIO()
        pq.write_table(table, file, **options)
        yield file.getvalue()

def damaged(source, rng):
    data = bytearray(source)
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    way = rng.random()
    if way < 0.75:
        for _ in range(rng.choice([1, 1, 2, 5, 30])):
            data[rng.randrange(footer, len(data))] ^= 1 << rng.randrange(8)
    elif way < 0.9:
        start = rng.randrange(footer, len(data) - 8)
        del data[start : start + rng.randrange(1, 40)]
    else:
        del data[rng.randrange(len(data)) :]
    return bytes(data)

def read(data, columns):
    table = pq.ParquetFile(pa.BufferReader(data)).read()
    return table if columns is None else table.select(columns)

def judge(data, columns, spliced):
    """Whether a result is right; where pyarrow cannot read the source either, nobody can tell."""
    try:
        want = read(data, columns)
    except Exception:
        return True
    got = read(spliced, None)
    # Not every damaged type has a Python value; not every value (NaN) equals itself.
    return got.schema.equals(want.schema, check_metadata=False) and (
        got.equals(want) or got.to_pylist() == want.to_pylist()
    )

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

originals = list(sources())
with open(path, "wb") as file:
    file.write(originals[0])
splice(path).read(0, 1 << 20)
before, counts, wrong = peak(), {}, []
for case in range(cases):
    rng = random.Random(f"{seed}-{case}")
    data = damaged(rng.choice(originals), rng)
    columns = rng.choice([None, ["number"], ["text", "struct"], ["when", "kind"]])
    with open(path, "wb") as file:
        file.write(data)
    try:
        virtual = splice(path, columns)
        spliced = virtual.read(0, virtual.size)
        outcome = "right" if judge(data, columns, spliced) else "wrong"
    except TabPFNError as error:
        outcome = type(error).__name__
    except Exception:
        outcome = "wrong"
        traceback.print_exc()
    if outcome == "wrong":
        wrong.append(case)
    counts[outcome] = counts.get(outcome, 0) + 1
print(json.dumps({"counts": counts, "wrong": wrong, "grown_mib": peak() - before}))
'''


def test_a_damaged_footer_gives_an_error_of_ours_or_a_correct_result(tmp_path, pytestconfig):
    cases = 10_000 if pytestconfig.getoption("--all") else 1_000
    seed = os.environ.get("FUZZ_SEED") or str(random.SystemRandom().randrange(10**9))
    print(f"FUZZ_SEED={seed}")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "source.parquet"), seed, str(cases)],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, f"FUZZ_SEED={seed}\n{done.stderr[-3000:]}"
    found = json.loads(done.stdout)
    assert found["wrong"] == [], f"FUZZ_SEED={seed}\n{done.stderr[-3000:]}"
    assert found["grown_mib"] < 64, f"FUZZ_SEED={seed}"
    assert found["counts"]["right"] > cases / 20, "the test has to get through to results"
    assert found["counts"]["CorruptParquetError"] > cases / 4, "and to lies"
