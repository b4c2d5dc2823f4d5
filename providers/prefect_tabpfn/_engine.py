"""What Prefect knows about the run that is going on."""

import prefect
from prefect.context import FlowRunContext, TaskRunContext
from prefect.utilities.urls import url_for

from tabpfn_assets import EngineRun


def current_run() -> EngineRun:
    """Return the flow run and the task of this call, for lineage; fields are None outside a run."""
    task_context = TaskRunContext.get()
    flow_context = FlowRunContext.get()
    flow_run = flow_context.flow_run if flow_context else None
    flow_run_id = flow_run.id if flow_run else None
    return EngineRun(
        engine="prefect",
        engine_version=prefect.__version__,
        run_id=str(flow_run_id) if flow_run_id else None,
        task_id=task_context.task_run.task_key if task_context else None,
        url=url_for("flow-run", obj_id=flow_run_id) if flow_run_id else None,
        code_version=(flow_run.deployment_version or flow_run.flow_version) if flow_run else None,
    )
