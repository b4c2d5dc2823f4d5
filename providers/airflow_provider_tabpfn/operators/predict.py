"""`TabPFNPredictOperator`: a fitted model and Parquet to predictions."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, conf

from airflow_provider_tabpfn.exceptions import airflow_errors
from airflow_provider_tabpfn.hooks.tabpfn import TabPFNHook
from airflow_provider_tabpfn.lineage import engine_run, record_outlets
from airflow_provider_tabpfn.operators.base import TabPFNBaseOperator, given

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from tabpfn_assets import FittedModel, PredictionSet
    from tabpfn_operators.reading import Casts, Compression, Filters


class TabPFNPredictOperator(TabPFNBaseOperator):
    """Predict the rows of a Parquet source and write `predictions.parquet` and `_lineage.json` into a folder.

    A model that is still being fitted is waited for first (here or in the triggerer); the prediction itself, which is
    billed, is always made on the worker. The task returns a small manifest (`uri`, `lineage_uri`, `rows`, `columns`,
    `output_type`, `fitted_train_set_id`), never rows.

    Args:
        model: The `FittedModel` of a fit as a dict (`fit.output`) or as JSON text.
        source: fsspec URL or path of the Parquet to score; the target and unknown columns in it are not sent.
        destination: fsspec URL or path of the folder to write into.
        output_type: What to predict, for instance `probas`, `mean`, `quantiles`; None takes the task's default.
        quantiles: Quantiles in (0, 1) for `output_type="quantiles"` or `"full"`.
        filters: Rows to keep, as JSON text `[["age", ">", 17]]`, or as lists; None, blank and `None` text keep all. A
            template inside a list renders to text, so make numbers part of JSON text, or end it in `| tojson`.
        casts: Columns to convert, as `{"code": "string"}` with Arrow's type names, or the same as JSON text.
        recompress: Codec and level to send with, for slow links, as `("zstd", 9)`.
        redact_labels: Hash column names and class labels in `_lineage.json`.
        timeout: Seconds from the fit's submission until waiting for it is given up.
        deferrable: Wait for the fit in the triggerer instead of on the worker.
        tabpfn_conn_id: Id of the connection.
        **kwargs: Arguments of every Airflow operator.
    """

    template_fields: Sequence[str] = (
        "model",
        "source",
        "destination",
        "output_type",
        "quantiles",
        "filters",
        "casts",
        "tabpfn_conn_id",
    )
    template_fields_renderers = {"model": "json", "quantiles": "json", "filters": "json", "casts": "json"}
    url_fields = ("source", "destination")
    ui_color = "#e8e4fd"

    def __init__(
        self,
        *,
        model: "dict[str, Any] | str | XComArg",
        source: str,
        destination: str,
        output_type: str | None = None,
        quantiles: Sequence[float] | None = None,
        filters: "Filters | None" = None,
        casts: "Casts | None" = None,
        recompress: "Compression | None" = None,
        redact_labels: bool = False,
        timeout: float = 3600.0,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        tabpfn_conn_id: str = TabPFNHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(tabpfn_conn_id=tabpfn_conn_id, deferrable=deferrable, timeout=timeout, **kwargs)
        self.model = model
        self.source = source
        self.destination = destination
        self.output_type = output_type
        self.quantiles = quantiles
        self.filters = filters
        self.casts = casts
        self.recompress = recompress
        self.redact_labels = redact_labels

    def execute(self, context: "Context") -> dict[str, Any]:
        """Predict, after waiting for the fit if it is not completed yet.

        Args:
            context: The task's context.

        Returns:
            The manifest.

        Raises:
            AirflowFailException: What a retry cannot help: not a model, bad input, a failed fit.
            TabPFNError: What a retry may help.
        """
        model = self._fitted_model()
        if model.status == "pending" and self.deferrable:
            self.defer_until_fitted(model)
        if model.status == "pending":
            model = self.wait_on_worker(model)
        return self._predict(context, model)

    def execute_complete(self, context: "Context", event: Any = None) -> dict[str, Any]:
        """Predict after the trigger saw the fit completed.

        Args:
            context: The task's context.
            event: The trigger's event.

        Returns:
            The manifest.

        Raises:
            AirflowFailException: The fit failed or timed out.
            AirflowException: The event is unknown.
        """
        return self._predict(context, self.fitted(self._fitted_model(), event))

    def _fitted_model(self) -> "FittedModel":
        from tabpfn_assets import FittedModel

        try:
            record = json.loads(self.model) if isinstance(self.model, str) else self.model
        except ValueError:
            raise AirflowFailException(
                "model is text, but not JSON: pass model=fit.output, or a template that ends in `| tojson`."
            ) from None
        with airflow_errors():
            model = FittedModel.model_validate(record)
        if model.status == "failed":
            raise AirflowFailException(f"Fit {model.fitted_train_set_id} has failed; it cannot predict. Fit again.")
        return model

    def _predict(self, context: "Context", model: "FittedModel") -> dict[str, Any]:
        hook = self.hook
        with airflow_errors(), hook.get_client() as client:
            predictions = client.predict(
                model,
                self.source,
                self.destination,
                output_type=self.output_type,
                quantiles=self.quantiles,
                storage_options=hook.get_storage_options(self.source),
                filters=given(self.filters),
                casts=given(self.casts),
                recompress=self.recompress,
                destination_options=hook.get_storage_options(self.destination),
                run=engine_run(context),
                redact_labels=self.redact_labels,
            )
        self.log.info("Wrote %d predictions to %s.", predictions.rows, predictions.uri)
        manifest = _manifest(predictions)
        record_outlets(context, self.outlets, {key: manifest[key] for key in ("fitted_train_set_id", "uri", "rows")})
        return manifest


def _manifest(predictions: "PredictionSet") -> dict[str, Any]:
    return {
        "uri": predictions.uri,
        "lineage_uri": predictions.lineage_uri,
        "rows": predictions.rows,
        "columns": list(predictions.columns),
        "output_type": predictions.output_type,
        "fitted_train_set_id": predictions.model.fitted_train_set_id,
    }
