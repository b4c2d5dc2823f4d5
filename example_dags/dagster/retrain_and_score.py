"""Retrain on the newest table every night and score another one, as Dagster assets.

    export TABPFN_TOKEN=... TRAIN_URL=s3://lake/customers.parquet SCORE_URL=s3://lake/today.parquet
    export TARGET=churned PREDICTIONS_URL=s3://lake/scores/today
    dagster dev -f retrain_and_score.py

`customers` and `to_score` stand for tables that someone else writes. Materialize `churn_model` to retrain, and
`churn_scores` to score with the newest model; the job does both, every night.
"""

import os

import dagster as dg

from dagster_tabpfn import TabPFNResource, build_tabpfn_fitted_model_asset, build_tabpfn_predictions_asset
from tabpfn_assets import FitParameters

TRAIN_URL = os.environ.get("TRAIN_URL", "data/customers.parquet")
SCORE_URL = os.environ.get("SCORE_URL", "data/today.parquet")

retry_policy = dg.RetryPolicy(max_retries=3, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)

customers = dg.AssetSpec("customers", kinds={"parquet"}, description="Rows with a known outcome")
to_score = dg.AssetSpec("to_score", kinds={"parquet"}, description="Rows to predict")

churn_model = build_tabpfn_fitted_model_asset(
    "churn_model",
    source=TRAIN_URL,
    target=os.environ.get("TARGET", "churned"),
    parameters=FitParameters.model_validate({"task": os.environ.get("TASK", "classification")}),
    deps=[customers],
    model_name="churn",
    group_name="churn",
    pool="tabpfn",
    retry_policy=retry_policy,
)

churn_scores = build_tabpfn_predictions_asset(
    "churn_scores",
    fitted_model=churn_model,
    source=SCORE_URL,
    destination=os.environ.get("PREDICTIONS_URL", "data/scores"),
    deps=[to_score],
    group_name="churn",
    pool="tabpfn",
    retry_policy=retry_policy,
)

retrain_and_score = dg.define_asset_job("retrain_and_score", selection=[churn_model, churn_scores])

defs = dg.Definitions(
    assets=[customers, to_score, churn_model, churn_scores],
    jobs=[retrain_and_score],
    schedules=[dg.ScheduleDefinition(job=retrain_and_score, cron_schedule="0 3 * * *")],
    resources={"tabpfn": TabPFNResource(token=dg.EnvVar("TABPFN_TOKEN"))},
)
