"""Uploads of Parquet: how fast, and in how much memory, against a plain PUT, the vendor's client and plain S3 reads.

Run on Linux. Everything is compared within one run; the emulator, the sink and S3 run on this machine::

    python benchmarks/upload.py --check --client-python PATH --s3-python PATH

Needs three times `--gib` of disk, and memory for as much page cache. Prints one row for each goal. docs/performance.md
has the figures of one machine and says what the rows mean.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
from _pairs import EmulatorPuts, SinkPuts, compare, running_sink, write_ready
from _tables import BYTES_PER_VALUE, TARGET, check_space, write_noise, write_wide

from tabpfn_emulator.testing import EmulatorControl, running_emulator

MIB = 1 << 20
_HERE = Path(__file__).parent
_BY_SIZE = {"rows": (1_000_000, 20_000), "columns": (201, 21), "gib": (5.0, 0.02), "pairs": (5, 2)}
"""Defaults: usual, and with --small."""
_WIDE = ((2_000, 100), (50, 20))
"""Columns and row groups of the wide file: usual, and with --small."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        what: What was measured.
        goal: What it should be; "-" for what is only reported.
        figure: What it was.
        met: Whether that meets the goal; None where there is none, or none at this size.
    """

    what: str
    goal: str
    figure: str
    met: bool | None = None


class Bench:
    """Options, folder and servers that the rows share.

    Args:
        options: The command line.
        folder: A temporary folder.
        stack: Ends what is started.
    """

    def __init__(self, options: argparse.Namespace, folder: Path, stack: ExitStack) -> None:
        self.options = options
        self.folder = folder
        self._stack = stack

    @cached_property
    def emulator(self) -> str:
        """Base URL of an emulator that refuses nothing for its size, in a process of its own."""
        data = self.folder / "emulator"
        data.mkdir()
        url = self._stack.enter_context(running_emulator(data))
        more = {"train_set_max_rows": 10**9, "max_cols": 10**6}
        cells = dict.fromkeys(("train_set_max_cells", "train_set_max_upload_cells"), 10**12)
        EmulatorControl(url).configure(limits={**more, **cells}, dataset_max_size_bytes=10**12)
        return url

    @cached_property
    def usual(self) -> Path:
        """The table of --rows, --columns and --row-groups."""
        options = self.options
        check_space(self.folder, 3 * options.rows * options.columns * BYTES_PER_VALUE)
        path = self.folder / "usual.parquet"
        return write_noise(path, rows=options.rows, columns=options.columns, row_groups=options.row_groups)

    @contextmanager
    def large(self, row_groups: int) -> Iterator[Path]:
        """Yield a table of --gib, which is removed thereafter."""
        options = self.options
        check_space(self.folder, 3 * options.gib * 2**30)
        path = self.folder / f"large-{row_groups}.parquet"
        rows = int(options.gib * 2**30 / BYTES_PER_VALUE / options.columns)
        try:
            yield write_noise(path, rows=rows, columns=options.columns, row_groups=row_groups)
        finally:
            path.unlink(missing_ok=True)

    def judged(self, met: bool) -> bool | None:
        """Return a verdict on a speed, or a share, that says nothing at toy size."""
        return None if self.options.small else met

    def work(self, *arguments: str | Path) -> dict[str, Any]:
        """Do one piece of _work.py in a process of its own."""
        return child(sys.executable, "_work.py", *arguments)


def child(python: str, script: str, *arguments: str | Path, **environment: str) -> dict[str, Any]:
    """Run a script beside this one, and return the figures that it hands over.

    Raises:
        SystemExit: It failed; the text is what it said.
    """
    command = [python, str(_HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    if done.returncode:
        raise SystemExit(f"{script} {' '.join(map(str, arguments))} failed:\n{done.stderr}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def described(path: Path) -> str:
    """Say how large a file is."""
    return f"{path.stat().st_size / 1e6:,.0f} MB"


def throughput(bench: Bench, source: Path, goal: float) -> Iterator[Row]:
    """Compare a splice with a ready-made file of the same bytes."""
    ready = write_ready(source, bench.folder / "ready.parquet")
    try:
        with running_sink() as sink:
            for name, puts in (("emulator", EmulatorPuts(bench.emulator)), ("a server that drops it", SinkPuts(sink))):
                pairs = compare(puts, source, ready, bench.options.pairs)
                yield Row(
                    f"splice + PUT of X / PUT of a ready-made file, {described(source)}, {name}",
                    f">= {goal:.2f}",
                    f"{pairs.ratio:.2f} ({pairs.rates()})",
                    bench.judged(pairs.ratio >= goal),
                )
    finally:
        ready.unlink()


def throughput_usual(bench: Bench) -> Iterator[Row]:
    """Compare at the usual size."""
    yield from throughput(bench, bench.usual, 0.80)


def throughput_large(bench: Bench) -> Iterator[Row]:
    """Compare at --gib."""
    with bench.large(bench.options.row_groups) as source:
        yield from throughput(bench, source, 0.95)


def memory(bench: Bench) -> Iterator[Row]:
    """Measure the memory of Client.upload_train_set, which splices."""
    options = bench.options

    def row(source: Path, row_groups: int) -> tuple[float, Row]:
        grown = bench.work("splice", source, bench.emulator)["grown"]
        goal = 48 * MIB + 1.5 * 1024 * options.columns * row_groups
        what = f"memory of an upload, {described(source)}, {row_groups} row groups"
        return grown, Row(what, f"<= {goal / MIB:.0f} MiB", f"{grown / MIB:.0f} MiB", grown <= goal)

    usual, usual_row = row(bench.usual, options.row_groups)
    yield usual_row
    with bench.large(options.row_groups) as source:
        large, large_row = row(source, options.row_groups)
    yield large_row
    apart = abs(large - usual)
    yield Row("... which differ by", "<= 8 MiB", f"{apart / MIB:.1f} MiB", bench.judged(apart <= 8 * MIB))
    with bench.large(8 * options.row_groups) as source:
        yield row(source, 8 * options.row_groups)[1]


def planning(bench: Bench) -> Iterator[Row]:
    """Measure the way from footers to virtual files."""
    columns, row_groups = _WIDE[bench.options.small]
    wide = write_wide(bench.folder / "wide.parquet", columns=columns, row_groups=row_groups)
    figures = bench.work("plan", wide, "1")
    what = f"planning {columns:,} columns x {row_groups} row groups"
    yield Row(f"{what}, first call", "<= 3 s", f"{figures['seconds']:.2f} s", bench.judged(figures["seconds"] <= 3))
    grown = figures["grown"]
    yield Row(f"{what}, memory", "<= 160 MiB", f"{grown / MIB:.0f} MiB", grown <= 160 * MIB)
    again = bench.work("plan", bench.usual, "8")["again"]
    chunks = bench.options.columns * bench.options.row_groups
    yield Row(f"planning {chunks:,} chunks, warm", "<= 25 ms", f"{again * 1e3:.0f} ms", bench.judged(again <= 0.025))


def vendor(bench: Bench) -> Iterator[Row]:
    """Compare Client.upload_train_set with the vendor's client: reading the Parquet file, and uploading X and y."""
    python = bench.options.client_python
    what = "the same upload with tabpfn-client"
    if python is None:
        yield Row(what, "-", "skipped: name its environment with --client-python")
        return
    url = {"TABPFN_CLIENT_API_URL": bench.emulator, "TABPFN_DISABLE_TELEMETRY": "1"}
    ours, theirs = [], []
    for _ in range(min(3, bench.options.pairs)):
        ours.append(bench.work("splice", bench.usual, bench.emulator))
        theirs.append(child(python, "_vendor.py", bench.usual, TARGET, **url))
    seconds, their_seconds = (median(figures["seconds"] for figures in some) for some in (ours, theirs))
    grown, their_grown = (median(figures["grown"] for figures in some) for some in (ours, theirs))
    what += f" {theirs[0]['version']}, {described(bench.usual)}"
    faster = their_seconds / seconds
    yield Row(
        f"{what}: times faster",
        ">= 10",
        f"{faster:.1f} ({seconds:.2f} and {their_seconds:.2f} s)",
        bench.judged(faster >= 10),
    )
    share = their_grown / grown
    yield Row(
        f"{what}: memory",
        "<= 1/50",
        f"1/{share:.0f} ({grown / MIB:.0f} and {their_grown / MIB:,.0f} MiB)",
        bench.judged(share >= 50),
    )


def arrow(bench: Bench) -> Iterator[Row]:
    """Measure the way that decodes: recompression asks for it."""
    figures = bench.work("arrow", bench.usual, bench.emulator)
    grown = figures["grown"]
    what = f"memory of an upload that decodes, {described(bench.usual)}"
    yield Row(what, "<= 256 MiB", f"{grown / MIB:.0f} MiB ({figures['seconds']:.1f} s)", grown <= 256 * MIB)


def s3(bench: Bench) -> Iterator[Row]:
    """Compare reading X from S3 with s3fs making the same requests."""
    options, python = bench.options, bench.options.s3_python
    what = "reading X from s3 / s3fs alone, 8 parts at a time"
    if python is None:
        yield Row(what, "-", "skipped: name an environment with s3fs and moto[server] with --s3-python")
        return
    # For every range moto reads the whole object: of a large one hardly anything else would be measured.
    path = bench.folder / "s3.parquet"
    source = write_noise(path, rows=options.rows // 10, columns=options.columns, row_groups=options.row_groups)
    figures = child(python, "_s3.py", "read", source, TARGET, str(options.pairs))
    ratio = median(alone / splice for alone, splice in zip(figures["s3fs"], figures["splice"], strict=True))
    splice, alone, moto = (figures["sent"] / median(figures[way]) / 1e6 for way in ("splice", "s3fs", "moto"))
    rates = f"{splice:,.0f} of {alone:,.0f} MB/s; moto without s3fs {moto:,.0f} MB/s"
    yield Row(f"{what}, {described(source)}", ">= 0.70", f"{ratio:.2f} ({rates})", bench.judged(ratio >= 0.7))


ROWS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "throughput": throughput_usual,
    "throughput-large": throughput_large,
    "memory": memory,
    "planning": planning,
    "vendor": vendor,
    "arrow": arrow,
    "s3": s3,
}


def machine() -> str:
    """Describe what the figures were taken on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = f"Python {platform.python_version()}, pyarrow {pa.__version__}"
    return f"{model}, {os.cpu_count()} cores, {memory_bytes / 2**30:.0f} GiB, {platform.system()}, {versions}"


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, help="rows of the usual table (default: 1,000,000)")
    parser.add_argument("--columns", type=int, help="columns of the tables, target included (default: 201)")
    parser.add_argument("--row-groups", type=int, default=10, help="row groups of the tables (default: 10)")
    parser.add_argument("--gib", type=float, help="size of the large table in GiB (default: 5)")
    parser.add_argument("--pairs", type=int, help="pairs to take the median of (default: 5)")
    parser.add_argument("--small", action="store_true", help="toy sizes, at which speeds and shares are not judged")
    parser.add_argument("--only", action="append", choices=ROWS, help="run only these rows; may be repeated")
    parser.add_argument("--client-python", help="interpreter of an environment with tabpfn-client")
    parser.add_argument("--s3-python", help="interpreter of an environment with this package, s3fs and moto[server]")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder (default: the system's)")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal is missed")
    options = parser.parse_args()
    for name, (usual, small) in _BY_SIZE.items():
        if getattr(options, name) is None:
            setattr(options, name, small if options.small else usual)
    return options


def main() -> int:
    """Print goals and figures; return the exit code."""
    options = parsed()
    # Else a killed run would leave gigabytes behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print(f"{machine()}\n\n| what | goal | figure | |\n|---|---|---|---|", flush=True)
    missed = []
    with tempfile.TemporaryDirectory(prefix="tabpfn-benchmark-", dir=options.folder) as folder, ExitStack() as stack:
        bench = Bench(options, Path(folder), stack)
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
