"""When Prefect may run a task again."""

from typing import Any

from tabpfn_operators.errors import TabPFNError


# Prefect 3.8 never retries at all when the condition is anything else than a plain function.
def retry_unless_terminal(_task: Any, _task_run: Any, state: Any) -> bool:
    """Tell Prefect not to repeat what cannot help; for `retry_condition_fn` of tasks that call TabPFN.

    A wrong key, a failed fit or an unsuitable file fail in the same way again, and a call of which nobody knows whether
    it was carried out may be billed twice. Such errors carry `terminal = True`.

    Args:
        _task: The task, as Prefect passes it.
        _task_run: Its run, as Prefect passes it.
        state: The failed state.

    Returns:
        Whether another attempt may succeed.
    """
    error = getattr(state.data, "result", state.data)
    return not (isinstance(error, TabPFNError) and error.terminal)
