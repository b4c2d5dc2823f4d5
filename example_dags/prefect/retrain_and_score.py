"""Retrain on the newest table every night and score another one.

    export TABPFN_TOKEN=...                       # or save a block once and pass --credentials-block-name
    python retrain_and_score.py --train-url s3://lake/customers.parquet --score-url s3://lake/today.parquet \\
        --target churned --destination s3://lake/scores/today

With `--serve --cron "0 3 * * *"` the script stays and runs the flow every night with these parameters; Prefect's UI
then has a deployment that can be started by hand with others.
"""

import argparse
from typing import Any, Literal

from prefect import flow, get_run_logger

from prefect_tabpfn import RetrainResult, retrain_and_score


@flow(name="nightly-scoring")
def nightly_scoring(
    train_url: str,
    score_url: str,
    target: str,
    destination: str,
    *,
    task: Literal["classification", "regression"] = "classification",
    credentials_block_name: str | None = None,
) -> RetrainResult:
    result = retrain_and_score(
        train_url,
        score_url,
        target,
        destination,
        task=task,
        model_name="nightly-scoring",
        credentials_block_name=credentials_block_name,
    )
    get_run_logger().info(
        "%d rows scored by %s: %s", result["rows_scored"], result["fitted_train_set_id"], result["predictions_uri"]
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Retrain a TabPFN model and score a table, as a Prefect flow.")
    parser.add_argument("--train-url", required=True, help="Parquet with the target column")
    parser.add_argument("--score-url", required=True, help="Parquet to score")
    parser.add_argument("--target", required=True, help="column to predict")
    parser.add_argument("--destination", required=True, help="folder for predictions.parquet and _lineage.json")
    parser.add_argument("--task", choices=["classification", "regression"], default="classification")
    parser.add_argument("--credentials-block-name", help="saved TabPFNCredentials block; default: the environment")
    parser.add_argument("--serve", action="store_true", help="stay and wait for scheduled and manual runs")
    parser.add_argument("--cron", help="schedule of --serve, for instance '0 3 * * *'")
    options: dict[str, Any] = vars(parser.parse_args())
    serve, cron = options.pop("serve"), options.pop("cron")
    if serve:
        nightly_scoring.serve(name="nightly", cron=cron, parameters=options)
    else:
        nightly_scoring(**options)


if __name__ == "__main__":
    main()
