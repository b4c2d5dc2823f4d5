"""Everything that can go wrong, as few classes with plain data.

    TabPFNError
      ConfigurationError            settings or arguments of the client
        StoreNotExclusiveError      two writers may both succeed in that store
      InvalidInputError             the source, the target or the columns
        LimitExceededError          larger than the server takes
        SourceChangedError          the source changed while it was read
        CorruptParquetError         a Parquet footer that is damaged or contradicts its file
        NotSpliceableError          valid, but its chunks cannot be moved as bytes
      DestinationError              predictions cannot be written there
      DestinationBusyError          another scoring writes there
      StorageError                  the storage of source or destination did not answer
      ModelNotRecordedError         the lineage store has no such model, version or alias
      AliasMovedError               another moved the alias meanwhile
      CostExceededError             dearer than max_cost, or than what the pools have left
      RecordUnreadableError         a stored record is there, or may be, and cannot be read
        RecordTooNewError           a newer version of this package wrote it
      ApiError                      the server answered with an error
        AuthenticationError         401
        AccessDeniedError           403
        NotFoundError               404
          FittedModelNotFoundError  404 for a fitted id
            ModelGoneError          404 for a model whose record says how to fit it again
        RequestRejectedError        400, 409 without an id, 413, 422
        UpgradeRequiredError        426
        RateLimitedError            429, wait
        QuotaExceededError          429, do not wait
        ServerError                 5xx
        AsyncFitUnsupportedError    404 or 405 on the job API
        StaleUploadError            404 or 422 for an upload that a 409 named
      ConnectionFailedError         no answer, and nothing was billed
      OutcomeUnknownError           no answer to a call that may have been carried out
      UploadError                   the object store refused
        UploadTooSlowError          the upload URLs expired twice
      FitFailedError                the server reports the fit as failed
      FitTimeoutError               still running at the deadline

Every error pickles, holds only plain data, and never a token, a header or a signed URL. `terminal` says that repeating
the same call cannot help, so that engines do not retry it.
"""

from typing import TYPE_CHECKING

from tabpfn_operators._error import TabPFNError as TabPFNError  # noqa: PLC0414 - every caller imports it from here

if TYPE_CHECKING:
    from tabpfn_assets import FittedModel


class ConfigurationError(TabPFNError):
    """A setting is missing or contradictory; nothing was sent. Terminal: correct the setting that is named."""


class StoreNotExclusiveError(ConfigurationError):
    """Two writers may both create the same object in that store, so it cannot hold claims, aliases or shared records.

    Terminal: use a local folder, S3, Google Cloud Storage or Azure, or pass `allow_unsafe_store=True` where there is
    never more than one writer.
    """


class InvalidInputError(TabPFNError, ValueError):
    """The source cannot be used as it is; nothing was sent, nothing billed. Terminal: correct the input that is named.

    Args:
        message: The first problem, or all of them in one text.
        problems: Every problem found, each naming the input and the remedy.
    """

    def __init__(self, message: str, *, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems or (message,)


class LimitExceededError(InvalidInputError):
    """The data is larger than the server takes; nothing was sent. Terminal: send fewer rows, columns or classes."""


class SourceChangedError(InvalidInputError):
    """The source object changed while it was read; the upload was given up. Run again when nobody writes to it."""

    terminal = False


class CorruptParquetError(InvalidInputError):
    """A Parquet file is damaged, or its footer contradicts it; nothing was sent. Terminal: write the file again."""


class NotSpliceableError(InvalidInputError):
    """A valid source whose column chunks cannot be moved as bytes; uploads decode such a source instead.

    Terminal for `splice`: use the upload methods, or write the source as plain Parquet of one schema.

    Args:
        message: What was asked for and the reason.
        reason: The reason alone, for a log line.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class DestinationError(TabPFNError):
    """Predictions cannot be written to the destination; nothing was billed. Terminal: correct path or credentials."""


class DestinationBusyError(TabPFNError):
    """Another scoring (of another model, source or options) writes to the destination; nothing was sent or billed.

    Not terminal: wait until it has ended, or choose another folder. One that was killed counts as ended when its lease
    is over.

    Args:
        message: What happened.
        plan_id: The other scoring.
        until: Epoch seconds when its lease ends, unless it is renewed.
    """

    terminal = False

    def __init__(self, message: str, *, plan_id: str, until: float) -> None:
        super().__init__(message)
        self.plan_id = plan_id
        self.until = until


class StorageError(TabPFNError):
    """The storage of the source or the destination failed in a way that may pass. Not terminal: run again."""

    terminal = False


class ModelNotRecordedError(TabPFNError):
    """The lineage store holds no such model, version or alias. Terminal: choose one of those that the message names."""


class AliasMovedError(TabPFNError):
    """Another moved the alias between the look at it and this move; nothing was changed.

    Terminal: look at where it points now, judge against that, and move it again.

    Args:
        message: What happened.
        alias: The alias.
        version: Version it points to now.
    """

    def __init__(self, message: str, *, alias: str, version: str) -> None:
        super().__init__(message)
        self.alias = alias
        self.version = version


class CostExceededError(TabPFNError):
    """It would cost more than `max_cost` or the pools' rest. Terminal: raise `max_cost`, do less, or wait for a reset.

    Args:
        message: What it would cost, and what is allowed.
        estimated_cost: Tokens it would cost.
        allowed: Tokens that are allowed or left.
    """

    def __init__(self, message: str, *, estimated_cost: int, allowed: int) -> None:
        super().__init__(message)
        self.estimated_cost = estimated_cost
        self.allowed = allowed


class RecordUnreadableError(TabPFNError):
    """A stored record may not be read or is damaged, which is never taken for "there is none": that could bill twice.

    Terminal: check path and credentials; move a damaged record away once you know what it was.
    """


class RecordTooNewError(RecordUnreadableError):
    """A newer version of this package wrote the record. Terminal: upgrade tabpfn-providers where this runs."""


class ApiError(TabPFNError):
    """The server answered with an error that has no class of its own. Terminal: read the message."""


class AuthenticationError(ApiError):
    """401: the token is missing, wrong or expired. Terminal: set another (TABPFN_TOKEN, or the engine's secret)."""


class AccessDeniedError(ApiError):
    """403: the account may not do this, often because its e-mail is not verified. Terminal: see the account's page."""


class NotFoundError(ApiError):
    """404: the id is unknown, expired, or belongs to another account. Terminal: upload or fit again."""


class FittedModelNotFoundError(NotFoundError):
    """404 for a fitted id: the model is gone or another account's. Terminal: fit again, or use that account's token."""


class ModelGoneError(FittedModelNotFoundError):
    """404 for a fitted model whose record is at hand: it was deleted, or is another account's.

    Terminal: use that account's token, or fit it again by the call that the message and `refit` hold.

    Args:
        message: What happened, with the call.
        fitted_train_set_id: The model.
        refit: The call that fits it again, as Python.
        status: HTTP status.
        code: The server's error code.
        trace_id: The server's id of the request.
    """

    def __init__(
        self,
        message: str,
        *,
        fitted_train_set_id: str,
        refit: str,
        status: int | None = 404,
        code: str | None = None,
        trace_id: str | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code, trace_id=trace_id)
        self.fitted_train_set_id = fitted_train_set_id
        self.refit = refit


class RequestRejectedError(ApiError):
    """400, 409, 413 or 422: the server does not accept the request. Terminal: correct what the message names."""


class UpgradeRequiredError(ApiError):
    """426: the server no longer speaks to this client version. Terminal: upgrade tabpfn-providers."""


class RateLimitedError(ApiError):
    """429 with a short wait, and the waiting budget is used up. Not terminal: run again later or with less concurrency.

    Args:
        message: What happened.
        retry_after: Seconds after which the server takes the call again, where it said so.
        status: As in `TabPFNError`, and so are the rest.
    """

    terminal = False

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        status: int | None = 429,
        code: str | None = None,
        trace_id: str | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code, trace_id=trace_id)
        self.retry_after = retry_after


class QuotaExceededError(ApiError):
    """429 because a token pool is empty. Terminal until the pool resets: wait for the reset or buy more tokens.

    Attributes:
        reset_at: When the pool is full again, in the server's words; None where it is not known.
    """

    reset_at: str | None = None


class ServerError(ApiError):
    """5xx, or a failure inside a 200: the server could not do it. Not terminal: run again; quote the trace id."""

    terminal = False


class AsyncFitUnsupportedError(ApiError):
    """The server has no job API (404 or 405 on submit_fit_job). Terminal: fit with `streamed=True` on a worker."""


class StaleUploadError(ApiError):
    """The server named an earlier upload of equal content (409), and cannot use it: it never finished, or is gone.

    Nothing was fitted, predicted or billed. Terminal: upload again with `force_reupload=True`; `fit` and `predict` do
    so once by themselves.
    """


class ConnectionFailedError(TabPFNError):
    """The server could not be reached, or a call that costs nothing had no answer. Not terminal: run again."""

    terminal = False


class OutcomeUnknownError(TabPFNError):
    """A call that may have been carried out (and billed) had no answer, so it was not sent again.

    Terminal: look at the account's usage, then decide; sending again may create a second fit or a second charge.
    """


class UploadError(TabPFNError):
    """The object store refused the upload. Not terminal: run again; nothing was billed."""

    terminal = False


class UploadTooSlowError(UploadError):
    """The upload URLs expired twice before everything was sent; nothing was billed.

    Terminal: send fewer columns, recompress the file (zstd), or upload from a region nearer to the server.

    Args:
        message: What happened.
        size: Bytes of the upload.
        bytes_per_second: Rate of the second try.
        lifetime: Seconds that the server's URLs live; None where it does not say.
        status: As in `TabPFNError`, and so are the rest.
    """

    terminal = True

    def __init__(
        self,
        message: str,
        *,
        size: int,
        bytes_per_second: float,
        lifetime: float | None,
        status: int | None = None,
        code: str | None = None,
        trace_id: str | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code, trace_id=trace_id)
        self.size = size
        self.bytes_per_second = bytes_per_second
        self.lifetime = lifetime


class FitFailedError(TabPFNError):
    """The server reports the fit as failed. Terminal for this fit: read the message, correct the data, fit again.

    Args:
        message: What the server said.
        fitted_train_set_id: The failed fit; None where a streamed fit failed before the server named it.
        code: The server's error code.
        reason: The server's own words, without advice.
    """

    def __init__(
        self,
        message: str,
        *,
        fitted_train_set_id: str | None,
        status: int | None = None,
        code: str | None = None,
        trace_id: str | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code, trace_id=trace_id)
        self.fitted_train_set_id = fitted_train_set_id
        self.reason = reason


class FitTimeoutError(TabPFNError):
    """The fit was still running at the deadline; it goes on at the server, which has no way to cancel it.

    Not lost: wait again for `fitted_train_set_id` with a longer timeout. Terminal, because a retry would fit anew.

    Args:
        message: How long was waited.
        fitted_train_set_id: The fit that is still running.

    Attributes:
        model: The pending record, which `wait_for_fit` takes; None where the caller has it.
    """

    def __init__(self, message: str, *, fitted_train_set_id: str) -> None:
        super().__init__(message)
        self.fitted_train_set_id = fitted_train_set_id
        self.model: FittedModel | None = None
