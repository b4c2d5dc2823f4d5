"""One piece of work in a process of its own, with its time and memory; started by upload.py.

Usage: `_work.py splice|arrow SOURCE BASE_URL` or `_work.py plan SOURCE CALLS`
"""

import sys
import uuid
from statistics import median

import fsspec.implementations.local
import google_crc32c
import httpx
import numpy as np
import pyarrow.compute
import pyarrow.parquet
from _memory import Watch, answer
from _tables import TARGET

import tabpfn_operators.splice
import tabpfn_operators.tables
import tabpfn_operators.upload
from tabpfn_operators import Client

#: Imported before the watch starts, because every process that uploads pays for them once.
IMPORTED = (
    fsspec.implementations.local,
    google_crc32c,
    httpx,
    np,
    pyarrow.compute,
    pyarrow.parquet,
    tabpfn_operators.upload,
    tabpfn_operators.tables,
)


def upload(source: str, base_url: str, recompress: tuple[str, int | None] | None) -> None:
    """Upload a train set as a user does."""
    watch = Watch()
    with Client(f"token-{uuid.uuid4()}", base_url=base_url) as client:
        train_set = client.upload_train_set(source, TARGET, task="regression", recompress=recompress)
        figures = watch.stop()
        client.delete_dataset(train_set.train_set_upload_id)
    answer(bytes_sent=train_set.bytes_sent, **figures)


def plan(source: str, calls: int) -> None:
    """Plan both files; the first call with its memory, the median of the others."""
    watch = Watch()
    x, _ = tabpfn_operators.splice.split(source, TARGET)
    figures = watch.stop()
    again = []
    for _ in range(calls - 1):
        watch = Watch()
        tabpfn_operators.splice.split(source, TARGET)
        again.append(watch.stop()["seconds"])
    answer(size=x.size, again=median(again) if again else None, **figures)


if __name__ == "__main__":
    work, file, more = sys.argv[1:]
    if work == "plan":
        plan(file, int(more))
    else:
        upload(file, more, ("zstd", None) if work == "arrow" else None)
