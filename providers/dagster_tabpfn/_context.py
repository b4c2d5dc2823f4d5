"""What a Dagster context says about the run."""

import dagster as dg

from tabpfn_assets import EngineRun

AnyContext = dg.AssetExecutionContext | dg.OpExecutionContext


def engine_run(context: AnyContext) -> EngineRun:
    """Describe the running step for lineage records.

    Args:
        context: Context of the asset or op.

    Returns:
        Dagster's version, the run's id, and the asset keys (for an op: its handle) with their code version.
    """
    step = context.op_execution_context
    if not step.has_assets_def:
        return EngineRun(
            engine="dagster", engine_version=dg.__version__, run_id=context.run.run_id, task_id=str(step.op_handle)
        )
    keys = sorted(step.selected_asset_keys, key=dg.AssetKey.to_user_string)
    versions = step.assets_def.code_versions_by_key
    return EngineRun(
        engine="dagster",
        engine_version=dg.__version__,
        run_id=context.run.run_id,
        task_id=",".join(key.to_user_string() for key in keys),
        code_version=versions.get(keys[0]) if len(keys) == 1 else None,
    )


def terminated_by_a_person(context: AnyContext) -> bool:
    """Whether the run is being terminated on request, not merely evicted from its machine.

    The instance tells them apart: a run is CANCELING after Terminate (and past `dagster/max_runtime`), and still
    STARTED when only its process was told to end (measured, Dagster 1.13.27).
    """
    run = context.instance.get_run_by_id(context.run.run_id)
    return run is not None and run.status is dg.DagsterRunStatus.CANCELING
