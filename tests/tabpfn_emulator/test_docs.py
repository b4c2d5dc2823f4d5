"""docs/emulator.md: its blocks run as they are printed, its tables name everything there is."""

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from tabpfn_emulator._faults import Fault, Kind
from tabpfn_emulator._routes.control import ROUTES
from tabpfn_emulator._settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text()


def section(heading):
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0].split("\n### ")[0]


def blocks(heading, language):
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", section(heading), flags=re.DOTALL | re.MULTILINE)
    return [code for name, code in fenced if name == language]


@pytest.mark.parametrize(("heading", "printed"), [("Start it", "/protected/\n"), ("Faults", "INSUFFICIENT_QUOTA\n")])
def test_python_blocks(heading, printed, capsys):
    (code,) = blocks(heading, "python")
    exec(compile(code, "docs/emulator.md", "exec"), {})
    assert capsys.readouterr().out == printed


def test_the_pytest_block(run_printed_test):
    run_printed_test("In your tests")


def test_shell_blocks(tmp_path):
    commands = [
        line for heading in ("Start it", "Journal") for block in blocks(heading, "") for line in block.splitlines()
    ]
    assert len(commands) == 4
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "tabpfn-providers"
        line = [sys.executable, "-m", "tabpfn_operators.cli", *arguments]
        if "journal" in arguments:
            done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
            assert done.stdout == ("[]\n" if "--json" in arguments else "0 rows, 0 tokens\n")
            continue
        # The port of the page may be taken here.
        process = subprocess.Popen([*line, "--port", "0"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline().startswith("TabPFN emulator listening on http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 0


def test_the_table_of_control_routes_is_complete():
    listed = re.findall(r"^\| ([A-Z]+) \| `([^`]+)` \|", section("Control routes"), flags=re.MULTILINE)
    served = [(method, route.path) for route in ROUTES for method in route.methods - {"HEAD"}]
    assert sorted(listed) == sorted(served)


def test_the_tables_name_everything():
    first_cells = re.findall(r"^\| ([^|]+) \|", section("Faults"), flags=re.MULTILINE)
    named = {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)} - {"kind"}
    assert named == {*get_args(Kind), *Settings.model_fields}
    words = set(re.findall(r"\w+", section("Faults")))
    assert set(Fault.model_fields) <= words
