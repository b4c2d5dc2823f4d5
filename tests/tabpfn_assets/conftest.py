"""Records to start from, and properties that run the same everywhere."""

from datetime import UTC, datetime

import pytest
from hypothesis import settings

from tabpfn_assets import (
    EngineRun,
    Evaluation,
    Feature,
    FitParameters,
    FittedModel,
    PredictionSet,
    SourceRef,
    Thinking,
)

settings.register_profile("tabpfn", derandomize=True, deadline=None)
settings.load_profile("tabpfn")

MOMENT = datetime(2026, 11, 21, 2, 30, tzinfo=UTC)


@pytest.fixture
def model() -> FittedModel:
    """A model whose every field is filled; the words that may be personal start with `personal`."""
    return FittedModel(
        name="churn",
        fitted_train_set_id="8c9a5f0e-1c7a-4a39-9d0b-5a3d9e1f7c11",
        train_set_upload_id="123e4567-e89b-12d3-a456-426614174000",
        status="completed",
        target="personal target",
        features=(
            Feature(name="personal group", dtype="string"),
            Feature(name="personal time", dtype="timestamp[us, tz=UTC]"),
            Feature(name="personal größe.x", dtype="dictionary<values=string, indices=int8, ordered=0>"),
        ),
        classes=("personal no", "personal yes"),
        rows=500,
        source=SourceRef(uris=("s3://bucket/train.parquet",), fingerprint="f" * 64, size_bytes=10_000, rows=500),
        parameters=FitParameters(
            task="classification",
            config={"n_estimators": 4},
            thinking=Thinking(group_col="personal group", group_time_col="personal time"),
        ),
        timings={"elapsed_s": 1.5, "queue_wait_s": None},
        estimated_cost=10_000,
        evaluation=Evaluation(
            fitted_train_set_id="8c9a5f0e-1c7a-4a39-9d0b-5a3d9e1f7c11",
            task="classification",
            target="personal target",
            headline="accuracy",
            metrics={"accuracy": 0.97},
            baseline={"accuracy": 0.6},
            rows=50,
            rows_scored=50,
            rows_evaluated=50,
            seed=0,
            classes=("personal no", "personal yes"),
            confusion=((30, 1), (0, 19)),
            notes=("no row of class 'personal maybe'",),
            created_at=MOMENT,
        ),
        run=EngineRun(engine="airflow", engine_version="3.3.2", run_id="manual__1", task_id="fit"),
        packages={"tabpfn-providers": "0.1.0"},
        parent_id="aaaaaaaa-0000-0000-0000-000000000000",
        created_at=MOMENT,
    )


@pytest.fixture
def predictions(model: FittedModel) -> PredictionSet:
    """What stands beside the predictions of that model."""
    return PredictionSet(
        uri="s3://bucket/scores/predictions.parquet",
        lineage_uri="s3://bucket/scores/_lineage.json",
        rows=50,
        columns=("prediction", "probability_personal no", "probability_personal yes"),
        output_type="probas",
        source=SourceRef(uris=("s3://bucket/score.parquet",), rows=50),
        test_set_upload_id="bbbbbbbb-0000-0000-0000-000000000000",
        model=model,
        metadata={"execution_mode": "standard", "classes": ["personal no", "personal yes"]},
        created_at=MOMENT,
    )
