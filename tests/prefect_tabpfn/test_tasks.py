"""The four steps and their twins, against the emulator and a real Prefect server."""

import asyncio
import inspect
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

import prefect_tabpfn
from prefect_tabpfn import TabPFNCredentials, retry_unless_terminal
from tabpfn_assets import FitParameters, FittedModel, PredictionSet
from tabpfn_emulator.testing import account_of
from tabpfn_operators import errors

TWINS = {
    "upload_train_set": "aupload_train_set",
    "submit_fit": "asubmit_fit",
    "wait_for_fit": "await_for_fit",
    "predict": "apredict",
}


class Steps:
    """The tasks under their synchronous names, whichever of the twins runs."""

    def __init__(self, run_async: Callable[..., Any] | None) -> None:
        self.run_async = run_async

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if self.run_async is None:
            return getattr(prefect_tabpfn, name)
        return partial(self.run_async, getattr(prefect_tabpfn, TWINS[name]))


@pytest.fixture(params=["sync", "async"])
def steps(request, run_async) -> Steps:
    return Steps(run_async if request.param == "async" else None)


@pytest.mark.parametrize(("name", "twin"), TWINS.items())
def test_twins_differ_in_nothing_but_await(name, twin):
    one, other = getattr(prefect_tabpfn, name), getattr(prefect_tabpfn, twin)
    assert not one.isasync
    assert other.isasync
    assert inspect.signature(one.fn) == inspect.signature(other.fn)
    assert other.name == f"{one.name} (async)"
    for option in ("retries", "retry_delay_seconds", "cache_policy", "retry_condition_fn", "persist_result"):
        assert getattr(one, option) == getattr(other, option), option
    assert one.retry_condition_fn is retry_unless_terminal
    assert one.cache_policy == NO_CACHE


def test_the_steps_make_predictions(steps, tables, token):
    train_set = steps.upload_train_set(tables.train, tables.target, task=tables.task)
    assert (train_set.rows, train_set.duplicate) == (tables.rows_trained, False)
    assert steps.upload_train_set(tables.train, tables.target, task=tables.task).duplicate
    pending = steps.submit_fit(train_set, name="steps")
    assert pending.status == "pending"
    assert pending.run.engine == "prefect"
    fitted = steps.wait_for_fit(pending, timeout=60)
    assert fitted.status == "completed"
    assert (fitted.name, fitted.task) == ("steps", tables.task)
    scored = steps.predict(fitted, tables.score, tables.destination)
    assert scored.rows == tables.rows_scored
    written = pq.read_table(Path(tables.destination) / "predictions.parquet")
    assert written.num_rows == tables.rows_scored
    assert written.column_names == list(scored.columns)


def test_steps_take_the_json_form_of_records(steps, classification, token):
    def plain(record) -> dict:
        return json.loads(record.model_dump_json())

    train_set = plain(steps.upload_train_set(classification.train, classification.target))
    parameters = {"task": "classification", "config": {"n_estimators": 2}}
    pending = plain(steps.submit_fit(train_set, parameters=parameters))
    fitted = plain(steps.wait_for_fit(pending))
    scored = steps.predict(fitted, classification.score, classification.destination, output_type="preds")
    assert scored.model.parameters == FitParameters.model_validate(parameters)
    assert scored.columns == ("prediction",)


def test_steps_take_a_block_or_its_name(steps, classification, emulator, keys, control):
    named, given = keys.pop(), keys.pop()
    TabPFNCredentials(token=named, base_url=emulator).save("steps-block", overwrite=True)
    block = TabPFNCredentials(token=given, base_url=emulator)
    for credentials, key in (("steps-block", named), (block, given)):
        train_set = steps.upload_train_set(classification.train, classification.target, credentials=credentials)
        pending = steps.submit_fit(train_set, credentials=credentials)
        fitted = steps.wait_for_fit(pending, credentials=credentials)
        steps.predict(fitted, classification.score, classification.destination, credentials=credentials)
        fits = control.fits(account=account_of(key))
        assert [fit["fitted_train_set_id"] for fit in fits] == [fitted.fitted_train_set_id]


def test_a_block_name_that_nobody_saved_is_named(steps, classification):
    with pytest.raises(errors.ConfigurationError, match=r"no-such-block.*credentials"):
        steps.upload_train_set(classification.train, classification.target, credentials="no-such-block")


def test_options_of_storages_reach_them_and_no_record(steps, classification, token):
    options = {"auto_mkdir": True}
    train_set = steps.upload_train_set(
        f"file://{classification.train}", classification.target, exclude=["other"], storage_options=options
    )
    assert [feature.name for feature in train_set.features] == ["x"]
    fitted = steps.wait_for_fit(steps.submit_fit(train_set))
    scored = steps.predict(
        fitted,
        f"file://{classification.score}",
        f"file://{classification.destination}",
        storage_options=options,
        destination_options=options,
        redact_labels=True,
    )
    assert "auto_mkdir" not in scored.model_dump_json()
    lineage = json.loads((Path(classification.destination) / "_lineage.json").read_text())
    assert lineage["model"]["redacted_fields"] is True


def test_a_failed_fit_says_why_and_keeps_its_id(steps, classification, token, control):
    control.inject({"kind": "fail_fit", "error": "the label column is constant"})
    pending = steps.submit_fit(steps.upload_train_set(classification.train, classification.target))
    with pytest.raises(errors.FitFailedError, match="the label column is constant") as failed:
        steps.wait_for_fit(pending)
    assert failed.value.fitted_train_set_id == pending.fitted_train_set_id


def test_a_fit_that_outlasts_the_timeout_is_not_lost(steps, classification, token, control):
    control.configure(fit_seconds=1.5, retry_in_secs=0.3)
    pending = steps.submit_fit(steps.upload_train_set(classification.train, classification.target))
    with pytest.raises(errors.FitTimeoutError) as late:
        steps.wait_for_fit(pending, timeout=0.1)
    assert late.value.fitted_train_set_id == pending.fitted_train_set_id
    assert steps.wait_for_fit(pending, timeout=60).status == "completed"


def test_input_that_cannot_be_used_is_named(steps, classification, token, control):
    with pytest.raises(errors.InvalidInputError, match="no_such_column"):
        steps.upload_train_set(classification.train, "no_such_column")
    with pytest.raises(errors.TabPFNError, match=r"missing\.parquet"):
        steps.upload_train_set(f"{classification.train}.missing.parquet", classification.target)
    assert control.journal(route="/tabpfn/prepare_train_set_upload", account=account_of(token)) == []


def outcomes(*results):
    """A task with our retry condition that meets the given results one after the other."""
    left = list(results)

    @task(retries=3, retry_delay_seconds=0, retry_condition_fn=retry_unless_terminal, cache_policy=NO_CACHE)
    def step():
        result = left.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    return step, left


@pytest.mark.parametrize("persist", [False, True])
def test_prefect_repeats_what_may_pass_and_nothing_else(persist):
    passing = (errors.SourceChangedError("changed"), errors.ConnectionFailedError("no answer"), OSError("disk"))
    step, left = outcomes(*passing, "done")
    assert step.with_options(persist_result=persist)() == "done"
    assert left == []

    step, left = outcomes(errors.FitFailedError("constant", fitted_train_set_id="f"), "never")
    with pytest.raises(errors.FitFailedError):
        step.with_options(persist_result=persist)()
    assert left == ["never"]


def test_a_wrong_key_is_refused_once_and_not_shown(steps, classification, emulator, control, monkeypatch, caplog):
    monkeypatch.setenv("TABPFN_API_URL", emulator)
    monkeypatch.setenv("TABPFN_TOKEN", "wrong-key-7d1f")
    before = max((row["seq"] for row in control.journal()), default=0)
    with pytest.raises(errors.AuthenticationError, match="TABPFN_TOKEN") as refused:
        steps.upload_train_set(classification.train, classification.target)
    assert [row["status"] for row in control.journal(after=before)] == [401]
    assert "wrong-key-7d1f" not in str(refused.value) + caplog.text


def test_many_waits_share_one_loop(classification, token, control, run_async):
    control.configure(fit_seconds=1.0, retry_in_secs=0.3)

    @flow
    async def many() -> list[FittedModel]:
        train_set = await prefect_tabpfn.aupload_train_set(classification.train, classification.target)
        pending = [await prefect_tabpfn.asubmit_fit(train_set, name=f"model-{n}") for n in range(4)]
        return await asyncio.gather(*[prefect_tabpfn.await_for_fit(model) for model in pending])

    models = run_async(many)
    assert [model.name for model in models] == [f"model-{n}" for n in range(4)]
    assert {model.status for model in models} == {"completed"}
    assert len({model.fitted_train_set_id for model in models}) == 4


def test_a_future_carries_a_record_from_task_to_task(classification, token):
    @flow
    def futures() -> PredictionSet:
        train_set = prefect_tabpfn.upload_train_set.submit(classification.train, classification.target)
        pending = prefect_tabpfn.submit_fit.submit(train_set)
        fitted = prefect_tabpfn.wait_for_fit.submit(pending)
        return prefect_tabpfn.predict.submit(fitted, classification.score, classification.destination).result()

    assert futures().rows == classification.rows_scored
