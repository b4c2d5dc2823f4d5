"""The JSON of every record, byte for byte: other versions, engines and people read it.

`tests/contracts/records/<Record>.<schema>.json` is what this version writes, and what every later one must read.
"""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import BaseModel

import tabpfn_assets
from tabpfn_assets import (
    Check,
    Comparison,
    Decision,
    EngineRun,
    Evaluation,
    Feature,
    FitParameters,
    FitStatus,
    FittedModel,
    Interval,
    JobRecord,
    PartFile,
    PredictionSet,
    Resend,
    ScoredShard,
    ScoringManifest,
    ScoringPlan,
    SourceRef,
    TestSet,
    Thinking,
    TrainSet,
)

FOLDER = Path(__file__).parents[1] / "contracts" / "records"
ADVICE = """
{path} is what versions in use have written, and what they read.
- A new optional field: add it to the example in this test and to that file; older versions keep what they do not know.
- Anything else (a field renamed, removed, required, or with another type, form or meaning): raise `schema_version`,
  keep that file as one that is still read, and give the new form a file of its own number.
Then run `python .ci/schemas.py`.
"""
MODEL_ID = "8c9a5f0e-1c7a-4a39-9d0b-5a3d9e1f7c11"
CHAMPION_ID = "aaaaaaaa-0000-4000-8000-000000000000"
UPLOAD_ID = "123e4567-e89b-12d3-a456-426614174000"
NOON = datetime(2026, 11, 21, 12, 0, 0, 250_000, tzinfo=UTC)
SOURCE = SourceRef(
    uris=("s3://lake/train/a.parquet", "s3://lake/train/b.parquet"),
    fingerprint="5" * 64,
    size_bytes=10_000,
    rows=500,
    refined=True,
)
RUN = EngineRun(
    engine="airflow",
    engine_version="3.3.2",
    run_id="manual__2026-11-21",
    task_id="fit",
    url="https://airflow.example/dags/churn/runs/manual__2026-11-21",
    code_version="4f2d1c9",
)
FEATURES = (
    Feature(name="age", dtype="int64"),
    Feature(name="größe", dtype="dictionary<values=string, indices=int8, ordered=0>"),
    Feature(name="at", dtype="timestamp[us, tz=UTC]"),
)
EVALUATION = Evaluation(
    fitted_train_set_id=MODEL_ID,
    task="classification",
    target="churned",
    headline="log_loss",
    metrics={"accuracy": 0.97, "log_loss": 0.1},
    interval=Interval(low=0.08, high=0.12, level=0.9, resamples=1000),
    baseline={"accuracy": 0.6, "log_loss": 0.67},
    comparison=Comparison(
        fitted_train_set_id=CHAMPION_ID,
        metrics={"accuracy": 0.96, "log_loss": 0.12},
        improvement=0.02,
        interval=Interval(low=0.01, high=0.03, level=0.9, resamples=1000),
    ),
    rows=60,
    rows_scored=50,
    rows_evaluated=50,
    seed=7,
    classes=("no", "yes"),
    confusion=((30, 1), (0, 19)),
    curves={"reliability": ((0.25, 0.2, 10.0), (0.75, 0.8, 40.0))},
    latency=1.5,
    charged=2_000,
    notes=("10 rows were left out of the sample",),
    holdout=SOURCE,
    created_at=NOON,
)
MODEL = FittedModel(
    name="churn",
    fitted_train_set_id=MODEL_ID,
    train_set_upload_id=UPLOAD_ID,
    status="completed",
    target="churned",
    features=FEATURES,
    classes=("no", "yes"),
    rows=500,
    source=SOURCE,
    fingerprint="f" * 64,
    parameters=FitParameters(
        task="classification",
        config={"n_estimators": 4, "softmax_temperature": 0.9, "inference_config": {"SUBSAMPLE_SAMPLES": 100}},
        systems=("preprocessing", "text", "thinking"),
        text_handling="simple",
        thinking=Thinking(effort="high", timeout_secs=600.0, metric="log_loss", group_col="größe", group_time_col="at"),
    ),
    timings={"elapsed_s": 1.5, "queue_wait_s": None},
    estimated_cost=10_000,
    charged=9_500,
    possible_orphans=1,
    evaluation=EVALUATION,
    api_url="https://api.priorlabs.ai",
    account="team-a",
    run=RUN,
    packages={"tabpfn-providers": "0.1.0"},
    parent_id=CHAMPION_ID,
    created_at=NOON,
)
TRAIN_SET = TrainSet(
    train_set_upload_id=UPLOAD_ID,
    task="regression",
    target="price",
    features=FEATURES,
    classes=(1, 2),
    rows=500,
    source=SOURCE,
    bytes_sent=9_000,
    duplicate=True,
)
SCORING_PLAN = ScoringPlan(
    plan_id="0123456789abcdef" * 2,
    fitted_train_set_id=MODEL_ID,
    source=SOURCE,
    output_type="quantiles",
    quantiles=(0.1, 0.9),
    keep=("customer_id", "day"),
    wide=False,
    partition_by=("day",),
    rows=500,
    shards=3,
    rows_per_shard=200,
    spliced=1,
    bytes_to_send=9_000,
    estimated_cost=30_000,
)
SCORED_SHARD = ScoredShard(
    index=0,
    start=0,
    rows=500,
    files=(
        PartFile(name="day=6/part-01234567-00000-111111111111.parquet", rows=300, size_bytes=3_000, sha256="1" * 64),
        PartFile(name="day=7/part-01234567-00000-222222222222.parquet", rows=200, size_bytes=2_000, sha256="2" * 64),
    ),
    test_set_upload_id="bbbbbbbb-0000-4000-8000-000000000000",
    estimated_cost=10_000,
    resends=1,
    timings={"predict_s": 0.5, "queue_wait_s": None},
    metadata={"execution_mode": "thinking", "n_estimators": 4},
    scored_at=NOON,
)
EXAMPLES = {
    "FittedModel.1": MODEL,
    "Evaluation.1": EVALUATION,
    "Decision.1": Decision(
        promote=False,
        candidate_id=MODEL_ID,
        champion_id=CHAMPION_ID,
        headline="log_loss",
        checks=(Check(rule="min_improvement", passed=False, actual=0.02, required=0.05, reason="0.02 is under 0.05"),),
        decided_at=NOON,
    ),
    "PredictionSet.1": PredictionSet(
        uri="s3://lake/scores/predictions.parquet",
        lineage_uri="s3://lake/scores/_lineage.json",
        rows=50,
        columns=("prediction", "probability_no", "probability_yes"),
        output_type="probas",
        quantiles=(0.1, 0.9),
        source=SOURCE,
        test_set_upload_id="bbbbbbbb-0000-4000-8000-000000000000",
        model=MODEL,
        metadata={"execution_mode": "thinking", "n_estimators": 4},
        timings={"predict_s": 0.5},
        estimated_cost=2_500,
        charged=2_000,
        plan_id="0123456789abcdef0123456789abcdef",
        manifest_uri="s3://lake/scores/_manifest.json",
        shards=2,
        resends=1,
        run=RUN,
        packages={"tabpfn-providers": "0.1.0"},
        created_at=NOON,
    ).redacted(),
    "ScoringManifest.1": ScoringManifest(
        plan=SCORING_PLAN.model_copy(update={"shards": 1, "estimated_cost": 10_000}),
        columns=("customer_id", "prediction", "probabilities"),
        shards=(SCORED_SHARD,),
        rows=500,
        estimated_cost=10_000,
        charged=19_500,
        resends=(Resend(shard=0, estimated_cost=10_000),),
        started_at=NOON,
        finished_at=NOON,
    ),
    "ScoringPlan.1": SCORING_PLAN,
    "JobRecord.1": JobRecord(
        kind="tabpfn_async",
        phase="submitted",
        job_id=MODEL_ID,
        fingerprint="f" * 64,
        generation=2,
        owner="worker-1:4711:9e",
        lease_expires_at=1_795_262_430.5,
        submitted_at=1_795_262_400.25,
        deadline_at=1_795_266_000.0,
        delivered=True,
        resubmissions=1,
        error="out of memory",
        error_code="FIT_FAILED",
        usage={"current_usage": 1_000, "usage_limit": -1},
        delivered_at=1_795_262_500.0,
        superseded=(JobRecord(kind="tabpfn_stream", phase="intent", fingerprint="e" * 64, owner="worker-0:1:a"),),
        train_set=TRAIN_SET,
        model=MODEL.model_copy(
            update={
                "status": "pending",
                "evaluation": None,
                "parameters": FitParameters(task="regression", thinking=Thinking(time_col="at")),
            }
        ),
    ),
    "TestSet.1": TestSet(
        test_set_upload_id="bbbbbbbb-0000-4000-8000-000000000000",
        fitted_train_set_id=MODEL_ID,
        rows=50,
        source=SOURCE,
        bytes_sent=900,
        duplicate=True,
    ),
    "FitStatus.1": FitStatus(
        fitted_train_set_id=MODEL_ID,
        status="pending",
        retry_in_secs=2.5,
        error="out of memory",
        error_code="FIT_FAILED",
        timings={"elapsed_s": 1.5, "queue_wait_s": None},
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_json_of_a_record_is_that_of_its_schema_version(name):
    path = FOLDER / f"{name}.json"
    written = EXAMPLES[name].model_dump_json(indent=2) + "\n"
    assert written == path.read_text(encoding="utf-8"), ADVICE.format(path=path.name)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_golden_record_is_read_and_written_back(name):
    text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    record = type(EXAMPLES[name]).model_validate_json(text)
    assert record == EXAMPLES[name], ADVICE.format(path=f"{name}.json")
    assert record.model_dump_json(indent=2) + "\n" == text


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_what_was_ever_written_is_still_read(path):
    kind = getattr(tabpfn_assets, path.stem.partition(".")[0])
    assert isinstance(kind.model_validate_json(path.read_bytes()), kind)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_file_has_the_number_of_its_schema(name):
    assert name.rpartition(".")[2] == str(getattr(EXAMPLES[name], "schema_version", 1))


def filled(value):
    """Yield (class, field) for each field that an example gives a value other than its default."""
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            given = getattr(value, name)
            if field.is_required() or given != field.default:
                yield type(value), name
            yield from filled(given)
    elif isinstance(value, tuple):
        for each in value:
            yield from filled(each)


def test_the_examples_show_every_field_of_every_record():
    exported = [getattr(tabpfn_assets, name) for name in tabpfn_assets.__all__]
    kinds = [each for each in exported if isinstance(each, type) and issubclass(each, BaseModel)]
    fields = {(kind, name) for kind in kinds for name in kind.model_fields if name != "schema_version"}
    shown = {pair for example in EXAMPLES.values() for pair in filled(example)}
    assert sorted(f"{kind.__name__}.{name}" for kind, name in fields - shown) == []
