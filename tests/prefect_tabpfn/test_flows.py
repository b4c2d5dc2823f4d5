"""The shipped flow and its twin: predictions on storage, lineage in Prefect."""

import inspect
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow.parquet as pq
import pytest
from prefect.artifacts import Artifact
from prefect.client.orchestration import get_client

from prefect_tabpfn import aretrain_and_score, retrain_and_score
from prefect_tabpfn.lineage import asset_key
from tabpfn_assets import PredictionSet
from tabpfn_emulator.testing import account_of
from tabpfn_operators import errors

EVENTS_WITHIN_SECONDS = 60


@pytest.fixture(params=["sync", "async"])
def run_flow(request, run_async) -> Callable[..., Any]:
    return retrain_and_score if request.param == "sync" else partial(run_async, aretrain_and_score)


def materializations(key: str, count: int = 1) -> list[dict[str, Any]]:
    """Events reach the server from a background thread, so they are asked for until they are there."""
    wanted = {"filter": {"event": {"name": ["prefect.asset.materialization.succeeded"]}, "resource": {"id": [key]}}}
    deadline = time.monotonic() + EVENTS_WITHIN_SECONDS
    with get_client(sync_client=True) as api:
        while True:
            events = api.request("POST", "/events/filter", json=wanted).json()["events"]
            if len(events) >= count or time.monotonic() > deadline:
                return events
            time.sleep(0.2)


def upstream(event: dict[str, Any]) -> set[str]:
    return {r["prefect.resource.id"] for r in event["related"] if r["prefect.resource.role"] == "asset"}


def test_twins_have_the_same_parameters():
    assert inspect.signature(retrain_and_score.fn) == inspect.signature(aretrain_and_score.fn)
    assert retrain_and_score.retries == aretrain_and_score.retries == 0
    assert retrain_and_score.name != aretrain_and_score.name


def test_no_parameter_takes_a_key_or_a_block():
    schema = json.dumps(retrain_and_score.parameters.model_dump())
    assert "credentials_block_name" in schema
    assert not [word for word in ("token", "storage_options", "block_type_slug", "writeOnly") if word in schema]


def test_the_flow_retrains_scores_and_publishes(run_flow, tables, token):
    name = f"model.{uuid4().hex}"
    state = run_flow(
        tables.train,
        tables.score,
        tables.target,
        tables.destination,
        task=tables.task,
        config={"n_estimators": 2},
        model_name=name,
        return_state=True,
    )
    result = state.result()
    lineage = PredictionSet.model_validate_json((Path(tables.destination) / "_lineage.json").read_text())
    assert result == {
        "predictions_uri": lineage.uri,
        "lineage_uri": lineage.lineage_uri,
        "fitted_train_set_id": lineage.model.fitted_train_set_id,
        "rows_trained": tables.rows_trained,
        "rows_scored": tables.rows_scored,
    }
    assert pq.read_metadata(lineage.uri).num_rows == tables.rows_scored
    for run, step in ((lineage.model.run, "submit_fit"), (lineage.run, "predict")):
        assert (run.engine, run.run_id) == ("prefect", str(state.state_details.flow_run_id))
        assert step in run.task_id

    (model_event,) = materializations(f"tabpfn://models/{name}")
    assert model_event["payload"]["fitted_train_set_id"] == result["fitted_train_set_id"]
    assert upstream(model_event) == {asset_key(tables.train)}
    (scores_event,) = materializations(asset_key(lineage.uri))
    assert upstream(scores_event) == {asset_key(tables.score), f"tabpfn://models/{name}"}

    slug = name.replace(".", "-").replace("_", "-")
    for kind in ("model", "predictions"):
        artifact = Artifact.get(f"tabpfn-{kind}-{slug}")
        assert artifact is not None
        assert result["fitted_train_set_id"] in artifact.data
        assert str(artifact.flow_run_id) == str(state.state_details.flow_run_id)


def test_redacted_lineage_names_no_column(run_flow, classification, token):
    name = f"redacted.{uuid4().hex}"
    run_flow(
        classification.train,
        classification.score,
        classification.target,
        classification.destination,
        model_name=name,
        redact_labels=True,
    )
    (event,) = materializations(f"tabpfn://models/{name}")
    assert event["payload"]["redacted_fields"] is True
    artifact = Artifact.get(f"tabpfn-model-{name.replace('.', '-').replace('_', '-')}")
    assert artifact is not None
    assert "outcome" not in artifact.data + json.dumps(event["payload"])


def test_urls_with_secrets_are_refused_before_anything_is_sent(run_flow, token, control):
    with pytest.raises(errors.InvalidInputError) as refused:
        run_flow("s3://KEY:SECRET@lake/train.parquet", "https://h/x.parquet?sig=SECRET", "y", "s3://lake/out")
    assert [problem.partition(":")[0] for problem in refused.value.problems] == ["train_url", "score_url"]
    assert "SECRET" not in str(refused.value)
    assert control.journal(account=account_of(token)) == []


def test_a_failed_fit_fails_the_run_after_one_submission(run_flow, classification, token, control):
    control.inject({"kind": "fail_fit", "error": "the label column is constant"})
    state = run_flow(
        classification.train,
        classification.score,
        classification.target,
        classification.destination,
        return_state=True,
    )
    assert state.is_failed()
    with pytest.raises(errors.FitFailedError, match="the label column is constant"):
        state.result()
    assert len(control.fits(account=account_of(token))) == 1
    assert not Path(classification.destination, "_lineage.json").exists()


def test_a_destination_that_cannot_be_written_is_named(run_flow, classification, token, control):
    Path(classification.destination).write_text("a file, not a folder")
    with pytest.raises(errors.DestinationError, match="scores"):
        run_flow(classification.train, classification.score, classification.target, classification.destination)
    assert control.journal(route="/tabpfn/predict", account=account_of(token)) == []
