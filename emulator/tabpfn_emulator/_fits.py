"""Running fits: in worker threads, never on the event loop."""

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tabpfn_emulator._emulator import Emulator
from tabpfn_emulator._envelopes import ApiError, DataError, invalid
from tabpfn_emulator._faults import Fault
from tabpfn_emulator._limits import model_limits, price, version_of
from tabpfn_emulator._models import FitPlan
from tabpfn_emulator._store import Fit, StoredFile, Upload

if TYPE_CHECKING:
    from tabpfn_emulator._learning import Learned

DEFAULT_N_ESTIMATORS = 8


def check_thinking(plan: FitPlan) -> None:
    """Refuse thinking where the API has none (contract section 4.4).

    Raises:
        ApiError: 422 for models before v3, and for group and time columns that exclude each other.
    """
    if plan.thinking is None:
        return
    version = version_of(plan.config.get("model_path"))
    if version.startswith("v2"):
        raise invalid(f"Thinking needs model v3 or later; the fit asks for {version}.")
    if plan.thinking.get("group_col") and plan.thinking.get("time_col"):
        raise invalid("thinking_config: group_col and time_col exclude each other.")
    if plan.thinking.get("group_time_col") and not plan.thinking.get("group_col"):
        raise invalid("thinking_config: group_time_col needs group_col.")


async def assemble(emulator: Emulator, upload: Upload) -> dict[str, Path]:
    """Return the files of an upload, checked against what was announced.

    Raises:
        ApiError: 422 when bytes are missing, or size or hash differ: upload again.
    """
    if not upload.complete:
        raise invalid(f"The upload {upload.upload_id} is not complete: not every part has arrived.")
    loop = asyncio.get_running_loop()
    paths = {}
    for name, file in upload.files.items():
        paths[name] = await loop.run_in_executor(emulator.workers, file.assemble)
    return paths


def start_fit(
    emulator: Emulator, account: str, plan: FitPlan, route: str, upload: Upload, paths: dict[str, Path]
) -> tuple[Fit, "asyncio.Task[None]"]:
    """Accept a fit and begin to work on it.

    Args:
        emulator: The emulator.
        account: Who asks.
        plan: What is asked.
        route: The route that was called.
        upload: The train set.
        paths: What `assemble` returned.

    Returns:
        The pending fit, and the task that ends when the fit has.
    """
    fit = emulator.store.add_fit(account, plan, route)
    fault = emulator.faults.take_for_fit(route)
    task = asyncio.create_task(_work(emulator, fit, upload, paths, fault))
    return fit, task


async def _work(emulator: Emulator, fit: Fit, upload: Upload, paths: dict[str, Path], fault: Fault | None) -> None:
    started = time.monotonic()
    ends = started + emulator.settings.fit_seconds
    loop = asyncio.get_running_loop()
    outcome: Learned | DataError | Fault
    try:
        if fault is not None:
            outcome = fault
        else:
            outcome = await loop.run_in_executor(
                emulator.workers, _learn, upload.files, paths, fit.plan, emulator.settings.limits
            )
    except DataError as problem:
        outcome = problem
    except Exception as problem:  # whatever goes wrong must end the fit, or clients would poll for ever
        outcome = DataError(f"{type(problem).__name__}: {problem}")
    worked = time.monotonic() - started
    await asyncio.sleep(max(0.0, ends - time.monotonic()))
    fit.timings = {
        "elapsed_s": time.monotonic() - started,
        "queue_wait_s": 0.0,
        "train_set_transform_s": 0.0,
        "fit_s": worked,
    }
    if isinstance(outcome, DataError):
        fit.status, fit.error, fit.error_code = "failed", str(outcome), "REQUEST_VALIDATION_ERROR"
    elif isinstance(outcome, Fault):
        fit.status, fit.error, fit.error_code = "failed", outcome.error, outcome.error_code
    else:
        fit.model = None if fit.deleted else outcome
        fit.status = "completed"
        fit.charge = _charge(fit.plan, outcome)


def failure(fit: Fit) -> ApiError:
    """Return how the synchronous route reports a failed fit."""
    code = fit.error_code or "USER_ERROR"
    status = 422 if code == "REQUEST_VALIDATION_ERROR" else 500
    return ApiError(status, code, fit.error or "The fit failed.")


def _learn(files: dict[str, StoredFile], paths: dict[str, Path], plan: FitPlan, overrides: dict[str, int]) -> "Learned":
    # Imported in the worker thread: scikit-learn and pandas take seconds, which the server's start does not wait for.
    from tabpfn_emulator._worker import run_fit

    limits = model_limits(overrides)[version_of(plan.config.get("model_path"))]
    formats = {name: file.info.format for name, file in files.items()}
    return run_fit(paths, formats, plan, limits)


def _charge(plan: FitPlan, model: "Learned") -> int:
    # Standard fits are free (contract section 4.2).
    if plan.thinking is None:
        return 0
    return price(
        "thinking_fit",
        train_rows=model.rows,
        test_rows=0,
        columns=model.columns,
        n_estimators=plan.config.get("n_estimators") or DEFAULT_N_ESTIMATORS,
        version=version_of(plan.config.get("model_path")),
        effort=plan.thinking.get("effort"),
    )
