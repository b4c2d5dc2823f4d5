"""Promise 1: an upload's memory is bounded by its batches, not by its table."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

MIB = 2**20
BOUND = 210 * MIB  # measured for what is decoded: 174 MiB long, 151 wide, of which 48 are the row group of the spool
MOVED_BOUND = 64 * MIB  # measured for what is moved as bytes: 33 MiB

# VmHWM and not getrusage: the latter also counts what the parent held when it started the child.
PEAK = """
import json, sys

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

"""

UPLOAD = """
import google_crc32c, httpx, pyarrow.compute, pyarrow.parquet
from tabpfn_operators import Client

source, base_url = sys.argv[1:]
before = peak()
with Client("token", base_url=base_url) as client:
    train_set = client.upload_train_set(source, "y", task="regression")
print(json.dumps({"rows": train_set.rows, "bytes": train_set.bytes_sent, "grown": peak() - before}))
"""

DECODE = """
import google_crc32c, pyarrow.acero, pyarrow.compute, pyarrow.dataset, pyarrow.parquet
from tabpfn_operators.spool import Spool
from tabpfn_operators.tables import open_table
from tabpfn_operators.target import profile_target

before = peak()
source = open_table(sys.argv[1], filters='[["y", ">=", 0]]')
profile_target(source, "y", "regression")
with Spool(source, [name for name in source.names if name != "y"], ["y"]) as spool:
    for rows in spool.write():
        pass
    size = sum(file.size for file in spool.files())
print(json.dumps({"rows": rows, "bytes": size, "grown": peak() - before}))
"""


def measured(program, *arguments):
    command = [sys.executable, "-c", PEAK + program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def write(path, columns, group_rows, groups):
    """Write row groups far larger than a batch: noise does not compress, the others are small in the file only."""
    random = np.random.default_rng(7)
    few = pa.array(random.integers(0, 50, group_rows) / 7)
    noise = [pa.array(random.random(group_rows)) for _ in range(3)]
    names = [f"x{i}" for i in range(columns - 1)]
    group = pa.table({name: noise[i % 21] if i % 21 < 3 else few for i, name in enumerate(names)} | {"y": few})
    with pq.ParquetWriter(path, group.schema) as writer:
        for _ in range(groups):
            writer.write_table(group, row_group_size=group_rows)
    return groups * group.nbytes


def test_a_table_much_larger_than_the_bound_is_uploaded_within_it(emulator, control, tmp_path):
    control.configure(limits={"train_set_max_rows": 4_000_000})
    decoded = write(tmp_path / "large.parquet", 21, 1_000_000, 4)
    found = measured(UPLOAD, tmp_path / "large.parquet", emulator)
    assert decoded > 10 * MOVED_BOUND
    assert found["rows"] == 4_000_000
    assert found["bytes"] > 90 * MIB
    assert found["grown"] < MOVED_BOUND, f"{found['grown'] / MIB:.0f} MiB"


# Many rows, and many columns: read side by side, the latter took 252 MiB.
@pytest.mark.parametrize(("columns", "group_rows", "groups"), [(21, 1_000_000, 2), (1_000, 25_000, 1)])
def test_a_table_that_is_decoded_stays_within_the_bound(tmp_path, columns, group_rows, groups):
    write(tmp_path / "large.parquet", columns, group_rows, groups)
    found = measured(DECODE, tmp_path / "large.parquet")
    assert found["rows"] == groups * group_rows
    assert found["grown"] < BOUND, f"{found['grown'] / MIB:.0f} MiB"
