"""What all operators share: connection, the wait for a fit, and what may be shown of a URL."""

import json
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, BaseOperator, mask_secret

from airflow_provider_tabpfn.exceptions import airflow_errors
from airflow_provider_tabpfn.hooks.tabpfn import TabPFNHook

if TYPE_CHECKING:
    from tabpfn_assets import FittedModel, JobRecord

#: How much later Airflow's own timeout of a deferral comes than the trigger's deadline, which says what became of it.
BACKSTOP_SECONDS = 300.0


class TabPFNBaseOperator(BaseOperator):
    """Base of the TabPFN operators.

    Args:
        tabpfn_conn_id: Id of the connection.
        deferrable: Wait in the triggerer instead of on the worker.
        timeout: Seconds from the submission of a fit until waiting for it is given up.
        **kwargs: Arguments of every Airflow operator.
    """

    url_fields: tuple[str, ...] = ("source",)

    def __init__(self, *, tabpfn_conn_id: str, deferrable: bool, timeout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tabpfn_conn_id = tabpfn_conn_id
        self.deferrable = deferrable
        self.timeout = timeout
        self._waiting_for: str | None = None

    @property
    def hook(self) -> TabPFNHook:
        """The hook of the operator's connection."""
        return TabPFNHook(self.tabpfn_conn_id)

    def _do_render_template_fields(self, parent: Any, *args: Any, **kwargs: Any) -> None:
        """Render, and mask what is secret in URLs before Airflow stores the rendered fields.

        Airflow calls this for plain and mapped tasks alike; its public twin is not used for mapped ones.
        """
        super()._do_render_template_fields(parent, *args, **kwargs)
        if parent is self:
            for field in self.url_fields:
                _mask_url(getattr(self, field))

    def on_kill(self) -> None:
        """Say what becomes of the fit when the task is killed; the API has no way to cancel it."""
        if self._waiting_for:
            self.log.warning(
                "The task ends, but fit %s goes on at the server: it cannot be cancelled.", self._waiting_for
            )

    def check_trigger(self) -> None:
        """Fail before anything is submitted, not after, if the trigger could not be stored.

        Raises:
            AirflowFailException: The connection id is not plain text.
        """
        from tabpfn_assets import JobRecord

        try:
            json.dumps(self._trigger(JobRecord(kind="tabpfn_async", phase="intent")).serialize())
        except (TypeError, ValueError) as error:
            raise AirflowFailException(f"tabpfn_conn_id must be plain text: {error}") from None

    def defer_until_fitted(self, model: "FittedModel") -> NoReturn:
        """Give the worker slot back until the fit is over; `execute_complete` goes on.

        Args:
            model: The pending model.
        """
        import time

        from tabpfn_operators import jobs

        job = jobs.job_of(model, timeout_seconds=self.timeout, now=time.time())
        self.defer(trigger=self._trigger(job), method_name="execute_complete", timeout=self.timeout + BACKSTOP_SECONDS)

    def fitted(self, model: "FittedModel", event: Any) -> "FittedModel":
        """Complete the record of a fit from the trigger's event.

        Args:
            model: The pending model.
            event: What resumed the task.

        Returns:
            The completed model.

        Raises:
            AirflowFailException: The fit failed, timed out, or cannot be looked at; the text says what to do.
            AirflowException: The event is not ours, or the wait failed in a way that a retry may survive.
        """
        from airflow_provider_tabpfn.triggers.fit import FitEvent
        from tabpfn_operators import jobs

        try:
            outcome = FitEvent.parse(event, fitted_train_set_id=model.fitted_train_set_id)
        except ValueError as error:
            raise AirflowException(f"Task {self.task_id} was resumed by an unknown event: {error}") from None
        if outcome.status == "completed" and outcome.look is not None:
            self.log.info("Fit %s is completed.", model.fitted_train_set_id)
            return jobs.completed(model, outcome.look)
        raise (AirflowFailException if outcome.terminal else AirflowException)(outcome.error)

    def wait_on_worker(self, model: "FittedModel") -> "FittedModel":
        """Wait for the fit on the worker.

        Args:
            model: The pending model.

        Returns:
            The completed model.
        """
        self._waiting_for = model.fitted_train_set_id
        with airflow_errors(), self.hook.get_client() as client:
            return client.wait_for_fit(model, timeout=self.timeout)

    def _trigger(self, job: "JobRecord") -> Any:
        from airflow_provider_tabpfn.triggers.fit import TabPFNFitTrigger

        return TabPFNFitTrigger(self.tabpfn_conn_id, job.model_dump(mode="json"))


def given(rendered: Any) -> Any:
    """Return None for the text `None`, which is how Airflow renders a template whose value is None."""
    return None if isinstance(rendered, str) and rendered.strip() == "None" else rendered


def _mask_url(url: Any) -> None:
    """Mask the password and the query of a URL, where keys and signatures are."""
    parts = urlsplit(str(url))
    for secret in (parts.password, parts.query):
        if secret:
            mask_secret(secret)
