"""What a test may change while the emulator runs."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from tabpfn_emulator._books.limits import DAILY_TOKENS, DATASET_MAX_SIZE_BYTES, LIMIT_FIELDS, MONTHLY_TOKENS
from tabpfn_emulator._faults import Route
from tabpfn_emulator._learning.thinking import DEFAULT_TIME_SCALE


def _known_limits(limits: dict[str, int]) -> dict[str, int]:
    unknown = sorted(set(limits) - LIMIT_FIELDS)
    if unknown:
        raise ValueError(f"unknown limits {unknown}; known are {sorted(LIMIT_FIELDS)}")
    return limits


class Settings(BaseModel):
    """Settings of the running emulator, changed by `POST /_emulator/config`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    limits: Annotated[dict[str, int], AfterValidator(_known_limits)] = {}
    """ModelLimit fields to set on all versions."""
    dataset_max_size_bytes: int = Field(default=DATASET_MAX_SIZE_BYTES, ge=1)
    """Largest upload, in bytes."""
    upload_parts: int | None = Field(default=None, ge=1, le=10_000)
    """Signed URLs per file; None gives one, or one per 64 MiB where the request says `use_chunks`."""
    chunk_above_bytes: int | None = Field(default=None, ge=1)
    """Larger files are uploaded in many parts of at most this size and 64 MiB; None leaves it to the request."""
    storage: Literal["gcs", "s3"] = "gcs"
    """Whose manners the storage behind the signed URLs has: Google Cloud Storage's, or Amazon S3's."""
    url_ttl_secs: float = 3600.0
    """Lifetime of signed URLs in seconds; 0 or less makes URLs that have already expired."""
    duplicate_unfinished: bool = False
    """Answer 409 also with an upload whose bytes never arrived."""
    fit_seconds: float = Field(default=0.0, ge=0)
    """Shortest duration of a fit, in seconds."""
    time_scale: float = Field(default=DEFAULT_TIME_SCALE, ge=0)
    """Seconds that a second of a thinking fit's time limit takes."""
    predict: Literal["model", "constant"] = "model"
    """`constant`: fits only count, and every row gets the same prediction; for benchmarks of all the rest."""
    backend: Literal["sklearn", "tabpfn"] = "sklearn"
    """Whose models: stand-ins of scikit-learn, or the local ones of the package `tabpfn`."""
    daily_tokens: int = Field(default=DAILY_TOKENS, ge=0)
    """Tokens that an account may use a day, UTC."""
    monthly_tokens: int = Field(default=MONTHLY_TOKENS, ge=0)
    """Tokens that an account may use a month, UTC."""
    rate_limits: bool = False
    """Whether the published limits of calls per minute and hour hold (contract section 4.3)."""
    latency: dict[Route, Annotated[float, Field(ge=0)]] = {}
    """Seconds that requests to a route take at least; `/v1/*` stands for all that begin so, `*` for all of the API."""
    idle_close_secs: float = Field(default=75.0, ge=0)
    """Idle connections are closed after so many seconds; the vendor's client polls every 5."""
    async_fit: bool = True
    """False: `submit_fit_job` answers 404, as an API without asynchronous fits does."""
    retry_in_secs: float | None = 0.5
    """Polling hint of `get_fit_status`, in seconds; None leaves it out."""
    get_settings: bool = True
    """False: `get_settings` answers 404, as an older API does."""
    keepalive_after_secs: float = Field(default=2.0, ge=0)
    """`/tabpfn/fit` starts to stream whitespace after this many seconds (contract section 1.3: 2)."""
    keepalive_every_secs: float = Field(default=1.0, gt=0)
    """Seconds between two spaces of such a stream."""
    async_threshold_bytes: int = 50 * 1024 * 1024
    """`async_settings.use_above_trainset_size_bytes`."""
    poll_timeout_secs: float = 7200.0
    """`async_settings.poll_timeout_secs`."""
