"""The examples of docs/lifecycle.md run in the order they are printed."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "lifecycle.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_every_example(tmp_path, monkeypatch, capsys, emulator, bearer):
    from tabpfn_operators.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TABPFN_API_URL", emulator)
    monkeypatch.setenv("TABPFN_TOKEN", bearer)
    assert len(BLOCKS) > 7
    names = {}
    for language, code in BLOCKS:
        if language == "python":
            exec(compile(code, "docs/lifecycle.md", "exec"), names)
            continue
        for line in code.strip().splitlines():
            monkeypatch.setattr("sys.argv", shlex.split(line))
            with pytest.raises(SystemExit) as ended:
                main()
            assert not ended.value.code, f"{line}\n{capsys.readouterr().err}"
    store = names["store"]
    printed = capsys.readouterr().out
    assert "400 500" in printed
    assert len(store.versions("churn")) == 2
    assert store.get("churn", "@champion").fitted_train_set_id == names["monday"].fitted_train_set_id
    assert [store.is_erased("churn", version) for version in store.versions("churn")] == [True, False]
    assert "<html" in Path("report.html").read_text(encoding="utf-8")
