"""A long job on the server, and one look at it."""

from typing import Literal

from pydantic import Field, model_validator

from tabpfn_assets._record import Record
from tabpfn_assets.fitted_model import FittedModel
from tabpfn_assets.sets import TrainSet

JobKind = Literal["tabpfn_async", "tabpfn_stream", "reasoning"]
JobPhase = Literal["uploaded", "intent", "submitted", "completed", "failed"]


class JobRecord(Record):
    """What must be remembered of a job so that it is waited for, never started twice.

    JSON-plain, and it holds no secret: engines put it into state stores, and without `train_set` and `model` into
    trigger rows.

    Args:
        kind: How the job is polled: `tabpfn_async` (submit_fit_job / get_fit_status), `tabpfn_stream` (one long
            streamed POST), `reasoning` (submit / status / result).
        phase: `uploaded` once the train set is on the server, `intent` right before the POST that creates the job,
            `submitted` once its id is known, then `completed` or `failed`.
        job_id: The server's id; None before phase `submitted`, and where a streamed fit failed before it was named.
        fingerprint: What is fitted, without the account: a key may be replaced while the job runs.
        generation: How often a person asked for this work anew.
        owner: Who wrote `intent`; of one start of one process, never of two.
        lease_expires_at: Epoch seconds until which the owner is believed to live.
        submitted_at: Epoch seconds.
        deadline_at: Epoch seconds (wall clock, so that a restarted waiter keeps it).
        delivered: Whether the result reached the caller; such a record stays, and answers an unchanged rerun.
        resubmissions: How often it was sent again because nobody could know whether it had been carried out; as many
            jobs may run at the server that nothing names.
        error: Why it failed, in the server's words.
        error_code: The server's code for the failure.
        usage: The account's usage right before a billed submission, as the server told it.
        delivered_at: Epoch seconds.
        superseded: Fits of other inputs that this place has left open, submitted or in doubt; newest first.
        train_set: What is on the server, from phase `uploaded` on.
        model: The fitted model, from phase `submitted` on.
    """

    schema_version: int = 1
    kind: JobKind
    phase: JobPhase
    job_id: str | None = None
    fingerprint: str | None = None
    generation: int = Field(default=0, ge=0)
    owner: str | None = None
    lease_expires_at: float | None = None
    submitted_at: float | None = None
    deadline_at: float | None = None
    delivered: bool = False
    resubmissions: int = Field(default=0, ge=0)
    error: str | None = None
    error_code: str | None = None
    usage: dict[str, object] | None = None
    delivered_at: float | None = None
    superseded: "tuple[JobRecord, ...]" = ()
    train_set: TrainSet | None = None
    model: FittedModel | None = None

    @model_validator(mode="after")
    def _id_once_submitted(self) -> "JobRecord":
        if self.phase in {"submitted", "completed"} and self.job_id is None:
            raise ValueError(f"a job in phase {self.phase!r} needs its job_id")
        return self


class FitStatus(Record):
    """One look at a fit (contract 1.5).

    Args:
        fitted_train_set_id: The fit.
        status: `pending`, `completed`, `failed`, or a word that a newer server uses for still running.
        retry_in_secs: The server's hint: earliest seconds until the next look.
        error: Why it failed, in the server's words.
        error_code: The server's code for the failure.
        timings: Seconds by stage, as the server reports them.
    """

    fitted_train_set_id: str
    status: str
    retry_in_secs: float | None = None
    error: str | None = None
    error_code: str | None = None
    timings: dict[str, float | None] = {}
