"""Run the checks, name every process they leave behind, and end with one line: N passed, N failed.

Usage: ``python .ci/summary.py path/to/nox``. A session that runs pytest counts by its tests, any other one as a
single check, and a session that failed without a failed test counts as one failure. Needs only the standard library.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / ".nox" / "reports"
# The README's other command, as it stands there; the engines' tests run all six demos.
DEMO = ("demo", "-s", "demo")
PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 5.0
INTERRUPT_SECONDS = 60.0


class Count(NamedTuple):
    """What one session adds to the sum."""

    name: str
    passed: int
    failed: int
    note: str = ""


def adopt_orphans() -> None:
    """Become the parent of every process whose own parent ends, so that none can hide (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> dict[int, str]:
    """Return pid and command of every living process below this one."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            parents.setdefault(int(parent), []).append(int(stat.parent.name))
    found: dict[int, str] = {}
    wanted = [os.getpid()]
    while wanted:
        for pid in parents.get(wanted.pop(), []):
            wanted.append(pid)
            try:
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
    return found


def left_behind() -> list[Count]:
    """Return one failure for each process that outlives the checks, and end it."""
    deadline = time.monotonic() + GRACE_SECONDS
    while descendants() and time.monotonic() < deadline:
        time.sleep(0.2)
    left = descendants()
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return [Count(f"process {pid}", 0, 1, f"left behind: {command.strip()}") for pid, command in left.items()]


def run(nox: str, name: str, *arguments: str) -> list[Count]:
    """Run nox once and count what its sessions did."""
    report = REPORTS / f"{name}.json"
    with subprocess.Popen([nox, "--report", str(report), *arguments], cwd=ROOT, stdin=subprocess.DEVNULL) as process:
        try:
            status = process.wait()
        except InterruptedError:
            # Asked like this, nox interrupts its session, which lets tests end what they started.
            process.send_signal(signal.SIGINT)
            process.wait(INTERRUPT_SECONDS)
            raise
    try:
        sessions = json.loads(report.read_text(encoding="utf-8"))["sessions"]
    except (OSError, ValueError, KeyError):
        return [Count(name, 0, 1, f"nox ended with {status} and no report")]
    return [count(session) for session in sessions]


def count(session: dict[str, Any]) -> Count:
    """Return what one session of nox's report adds to the sum."""
    name, result = session["name"], session["result"]
    file = REPORTS / f"{name}.xml"
    counted = tests(file) if file.is_file() else Count(name, int(result == "success"), 0)
    if result not in {"success", "skipped"} and not counted.failed:
        return counted._replace(failed=1, note=f"{counted.note} {result}".strip())
    return counted if result != "skipped" else counted._replace(note="skipped")


def tests(file: Path) -> Count:
    """Return the counts in one JUnit XML file; a file that cannot be read is one failure."""
    try:
        suites = list(ET.parse(file).iter("testsuite"))
    except (OSError, ET.ParseError):
        return Count(file.stem, 0, 1, "no readable test report")
    total, bad, skipped = (
        sum(int(suite.get(key, 0)) for suite in suites for key in keys)
        for keys in (["tests"], ["failures", "errors"], ["skipped"])
    )
    return Count(file.stem, max(total - bad - skipped, 0), bad, f"{skipped} skipped" if skipped else "")


def stop(number: int, _frame: object) -> None:
    """Turn a signal that would end this program without its last line into an exception."""
    message = f"stopped by {signal.Signals(number).name}"
    raise InterruptedError(message)


def main(nox: str) -> int:
    """Run all checks and the demo; return the exit code."""
    adopt_orphans()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir(parents=True)
    counts: list[Count] = []
    try:
        counts += run(nox, "checks")
        counts += run(nox, *DEMO)
    except InterruptedError as error:
        counts.append(Count("run", 0, 1, str(error)))
    if not (REPORTS / "checks.json").is_file():
        counts += map(tests, sorted(REPORTS.glob("*.xml")))
    counts += left_behind()
    print()
    for one in counts:
        print(f"{one.name:28} {one.passed:5} passed {one.failed:4} failed  {one.note}".rstrip())
    passed, failed = sum(one.passed for one in counts), sum(one.failed for one in counts)
    print(f"{passed} passed, {failed} failed", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
