"""Records: frozen, JSON there and back, and kind to newer versions."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tabpfn_assets import (
    EngineRun,
    Feature,
    FitParameters,
    FitStatus,
    FittedModel,
    JobRecord,
    PredictionSet,
    SourceRef,
    TestSet,
    TrainSet,
)

INDIA = timezone(timedelta(hours=5, minutes=30))
TEXT = st.text(max_size=20)
NUMBERS = st.floats(allow_nan=False)
LABELS = st.one_of(
    st.none(),
    st.lists(st.booleans(), max_size=3),
    st.lists(st.integers(-(2**60), 2**60), max_size=3),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    st.lists(TEXT, max_size=3),
)
MODELS = st.builds(
    FittedModel,
    name=st.none() | st.from_regex(r"\A[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}\Z"),
    fitted_train_set_id=TEXT,
    train_set_upload_id=TEXT,
    status=st.sampled_from(["pending", "completed", "failed"]),
    target=TEXT,
    features=st.lists(st.builds(Feature, name=TEXT, dtype=TEXT), max_size=3).map(tuple),
    classes=LABELS,
    rows=st.integers(1, 10**7),
    source=st.builds(SourceRef, uris=st.just(("s3://b/a",)), rows=st.integers(0, 10**7)),
    parameters=st.builds(
        FitParameters,
        task=st.sampled_from(["classification", "regression"]),
        config=st.dictionaries(TEXT.filter(lambda key: key != "n_estimators"), st.integers() | TEXT | st.none()),
        thinking=st.none(),
    ),
    timings=st.dictionaries(TEXT, st.none() | NUMBERS, max_size=3),
    run=st.none() | st.builds(EngineRun, engine=TEXT, url=st.none() | TEXT),
    packages=st.dictionaries(TEXT, TEXT, max_size=3),
    created_at=st.integers(0, 2**32).map(lambda seconds: datetime.fromtimestamp(seconds, INDIA)),
    evaluation=st.none(),
    estimated_cost=st.none() | st.integers(0, 10**9),
    parent_id=st.none() | TEXT,
)


@given(MODELS)
def test_a_model_survives_json_by_every_way(model):
    plain = model.model_dump(mode="json")
    assert FittedModel.model_validate(plain) == model
    assert FittedModel.model_validate(json.loads(json.dumps(plain))) == model
    assert FittedModel.model_validate_json(model.model_dump_json()) == model
    kinds = [type(label) for label in model.classes or ()]
    assert [type(label) for label in FittedModel.model_validate(plain).classes or ()] == kinds


def test_a_prediction_set_survives_json(predictions):
    assert PredictionSet.model_validate_json(predictions.model_dump_json()) == predictions


@given(
    st.dictionaries(st.from_regex(r"\Anew_[a-z]{1,8}\Z"), st.integers() | TEXT | st.lists(st.booleans()), max_size=4)
)
def test_fields_of_a_newer_version_are_kept(newer):
    record = {
        "fitted_train_set_id": "f",
        "train_set_upload_id": "u",
        "status": "pending",
        "target": "t",
        "features": [{"name": "a", "dtype": "double", **newer}],
        "rows": 2,
        "source": {"uris": ["a"], "rows": 2, **newer},
        "parameters": {"task": "regression"},
        "created_at": "2026-11-21T00:00:00Z",
        **newer,
    }
    kept = FittedModel.model_validate(record).model_dump(mode="json")
    assert newer.items() <= kept.items()
    assert newer.items() <= kept["source"].items()
    assert newer.items() <= kept["features"][0].items()


def test_records_are_frozen(model, predictions):
    with pytest.raises(ValidationError, match="frozen"):
        model.status = "pending"
    with pytest.raises(ValidationError, match="frozen"):
        predictions.rows = 1
    with pytest.raises(ValidationError, match="frozen"):
        model.parameters.task = "regression"


def test_time_is_kept_in_utc_and_needs_a_zone(model):
    plain = model.model_dump(mode="json")
    moved = FittedModel.model_validate({**plain, "created_at": "2026-11-21T05:00:00+02:30"})
    assert moved.created_at == datetime(2026, 11, 21, 2, 30, tzinfo=UTC)
    assert moved.created_at.utcoffset() == timedelta(0)
    with pytest.raises(ValidationError, match="timezone"):
        FittedModel.model_validate({**plain, "created_at": "2026-11-21T05:00:00"})


def test_a_record_of_another_schema_version_is_refused(model):
    with pytest.raises(ValidationError, match="schema_version"):
        FittedModel.model_validate({**model.model_dump(mode="json"), "schema_version": 2})


def test_a_model_says_its_task_and_its_feature_names(model):
    assert model.task == "classification"
    assert model.feature_names == ("personal group", "personal time", "personal größe.x")


@pytest.mark.parametrize("status", ["running", "", None])
def test_a_model_has_one_of_three_states(model, status):
    with pytest.raises(ValidationError, match="status"):
        FittedModel.model_validate({**model.model_dump(mode="json"), "status": status})


def test_a_name_that_moves_a_path_is_refused(model):
    with pytest.raises(ValidationError, match="name"):
        FittedModel.model_validate({**model.model_dump(mode="json"), "name": "../champion"})


def test_labels_keep_their_json_type():
    train = {"train_set_upload_id": "u", "task": "classification", "target": "t", "features": [], "rows": 2}
    train["source"] = {"uris": ["a"], "rows": 2}
    for labels in [(True, False), (0, 1), (0.0, 1.5), ("0", "1")]:
        read = TrainSet.model_validate_json(json.dumps({**train, "classes": labels})).classes
        assert [(type(label), label) for label in read] == [(type(label), label) for label in labels]


@pytest.mark.parametrize("phase", ["submitted", "completed"])
def test_a_job_has_an_id_once_it_is_submitted(phase):
    with pytest.raises(ValidationError, match="needs its job_id"):
        JobRecord(kind="tabpfn_async", phase=phase)
    assert JobRecord(kind="tabpfn_async", phase=phase, job_id="j").job_id == "j"


def test_an_intended_job_needs_none():
    job = JobRecord(kind="reasoning", phase="intent", owner="host:1", lease_expires_at=5.0)
    assert JobRecord.model_validate(job.model_dump(mode="json")) == job


def test_a_job_is_json_plain():
    job = JobRecord(kind="tabpfn_stream", phase="submitted", job_id="j", submitted_at=1.0, deadline_at=2.0)
    plain = job.model_dump(mode="json")
    assert plain.pop("superseded") == []
    assert all(value is None or isinstance(value, str | int | float | bool) for value in plain.values())
    assert JobRecord.model_validate_json(json.dumps(plain)) == job


def test_a_status_keeps_words_it_does_not_know():
    assert FitStatus(fitted_train_set_id="f", status="transforming").status == "transforming"


def test_a_test_set_has_rows():
    with pytest.raises(ValidationError, match="rows"):
        TestSet(test_set_upload_id="t", fitted_train_set_id="f", rows=0, source=SourceRef(uris=("a",), rows=0))
