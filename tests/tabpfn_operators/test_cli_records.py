"""Records that commands are given: a newer version's are told from what is no record."""

import json
from pathlib import Path

import pytest

from tabpfn_assets import FittedModel, PredictionSet
from tabpfn_operators.cli._records import read_model
from tabpfn_operators.errors import InvalidInputError, RecordTooNewError

RECORDS = Path(__file__).parents[1] / "contracts" / "records"


def golden(name):
    return json.loads((RECORDS / f"{name}.1.json").read_text(encoding="utf-8"))


@pytest.fixture
def record(tmp_path):
    """Write a record; return its path as text."""
    path = tmp_path / "record.json"

    def write(facts):
        path.write_text(json.dumps(facts))
        return str(path)

    return write


def test_a_model_is_read_alone_or_from_beside_its_predictions(record):
    assert read_model(record(golden("FittedModel"))) == FittedModel.model_validate(golden("FittedModel"))
    lineage = golden("PredictionSet")
    assert read_model(record(lineage)) == PredictionSet.model_validate(lineage).model


def newer(name, **changes):
    return {**golden(name), "schema_version": 2, **changes}


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        (newer("FittedModel"), "FittedModel"),
        (newer("FittedModel", rows="many"), "FittedModel"),
        (newer("PredictionSet"), "PredictionSet"),
        ({**golden("PredictionSet"), "model": newer("FittedModel")}, "FittedModel"),
    ],
    ids=["model", "another form", "lineage", "model in lineage"],
)
def test_a_record_of_a_newer_schema_says_to_upgrade(cli, record, tmp_path, facts, kind):
    path = record(facts)
    with pytest.raises(RecordTooNewError, match=f"is a {kind} of schema 2, and this version reads up to 1; upgrade"):
        read_model(path)
    ran = cli("predict", path, "score.parquet", tmp_path / "out")
    assert ran.code != 0
    assert "upgrade tabpfn-providers" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    "facts",
    [
        {**golden("FittedModel"), "rows": 0},
        {**golden("PredictionSet"), "rows": 0},
        {**golden("PredictionSet"), "model": {}},
        golden("JobRecord"),
        golden("Evaluation"),
    ],
)
def test_what_is_no_model_record_is_named(record, facts):
    path = record(facts)
    with pytest.raises(InvalidInputError, match="is no model record; name what") as caught:
        read_model(path)
    assert path in str(caught.value)
