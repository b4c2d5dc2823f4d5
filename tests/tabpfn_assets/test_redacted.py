"""Redacted records: nothing personal stays, and they still trace."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_assets import EngineRun, FittedModel, PredictionSet


def test_a_redacted_model_holds_no_column_name_and_no_label(model):
    assert "personal" in model.model_dump_json()
    assert "personal" not in model.redacted().model_dump_json()


def test_a_redacted_prediction_set_holds_none_either(predictions):
    assert "personal" in predictions.model_dump_json()
    assert "personal" not in predictions.redacted().model_dump_json()


def test_it_still_traces_the_model(model):
    redacted = model.redacted()
    hidden = {"target", "features", "classes", "parameters", "evaluation", "redacted_fields"}
    kept = set(FittedModel.model_fields) - hidden
    assert {name: getattr(redacted, name) for name in kept} == {name: getattr(model, name) for name in kept}
    assert len(redacted.features) == len(model.features)
    assert [f.dtype for f in redacted.features] == [f.dtype for f in model.features]
    assert len(set(redacted.classes)) == len(model.classes)


def test_equal_names_stay_equal(model):
    redacted = model.redacted()
    assert redacted.parameters.thinking.group_col == redacted.features[0].name
    assert redacted.parameters.thinking.group_time_col == redacted.features[1].name
    assert redacted.target not in redacted.feature_names


def test_redacting_twice_is_redacting_once(model, predictions):
    assert model.redacted().redacted() == model.redacted()
    assert predictions.redacted().redacted() == predictions.redacted()


def test_the_original_is_untouched(model):
    before = model.model_dump_json()
    model.redacted()
    assert model.model_dump_json() == before


@pytest.mark.parametrize("labels", [(True, False), (0, 1), (0.5, 1.5), None])
def test_labels_of_every_type(model, labels):
    redacted = model.model_copy(update={"classes": labels}).redacted()
    assert (redacted.classes is None) == (labels is None)
    assert all(label.startswith("redacted-") for label in redacted.classes or ())


@given(
    names=st.lists(st.text("qwxyzäß.-_ ", min_size=6, max_size=12), min_size=2, max_size=5, unique=True),
    labels=st.lists(st.text('QWXYZ{}"\\', min_size=6, max_size=12), min_size=2, max_size=4, unique=True),
)
def test_no_word_stays_whatever_it_is(names, labels):
    target, *features = names
    model = FittedModel(
        fitted_train_set_id="f",
        train_set_upload_id="u",
        status="completed",
        target=target,
        features=[{"name": name, "dtype": "double"} for name in features],
        classes=labels,
        rows=2,
        source={"uris": ["a.parquet"], "rows": 2},
        parameters={"task": "classification"},
        run=EngineRun(engine="python"),
        created_at="2026-11-21T00:00:00Z",
    )
    record = PredictionSet(
        uri="out/p",
        lineage_uri="out/l",
        rows=2,
        columns=["prediction", *(f"probability_{label}" for label in labels)],
        output_type="probas",
        source={"uris": ["b.parquet"], "rows": 2},
        test_set_upload_id="t",
        model=model,
        metadata={"classes": labels},
        created_at="2026-11-21T00:00:00Z",
    )
    text = str(record.redacted().model_dump())
    assert [word for word in (*names, *labels) if word in text] == []
