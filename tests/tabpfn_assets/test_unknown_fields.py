"""What a version does not know: refused where a person writes it, kept where a newer version wrote it."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

import tabpfn_assets
from tabpfn_assets import FitParameters, FittedModel, JobRecord, PredictionSet, Thinking

RECORDS = Path(__file__).parents[1] / "contracts" / "records"
TYPING_MISTAKES = [
    ({"task": "regression", "confg": {}}, "confg"),
    ({"task": "regression", "thinking": {"efort": "high"}}, "thinking.efort"),
    ({"task": "regression", "model_config": {}}, "model_config"),
]
NEWER = {
    "task": "regression",
    "horizon": {"steps": [1, 2.5, None, "∞"]},
    "thinking": {"effort": "high", "budget_tokens": 5},
}


def golden(name):
    return json.loads((RECORDS / f"{name}.1.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("written", "place"), TYPING_MISTAKES)
@pytest.mark.parametrize(
    "read",
    [
        lambda written: FitParameters(**written),
        FitParameters.model_validate,
        lambda written: FitParameters.model_validate_json(json.dumps(written)),
        TypeAdapter(FitParameters | None).validate_python,
    ],
    ids=["constructor", "python", "json", "adapter"],
)
def test_a_typing_mistake_is_refused_and_named(read, written, place):
    with pytest.raises(ValidationError) as caught:
        read(written)
    ((where, kind),) = {(".".join(each["loc"]), each["type"]) for each in caught.value.errors()}
    assert where.endswith(place)
    assert kind == "extra_forbidden"


def test_every_typing_mistake_is_named_at_once():
    with pytest.raises(ValidationError) as caught:
        Thinking(efort="high", metrik="rmse")
    assert [each["loc"] for each in caught.value.errors()] == [("efort",), ("metrik",)]


@pytest.mark.parametrize("way", ["python", "json"])
@pytest.mark.parametrize("kind", [FittedModel, PredictionSet, JobRecord])
def test_a_record_keeps_parameters_that_it_does_not_know(kind, way):
    written = golden(kind.__name__)
    holder = written if kind is FittedModel else written["model"]
    holder["parameters"] = NEWER
    record = kind.model_validate(written) if way == "python" else kind.model_validate_json(json.dumps(written))
    back = record.model_dump(mode="json")
    assert json.loads(record.model_dump_json()) == back
    kept = (back if kind is FittedModel else back["model"])["parameters"]
    assert kept["horizon"] == NEWER["horizon"]
    assert NEWER["thinking"].items() <= kept["thinking"].items()
    assert kind.model_validate(back) == record
    assert pickle.loads(pickle.dumps(record)) == record


def test_what_is_not_known_makes_a_difference_and_survives_copies():
    written = {**golden("FittedModel"), "parameters": NEWER}
    model = FittedModel.model_validate(written)
    other = FittedModel.model_validate({**written, "parameters": {**NEWER, "horizon": 1}})
    assert model != other
    assert model.model_copy(update={"name": "other"}).parameters == model.parameters
    assert model.redacted().parameters.thinking.model_extra == {"budget_tokens": 5}
    assert FittedModel(**{**dict(model), "parameters": model.parameters}) == model


def test_parameters_that_were_read_may_be_used_again():
    parameters = FittedModel.model_validate({**golden("FittedModel"), "parameters": NEWER}).parameters
    assert FitParameters.model_validate(parameters) is parameters
    assert FitParameters(task="regression", thinking=parameters.thinking).thinking == parameters.thinking


@pytest.mark.parametrize("parameters", [{}, {"task": "clustering"}, {"task": "regression", "thinking": 5}])
def test_typing_mistakes_are_refused_after_a_record_that_could_not_be_read(parameters):
    with pytest.raises(ValidationError, match="parameters"):
        FittedModel.model_validate({**golden("FittedModel"), "parameters": parameters})
    with pytest.raises(ValidationError, match="confg"):
        FitParameters(task="regression", confg={})


# What some earlier version may not have had: every one is optional, and each lies at another place of the records.
NOT_YET = {
    "evaluation.py": ["comparison", "latency", "charged"],
    "fitted_model.py": ["estimated_cost", "charged", "possible_orphans", "parent_id", "packages"],
    "job.py": ["error_code", "resubmissions", "train_set"],
    "parameters.py": ["text_handling", "metric"],
    "prediction_set.py": ["timings", "charged"],
    "run.py": ["code_version"],
    "sets.py": ["size_bytes", "duplicate"],
}
EARLIER = """
import json, sys
import tabpfn_assets

texts = json.load(sys.stdin)
written = {}
for name, text in texts.items():
    kind = getattr(tabpfn_assets, name)
    record = kind.model_validate_json(text)
    assert record == kind.model_validate(json.loads(text))
    assert record == kind.model_validate_json(record.model_dump_json())
    written[name] = record.model_dump_json()
fields = [f"{kind}.{field}" for kind in tabpfn_assets.__all__
          for field in getattr(getattr(tabpfn_assets, kind), "model_fields", ())]
print(json.dumps({"file": tabpfn_assets.__file__, "fields": fields, "written": written}))
"""


@pytest.fixture
def earlier_package(tmp_path):
    """A copy of the package whose records know fewer fields."""
    copy = tmp_path / "tabpfn_assets"
    shutil.copytree(Path(tabpfn_assets.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for file, fields in NOT_YET.items():
        text = (copy / file).read_text(encoding="utf-8")
        for field in fields:
            text, found = re.subn(rf"^    {field}: .* = .*\n", "", text, flags=re.MULTILINE)
            assert found, f"{file} has no optional field {field} on one line"
        (copy / file).write_text(text, encoding="utf-8")
    return tmp_path


def test_a_version_that_knows_fewer_fields_reads_a_record_and_loses_nothing(earlier_package):
    texts = {path.stem.partition(".")[0]: path.read_text(encoding="utf-8") for path in RECORDS.glob("*.1.json")}
    done = subprocess.run(
        [sys.executable, "-c", EARLIER],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(earlier_package), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert Path(answer["file"]).is_relative_to(earlier_package)
    unknown = {"Evaluation.comparison", "FittedModel.charged", "Thinking.metric", "FitParameters.text_handling"}
    assert not unknown & set(answer["fields"])
    assert "FittedModel.rows" in answer["fields"]
    for name, text in texts.items():
        assert json.loads(answer["written"][name]) == json.loads(text)
        kind = getattr(tabpfn_assets, name)
        assert kind.model_validate_json(answer["written"][name]) == kind.model_validate_json(text)
