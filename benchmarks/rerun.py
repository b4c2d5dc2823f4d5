"""Reruns of a fit that was made before: what they ask of the server, send to it and read of the source.

Run anywhere; the emulator runs on this machine, and its journal is what the figures are taken from::

    python benchmarks/rerun.py --check

Prints one row for each goal.
"""

import argparse
import io
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pyarrow.parquet as pq
from _tables import BYTES_PER_VALUE, TARGET, check_space, write_noise
from fsspec.implementations.local import LocalFileSystem

from tabpfn_assets import FitParameters
from tabpfn_emulator.testing import EmulatorControl, running_emulator
from tabpfn_operators import Client
from tabpfn_operators.resume import Reuse

_SIZES = {False: (200_000, 101, 10), True: (20_000, 21, 4)}
"""Rows, columns and row groups: usual, and with --small."""
_PARAMETERS = FitParameters(task="regression")
_TOKEN = "benchmark"  # the emulator takes any


class _Counted(io.RawIOBase):
    """A file that notes what is read of it."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb")  # noqa: SIM115  # closed with this object

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move."""
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        """Read, and note where and how much."""
        start = self._file.tell()
        count = self._file.readinto(buffer)
        CountingFileSystem.ranges.append((start, start + count))
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


class CountingFileSystem(fsspec.AbstractFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """The local disk as any other storage: read by ranges, each of which is noted."""

    protocol = "counted"
    cachable = False
    ranges: ClassVar[list[tuple[int, int]]] = []

    def info(self, path: str, **_options: Any) -> dict[str, Any]:
        """As the local disk does."""
        info: dict[str, Any] = LocalFileSystem().info(self._strip_protocol(path))
        return info

    def _open(self, path: str, **_options: Any) -> _Counted:
        return _Counted(path)


@dataclass(frozen=True)
class Figures:
    """What one fit took.

    Args:
        calls: HTTP calls that reached the server or its storage.
        sent: Bytes of data that were sent.
        end: Bytes of the footer, and of what was read along with it at the file's end.
        data: Bytes read of the source before that.
        fitted: The fit.
    """

    calls: int
    sent: int
    end: int
    data: int
    fitted: str


class Bench:
    """A source, a server and a folder of journals.

    Args:
        folder: A temporary folder.
        url: Base URL of the emulator.
        small: Whether the source is small.
    """

    def __init__(self, folder: Path, url: str, *, small: bool) -> None:
        rows, columns, row_groups = _SIZES[small]
        check_space(folder, 2 * rows * columns * BYTES_PER_VALUE)
        self._folder = folder
        self._url = url
        self._control = EmulatorControl(url)
        wide = {"train_set_max_rows": 10**9, "train_set_max_cells": 10**12, "train_set_max_upload_cells": 10**12}
        self._control.configure(limits=wide, predict="constant")
        self.source = write_noise(folder / "train.parquet", rows=rows, columns=columns, row_groups=row_groups)

    @property
    def footer_bytes(self) -> int:
        """Bytes of the source's footer, its length and its mark included."""
        return int(pq.read_metadata(self.source).serialized_size) + 8

    def fit(self, run_key: str, reuse: Reuse) -> Figures:
        """Fit with a new client, as a rerun does, and count."""
        CountingFileSystem.ranges.clear()
        before = max((row["seq"] for row in self._control.journal()), default=0)
        with Client(_TOKEN, base_url=self._url) as client:
            model = client.fit(
                f"counted://{self.source}",
                TARGET,
                parameters=_PARAMETERS,
                name="noise",
                journal=self._folder / "journal",
                run_key=run_key,
                reuse=reuse,
                lineage=self._folder / "store",
            )
        rows = self._control.journal(after=before)
        size = self.source.stat().st_size
        # Footers are read with what stands before them, in one request of 64 KiB.
        end = size - max(64 << 10, self.footer_bytes)
        return Figures(
            len(rows),
            sum(row["bytes_in"] for row in rows if row["route"] == "/storage"),
            sum(stop - max(start, end) for start, stop in CountingFileSystem.ranges if stop > end),
            sum(min(stop, end) - start for start, stop in CountingFileSystem.ranges if start < end),
            model.fitted_train_set_id,
        )


def rows_of_table(bench: Bench) -> Iterator[tuple[str, str, str, bool | None]]:
    """Fit once, then again from the same place and from another; yield what, goal, figure and whether it was met."""
    first = bench.fit("tonight", "run")
    size = f"{bench.source.stat().st_size / 1e6:,.1f} MB"
    yield f"first fit of {size}", "-", f"{first.calls} calls, {first.sent:,} bytes sent, {first.data:,} read", None
    if min(first.calls, first.sent, first.data) == 0:
        raise SystemExit("The first fit was not counted, so nothing is known of the others.")
    reruns: tuple[tuple[str, str, Reuse], ...] = (
        ("the same place", "tonight", "run"),
        ("another place, reuse=always", "new", "always"),
    )
    for what, run_key, reuse in reruns:
        again = bench.fit(run_key, reuse)
        same = again.fitted == first.fitted
        yield f"rerun, {what}: the same fit", "yes", "yes" if same else "no", same
        yield f"rerun, {what}: HTTP calls", "<= 2", str(again.calls), again.calls <= 2
        yield f"rerun, {what}: data sent", "0 bytes", f"{again.sent:,} bytes", again.sent == 0
        figure = f"{again.data:,} bytes (and {again.end:,} at the file's end; its footer has {bench.footer_bytes:,})"
        yield f"rerun, {what}: data read", "0 bytes", figure, again.data == 0


def main() -> int:
    """Print goals and figures; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a fiftieth of the values")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder (default: the system's)")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal is missed")
    options = parser.parse_args()
    fsspec.register_implementation("counted", CountingFileSystem)
    missed = []
    with tempfile.TemporaryDirectory(prefix="tabpfn-benchmark-", dir=options.folder) as folder, ExitStack() as stack:
        uploads = Path(folder, "emulator")
        uploads.mkdir()
        bench = Bench(Path(folder), stack.enter_context(running_emulator(uploads)), small=options.small)
        print("| what | goal | figure | |\n|---|---|---|---|", flush=True)
        for what, goal, figure, met in rows_of_table(bench):
            verdict = {True: "met", False: "MISSED", None: ""}[met]
            print(f"| {what} | {goal} | {figure} | {verdict} |", flush=True)
            if met is False:
                missed.append(what)
    print(f"\n{'Missed: ' + '; '.join(missed) if missed else 'No goal missed.'}")
    return int(bool(options.check and missed))


if __name__ == "__main__":
    sys.exit(main())
