"""Who ran it."""

from tabpfn_assets._record import Record


class EngineRun(Record):
    """The engine run that made an asset, so that a person can find it again.

    Args:
        engine: `airflow`, `prefect`, `dagster` or `python`.
        engine_version: The engine's version.
        run_id: The engine's own id of the run.
        task_id: The task, step or asset inside the run.
        url: Where the engine's interface shows the run, without query.
        code_version: What the engine calls the version of the user's code.
    """

    engine: str
    engine_version: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    url: str | None = None
    code_version: str | None = None
