"""The command: its one line, its end, its options, what it imports."""

import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from tabpfn_emulator.testing import EmulatorControl, running_emulator


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "tabpfn_emulator", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_exactly_one_line_and_ends_cleanly(number):
    with start("--port", "0") as process:
        line = process.stdout.readline()
        assert re.fullmatch(r"TabPFN emulator listening on http://127\.0\.0\.1:\d+\n", line)
        with urllib.request.urlopen(line.split()[-1], timeout=10) as answer:
            assert answer.status == 200
        process.send_signal(number)
        rest, errors = process.communicate(timeout=20)
    assert (process.returncode, rest, errors) == (0, "", "")


@pytest.mark.parametrize("route", ["/tabpfn/submit_fit_job", "/tabpfn/fit"])
def test_it_ends_cleanly_in_the_middle_of_a_fit(route, cancer, helpers):
    frame, target = cancer
    with start("--faults", "--fit-seconds", "600") as process:
        url = process.stdout.readline().split()[-1]
        EmulatorControl(url).configure(keepalive_after_secs=0.0)
        api = helpers.api(url)
        upload = api.upload_train(helpers.parquet(frame.head(40)), helpers.parquet(target.head(40).to_frame()))
        with api.http.stream("POST", route, json=helpers.nested(upload, "classification")) as answer:
            assert answer.status_code == 200
            process.terminate()
            _, errors = process.communicate(timeout=30)
        api.close()
    assert process.returncode == 0
    assert "Traceback" not in errors


def wait_for_a_request(control):
    for _ in range(600):
        if control.journal():
            return
        time.sleep(0.05)
    raise AssertionError("no request has arrived")


@pytest.mark.parametrize("when", ["before", "after"])
def test_it_ends_cleanly_while_a_request_hangs(when, helpers):
    with start("--faults") as process:
        url = process.stdout.readline().split()[-1]
        control = EmulatorControl(url)
        control.inject(kind="hang", route="/protected/", when=when)
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(f"GET /protected/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            wait_for_a_request(control)
            process.terminate()
            _, errors = process.communicate(timeout=30)
            assert connection.recv(1) == b""
    assert process.returncode == 0
    assert "Traceback" not in errors


def test_a_port_in_use_is_said_in_one_line(emulator):
    port = emulator.rsplit(":", 1)[1]
    with start("--port", port) as process:
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (1, "")
    assert port in errors
    assert "Traceback" not in errors


def test_options_reach_the_emulator(tmp_path):
    with running_emulator(tmp_path / "data", extra_args=("--fit-seconds", "1.5", "--upload-parts", "4")) as url:
        control = EmulatorControl(url)
        control.configure(fit_seconds=0.0)
        control.clear()
        with urllib.request.urlopen(f"{url}/_emulator/config", timeout=10) as answer:
            text = answer.read().decode()
    assert '"fit_seconds":1.5' in text
    assert '"upload_parts":4' in text
    assert (tmp_path / "data" / "emulator.sqlite3").exists()


def test_a_failed_start_shows_why():
    with pytest.raises(RuntimeError, match="No such option"), running_emulator(extra_args=("--colour", "blue")):
        raise AssertionError("the emulator has started")


LIGHT = """
import sys
import tabpfn_emulator, tabpfn_emulator.cli, tabpfn_emulator.testing
heavy = {"starlette", "uvicorn", "sklearn", "pandas", "numpy", "pyarrow", "pydantic", "httpx"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""

MISSING = """
import sys
sys.modules[sys.argv[1]] = None
import typer
from tabpfn_emulator.cli import emulator
del sys.argv[1:]
typer.run(emulator)
"""


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_loads_without_the_extra():
    done = run(LIGHT)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("package", ["uvicorn", "sklearn"])
def test_a_missing_extra_is_one_clear_error(package):
    done = run(MISSING, package)
    assert (done.returncode, done.stdout) == (2, "")
    assert package in done.stderr
    assert 'pip install "tabpfn-providers[emulator]"' in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--host", ""),
        ("--data-dir", ""),
        ("--token", ""),
        ("--token", " "),
        ("--token", "tök"),
        ("--account", "team=tök"),
        ("--fit-seconds", "inf"),
        ("--time-scale", "inf"),
        ("--upload-parts", "10001"),
        ("--latency", "protected=1"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name(option, value, tmp_path):
    command = [sys.executable, "-m", "tabpfn_emulator", option, value]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert option in ran.stderr
    assert "pydantic" not in ran.stderr
    assert list(tmp_path.iterdir()) == []
