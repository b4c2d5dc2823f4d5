"""One `client.score` in a process of its own, with its time, CPU and memory; started by score.py.

Usage: `_scoring.py BASE_URL TOKEN MODEL SOURCE DESTINATION LEASE_SECONDS`, MODEL being the file of a record
"""

import functools
import resource
import sys
from pathlib import Path

import fsspec.implementations.local
import google_crc32c
import httpx
import numpy as np
import pyarrow.compute
import pyarrow.parquet
import simdjson
from _memory import Watch, answer
from _tables import KEY

import tabpfn_operators.splice
import tabpfn_operators.tables
from tabpfn_assets import FittedModel
from tabpfn_operators import Client
from tabpfn_operators.scoring import _flow

#: Imported before the watch starts, because every process that scores pays for them once.
IMPORTED = (
    fsspec.implementations.local,
    google_crc32c,
    httpx,
    np,
    pyarrow.compute,
    pyarrow.parquet,
    simdjson,
    tabpfn_operators.splice,
    tabpfn_operators.tables,
)


def cpu_seconds() -> float:
    """Return the CPU time of this process, all threads and the kernel's part included."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(base_url: str, token: str, model: str, source: str, destination: str, lease_seconds: str) -> None:
    """Score, and hand over the figures."""
    _flow.Ledger = functools.partial(_flow.Ledger, lease_seconds=float(lease_seconds))  # type: ignore[assignment,misc]  # shorter with --small
    fitted = FittedModel.model_validate_json(Path(model).read_bytes())
    before, watch = cpu_seconds(), Watch()
    with Client(token, base_url=base_url) as client:
        scored = client.score(fitted, source, destination, keep=[KEY])
    answer(**watch.stop(), cpu=cpu_seconds() - before, rows=scored.rows, resends=scored.resends)


if __name__ == "__main__":
    main(*sys.argv[1:])
