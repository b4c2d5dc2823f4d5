"""`TabPFNFitOperator`: Parquet to a fitted model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, conf

from airflow_provider_tabpfn.exceptions import airflow_errors
from airflow_provider_tabpfn.hooks.tabpfn import TabPFNHook
from airflow_provider_tabpfn.lineage import engine_run, model_facts, record_outlets
from airflow_provider_tabpfn.operators.base import TabPFNBaseOperator, given

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from tabpfn_assets import FitParameters, FittedModel
    from tabpfn_operators.reading import Casts, Compression, Filters

#: XCom key under which the model is known while the fit is running.
PENDING_MODEL_KEY = "pending_model"


class TabPFNFitOperator(TabPFNBaseOperator):
    """Fit a model on a Parquet source: upload, submit, wait.

    The task returns the `FittedModel` record as a JSON dict; pass it on as `model=fit.output`. It holds ids, column
    names and class labels (which may be personal data), no rows and no credentials. Assets in `outlets` get the
    essentials in the event's extra: ids and counts.

    A fit cannot be cancelled: a task that is killed, cleared or times out leaves it running at the server.

    Args:
        source: fsspec URL or path of the Parquet file. Credentials belong into the connection's
            `storage_options`, not into the URL.
        target: Target column.
        task: `classification` or `regression`.
        config: `tabpfn_config` keys, for instance `{"n_estimators": 4, "random_state": 0}`.
        systems: Server-side preprocessing systems; None takes the default of the API's own client.
        text_handling: `advanced`, `simple` or None for the server's default.
        thinking: Arguments of a thinking fit, for instance `{"effort": "high"}`; such a fit is billed.
        features: Feature columns; None takes all but the target.
        exclude: Columns to leave out.
        filters: Rows to keep, as JSON text `[["age", ">", 17]]`, or as lists; None, blank and `None` text keep all. A
            template inside a list renders to text, so make numbers part of JSON text, or end it in `| tojson`.
        casts: Columns to convert, as `{"code": "string"}` with Arrow's type names, or the same as JSON text.
        recompress: Codec and level to send with, for slow links, as `("zstd", 9)`.
        model_version: Model version whose limits hold; None takes the server's default.
        name: A name for the model: letters, digits, dot, dash, underscore.
        wait_for_completion: False returns the pending model right after submission; predict operators wait for it.
        timeout: Seconds from submission until waiting is given up.
        deferrable: Wait in the triggerer instead of on the worker.
        tabpfn_conn_id: Id of the connection.
        **kwargs: Arguments of every Airflow operator.
    """

    template_fields: Sequence[str] = (
        "source",
        "target",
        "task",
        "config",
        "systems",
        "text_handling",
        "thinking",
        "features",
        "exclude",
        "filters",
        "casts",
        "model_version",
        "name",
        "tabpfn_conn_id",
    )
    template_fields_renderers = dict.fromkeys(("config", "thinking", "features", "exclude", "filters", "casts"), "json")
    ui_color = "#e8e4fd"

    def __init__(
        self,
        *,
        source: str,
        target: str,
        task: str,
        config: dict[str, Any] | None = None,
        systems: Sequence[str] | None = None,
        text_handling: str | None = None,
        thinking: dict[str, Any] | None = None,
        features: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        filters: "Filters | None" = None,
        casts: "Casts | None" = None,
        recompress: "Compression | None" = None,
        model_version: str | None = None,
        name: str | None = None,
        wait_for_completion: bool = True,
        timeout: float = 3600.0,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        tabpfn_conn_id: str = TabPFNHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(tabpfn_conn_id=tabpfn_conn_id, deferrable=deferrable, timeout=timeout, **kwargs)
        self.source = source
        self.target = target
        self.task = task
        self.config = config
        self.systems = systems
        self.text_handling = text_handling
        self.thinking = thinking
        self.features = features
        self.exclude = exclude
        self.filters = filters
        self.casts = casts
        self.recompress = recompress
        self.model_version = model_version
        self.name = name
        self.wait_for_completion = wait_for_completion

    def execute(self, context: "Context") -> dict[str, Any]:
        """Upload, submit, and wait here or in the triggerer.

        Args:
            context: The task's context.

        Returns:
            The `FittedModel` as a JSON dict.

        Raises:
            AirflowFailException: What a retry cannot help: bad input, a refused token, a failed fit.
            TabPFNError: What a retry may help.
        """
        if self.deferrable and self.wait_for_completion:
            self.check_trigger()
        model = self._submit(context)
        # The instance that resumes is a fresh one; XCom survives a deferral, though not a retry.
        context["ti"].xcom_push(key=PENDING_MODEL_KEY, value=model.model_dump(mode="json"))
        if self.wait_for_completion and self.deferrable:
            self.defer_until_fitted(model)
        if self.wait_for_completion:
            model = self.wait_on_worker(model)
        return self._finish(context, model)

    def execute_complete(self, context: "Context", event: Any = None) -> dict[str, Any]:
        """Go on after the trigger fired.

        Args:
            context: The task's context.
            event: The trigger's event.

        Returns:
            The `FittedModel` as a JSON dict.

        Raises:
            AirflowFailException: The fit failed or timed out.
            AirflowException: The event is unknown, or the pending model is gone from XCom.
        """
        from tabpfn_assets import FittedModel

        ti = context["ti"]
        pending = ti.xcom_pull(task_ids=ti.task_id, key=PENDING_MODEL_KEY, map_indexes=ti.map_index)
        if pending is None:
            raise AirflowException(f"Task {self.task_id} was resumed, but its XCom {PENDING_MODEL_KEY!r} is gone.")
        return self._finish(context, self.fitted(FittedModel.model_validate(pending), event))

    def _submit(self, context: "Context") -> "FittedModel":
        hook = self.hook
        with airflow_errors():
            parameters = self._parameters()
            with hook.get_client() as client:
                train_set = client.upload_train_set(
                    self.source,
                    self.target,
                    task=parameters.task,
                    features=self.features,
                    exclude=self.exclude,
                    storage_options=hook.get_storage_options(self.source),
                    filters=given(self.filters),
                    casts=given(self.casts),
                    recompress=self.recompress,
                    model_version=self.model_version,
                )
                return client.submit_fit_job(train_set, parameters=parameters, name=self.name, run=engine_run(context))

    def _parameters(self) -> "FitParameters":
        from tabpfn_assets import FitParameters

        given = {
            "task": self.task,
            "config": self.config,
            "systems": self.systems,
            "text_handling": self.text_handling,
            "thinking": self.thinking,
        }
        return FitParameters.model_validate({name: value for name, value in given.items() if value is not None})

    def _finish(self, context: "Context", model: "FittedModel") -> dict[str, Any]:
        record_outlets(context, self.outlets, model_facts(model))
        return model.model_dump(mode="json")
