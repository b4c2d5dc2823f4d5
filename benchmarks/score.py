"""Batch scoring: how much memory and time it takes beside the requests themselves, and what a second start costs.

Run on Linux; the emulator runs on this machine::

    python benchmarks/score.py --check

Needs 2 GB of disk, 4 GB of memory (for what is compared with), and ten minutes. Prints one row for each goal;
docs/performance.md has the figures of one machine.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from _tables import BYTES_PER_VALUE, TARGET, check_space, write_keyed

from tabpfn_assets import FitParameters, FittedModel
from tabpfn_emulator.testing import EmulatorControl, account_of, running_emulator
from tabpfn_operators import Client
from tabpfn_operators.scoring._cutter import Cutter
from tabpfn_operators.scoring._plan import cut
from tabpfn_operators.tables import open_table

MIB = 1 << 20
_HERE = Path(__file__).parent
_FEATURES = 10
_IN_FLIGHT = 4
_ENOUGH = str(10**12)
_PREDICT = "/tabpfn/predict"
#: Of a killed process; the product's own, and with --small one that does not make a test wait.
_LEASE_SECONDS = {False: 60.0, True: 4.0}
_KILLED_AT = 0.6


@dataclass(frozen=True)
class Sizes:
    """How much is scored.

    Args:
        answers: Rows of an answer.
        shard_rows: Rows of a shard.
        shards: Shards of the long run.
        few: Shards of the short run.
        killed: Shards of the run that is killed.
        processes: Processes that share an account.
        shared: Shards that they score.
        pairs: Runs to take the median of.
    """

    answers: int
    shard_rows: int
    shards: int
    few: int
    killed: int
    processes: int
    shared: int
    pairs: int


_USUAL = Sizes(200_000, 200_000, 50, 5, 40, 50, 150, 3)
_SMALL = Sizes(2_000, 1_000, 10, 2, 40, 3, 6, 1)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        what: What was measured.
        goal: What it should be.
        figure: What it was.
        met: Whether that meets the goal; None at a size that says nothing of it.
    """

    what: str
    goal: str
    figure: str
    met: bool | None = None


@dataclass(frozen=True)
class Account:
    """An account with a fitted model.

    Args:
        url: Base URL of the emulator.
        token: Its token.
        model: The model.
        record: The file of its record.
    """

    url: str
    token: str
    model: FittedModel
    record: Path


class Bench:
    """Options and folder that the rows share.

    Args:
        small: Whether toy sizes are wanted, at which speeds are not judged.
        folder: A temporary folder.
    """

    def __init__(self, folder: Path, *, small: bool) -> None:
        self.sizes = _SMALL if small else _USUAL
        self.folder = folder
        self.small = small

    def judged(self, met: bool) -> bool | None:
        """Return a verdict on a figure that says nothing at toy size."""
        return None if self.small else met

    def source(self, shards: int, shard_rows: int | None = None) -> Path:
        """Write a table of so many shards, a row group each, unless it is there."""
        rows = shard_rows or self.sizes.shard_rows
        path = self.folder / f"source-{shards}-{rows}.parquet"
        if not path.exists():
            check_space(self.folder, 4 * shards * rows * _FEATURES * BYTES_PER_VALUE)
            write_keyed(path, rows=shards * rows, columns=_FEATURES, row_groups=shards)
        return path

    def account(self, url: str, shard_rows: int | None = None) -> Account:
        """Open an account, let shards have so many rows, and fit a model."""
        EmulatorControl(url).configure(limits={"test_set_max_rows": shard_rows or self.sizes.shard_rows})
        train = self.folder / "train.parquet"
        columns = {name: [float(row) for row in range(20)] for name in _features()}
        pq.write_table(pa.table({**columns, TARGET: ["no", "yes"] * 10}), train)
        token = f"token-{uuid.uuid4()}"
        with Client(token, base_url=url) as client:
            model = client.fit(str(train), TARGET, parameters=FitParameters(task="classification"), journal=None)
        record = self.folder / f"{token}.json"
        record.write_text(model.model_dump_json(), encoding="utf-8")
        return Account(url, token, model, record)

    def command(self, account: Account, source: Path, destination: Path) -> list[str]:
        """Return the command that scores in a process of its own."""
        arguments = (account.url, account.token, account.record, source, destination, _LEASE_SECONDS[self.small])
        return [sys.executable, str(_HERE / "_scoring.py"), *map(str, arguments)]


def _features() -> list[str]:
    return [f"f{number}" for number in range(_FEATURES)]


def _emulator(folder: Path, *options: str) -> Any:
    folder.mkdir()
    pools = ("--daily-tokens", _ENOUGH, "--monthly-tokens", _ENOUGH)
    return running_emulator(folder, extra_args=("--predict", "constant", *pools, *options))


def measured(*command: object) -> dict[str, Any]:
    """Run a child, and return the figures that it hands over.

    Raises:
        SystemExit: It failed; the text is what it said.
    """
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stderr}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def answers(bench: Bench) -> Iterator[Row]:
    """Compare the way from an answer to a Parquet file with doing it whole."""
    rows = bench.sizes.answers
    script = (sys.executable, _HERE / "_answers.py")
    for classes, share in ((10, 1.0), (160, 0.5)):
        path = bench.folder / "answer.json"
        size = measured(*script, "write", path, rows, classes)["size"]
        runs = [
            {way: measured(*script, way, path, rows, classes) for way in _in_turn(("stream", "whole"), pair)}
            for pair in range(bench.sizes.pairs)
        ]
        path.unlink()
        what = f"{rows:,} x {classes} probabilities, {size / MIB:,.0f} MiB of JSON -> Parquet"
        grown = max(run["stream"]["grown"] for run in runs)
        yield Row(f"{what}: memory", "<= 48 MiB", f"{grown / MIB:.0f} MiB", grown <= 48 * MIB)
        ratio = median(run["stream"]["seconds"] / run["whole"]["seconds"] for run in runs)
        ours, theirs = (median(run[way]["seconds"] for run in runs) for way in ("stream", "whole"))
        memory = median(run["whole"]["grown"] for run in runs) / MIB
        figure = f"{ratio:.2f} ({ours:.2f} and {theirs:.2f} s; it takes {memory:,.0f} MiB)"
        yield Row(f"{what}: time / orjson and NumPy", f"<= {share:.1f}", figure, bench.judged(ratio <= share))


def _in_turn(ways: tuple[str, str], pair: int) -> tuple[str, ...]:
    return ways if pair % 2 else ways[::-1]


def write_ready(source: Path, folder: Path, shards: int, shard_rows: int) -> None:
    """Write the files that the shards of a source are sent as."""
    folder.mkdir()
    table, plan = open_table(str(source)), cut([shard_rows] * shards, shards * shard_rows, shard_rows)
    with Cutter(table, plan, wanted=range(shards), features=_features(), keep=()) as cutter:
        for shard in plan:
            with cutter.open(shard) as rows, (folder / f"{shard.name}.parquet").open("wb") as file:
                for chunk in rows.reading.open().virtual(_features()).chunks(MIB):
                    file.write(chunk)


def long_run(bench: Bench) -> Iterator[Row]:
    """Compare a scoring with its requests alone, and a long one with a short one."""
    sizes = bench.sizes
    source, short = bench.source(sizes.shards), bench.source(sizes.few)
    ready = bench.folder / "ready"
    write_ready(source, ready, sizes.shards, sizes.shard_rows)
    latency = "0.05" if bench.small else "1.0"
    runs: list[dict[str, dict[str, Any]]] = []
    with _emulator(bench.folder / "emulator-long", "--latency", f"{_PREDICT}={latency}") as url:
        for pair in range(sizes.pairs):
            runs.append({})
            for way in ("short", *_in_turn(("bare", "long"), pair)):
                account, out = bench.account(url), bench.folder / f"out-{way}-{pair}"
                if way == "bare":
                    script, fitted = _HERE / "_bare.py", account.model.fitted_train_set_id
                    runs[-1][way] = measured(sys.executable, script, url, account.token, fitted, ready, _IN_FLIGHT)
                else:
                    runs[-1][way] = measured(*bench.command(account, source if way == "long" else short, out))
    rows = sizes.shards * sizes.shard_rows
    what = f"{rows:,} rows, {sizes.shards} shards, {_IN_FLIGHT} in flight"
    ratio = median(run["long"]["seconds"] / run["bare"]["seconds"] for run in runs)
    ours, bare = (median(run[way]["seconds"] for run in runs) for way in ("long", "bare"))
    figure = f"{ratio:.3f} ({ours:.1f} and {bare:.1f} s)"
    yield Row(f"{what}: time / the requests alone", "<= 1.10", figure, bench.judged(ratio <= 1.1))
    cpu = median(run["long"]["cpu"] for run in runs) * 1e6 / rows
    yield Row(f"{what}: CPU for a million rows", "<= 0.5 s", f"{cpu:.2f} s", bench.judged(cpu <= 0.5))
    large, little = (median(run[way]["grown"] for run in runs) / MIB for way in ("long", "short"))
    figure = f"{large - little:.0f} MiB ({little:.0f} and {large:.0f} MiB)"
    yield Row(
        f"{what}: memory above that of {sizes.few} shards", "<= 16 MiB", figure, bench.judged(large - little <= 16)
    )


def _parts(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("part-*.parquet")}


def resume(bench: Bench) -> Iterator[Row]:
    """Kill a scoring at 60 %, start it again, and compare its requests with those of a whole one."""
    shards = bench.sizes.killed
    shard_rows = min(bench.sizes.shard_rows, 10_000)
    source, out = bench.source(shards, shard_rows), bench.folder / "out-killed"
    with _emulator(bench.folder / "emulator-killed", "--latency", f"{_PREDICT}=0.2") as url:
        whole, killed = bench.account(url, shard_rows), bench.account(url, shard_rows)
        control = EmulatorControl(url)
        before = _last(control)
        measured(*bench.command(whole, source, bench.folder / "out-whole"))
        of_whole = len(control.journal(account=account_of(whole.token), after=before))
        with subprocess.Popen(bench.command(killed, source, out), stdout=subprocess.DEVNULL) as process:
            while len(_parts(out)) < _KILLED_AT * shards and process.poll() is None:
                time.sleep(0.005)
            process.kill()
        stopped, found, before = time.time(), _parts(out), _last(control)
        again = measured(*bench.command(killed, source, out))
        of_again = len(control.journal(account=account_of(killed.token), after=before))
    manifest = json.loads((out / "_manifest.json").read_text(encoding="utf-8"))
    done = [
        file["name"]
        for shard in manifest["shards"]
        for file in shard["files"]
        if pa.scalar(shard["scored_at"]).cast(pa.timestamp("us", "UTC")).value / 1e6 < stopped
    ]
    what = f"killed when {len(done)} of {shards} shards were done"
    share = of_again / of_whole
    figure = f"{share:.0%} ({of_again} and {of_whole}; {again['resends']} shards sent again)"
    yield Row(f"{what}: requests of the second start / of a whole run", "<= 45 %", figure, share <= 0.45)
    same = sum(found[name] == _parts(out)[name] for name in done)
    yield Row(f"{what}: parts that stay as they were", "all", f"{same} of {len(done)}", same == len(done) > 0)


def _last(control: EmulatorControl) -> int:
    return max((row["seq"] for row in control.journal()), default=0)


def sharing(bench: Bench) -> Iterator[Row]:
    """Let processes share an account whose rate the server limits; at toy size the limit is not reached."""
    sizes = bench.sizes
    source = bench.source(sizes.shared, 1_000)
    with _emulator(bench.folder / "emulator-shared", "--rate-limits") as url:
        account = bench.account(url, 1_000)
        script = (sys.executable, _HERE / "_sharing.py", url, account.token, account.record, source)
        figures = measured(*script, bench.folder / "out-shared", sizes.processes)
        sent = len(EmulatorControl(url).journal(route=_PREDICT, account=account_of(account.token)))
    shards, errors = figures["shards"], figures["errors"]
    what = f"{sizes.processes} processes, {shards} shards, 60 predictions a minute"
    most = 1.2 * shards
    yield Row(
        f"{what}: time", f"<= {most:.0f} s", f"{figures['seconds']:.0f} s", bench.judged(figures["seconds"] <= most)
    )
    failed = f"{len(errors)} {errors[:1] or ''}".strip()
    yield Row(f"{what}: processes that failed", "0", failed, not errors)
    yield Row(f"{what}: requests for a shard", "<= 1.5", f"{sent / shards:.2f}", sent <= 1.5 * shards)


ROWS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "answers": answers,
    "long": long_run,
    "resume": resume,
    "sharing": sharing,
}


def main() -> int:
    """Print goals and figures; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="toy sizes, at which speeds are not judged")
    parser.add_argument("--only", action="append", choices=ROWS, help="run only these rows; may be repeated")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder (default: the system's)")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal is missed")
    options = parser.parse_args()
    # Else a killed run would leave gigabytes behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    missed = []
    with tempfile.TemporaryDirectory(prefix="tabpfn-benchmark-", dir=options.folder) as folder:
        os.environ["TMPDIR"] = folder  # what a killed child leaves goes with it
        tempfile.tempdir = None
        bench = Bench(Path(folder), small=options.small)
        print("| what | goal | figure | |\n|---|---|---|---|", flush=True)
        for name in options.only or ROWS:
            for row in ROWS[name](bench):
                verdict = {True: "met", False: "MISSED", None: ""}[row.met]
                print(f"| {row.what} | {row.goal} | {row.figure} | {verdict} |", flush=True)
                if row.met is False:
                    missed.append(row.what)
    print(f"\n{'Missed: ' + '; '.join(missed) if missed else 'No goal missed.'}")
    return int(bool(options.check and missed))


if __name__ == "__main__":
    sys.exit(main())
