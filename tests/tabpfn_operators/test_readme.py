"""The README's Python and shell blocks run as they are printed."""

import re
import shlex
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def blocks(heading, language):
    section = README.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", section, flags=re.DOTALL | re.MULTILINE)
    return [code for name, code in fenced if name == language]


@pytest.fixture
def in_data_folder(tmp_path, monkeypatch, emulator, bearer):
    from tabpfn_operators.demo import write_data

    data = write_data(tmp_path / "data", "classification")
    monkeypatch.chdir(data.train.parent)
    monkeypatch.setenv("TABPFN_API_URL", emulator)
    monkeypatch.setenv("TABPFN_TOKEN", bearer)
    return data.train.parent


def test_python_block(in_data_folder, capsys):
    (code,) = blocks("Python", "python")
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "predictions.parquet" in printed
    assert (in_data_folder / "predictions" / "_lineage.json").is_file()


def test_shell_block(in_data_folder, monkeypatch, capsys):
    from tabpfn_operators.cli import main

    (code,) = blocks("Python", "")
    for line in code.strip().splitlines():
        monkeypatch.setattr("sys.argv", shlex.split(line))
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
    assert (in_data_folder / "predictions" / "_lineage.json").is_file()
