"""Many processes that share a scoring and an account; started by score.py.

Usage: `_sharing.py BASE_URL TOKEN MODEL SOURCE DESTINATION PROCESSES`, MODEL being the file of a record
"""

import multiprocessing
import sys
import time
from pathlib import Path

from _memory import answer
from _scoring import IMPORTED
from _tables import KEY

from tabpfn_assets import FittedModel
from tabpfn_operators import Client

assert IMPORTED  # the processes are forked with everything imported: starting Python fifty times is not measured


def work(base_url: str, token: str, model: str, source: str, destination: str) -> str:
    """Take part in the scoring, a shard at a time; return what went wrong."""
    fitted = FittedModel.model_validate_json(Path(model).read_bytes())
    try:
        with Client(token, base_url=base_url) as client:
            client.score(fitted, source, destination, keep=[KEY], concurrency=1)
    except Exception as error:  # it is counted
        return f"{type(error).__name__}: {error}"
    return ""


def main(base_url: str, token: str, model: str, source: str, destination: str, processes: str) -> None:
    """Let all take part, look at what they have done, and hand over the figures."""
    fitted = FittedModel.model_validate_json(Path(model).read_bytes())
    count = int(processes)
    # The pool is there before anything has threads.
    with multiprocessing.get_context("fork").Pool(count) as pool, Client(token, base_url=base_url) as client:
        started = time.perf_counter()
        jobs = [pool.apply_async(work, (base_url, token, model, source, destination)) for _ in range(count)]
        errors = [said for job in jobs if (said := job.get())]
        seconds = time.perf_counter() - started
        scored = client.score(fitted, source, destination, keep=[KEY])
    answer(seconds=seconds, shards=scored.shards, errors=errors, rows=scored.rows, resends=scored.resends)


main(*sys.argv[1:])
