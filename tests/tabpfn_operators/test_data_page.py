"""The examples of docs/data.md run in the order they are printed, and its error texts and reasons are the real ones."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def in_own_folder(tmp_path, monkeypatch, emulator, bearer):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TABPFN_API_URL", emulator)
    monkeypatch.setenv("TABPFN_TOKEN", bearer)


@pytest.mark.usefixtures("in_own_folder")
def test_every_example(monkeypatch, capsys):
    from tabpfn_operators.cli import main

    assert len(BLOCKS) > 8
    names = {}
    for language, code in BLOCKS:
        if language == "python":
            exec(compile(code, "docs/data.md", "exec"), names)
            continue
        for line in code.strip().splitlines():
            monkeypatch.setattr("sys.argv", shlex.split(line))
            with pytest.raises(SystemExit) as ended:
                main()
            assert not ended.value.code, f"{line}\n{capsys.readouterr().err}"
    printed = capsys.readouterr().out
    for line in (
        "('age', 'plan', 'spent') ('id',)",
        "b'PAR1'",
        "known once written: rows are decoded because of casts",
    ):
        assert line in printed
    assert names["from_parts"].duplicate
    assert names["in_memory"].source.uris == ()
    assert names["one"].source == names["two"].source == names["three"].source
    assert 0 < names["one"].rows < 200
    assert Path("predictions/_lineage.json").is_file()


def quoted(heading):
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| ")][1:]
    return [text.strip(". ") for cell in cells for text in re.findall("`([^`]+)`", cell)]


@pytest.mark.parametrize("text", [*quoted("Moved or decoded"), *quoted("What can go wrong on the way")])
def test_what_is_quoted_is_what_is_said(text):
    sources = "".join(path.read_text() for path in (ROOT / "operators" / "tabpfn_operators").rglob("*.py"))
    for changing in (r"'a'", r"\(OSError\)", "DataFrame source", "Table source", "RecordBatchReader source"):
        text = re.sub(changing, "…", text)
    for part in filter(None, text.split("…")):
        assert part.strip() in re.sub(r'" *\n *f?"', "", sources), part
