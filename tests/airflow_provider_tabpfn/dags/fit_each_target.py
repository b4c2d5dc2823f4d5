"""A DAG for the tests: one mapped, deferred fit for each target, and a prediction with each model."""

from datetime import UTC, datetime

from airflow.sdk import Param, dag, task

from airflow_provider_tabpfn.operators.fit import TabPFNFitOperator
from airflow_provider_tabpfn.operators.predict import TabPFNPredictOperator


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    params={"train_url": Param(""), "destination": Param("")},
)
def fit_each_target():
    @task
    def targets():
        return ["label", "half"]

    fits = TabPFNFitOperator.partial(
        task_id="fit",
        source="{{ params.train_url }}",
        task="classification",
        config={"n_estimators": 1},
        deferrable=True,
    ).expand(target=targets())

    TabPFNPredictOperator.partial(
        task_id="predict",
        source="{{ params.train_url }}",
        destination="{{ params.destination }}/{{ ti.map_index }}",
    ).expand(model=fits.output)


fit_each_target()
