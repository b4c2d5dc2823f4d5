"""The pytest plugin in pytest sessions of their own, as its users run it: found by its entry point, under -W error."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

CALLS = """
import os, urllib.error, urllib.request

def call(path):
    request = urllib.request.Request(os.environ["TABPFN_API_URL"] + path)
    request.add_header("Authorization", "Bearer " + os.environ["TABPFN_TOKEN"])
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
"""


@pytest.fixture
def session(tmp_path):
    """Run pytest on one module's text; returns the ended process."""

    def session(text, *options, **environment):
        (tmp_path / "test_theirs.py").write_text(CALLS + text)
        command = [sys.executable, "-W", "error", "-m", "pytest", "-W", "error", "-q"]
        command += ["-p", "no:cacheprovider", "-p", "no:schemathesis"]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TABPFN_"))}
        command += options
        env = clean | environment
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)

    return session


def test_each_test_has_an_account_of_its_own_on_one_server(session):
    done = session(
        """
seen = []

def test_one(tabpfn_emulator):
    assert call("/protected/") == 200
    assert [row["route"] for row in tabpfn_emulator.journal()] == ["/protected/"]
    assert tabpfn_emulator.journal(route="/elsewhere") == []
    assert tabpfn_emulator.creations() == tabpfn_emulator.fits() == []
    assert tabpfn_emulator.token not in repr(tabpfn_emulator)
    seen.append(tabpfn_emulator)

def test_two(tabpfn_emulator):
    assert tabpfn_emulator.journal() == []
    assert call("/protected/") == 200
    seen.append(tabpfn_emulator)

def test_three():
    first, second = seen
    assert first.url == second.url
    assert first.account != second.account
    assert "TABPFN_API_URL" not in os.environ and "TABPFN_TOKEN" not in os.environ
""",
        "-p",
        "no:randomly",
    )
    assert (done.returncode, "3 passed" in done.stdout) == (0, True), done.stdout + done.stderr


def test_faults_and_settings_end_with_their_test(session):
    done = session(
        """
def test_one(tabpfn_emulator, tabpfn_faults):
    tabpfn_faults.inject(kind="status", status=503, route="/protected/", times=None)
    tabpfn_faults.inject({"kind": "drop", "route": "/a"}, {"kind": "drop", "route": "/b"})
    assert len(tabpfn_faults.waiting()) == 3
    assert call("/protected/") == 503
    tabpfn_faults.clear()
    assert call("/protected/") == 200
    tabpfn_faults.inject(kind="status", status=503, route="/protected/", times=None)
    tabpfn_emulator.configure(get_settings=False)
    assert call("/tabpfn/get_settings") == 404

def test_two(tabpfn_faults):
    assert tabpfn_faults.waiting() == []
    assert call("/protected/") == 200
    assert call("/tabpfn/get_settings") == 200
""",
        "-p",
        "no:randomly",
    )
    assert (done.returncode, "2 passed" in done.stdout) == (0, True), done.stdout + done.stderr


@pytest.fixture
def no_extra(tmp_path):
    """A plugin for `-p` that hides the packages of the extra, as where only the bare wheel is installed."""
    (tmp_path / "hide_extra.py").write_text(
        """
import importlib.util

real = importlib.util.find_spec

def without_extra(name, package=None):
    return None if name in {"sklearn", "starlette", "uvicorn"} else real(name, package)

importlib.util.find_spec = without_extra
"""
    )
    return "hide_extra"


def test_loading_it_imports_nothing_but_pytest():
    code = "import pytest, sys; before = set(sys.modules); import tabpfn_emulator.plugin; "
    code += "print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(["tabpfn_emulator", "tabpfn_emulator.plugin"])


def test_without_the_extra_nothing_happens_until_a_fixture_is_used(session, no_extra):
    done = session(
        """
import sys

def test_nothing_is_loaded():
    ours = {name for name in sys.modules if name.startswith("tabpfn_")}
    assert ours == {"tabpfn_emulator", "tabpfn_emulator.plugin"}

def test_use(tabpfn_faults):
    raise AssertionError("never reached")
""",
        "-p",
        no_extra,
        "-p",
        "no:randomly",
        PYTHONPATH=os.pathsep.join([".", *filter(None, [os.environ.get("PYTHONPATH")])]),
    )
    assert done.returncode == 1
    assert "1 passed, 1 error" in done.stdout
    assert 'pip install "tabpfn-providers[emulator]"' in done.stdout
    assert "never reached" not in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.skipif(find_spec("xdist") is None, reason="pytest-xdist is not installed")
def test_workers_of_xdist_have_a_server_each(session):
    done = session(
        """
import pytest

@pytest.mark.parametrize("number", range(8))
def test_many(tabpfn_emulator, tabpfn_faults, number, testrun_uid):
    tabpfn_faults.inject(kind="status", status=500 + number % 3, route="/protected/")
    assert [call("/protected/") for _ in range(2)] == [500 + number % 3, 200]
    assert len(tabpfn_emulator.journal()) == 2
""",
        "-n",
        "2",
    )
    assert (done.returncode, "8 passed" in done.stdout) == (0, True), done.stdout + done.stderr
