"""The jobs of the reasoning API: in worker threads; what was accepted survives a restart."""

import asyncio
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tabpfn_emulator._emulator import Emulator
from tabpfn_emulator._envelopes import DataError
from tabpfn_emulator._state.full_disk import is_full, remedy
from tabpfn_emulator._storage.incoming import scratch_beside

if TYPE_CHECKING:
    from tabpfn_emulator._learning.reasoning import ReasoningModel

NO_FOREIGN_TEACHER: Final = (
    "The emulator calls no foreign URL: a teacher of your own is part of the real service only. "
    "Use teacher_model_id, or no teacher."
)


def begin_job(emulator: Emulator, account: str, job_id: str) -> None:
    """Begin to work on a job that was committed; call it on the event loop."""
    emulator.begin(_work(emulator, account, job_id, emulator.reasoning.get("reasoning_job", account, job_id)))


def resume_jobs(emulator: Emulator) -> None:
    """Work on the jobs again that an earlier process has accepted and not ended; call it on the event loop."""
    for account, job_id in emulator.reasoning.unfinished_jobs():
        begin_job(emulator, account, job_id)


async def _work(emulator: Emulator, account: str, job_id: str, job: dict[str, Any]) -> None:
    store = emulator.reasoning
    await emulator.commit(lambda: store.change_job(job_id, status="running"))
    if job.get("endless"):
        await asyncio.Event().wait()
    model: ReasoningModel | None = None
    ended: dict[str, Any] = {"status": "completed"}
    try:
        if job["job_type"] == "reasoning_fit":
            model = await _fit(emulator, account, job)
        else:
            await _predict(emulator, account, job_id, job)
    except Exception as problem:  # whatever goes wrong must end the job, or clients would poll for ever
        text = str(problem) if isinstance(problem, DataError) else f"{type(problem).__name__}: {problem}"
        ended = {
            "status": "failed",
            "error_message": remedy(emulator.data_dir, problem) if is_full(problem) else text,
        }

    def end() -> None:
        # The job may have gone with its account; then its model would be left behind.
        if store.change_job(job_id, **ended, completed_at=time.time()) and model is not None:
            model_id = store.add("reasoning_model", account, {"recipe": job["recipe"]})
            store.change_job(job_id, model_id=model_id)
            emulator.database.after_commit(partial(emulator.reasoning_models.keep, model_id, model))

    await emulator.commit(end)


async def _fit(emulator: Emulator, account: str, job: dict[str, Any]) -> "ReasoningModel":
    if job.get("doomed") is not None:
        raise DataError(job["doomed"])
    recipe = job["recipe"]
    if recipe["foreign_teacher"]:
        raise DataError(NO_FOREIGN_TEACHER)
    return await _learn(emulator, account, recipe)


async def _predict(emulator: Emulator, account: str, job_id: str, job: dict[str, Any]) -> None:
    model = await _model(emulator, account, job["model_id"])
    dataset, target = job["dataset"], emulator.reasoning.result_path(job_id)
    path, file_format = _file(emulator, account, dataset)
    target.parent.mkdir(parents=True, exist_ok=True)

    def work() -> None:
        with tempfile.TemporaryDirectory() as scratch:
            source, source_format = _project(path, file_format, dataset["columns"], Path(scratch))
            predictions = model.predict_file(source, source_format, dataset["filter"])
        written = scratch_beside(target)
        try:
            written.write_text(json.dumps({"model_id": job["model_id"], "predictions": predictions}))
            written.replace(target)
        finally:
            written.unlink(missing_ok=True)

    await emulator.in_worker(work)


async def _model(emulator: Emulator, account: str, model_id: str) -> "ReasoningModel":
    recipe = emulator.reasoning.get("reasoning_model", account, model_id)["recipe"]
    return await emulator.reasoning_models.of(model_id, lambda: _learn(emulator, account, recipe))


async def _learn(emulator: Emulator, account: str, recipe: dict[str, Any]) -> "ReasoningModel":
    teacher = await _model(emulator, account, recipe["teacher_model_id"]) if recipe["teacher_model_id"] else None
    dataset = emulator.reasoning.get("reasoning_dataset", account, recipe["dataset_id"])
    path, file_format = _file(emulator, account, dataset)
    filters = [part for part in (dataset["filter"], recipe["filter"]) if part is not None]
    both = {"kind": "bool", "op": "and", "args": filters} if len(filters) == 2 else None

    def work() -> "ReasoningModel":
        from tabpfn_emulator._learning.reasoning import fit

        with tempfile.TemporaryDirectory() as scratch:
            source, source_format = _project(path, file_format, dataset["columns"], Path(scratch))
            if teacher is not None:
                source, source_format = _taught(source, source_format, recipe["label_column"], teacher, Path(scratch))
            return fit(
                source,
                source_format,
                recipe["label_column"],
                recipe["task_kind"],
                both or next(iter(filters), None),
                recipe["random_state"],
            )

    return await emulator.in_worker(work)


def _file(emulator: Emulator, account: str, dataset: dict[str, Any]) -> tuple[Path, str]:
    upload = emulator.reasoning.get("reasoning_upload", account, dataset["upload_id"])
    return emulator.reasoning.upload_path(dataset["upload_id"]), upload["file_format"]


def _project(path: Path, file_format: str, columns: list[str], scratch: Path) -> tuple[Path, str]:
    """Return a file that has the data set's columns only."""
    if file_format == "pkl":
        raise DataError("The emulator reads no pickles, because reading one runs its code: upload CSV or Parquet.")
    from tabpfn_emulator._learning.tables import column_names, take_rows

    names = column_names(path, file_format)
    missing = sorted(set(columns) - set(names))
    if missing:
        raise DataError(f"The file has no columns {missing}.")
    if set(columns) == set(names):
        return path, file_format
    frame = take_rows(path, file_format, None)
    chosen = [number for number, name in enumerate(names) if name in columns]
    frame = frame[chosen].set_axis([names[number] for number in chosen], axis=1)
    projected = scratch / "projected.parquet"
    frame.to_parquet(projected, index=False)
    return projected, "parquet"


def _taught(
    path: Path, file_format: str, label_column: str, teacher: "ReasoningModel", scratch: Path
) -> tuple[Path, str]:
    """Return a file whose labels are what the teacher predicts."""
    from tabpfn_emulator._learning.tables import column_names, take_rows

    names = column_names(path, file_format)
    frame = take_rows(path, file_format, None).set_axis(names, axis=1)
    predicted = teacher.predict_file(path, file_format)
    if teacher.classes:
        frame[label_column] = [teacher.classes[row.index(max(row))] for row in predicted]
    else:
        frame[label_column] = [row[0] for row in predicted]
    taught = scratch / "taught.parquet"
    frame.to_parquet(taught, index=False)
    return taught, "parquet"
