"""The examples of docs/lifecycle.md run in the order they are printed, and so does that of docs/lineage.md."""

import json
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


def test_the_example_of_lineage(tmp_path, monkeypatch, client, classification):
    from tabpfn_operators.interchange import to_tabpfn_client

    monkeypatch.chdir(tmp_path)
    model = client.fit(classification.train, "outcome", parameters=classification.parameters)
    Path("saved-in-a-notebook.json").write_text(json.dumps(to_tabpfn_client(model)))
    page = (ROOT / "docs" / "lineage.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    names = {"model": model}
    exec(compile(code, "docs/lineage.md", "exec"), names)
    assert names["taken_over"].fitted_train_set_id == model.fitted_train_set_id
    assert json.loads(Path("model.json").read_text())["model_id"] == model.fitted_train_set_id


def test_every_path_of_the_store_that_is_named_exists(client, classification, tmp_path):
    page = (ROOT / "docs" / "lineage.md").read_text()
    client.fit(
        classification.train,
        "outcome",
        parameters=classification.parameters,
        name="churn",
        lineage=tmp_path / "store",
        journal=tmp_path / "journal",
        run_key="k",
    )
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    for folder in ("store/models/churn", "store/index/fits", "store/index/sources", "store/index/uploads"):
        assert [path for path in made if path.startswith(folder)], made
        assert folder.removeprefix("store/").replace("churn", "<name>") in page
    assert {path.partition("/")[2] for path in made if path.startswith("journal")} == {
        "jobs/k.json",
        "claims/k/00000001.json",
        "claims/k/00000002.json",
    }
