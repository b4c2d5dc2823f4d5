"""Fit: submit or stream, then wait; every id is in a record before anything waits for it."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime

from tabpfn_assets import EngineRun, FitParameters, FitStatus, FittedModel, JobRecord, TrainSet
from tabpfn_assets.names import NAME_PATTERN
from tabpfn_operators import _messages as messages
from tabpfn_operators import jobs
from tabpfn_operators._call import Session, call, log
from tabpfn_operators._messages import Request, Response
from tabpfn_operators.account import get_settings
from tabpfn_operators.errors import (
    ApiError,
    AsyncFitUnsupportedError,
    ConfigurationError,
    FitFailedError,
    FittedModelNotFoundError,
    FitTimeoutError,
    NotFoundError,
    OutcomeUnknownError,
    RequestRejectedError,
    ServerError,
    TabPFNError,
)
from tabpfn_operators.jobs import FitLook
from tabpfn_operators.packages import package_versions
from tabpfn_operators.progress import Progress, ProgressCallback
from tabpfn_operators.resume import OnUnknown
from tabpfn_operators.upload import is_stale, stale_upload

OnSubmitted = Callable[[FittedModel], object]


async def submit_fit_job(
    session: Session,
    train_set: TrainSet,
    *,
    parameters: FitParameters,
    name: str | None,
    run: EngineRun | None,
    on_unknown: OnUnknown,
) -> FittedModel:
    """Create a fit job; the record is pending."""
    check_arguments(name=name)
    _check_task(train_set, parameters)
    request = messages.submit_fit_job(train_set.train_set_upload_id, parameters)
    try:
        answer, orphans = await _create(session, request, train_set, parameters, on_unknown)
    except ApiError as error:
        if error.status == 405 or (error.status == 404 and not await _has_route(session, request)):
            raise AsyncFitUnsupportedError(
                "This server has no job API for fits (submit_fit_job). Fit with streamed=True on a worker that may "
                "wait, or use a server that has it; nothing was fitted.",
                status=error.status,
                code=error.code,
                trace_id=error.trace_id,
            ) from None
        raise
    data = messages.read_object(answer, request.label, "fitted_train_set_id", billed=True)
    return fit_record(session, train_set, str(data["fitted_train_set_id"]), parameters, name, run, orphans)


async def _has_route(session: Session, request: Request) -> bool:
    """Tell a missing route from a missing upload: a GET of a route that takes POST only is answered 405."""
    try:
        await call(session, messages.get(request.url))
    except ApiError as error:
        return error.status == 405
    return True


async def fit_train_set(
    session: Session,
    train_set: TrainSet,
    *,
    parameters: FitParameters,
    name: str | None,
    run: EngineRun | None,
    on_unknown: OnUnknown,
    progress: ProgressCallback,
) -> FittedModel:
    """Fit in one long streamed POST; where the server says it is not done yet, wait for it."""
    model = await _fit_in_one_post(session, train_set, parameters=parameters, name=name, run=run, on_unknown=on_unknown)
    return await wait_for_fit(session, model, timeout=None, progress=progress)


async def _fit_in_one_post(
    session: Session,
    train_set: TrainSet,
    *,
    parameters: FitParameters,
    name: str | None,
    run: EngineRun | None,
    on_unknown: OnUnknown,
) -> FittedModel:
    check_arguments(name=name)
    _check_task(train_set, parameters)
    lacks = messages.flat_form_lacks(parameters) if session.settings.wire == "flat" else ()
    if lacks:
        raise ConfigurationError(f"wire=flat cannot carry {', '.join(lacks)}; use wire=nested or leave it out.")
    request = messages.fit(train_set.train_set_upload_id, parameters, wire=session.settings.wire)
    answer, orphans = await _create(session, request, train_set, parameters, on_unknown)
    try:
        status = messages.read_fit_status(answer, request.label)
    except ServerError as error:
        # Terminal, unlike other failures of the server: the fit failed, and an engine's retry would be a new one.
        raise FitFailedError(
            f"{error.message} Correct the data or the parameters, then fit again.",
            fitted_train_set_id=None,
            status=error.status,
            code=error.code,
            trace_id=error.trace_id,
        ) from None
    model = fit_record(session, train_set, status.fitted_train_set_id, parameters, name, run, orphans)
    return jobs.completed(model, status) if status.status == "completed" else model


async def create_fit(
    session: Session,
    train_set: TrainSet,
    *,
    parameters: FitParameters,
    name: str | None,
    run: EngineRun | None,
    on_unknown: OnUnknown,
    streamed: bool,
) -> FittedModel:
    """Create a fit, as a job or in one streamed POST; the record is pending, or completed after a stream."""
    create = _fit_in_one_post if streamed else submit_fit_job
    return await create(session, train_set, parameters=parameters, name=name, run=run, on_unknown=on_unknown)


async def _create(
    session: Session, request: Request, train_set: TrainSet, parameters: FitParameters, on_unknown: OnUnknown
) -> tuple[Response, int]:
    """Send what creates a fit; send it once more where nobody can know but it is free (design.md, promise 2).

    Returns:
        The answer, and how many fits may exist that nothing names.
    """
    try:
        return await call(session, request), 0
    except (NotFoundError, RequestRejectedError) as error:
        if train_set.duplicate and is_stale(error):
            raise stale_upload(error, train_set.train_set_upload_id) from None
        raise
    except OutcomeUnknownError:
        if on_unknown == "raise" or (on_unknown == "auto" and parameters.billed):
            raise
        log.warning(
            "%s: the answer was lost; sending it once more (on_unknown=%s). One fit may stay unused.",
            request.label,
            on_unknown,
        )
    return await call(session, request), 1


def check_arguments(*, name: str | None = None, timeout: float | None = None) -> None:
    """Refuse what would otherwise fail once the fit is made, and lose its id with it."""
    if name is not None and not re.fullmatch(NAME_PATTERN, name):
        raise ConfigurationError(
            f"name {name!r} is not usable: up to 128 letters, digits, '.', '_', '-', and no dot at the start."
        )
    if timeout is not None and not timeout >= 0:
        raise ConfigurationError(f"timeout {timeout} is not usable; pass seconds, 0 or more.")


def check_parameters(parameters: object) -> None:
    """Refuse what is no FitParameters."""
    if not isinstance(parameters, FitParameters):
        raise ConfigurationError("parameters must be FitParameters, for instance FitParameters(task='classification').")
    thinking = parameters.thinking
    unknown = sorted({*(parameters.model_extra or ()), *((thinking and thinking.model_extra) or ())})
    if unknown:
        raise ConfigurationError(
            f"These parameters come from a newer version, which knows {', '.join(unknown)}; upgrade tabpfn-providers, "
            "or build FitParameters without."
        )


def _check_task(train_set: TrainSet, parameters: FitParameters) -> None:
    check_parameters(parameters)
    if train_set.task != parameters.task:
        raise ConfigurationError(
            f"The train set was checked for {train_set.task}, the parameters say {parameters.task}; use one of them."
        )


def fit_record(
    session: Session,
    train_set: TrainSet,
    fitted_id: str,
    parameters: FitParameters,
    name: str | None,
    run: EngineRun | None,
    orphans: int = 0,
) -> FittedModel:
    """Make the record of a fit that the server has named, pending."""
    log.info("Fit %s submitted.", fitted_id)  # whoever is killed now finds the id in the log
    return FittedModel(
        name=name,
        fitted_train_set_id=fitted_id,
        train_set_upload_id=train_set.train_set_upload_id,
        status="pending",
        target=train_set.target,
        features=train_set.features,
        classes=train_set.classes,
        rows=train_set.rows,
        source=train_set.source,
        parameters=parameters,
        possible_orphans=orphans,
        api_url=session.settings.base_url,
        account=session.settings.account,
        run=run,
        packages=package_versions(),
        created_at=datetime.now(UTC),
    )


async def get_fit_status(session: Session, fitted_train_set_id: str) -> FitStatus:
    """Look once (contract 1.5)."""
    request = messages.post("/tabpfn/get_fit_status", {"fitted_train_set_id": fitted_train_set_id})
    try:
        answer = await call(session, request)
    except NotFoundError as error:
        raise FittedModelNotFoundError(
            f"The server does not know the fit {fitted_train_set_id}: it is gone or another account's. Fit again, or "
            "use that account's token.",
            status=error.status,
            code=error.code,
            trace_id=error.trace_id,
        ) from None
    return messages.read_fit_status(answer, request.label, fitted_train_set_id=fitted_train_set_id)


async def wait_for_fit(
    session: Session, model: FittedModel, *, timeout: float | None, progress: ProgressCallback
) -> FittedModel:
    """Look until the fit is completed, has failed, or the deadline passes."""
    if model.status == "completed":
        return model
    check_arguments(timeout=timeout)
    if timeout is None:
        timeout = (await get_settings(session)).async_settings.poll_timeout_secs
    started = time.time()
    job = jobs.job_of(model, timeout_seconds=timeout, now=started)
    await session.wire.sleep(jobs.FIRST_LOOK_SECONDS)
    shown = ""
    while True:
        try:
            look = await look_at_fit(session, job)
        except FitTimeoutError as error:
            error.model = model
            raise
        if look.status.status != shown:
            shown = look.status.status
            log.info("Fit %s is %s.", model.fitted_train_set_id, shown)
        progress(Progress("fit", time.time() - started, None, shown))
        if look.wait is None:
            return jobs.completed(model, look.status)
        await session.wire.sleep(look.wait)


async def look_at_fit(session: Session, job: JobRecord) -> FitLook:
    """Look once and decide what follows; an outage is no news about the fit, only the deadline ends it."""
    fitted_id = job.job_id
    if fitted_id is None or job.kind != "tabpfn_async":
        raise ConfigurationError(f"A job of kind {job.kind} in phase {job.phase} cannot be looked at by fitted id.")
    try:
        status = await get_fit_status(session, fitted_id)
    except TabPFNError as error:
        if error.terminal:
            raise
        log.warning("Could not look at fit %s: %s Looking again.", fitted_id, error)
        status = FitStatus(fitted_train_set_id=fitted_id, status="pending")
    return FitLook(status, jobs.next_look(job, status, now=time.time(), jitter=session.jitter()))
