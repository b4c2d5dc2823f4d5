"""Retrain every day on the newest table, then score another one with the fresh model.

Needs a connection `tabpfn_default` of type `tabpfn` with the API key as password. Change the defaults of `params` to
your own tables, or trigger the DAG with a configuration.
"""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Param, dag, task

from airflow_provider_tabpfn.assets import model_asset
from airflow_provider_tabpfn.operators.fit import TabPFNFitOperator
from airflow_provider_tabpfn.operators.predict import TabPFNPredictOperator

MODEL = model_asset("daily")


@dag(
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    params={
        "train_url": Param("s3://lake/churn/train.parquet", type="string", description="Parquet with the target"),
        "score_url": Param("s3://lake/churn/today.parquet", type="string", description="Parquet to predict"),
        "target": Param("churned", type="string", description="Target column"),
        "task": Param("classification", enum=["classification", "regression"]),
        "destination": Param("s3://lake/churn/predictions", type="string", description="Folder for the predictions"),
    },
    tags=["tabpfn"],
    doc_md=__doc__,
)
def retrain_and_score() -> None:
    fit = TabPFNFitOperator(
        task_id="fit",
        name="daily",
        source="{{ params.train_url }}",
        target="{{ params.target }}",
        task="{{ params.task }}",
        config={"n_estimators": 8, "random_state": 0},
        deferrable=True,
        outlets=[MODEL],
    )

    predict = TabPFNPredictOperator(
        task_id="predict",
        model=fit.output,
        source="{{ params.score_url }}",
        destination="{{ params.destination }}",
        deferrable=True,
    )

    @task
    def report(predictions: dict[str, Any]) -> str:
        logging.getLogger(__name__).info(
            "%d rows scored by %s: %s", predictions["rows"], predictions["fitted_train_set_id"], predictions["uri"]
        )
        return predictions["lineage_uri"]

    report(predict.output)


retrain_and_score()
