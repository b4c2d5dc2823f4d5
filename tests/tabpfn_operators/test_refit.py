"""The call that fits a model again: what it says is what was fitted, whatever columns and sources are called."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_assets import FitParameters, FittedModel
from tabpfn_operators.refit import refit_call


def model_of(**fields):
    record = {
        "fitted_train_set_id": "fitted-1",
        "train_set_upload_id": None,
        "status": "completed",
        "target": "y",
        "features": [{"name": "a", "dtype": "double"}],
        "rows": 3,
        "source": {"uris": ["s3://lake/train.parquet"], "rows": 3},
        "parameters": {"task": "regression"},
        "created_at": "2026-11-21T00:00:00Z",
    }
    return FittedModel.model_validate({**record, **fields})


class Heard:
    """A client that only listens."""

    def fit(self, source, target, **options):
        return source, target, options


def called(model, **names):
    scope = {"client": Heard(), "FitParameters": FitParameters, "model": model, **names}
    return eval(refit_call(model), {"__builtins__": {}}, scope)


def test_the_call_reads_as_a_person_would_write_it():
    model = model_of(name="churn", parameters={"task": "regression", "config": {"n_estimators": 4}})
    assert refit_call(model) == (
        "client.fit('s3://lake/train.parquet', 'y', parameters=FitParameters(task='regression', "
        "config={'n_estimators': 4}), features=['a'], name='churn', reuse='never')"
    )


@pytest.mark.parametrize(
    "parameters",
    [
        {"task": "regression"},
        {"task": "classification", "config": {"random_state": 0, "inference_config": {"A": [1, None, True]}}},
        {"task": "classification", "systems": [], "text_handling": "simple"},
        {"task": "regression", "thinking": {}},
        {"task": "regression", "thinking": {"effort": "high", "timeout_secs": 60, "group_col": "it's"}},
    ],
    ids=str,
)
def test_the_parameters_are_the_same(parameters):
    model = model_of(parameters=parameters)
    _, _, options = called(model)
    assert options["parameters"] == model.parameters
    assert options["reuse"] == "never"
    assert options.get("durable", True) is not model.parameters.billed, "a billed fit without a journal is refused"


@given(
    st.text(min_size=1),
    st.lists(st.text(min_size=1), min_size=1, max_size=40, unique=True),
    st.lists(st.text(min_size=1), min_size=1, max_size=3, unique=True),
)
def test_names_are_quoted(target, names, uris):
    features = [{"name": name, "dtype": "double"} for name in names]
    model = model_of(target=target, features=features, source={"uris": uris, "rows": 3})
    source, asked, options = called(model)
    assert source == (uris[0] if len(uris) == 1 else uris)
    assert asked == target
    assert list(options["features"]) == names
    assert len(refit_call(model_of(features=features))) < 5000 + sum(map(len, map(repr, names[:20])))


def test_many_features_are_named_by_the_record():
    features = [{"name": f"column {number}", "dtype": "double"} for number in range(500)]
    assert "features=model.feature_names" in refit_call(model_of(features=features))


def test_a_table_that_was_in_memory_is_asked_for():
    model = model_of(source={"uris": [], "rows": 3})
    source, _, _ = called(model, table="the table")
    assert source == "the table"
