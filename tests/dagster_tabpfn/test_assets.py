"""The two assets against the emulator: what they leave on storage and in Dagster."""

import json
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from dagster_tabpfn import fitted_model_result, materialized_model, predictions_result
from tabpfn_assets import FitParameters, FittedModel, PredictionSet


def materialization(result, name):
    (event,) = result.asset_materializations_for_node(name)
    return event


def values(result, name):
    return {key: value.value for key, value in materialization(result, name).metadata.items()}


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_one_run_fits_and_scores(build, datasets, stored_instance, task):
    data, pipeline = datasets[task], build(task)

    result = pipeline.materialize(stored_instance)

    assert result.success
    table = pq.read_table(Path(pipeline.destination) / "predictions.parquet")
    lineage = PredictionSet.model_validate_json((Path(pipeline.destination) / "_lineage.json").read_text())
    assert table.num_rows == len(data.truth)
    fitted, scored = values(result, "model"), values(result, "scores")
    assert fitted["tabpfn/fitted_train_set_id"] == lineage.model.fitted_train_set_id
    assert scored["tabpfn/fitted_train_set_id"] == lineage.model.fitted_train_set_id
    assert fitted["dagster/row_count"] == len(data.seen)
    assert scored["dagster/row_count"] == len(data.truth)
    assert fitted["dagster/uri"] == str(data.train)
    assert scored["dagster/uri"] == str(Path(pipeline.destination) / "predictions.parquet")
    assert Path(scored["tabpfn/lineage_uri"]).name == "_lineage.json"
    assert [column.name for column in scored["dagster/column_schema"].columns] == table.column_names
    assert fitted["tabpfn/target"] == data.target
    assert fitted["tabpfn/task"] == task


def test_the_fitted_model_tells_its_features_and_labels(build, datasets, instance):
    data = datasets["classification"]
    columns = pq.read_schema(data.train).names

    fitted = values(build().materialize(instance, ["model"]), "model")

    roles = {column.name: column.tags["role"] for column in fitted["dagster/column_schema"].columns}
    assert roles == {name: "target" if name == data.target else "feature" for name in columns}
    assert fitted["tabpfn/features"] == [name for name in columns if name != data.target]
    assert fitted["tabpfn/feature_count"] == len(columns) - 1
    assert fitted["tabpfn/class_labels"] == ["benign", "malignant"]
    types = {column.name: column.type for column in fitted["dagster/column_schema"].columns}
    assert types[data.target] == "string"


def test_a_regression_has_no_labels(build, instance):
    fitted = values(build("regression").materialize(instance, ["model"]), "model")

    assert "tabpfn/class_labels" not in fitted


def test_the_data_version_is_the_fitted_id(build, instance):
    result = build().materialize(instance)

    fitted_id = values(result, "model")["tabpfn/fitted_train_set_id"]
    assert materialization(result, "model").tags["dagster/data_version"] == fitted_id
    assert materialization(result, "scores").tags["dagster/input_data_version/model"] == fitted_id


def test_the_record_names_the_run_and_the_code(build, instance):
    result = build(fit={"code_version": "7", "model_name": "diagnoses"}).materialize(instance, ["model"])

    model = FittedModel.model_validate(values(result, "model")["tabpfn/model"])
    assert model.name == "diagnoses"
    assert model.run.model_dump(exclude_none=True) == {
        "engine": "dagster",
        "engine_version": dg.__version__,
        "run_id": result.run_id,
        "task_id": "model",
        "code_version": "7",
    }


def test_nothing_is_pickled(build, stored_instance):
    build().materialize(stored_instance)

    stored = [path for path in Path(stored_instance.root_directory, "storage").rglob("*") if path.is_file()]
    assert not [path for path in stored if "compute_logs" not in path.parts]


def test_a_later_run_scores_with_the_model_of_an_earlier_one(build, stored_instance):
    pipeline = build()
    fitted = values(pipeline.materialize(stored_instance, ["model"]), "model")

    scored = values(pipeline.materialize(stored_instance, ["scores"]), "scores")

    assert scored["tabpfn/fitted_train_set_id"] == fitted["tabpfn/fitted_train_set_id"]


def test_a_later_run_takes_the_newest_model(build, instance):
    pipeline = build()
    ids = [values(pipeline.materialize(instance, ["model"]), "model")["tabpfn/fitted_train_set_id"] for _ in range(2)]

    scored = values(pipeline.materialize(instance, ["scores"]), "scores")

    assert ids[0] != ids[1]
    assert scored["tabpfn/fitted_train_set_id"] == ids[1]


def test_a_run_keeps_to_the_model_that_it_fitted(build, instance):
    pipeline = build(predict={"deps": ["another_run"]})
    other = materialization(pipeline.materialize(instance, ["model"]), "model")

    @dg.asset(deps=[pipeline.model])
    def another_run(context: dg.AssetExecutionContext) -> None:
        context.instance.report_runless_asset_event(dg.AssetMaterialization("model", metadata=other.metadata))

    result = dg.materialize(
        [pipeline.model, another_run, pipeline.scores], instance=instance, resources=pipeline.resources
    )

    scored = values(result, "scores")["tabpfn/fitted_train_set_id"]
    assert scored == values(result, "model")["tabpfn/fitted_train_set_id"]
    assert scored != other.metadata["tabpfn/fitted_train_set_id"].value


def test_a_run_may_name_other_places(build, datasets, instance, tmp_path):
    pipeline = build(
        fit={"source": "/nowhere/train.parquet"},
        predict={"source": "/nowhere/score.parquet", "destination": "/nowhere"},
    )
    data, elsewhere = datasets["classification"], tmp_path / "elsewhere"
    config = {
        "model": {"config": {"source": str(data.train)}},
        "scores": {"config": {"source": str(data.score), "destination": str(elsewhere)}},
    }

    result = pipeline.materialize(instance, run_config={"ops": config})

    assert result.success
    assert (elsewhere / "_lineage.json").is_file()


def test_the_streamed_form_works_without_the_job_api(build, instance, control):
    control.configure(async_fit=False)

    result = build(fit={"streamed": True}).materialize(instance)

    assert result.success
    assert values(result, "model")["tabpfn/model"]["status"] == "completed"


def test_quantiles_and_redaction_reach_the_predictions(build, instance):
    predict = {"output_type": "quantiles", "quantiles": [0.1, 0.9], "redact_labels": True}
    pipeline = build("regression", predict=predict)

    result = pipeline.materialize(instance)

    assert [c.name for c in values(result, "scores")["dagster/column_schema"].columns] == [
        "quantile_0.1",
        "quantile_0.9",
    ]
    record = json.loads((Path(pipeline.destination) / "_lineage.json").read_text())
    assert record["model"]["redacted_fields"] is True


def test_storage_options_may_be_environment_variables(build, datasets, instance, monkeypatch):
    import fsspec

    data = datasets["regression"]
    seen = {}

    class Vault(fsspec.get_filesystem_class("file")):
        protocol = "vault"
        cachable = False

        def __init__(self, **options):
            seen.update(options)
            super().__init__()

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(path.removeprefix("vault://"))

    monkeypatch.setenv("VAULT_KEY", "k-123")
    fsspec.register_implementation("vault", Vault, clobber=True)
    options = {"key": dg.EnvVar("VAULT_KEY"), "client": {"region": "eu"}}

    result = build("regression", fit={"source": f"vault://{data.train}", "storage_options": options}).materialize(
        instance, ["model"]
    )

    assert result.success
    assert (seen["key"], seen["client"]) == ("k-123", {"region": "eu"})
    assert "k-123" not in json.dumps(values(result, "model")["tabpfn/model"])


def test_assets_and_ops_by_hand(build, datasets, instance, tmp_path):
    data, resources = datasets["classification"], build().resources

    @dg.multi_asset(
        specs=[dg.AssetSpec(["lab", "model"]), dg.AssetSpec(["lab", "note"])], required_resource_keys={"tabpfn"}
    )
    def train(context: dg.AssetExecutionContext):
        model = context.resources.tabpfn.fit(
            context, str(data.train), data.target, parameters=FitParameters(task="classification")
        )
        yield fitted_model_result(model, asset_key=dg.AssetKey(["lab", "model"]))
        yield dg.MaterializeResult(asset_key=dg.AssetKey(["lab", "note"]))

    @dg.op(required_resource_keys={"tabpfn"}, out={})
    def score(context: dg.OpExecutionContext):
        model = materialized_model(context, dg.AssetKey(["lab", "model"]))
        scored = context.resources.tabpfn.predict(context, model, str(data.score), str(tmp_path / "by_hand"))
        context.log_event(dg.AssetMaterialization("by_hand", metadata=predictions_result(scored).metadata))

    @dg.job(resource_defs=resources)
    def scoring():
        score()

    fitted = dg.materialize([train], instance=instance, resources=resources)
    scored = scoring.execute_in_process(instance=instance)

    assert scored.success
    record = PredictionSet.model_validate_json((tmp_path / "by_hand" / "_lineage.json").read_text())
    assert record.run.task_id == "score"
    assert record.model.run.task_id == "lab/model,lab/note"
    assert record.model.run.run_id == fitted.run_id
