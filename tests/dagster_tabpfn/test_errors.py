"""What cannot work fails once, says why, and is not retried; what may pass is left to the retry policy."""

import dagster as dg
import pytest

from dagster_tabpfn import TabPFNResource
from dagster_tabpfn._errors import reported
from tabpfn_emulator.testing import account_of
from tabpfn_operators.errors import RateLimitedError, ServerError

POLICY = dg.RetryPolicy(max_retries=2, delay=0)


def facts(failure):
    return {key: value.value for key, value in failure.user_failure_data.metadata.items()}


def retried(result):
    return [event.node_name for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]


def test_a_failed_fit_is_not_fitted_again(build, instance, control, token, failure_of):
    control.inject({"kind": "fail_fit", "error": "Singular matrix.", "error_code": "FIT_BROKE"})

    result = build(fit={"retry_policy": POLICY}).materialize(instance)

    failure, tries = failure_of(result)
    (fit,) = control.fits(account=account_of(token))
    assert tries == 1
    assert "Singular matrix." in failure.user_failure_data.description
    assert facts(failure)["tabpfn/error"] == "FitFailedError"
    assert facts(failure)["tabpfn/error_code"] == "FIT_BROKE"
    assert facts(failure)["tabpfn/fitted_train_set_id"] == fit["fitted_train_set_id"]
    assert not result.asset_materializations_for_node("model")


def test_a_refused_token_is_not_tried_again(build, instance, control, failure_of):
    control.inject({"kind": "status", "status": 401, "times": None})

    failure, tries = failure_of(build(fit={"retry_policy": POLICY}).materialize(instance))

    assert tries == 1
    assert facts(failure)["tabpfn/error"] == "AuthenticationError"
    assert facts(failure)["tabpfn/status"] == 401
    assert "TABPFN_TOKEN" in failure.user_failure_data.description


def test_no_token_at_all(build, instance, monkeypatch, failure_of):
    pipeline = build(resource={"token": None}, fit={"retry_policy": POLICY})
    monkeypatch.delenv("TABPFN_TOKEN")

    failure, tries = failure_of(pipeline.materialize(instance))

    assert tries == 1
    assert facts(failure)["tabpfn/error"] == "ConfigurationError"
    assert "TABPFN_TOKEN" in failure.user_failure_data.description


def test_a_missing_source_is_named(build, instance, tmp_path, failure_of):
    missing = str(tmp_path / "missing.parquet")

    failure, tries = failure_of(build(fit={"source": missing, "retry_policy": POLICY}).materialize(instance))

    assert tries == 1
    assert missing in failure.user_failure_data.description


def test_a_column_that_is_missing_at_prediction_is_named(build, datasets, instance, failure_of):
    other = str(datasets["regression"].score)

    failure, tries = failure_of(build(predict={"source": other, "retry_policy": POLICY}).materialize(instance))

    assert tries == 1
    assert "mean radius" in failure.user_failure_data.description


def test_without_the_job_api_the_way_out_is_named(build, instance, control, failure_of):
    control.configure(async_fit=False)

    failure, tries = failure_of(build(fit={"retry_policy": POLICY}).materialize(instance))

    assert tries == 1
    assert "streamed=True" in failure.user_failure_data.description


def test_a_fit_past_its_deadline_is_named_and_not_repeated(build, instance, control, token, failure_of):
    control.configure(fit_seconds=30, retry_in_secs=0.3)

    failure, tries = failure_of(build(fit={"timeout": 0.5, "retry_policy": POLICY}).materialize(instance))

    (fit,) = control.fits(account=account_of(token))
    assert tries == 1
    assert facts(failure)["tabpfn/fitted_train_set_id"] == fit["fitted_train_set_id"]
    assert fit["fitted_train_set_id"] in failure.user_failure_data.description


def test_passing_trouble_is_left_to_the_retry_policy(build, instance, control):
    control.inject({"kind": "status", "status": 500, "route": "/tabpfn/predict"})

    result = build(predict={"retry_policy": POLICY}).materialize(instance)

    assert result.success
    assert retried(result) == ["scores"]


def test_without_a_retry_policy_passing_trouble_keeps_its_class(build, instance, control, failure_of):
    control.inject({"kind": "status", "status": 500, "route": "/tabpfn/predict"})

    failure, tries = failure_of(build().materialize(instance))

    assert tries == 1
    assert "ServerError" in failure.error.to_string()


def test_a_rate_limit_asks_dagster_to_come_back(instance):
    answers = [RateLimitedError("Slow down.", retry_after=0.01)]

    @dg.asset
    def limited(context: dg.AssetExecutionContext) -> None:
        with reported(context, left_behind=""):
            if answers:
                raise answers.pop()

    result = dg.materialize([limited], instance=instance)

    assert retried(result) == ["limited"]


def test_what_is_billed_is_not_repeated_whatever_went_wrong(instance, failure_of):
    @dg.asset(retry_policy=POLICY)
    def billed(context: dg.AssetExecutionContext) -> None:
        with reported(context, left_behind="The fit f-1 goes on.", fitted_train_set_id="f-1", repeatable=False):
            raise ServerError("Out of order.", status=502, trace_id="t-1")

    failure, tries = failure_of(dg.materialize([billed], instance=instance, raise_on_error=False))

    assert tries == 1
    assert failure.user_failure_data.description.endswith("The fit f-1 goes on.")
    assert facts(failure) == {
        "tabpfn/error": "ServerError",
        "tabpfn/status": 502,
        "tabpfn/trace_id": "t-1",
        "tabpfn/fitted_train_set_id": "f-1",
    }


def test_predictions_need_a_materialized_model(build, instance, failure_of):
    failure, tries = failure_of(build(predict={"retry_policy": POLICY}).materialize(instance, ["scores"]))

    assert tries == 1
    assert "materialize it first" in failure.user_failure_data.description


def test_a_materialization_reported_by_hand_is_no_model(build, instance, failure_of):
    pipeline = build(predict={"retry_policy": POLICY})
    pipeline.materialize(instance, ["model"])
    instance.report_runless_asset_event(dg.AssetMaterialization("model"))

    failure, tries = failure_of(pipeline.materialize(instance, ["scores"]))

    assert tries == 1
    assert "tabpfn/model" in failure.user_failure_data.description


@pytest.mark.parametrize(("node", "name"), [("model", "source"), ("scores", "source"), ("scores", "destination")])
def test_run_config_takes_no_keys(build, instance, failure_of, node, name):
    pipeline = build()
    assert pipeline.materialize(instance, ["model"]).success
    config = {"ops": {node: {"config": {name: "s3://KEY:SECRET@bucket/x.parquet"}}}}

    failure, _ = failure_of(pipeline.materialize(instance, [node], run_config=config))

    assert failure.user_failure_data.description.startswith(f"{name}: ")
    assert "SECRET" not in failure.error.to_string()


def test_another_resource_under_the_key_is_named(build, instance, failure_of):
    pipeline = build()
    pipeline.resources = {"tabpfn": dg.ResourceDefinition.hardcoded_resource("x")}

    failure, _ = failure_of(pipeline.materialize(instance, ["model"]))

    assert "bind a TabPFNResource" in failure.error.to_string()


def test_a_certificate_setting_is_a_switch_or_a_path():
    with pytest.raises(ValueError, match="path of a CA bundle"):
        TabPFNResource(verify=3)
