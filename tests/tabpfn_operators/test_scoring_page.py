"""The examples of docs/scoring.md run in the order they are printed, and what its tables say of the command holds."""

import inspect
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scoring.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_every_example(tmp_path, monkeypatch, capsys, emulator, bearer, control):
    from tabpfn_emulator.testing import account_of
    from tabpfn_operators.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TABPFN_API_URL", emulator)
    monkeypatch.setenv("TABPFN_TOKEN", bearer)
    assert len(BLOCKS) > 6
    names = {}
    for language, code in BLOCKS:
        if language == "python":
            exec(compile(code, "docs/scoring.md", "exec"), names)
            continue
        for line in code.strip().splitlines():
            monkeypatch.setattr("sys.argv", shlex.split(line))
            with pytest.raises(SystemExit) as ended:
                main()
            assert not ended.value.code, f"{line}\n{capsys.readouterr().err}"
    printed = capsys.readouterr().out
    assert "20000 4 ('id', 'prediction', 'probability_leaves', 'probability_stays')" in printed
    assert "['id', 'prediction', 'probability_leaves', 'probability_stays']" in printed
    assert f"8 {tmp_path}/spread/_manifest.json" in printed
    assert names["done"] == [3, 3, 2]
    # Shards of 5,000 rows, the whole file in one, shards of 2,500 rows: whatever was repeated was free.
    assert len(control.creations(kind="predict_run", account=account_of(bearer))) == 4 + 1 + 8
    assert len(list(Path("scored").glob("part-*"))) == 1


def test_what_is_said_to_be_the_default_is():
    from tabpfn_operators import Client
    from tabpfn_operators.scoring._ledger import LEASE_SECONDS
    from tabpfn_operators.scoring._partitions import MOST_FOLDERS

    defaults = {name: each.default for name, each in inspect.signature(Client.score).parameters.items()}
    assert f"`concurrency` is {defaults['concurrency']} where" in PAGE
    assert (defaults["on_unknown"], defaults["max_resends"]) == ("resend", None)
    assert f"{MOST_FOLDERS} in a shard" in PAGE
    assert LEASE_SECONDS == 60  # "a minute"


def test_the_limits_are_those_of_the_server(client):
    limit = client.get_settings().limit_for("v3")
    for number in (
        limit.test_set_max_rows,
        limit.predict_row_pairs_budget,
        limit.test_set_max_rows_w_full_regression_output,
    ):
        assert f"| {number:,}" in PAGE
