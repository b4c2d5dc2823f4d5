"""Filters, casts and recompression of the operators: they reach the core, through templates too."""

import pyarrow.parquet as pq
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_tabpfn.operators.fit import TabPFNFitOperator
from airflow_provider_tabpfn.operators.predict import TabPFNPredictOperator
from tabpfn_assets import FittedModel

SOME = [["amount", ">", -5]]


@pytest.fixture
def rows(tables):
    """How many rows of a file a filter keeps, as Arrow counts them."""

    def rows(path, filters=None):
        return pq.read_table(path, filters=filters).num_rows

    assert 0 < rows(tables.train, SOME) < rows(tables.train)
    assert 0 < rows(tables.score, SOME) < rows(tables.score)
    return rows


@pytest.fixture
def fit(tables, connection, control, context):
    """Render the templates of a fit operator, execute it, and return its model."""

    def fit(params=None, **changes):
        arguments = {
            "task_id": "fit",
            "source": tables.train,
            "target": "label",
            "task": "classification",
            "features": ["a", "b"],
            "deferrable": False,
        }
        operator = TabPFNFitOperator(**(arguments | changes))
        operator.render_template_fields({"params": params or {}})
        return FittedModel.model_validate(operator.execute(context))

    return fit


@pytest.fixture
def predict(tables, connection, context, tmp_path):
    """Render the templates of a predict operator, execute it, and return its manifest."""

    def predict(model, params=None, **changes):
        operator = TabPFNPredictOperator(
            task_id="predict",
            model=model.model_dump(mode="json"),
            source=tables.score,
            destination=str(tmp_path / "out"),
            **changes,
        )
        operator.render_template_fields({"params": params or {}})
        return operator.execute(context)

    return predict


@pytest.mark.parametrize(
    ("filters", "params"),
    [
        ('[["amount", ">", {{ params.least }}]]', {"least": -5}),
        ("{{ params.filters | tojson }}", {"filters": SOME}),
        ("{{ params.filters }}", {"filters": '[["amount", ">", -5]]'}),
        (SOME, {}),
    ],
)
def test_a_filter_reaches_the_fit_and_the_prediction(fit, predict, rows, tables, control, token, filters, params):
    from tabpfn_emulator.testing import account_of

    model = fit(params, filters=filters)

    (seen,) = control.fits(account=account_of(token))
    assert model.rows == seen["train_rows"] == rows(tables.train, SOME)
    assert model.feature_names == ("a", "b")
    manifest = predict(model, params, filters=filters)
    assert manifest["rows"] == pq.read_metadata(manifest["uri"]).num_rows == rows(tables.score, SOME)


@pytest.mark.parametrize("template", ["{{ params.absent }}", " {{ params.empty }} ", "{{ params.nothing }}"])
def test_a_template_that_renders_to_nothing_keeps_all_rows(fit, predict, rows, tables, template):
    params = {"empty": "", "nothing": None}

    model = fit(params, filters=template, casts=template)

    assert model.rows == rows(tables.train)
    assert predict(model, params, filters=template, casts=template)["rows"] == rows(tables.score)


@pytest.mark.parametrize("casts", [{"b": "{{ params.kind }}"}, '{"b": "{{ params.kind }}"}'])
def test_casts_reach_the_fit_and_the_prediction(fit, predict, rows, tables, casts):
    params = {"kind": "string"}

    model = fit(params, casts=casts, recompress=("zstd", 3))

    assert [feature.dtype for feature in model.features] == ["double", "string"]
    assert predict(model, params, casts=casts, recompress=("zstd", 3))["rows"] == rows(tables.score)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"filters": '[["absent", ">", 0]]'}, "InvalidInputError: .*filter names column 'absent'"),
        ({"filters": "{{ params.rows }}"}, "InvalidInputError: .*filter is no JSON"),
        ({"casts": {"b": "integer-ish"}}, "InvalidInputError: .*'integer-ish'"),
        ({"recompress": ("lzma", 1)}, "InvalidInputError: .*recompress is a codec"),
    ],
)
def test_what_cannot_be_read_so_is_not_retried(fit, predict, control, token, changes, text):
    from tabpfn_emulator.testing import account_of

    params = {"rows": [["amount", ">", 0]]}  # without `tojson` a list renders to Python's notation
    with pytest.raises(AirflowFailException, match=text):
        fit(params, **changes)
    account = account_of(token)
    assert control.fits(account=account) == []

    model = fit()
    with pytest.raises(AirflowFailException, match=text):
        predict(model, params, **changes)
    assert control.journal(route="/tabpfn/predict", account=account) == []
