"""The one trigger: look at a fit until it is over."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Literal, Self

from airflow.triggers.base import BaseTrigger, TriggerEvent
from pydantic import BaseModel, ConfigDict, ValidationError

from airflow_provider_tabpfn.hooks.tabpfn import TabPFNHook
from tabpfn_assets import FitStatus, JobRecord
from tabpfn_operators import jobs
from tabpfn_operators.errors import TabPFNError

if TYPE_CHECKING:
    from tabpfn_operators import AsyncClient


class FitEvent(BaseModel):
    """What the trigger tells the task, as plain JSON; anything else that wakes the task is refused.

    Args:
        status: How the wait ended.
        fitted_train_set_id: The fit that was waited for.
        look: The last look at it, when it completed.
        error: What went wrong, without secrets, when it did not.
        terminal: Whether a retry of the task is pointless.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Literal["completed", "failed"]
    fitted_train_set_id: str
    look: FitStatus | None = None
    error: str | None = None
    terminal: bool = False

    @classmethod
    def parse(cls, event: Any, *, fitted_train_set_id: str) -> Self:
        """Check an event that resumes a task.

        Args:
            event: What Airflow hands to the resume method.
            fitted_train_set_id: The fit that the task waits for.

        Returns:
            The event.

        Raises:
            ValueError: It is none of ours, of another fit, says "completed" without having seen it, or fails silently.
        """
        try:
            parsed = cls.model_validate(event)
        except ValidationError as error:
            raise ValueError(f"not an event of TabPFNFitTrigger: {error.error_count()} problems in it") from None
        if parsed.fitted_train_set_id != fitted_train_set_id:
            raise ValueError(f"the event is of fit {parsed.fitted_train_set_id}, not of {fitted_train_set_id}")
        if parsed.status == "completed" and (parsed.look is None or parsed.look.status != "completed"):
            raise ValueError(f"the event says completed, but no look at {fitted_train_set_id} showed it")
        if parsed.status == "failed" and not parsed.error:
            raise ValueError(f"the event says failed, but not why {fitted_train_set_id} did")
        return parsed


class TabPFNFitTrigger(BaseTrigger):
    """Wait until a fit is completed, has failed, or its deadline passes; then fire exactly one event.

    Its arguments become a plain-text row in Airflow's database (measured, 3.3.2), so it holds no secret: the token is
    read from the connection where it runs. It only looks, and may therefore run twice or anew after a triggerer's
    death.

    Args:
        tabpfn_conn_id: Id of the connection.
        job: The `JobRecord` of the fit as JSON; its deadline is wall-clock, so that it outlives triggerers.
    """

    def __init__(self, tabpfn_conn_id: str, job: dict[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow 3.3.2 leaves it without annotations
        self.tabpfn_conn_id = tabpfn_conn_id
        self.job = job

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow stores to make the trigger again."""
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return path, {"tabpfn_conn_id": self.tabpfn_conn_id, "job": self.job}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then yield the one event, a `FitEvent` as JSON."""
        job = JobRecord.model_validate(self.job)
        fitted_id = job.job_id or ""
        try:
            async with await TabPFNHook(self.tabpfn_conn_id).get_async_client() as client:
                look = await self._wait(client, job)
            event = FitEvent(status="completed", fitted_train_set_id=fitted_id, look=look)
        except TabPFNError as error:
            event = FitEvent(
                status="failed",
                fitted_train_set_id=fitted_id,
                error=f"{type(error).__name__}: {error}",
                terminal=error.terminal,
            )
        yield TriggerEvent(event.model_dump(mode="json"))  # type: ignore[no-untyped-call]  # so in Airflow 3.3.2

    async def on_kill(self) -> None:
        """Say what becomes of the fit when a user ends or clears the task; the API has no way to cancel it."""
        self.log.warning(
            "The task ended, but fit %s goes on at the server: it cannot be cancelled.", self.job["job_id"]
        )

    async def _wait(self, client: "AsyncClient", job: JobRecord) -> FitStatus:
        await asyncio.sleep(jobs.FIRST_LOOK_SECONDS)
        while (look := await client.look_at_fit(job)).wait is not None:  # noqa: ASYNC110 - the event is at the server
            await asyncio.sleep(look.wait)
        return look.status
