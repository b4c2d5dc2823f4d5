"""The TabPFN API as a Dagster resource."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from pydantic import Field, PrivateAttr, field_validator

from dagster_tabpfn._context import AnyContext, engine_run
from dagster_tabpfn._errors import reported
from tabpfn_assets import FitParameters, FittedModel, PredictionSet
from tabpfn_operators.errors import ConfigurationError

if TYPE_CHECKING:
    from tabpfn_operators import Client
    from tabpfn_operators.progress import Progress
    from tabpfn_operators.reading import Casts, Compression, Filters

#: A wait that says nothing for longer looks dead to whoever watches the run.
_HEARTBEAT_SECONDS = 300.0

_SECRET: dict[str, Any] = {"dagster__is_secret": True}


class TabPFNResource(dg.ConfigurableResource["TabPFNResource"]):
    """Prior Labs' TabPFN API.

    Give the token as `dg.EnvVar("TABPFN_TOKEN")`, or not at all: then the process that runs the step reads
    `TABPFN_TOKEN`, or `PRIORLABS_API_KEY`, itself.

    ```python
    import dagster as dg
    from dagster_tabpfn import TabPFNResource, fitted_model_result
    from tabpfn_assets import FitParameters


    @dg.asset(kinds={"tabpfn"})
    def churn_model(context: dg.AssetExecutionContext, tabpfn: TabPFNResource) -> dg.MaterializeResult:
        model = tabpfn.fit(
            context, "s3://lake/churn.parquet", "churned", parameters=FitParameters(task="classification")
        )
        return fitted_model_result(model)


    defs = dg.Definitions(
        assets=[churn_model], resources={"tabpfn": TabPFNResource(token=dg.EnvVar("TABPFN_TOKEN"))}
    )
    ```

    Raises:
        ConfigurationError: The definitions hold a literal token; use `dg.EnvVar`, because Dagster stores literal
            values in its run database.
    """

    token: str | None = Field(
        default=None,
        description="API key, as dg.EnvVar. Without it TABPFN_TOKEN or PRIORLABS_API_KEY is read where the step runs.",
        repr=False,
        json_schema_extra=_SECRET,
    )
    base_url: str | None = Field(
        default=None,
        description="API base URL. Without it TABPFN_API_URL is read, else Prior Labs' own is taken.",
        examples=["https://api.priorlabs.ai"],
    )
    account: str | None = Field(
        default=None, description="A label of the account, so that a rotated key counts as the same account."
    )
    wire: Literal["nested", "flat"] = Field(
        default="nested", description="Form of the fit request: nested (current servers) or flat (older ones)."
    )
    connect_timeout: float = Field(default=10.0, gt=0, description="Seconds to wait for a connection.")
    read_timeout: float = Field(default=120.0, gt=0, description="Seconds to wait for the next byte of a short call.")
    proxy: str | None = Field(
        default=None,
        description="Proxy URL; as dg.EnvVar if it holds a password. Without it the environment's is used.",
        repr=False,
        json_schema_extra=_SECRET,
    )
    verify: Any = Field(
        default=True, description="Whether to check certificates (true or false), or the path of a CA bundle."
    )
    allow_http: bool = Field(default=False, description="Accept plain http for hosts other than this machine.")

    _client: "Client | None" = PrivateAttr(default=None)

    @field_validator("verify")
    @classmethod
    def _bool_or_path(cls, value: Any) -> Any:
        # Dagster's config has no type for "bool or str", so the field is Any and the check is here.
        if not isinstance(value, bool | str):
            raise ValueError("verify: true, false, or the path of a CA bundle")  # noqa: TRY004 - pydantic's protocol
        return value

    def get_resource_definition(self) -> Any:
        """Return the definition that Dagster binds; called by Dagster.

        Raises:
            ConfigurationError: A secret is literal; use `dg.EnvVar`.
        """
        # Dagster writes the defaults of a job's config, literals included, into its run database (measured, 1.13.27).
        literal = [
            name
            for name, value in (("token", self.token), ("proxy", self.proxy if "@" in (self.proxy or "") else None))
            if value is not None and not isinstance(value, dg.EnvVar)
        ]
        if literal:
            raise ConfigurationError(
                f"TabPFNResource: {' and '.join(literal)} must be dg.EnvVar(...), for instance "
                'token=dg.EnvVar("TABPFN_TOKEN"): Dagster stores literal values of a resource in its run database.'
            )
        return super().get_resource_definition()

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002 - Dagster's signature
        """Close the client's connections; called by Dagster."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def get_client(self) -> "Client":
        """Return the core client, made at the first call and closed by Dagster after the step.

        Its errors are the core's own. `fit` and `predict` translate them for Dagster.

        Returns:
            The client; nothing is opened before its first call.

        Raises:
            ConfigurationError: There is no token, or a setting is not usable; the message names it.
        """
        if self._client is None:
            from tabpfn_operators import Client

            self._client = Client(
                self.token,
                base_url=self.base_url,
                account=self.account,
                wire=self.wire,
                connect_timeout=self.connect_timeout,
                read_timeout=self.read_timeout,
                proxy=self.proxy,
                verify=self.verify,
                allow_http=self.allow_http,
                user_agent=f"dagster/{dg.__version__}",
            )
        return self._client

    def fit(
        self,
        context: AnyContext,
        source: str,
        target: str,
        *,
        parameters: FitParameters,
        features: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        storage_options: Mapping[str, Any] | None = None,
        filters: "Filters | None" = None,
        casts: "Casts | None" = None,
        recompress: "Compression | None" = None,
        name: str | None = None,
        streamed: bool = False,
        timeout: float | None = None,
    ) -> FittedModel:
        """Upload a Parquet file, fit a model on it and wait; one process, no data in memory beyond a batch.

        Call it from a plain `def` asset or op: Dagster delivers interrupts to the main thread only.

        Args:
            context: Context of the asset or op.
            source: fsspec URL or path of a Parquet file.
            target: Column to predict.
            parameters: Task, config, systems, thinking.
            features: Feature columns in order; None takes all but the target and `exclude`.
            exclude: Columns that stay at home.
            storage_options: fsspec options of the source; `dg.EnvVar` values are resolved here. Never recorded.
            filters: Rows to keep, as `[("age", ">", 17)]`, `[[...], [...]]`, the same as JSON text, or a
                `pyarrow.compute.Expression`; None keeps all.
            casts: Columns to convert, as `{"code": "string"}` with Arrow's type names; no value may change by it.
            recompress: Codec and level to send with, for slow links, as `("zstd", 9)`; None sends what is stored.
            name: A name for the model, `[A-Za-z0-9._-]`, up to 128 characters.
            streamed: Fit in one long POST, for servers without the job API. A kill then loses the id.
            timeout: Seconds to wait for the job; None takes the server's own limit.

        Returns:
            The completed model; hand it to `fitted_model_result`.

        Raises:
            dagster.Failure: It cannot work as it is (input, token, quota, failed fit), or a person terminated the run;
                the message says what to do, and no retry policy repeats it.
            dagster.RetryRequested: The server asked to wait; Dagster runs the step again after that time.
            TabPFNError: Server or network trouble that may pass; give the asset a retry policy.
        """
        from tabpfn_operators.server import model_version_of

        run = engine_run(context)
        with reported(context, left_behind="Nothing was fitted."):
            train_set = self.get_client().upload_train_set(
                source,
                target,
                task=parameters.task,
                features=features,
                exclude=exclude,
                storage_options=_resolved(storage_options),
                filters=filters,
                casts=casts,
                recompress=recompress,
                model_version=model_version_of(parameters.config),
            )
        context.log.info("Train set %s: %d rows.", train_set.train_set_upload_id, train_set.rows)
        unknown = "A fit that was already sent goes on at the server, which cannot cancel it; its id is not known."
        if streamed:
            with reported(context, left_behind=unknown, repeatable=not parameters.billed):
                return self.get_client().fit_train_set(
                    train_set, parameters=parameters, name=name, run=run, progress=_heartbeat(context)
                )
        with reported(context, left_behind=unknown):
            model = self.get_client().submit_fit_job(train_set, parameters=parameters, name=name, run=run)
        return self.wait_for_fit(context, model, timeout=timeout)

    def wait_for_fit(self, context: AnyContext, model: FittedModel, *, timeout: float | None = None) -> FittedModel:
        """Wait on the main thread for a fit that was submitted.

        Args:
            context: Context of the asset or op.
            model: The pending model.
            timeout: Seconds from its submission; None takes the server's own limit.

        Returns:
            The completed model.

        Raises:
            dagster.Failure: The fit failed or is still running at the deadline, or a person terminated the run; the
                message names the fitted id.
            TabPFNError: Server or network trouble that may pass. Only for a standard fit, which is free: a step that
                is run again fits again.
        """
        fitted_id = model.fitted_train_set_id
        context.log.info("Fit %s submitted; waiting for it.", fitted_id)
        with reported(
            context,
            left_behind=f"The fit {fitted_id} goes on at the server, which cannot cancel it.",
            fitted_train_set_id=fitted_id,
            repeatable=not model.parameters.billed,
        ):
            return self.get_client().wait_for_fit(model, timeout=timeout, progress=_heartbeat(context))

    def predict(
        self,
        context: AnyContext,
        model: FittedModel,
        source: str,
        destination: str,
        *,
        output_type: str | None = None,
        quantiles: Sequence[float] | None = None,
        storage_options: Mapping[str, Any] | None = None,
        filters: "Filters | None" = None,
        casts: "Casts | None" = None,
        recompress: "Compression | None" = None,
        destination_options: Mapping[str, Any] | None = None,
        redact_labels: bool = False,
    ) -> PredictionSet:
        """Predict a Parquet file and write predictions and lineage into a folder. One billed call.

        Args:
            context: Context of the asset or op.
            model: The completed model, for instance from `materialized_model`.
            source: fsspec URL or path of a Parquet file with the model's features; other columns stay at home.
            destination: fsspec URL or path of the folder for `predictions.parquet` and `_lineage.json`.
            output_type: Classification: `probas` (default), `preds`. Regression: `mean` (default), `median`, `mode`,
                `quantiles`, `main`, `full`.
            quantiles: Numbers in (0, 1), for `quantiles`, `main` and `full`.
            storage_options: fsspec options of the source; `dg.EnvVar` values are resolved here. Never recorded.
            filters: As in `fit`.
            casts: As in `fit`.
            recompress: As in `fit`.
            destination_options: fsspec options of the destination, likewise.
            redact_labels: Hash column names and class labels in the records.

        Returns:
            The record beside the predictions; hand it to `predictions_result`.

        Raises:
            dagster.Failure: It cannot work as it is, or a person terminated the run; the message says what to do.
            dagster.RetryRequested: The server asked to wait; Dagster runs the step again after that time.
            TabPFNError: Server or network trouble that may pass; give the asset a retry policy.
        """
        with reported(context, left_behind="A prediction that was already sent is billed, and may not be written."):
            return self.get_client().predict(
                model,
                source,
                destination,
                output_type=output_type,
                quantiles=quantiles,
                storage_options=_resolved(storage_options),
                filters=filters,
                casts=casts,
                recompress=recompress,
                destination_options=_resolved(destination_options),
                run=engine_run(context),
                redact_labels=redact_labels,
            )


def _resolved(options: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Replace `dg.EnvVar` values by what they stand for, at any depth."""
    return None if options is None else {key: _value(option) for key, option in options.items()}


def _value(option: Any) -> Any:
    if isinstance(option, dg.EnvVar):
        return option.get_value()
    return _resolved(option) if isinstance(option, Mapping) else option


def _heartbeat(context: AnyContext) -> "Callable[[Progress], None]":
    """Log a wait when its status changes, and every few minutes so that it does not look dead."""
    last = ("", time.monotonic())

    def log(progress: "Progress") -> None:
        nonlocal last
        status, when = last
        now = time.monotonic()
        if progress.note != status or now - when >= _HEARTBEAT_SECONDS:
            context.log.info("Fit is %s after %.0f s.", progress.note, progress.done)
            last = (progress.note, now)

    return log
