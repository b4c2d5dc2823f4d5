"""The published JSON Schemas: as the code has it, with words for each field, and true of real records."""

import json
from pathlib import Path

import pytest
from jsonschema_rs import Draft202012Validator, ValidationError, meta

from tabpfn_assets import FitParameters
from tabpfn_assets.schemas import PUBLISHED, record_schema

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "schemas"
RECORDS = ROOT / "tests" / "contracts" / "records"


def published(name):
    return json.loads((PAGES / f"{name}.json").read_text(encoding="utf-8"))


def golden(name):
    return json.loads((RECORDS / f"{name}.1.json").read_text(encoding="utf-8"))


def validator(name):
    return Draft202012Validator(published(name))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_docs_say_what_the_code_does(name):
    remedy = "docs/schemas differs from the code; run `python .ci/schemas.py` in an environment with the project"
    assert published(name) == record_schema(PUBLISHED[name]), remedy


def test_no_page_is_left_of_a_record_that_is_gone():
    assert {path.stem for path in PAGES.iterdir()} == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_is_a_schema_and_a_record_fits_it(name):
    meta.validate(published(name))
    validator(name).validate(golden(name))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_record_of_a_newer_version_fits_it_too(name):
    kept = PUBLISHED[name].model_validate({**golden(name), "new_field": {"a": [1]}})
    validator(name).validate(kept.model_dump(mode="json"))


def test_a_model_whose_parameters_a_newer_version_wrote_fits_it():
    parameters = golden("FittedModel")["parameters"]
    newer = {**parameters, "thinking": {**parameters["thinking"], "new_field": 1}, "new_field": [None]}
    model = {**golden("FittedModel"), "parameters": newer}
    validator("FittedModel").validate(model)
    validator("JobRecord").validate({**golden("JobRecord"), "model": model})


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_optional_may_be_missing_and_nothing_else(name):
    kind = PUBLISHED[name]
    needed = {key for key, field in kind.model_fields.items() if field.is_required()}
    record = {key: value for key, value in golden(name).items() if key in needed | {"job_id"}}
    validator(name).validate(record)
    for key in needed:
        with pytest.raises(ValidationError, match=f'"{key}" is a required property'):
            validator(name).validate({other: value for other, value in record.items() if other != key})


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("FittedModel", {"rows": 0}),
        ("FittedModel", {"schema_version": 2}),
        ("FittedModel", {"name": "../champion"}),
        ("FittedModel", {"parameters": {"task": "clustering"}}),
        ("PredictionSet", {"model": None}),
        ("JobRecord", {"phase": "dreaming"}),
        ("Evaluation", {"metrics": {"accuracy": "good"}}),
        ("Decision", {"checks": [{"rule": "min_improvement"}]}),
    ],
)
def test_what_is_no_such_record_does_not_fit_it(name, wrong):
    with pytest.raises(ValidationError):
        validator(name).validate({**golden(name), **wrong})


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_field_has_its_words(name):
    schema = published(name)
    objects = {name: schema, **schema.get("$defs", {})}
    wordless = [f"{kind}.{key}" for kind, each in objects.items() for key in each["properties"] if not words(each, key)]
    assert wordless == []
    assert [kind for kind, each in objects.items() if not each["description"].endswith(".")] == []


def words(schema, key):
    return schema["properties"][key].get("description", "").strip()


def test_an_interface_that_asks_for_parameters_refuses_what_it_does_not_know():
    schema = FitParameters.model_json_schema()
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Thinking"]["additionalProperties"] is False
    with pytest.raises(ValidationError, match="confg"):
        Draft202012Validator(schema).validate({"task": "regression", "confg": {}})
