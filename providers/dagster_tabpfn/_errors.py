"""How errors and interrupts of a step reach Dagster."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from dagster_tabpfn._context import AnyContext, terminated_by_a_person
from tabpfn_operators.errors import RateLimitedError, TabPFNError

#: How often a step asks Dagster to run it again after the server asked to wait; each try frees the pool slot.
RATE_LIMIT_RETRIES = 3


@contextmanager
def reported(
    context: AnyContext, *, left_behind: str, fitted_train_set_id: str | None = None, repeatable: bool = True
) -> Iterator[None]:
    """Turn errors of the core and an interrupt into what Dagster should do about them.

    Args:
        context: Context of the asset or op.
        left_behind: What goes on, or is gone, when the step ends now; part of the message.
        fitted_train_set_id: The fit that the block is about.
        repeatable: Whether running the step again repeats nothing that is billed.

    Raises:
        dagster.Failure: The error is terminal, or a person terminated the run, or the step may not be repeated. Its
            message says what to do; no retry policy runs it again.
        dagster.RetryRequested: The server asked to wait; Dagster runs the step again after that time.
        TabPFNError: Any other error; the asset's retry policy decides.
        dagster.DagsterExecutionInterruptedError: The machine is going down; Dagster may start the run again elsewhere.
    """
    try:
        yield
    except dg.DagsterExecutionInterruptedError as interrupt:
        terminated = terminated_by_a_person(context)
        if repeatable and not terminated:
            raise
        # Re-raised, a retry policy would run the step again, even after Terminate (dagster issue 15026).
        raise dg.Failure(
            f"{'Terminated' if terminated else 'Interrupted'}. {left_behind}",
            metadata=_facts(fitted_train_set_id),
            allow_retries=False,
        ) from interrupt
    except TabPFNError as error:
        if error.terminal or not repeatable:
            raise _failure_of(error, left_behind, fitted_train_set_id) from error
        if isinstance(error, RateLimitedError) and error.retry_after is not None:
            raise dg.RetryRequested(max_retries=RATE_LIMIT_RETRIES, seconds_to_wait=error.retry_after) from error
        raise


def _failure_of(error: TabPFNError, left_behind: str, fitted_train_set_id: str | None) -> dg.Failure:
    known = {"error_code": error.code, "trace_id": error.trace_id, "status": error.status}
    return dg.Failure(
        str(error) if error.terminal else f"{error} {left_behind}",
        metadata={
            "tabpfn/error": type(error).__name__,
            **{f"tabpfn/{name}": value for name, value in known.items() if value is not None},
            **_facts(fitted_train_set_id or getattr(error, "fitted_train_set_id", None)),
        },
        allow_retries=False,
    )


def _facts(fitted_train_set_id: str | None) -> dict[str, str]:
    return {} if fitted_train_set_id is None else {"tabpfn/fitted_train_set_id": fitted_train_set_id}
