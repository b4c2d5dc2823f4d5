"""Promise 1: an upload's memory is bounded by its batches, not by its table."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

MIB = 2**20
BOUND = 220 * MIB  # measured: 132 MiB, of which 32 are the batch; the rest is allocators and libraries
ROW_GROUPS, ROWS = 4, 1_000_000  # a row group is far larger than a batch
NOISE, REPETITIVE = 3, 17  # columns that do not compress, and columns that are small in the file only

# VmHWM and not getrusage: the latter also counts what the parent held when it started the child.
PROGRAM = """
import json, sys

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

import google_crc32c, httpx, pyarrow.compute, pyarrow.parquet
from tabpfn_operators import Client

source, base_url = sys.argv[1:]
before = peak()
with Client("token", base_url=base_url) as client:
    train_set = client.upload_train_set(source, "y", task="regression")
print(json.dumps({"rows": train_set.rows, "bytes_sent": train_set.bytes_sent, "grown": peak() - before}))
"""


def test_a_table_much_larger_than_the_bound_is_uploaded_within_it(emulator, control, tmp_path):
    control.configure(limits={"train_set_max_rows": ROW_GROUPS * ROWS})
    random = np.random.default_rng(7)
    few = pa.array(random.integers(0, 50, ROWS) / 7)
    columns = {f"few{i}": few for i in range(REPETITIVE)} | {"y": few}
    group = pa.table({f"noise{i}": random.random(ROWS) for i in range(NOISE)} | columns)
    source = tmp_path / "large.parquet"
    with pq.ParquetWriter(source, group.schema) as writer:
        for _ in range(ROW_GROUPS):
            writer.write_table(group, row_group_size=ROWS)
    assert ROW_GROUPS * group.nbytes > 2.9 * BOUND
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(source), emulator], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["rows"] == ROW_GROUPS * ROWS
    assert measured["bytes_sent"] > 150 * MIB
    assert measured["grown"] < BOUND, f"{measured['grown'] / MIB:.0f} MiB"
