"""The jobs of the reasoning API: in worker threads; what was accepted survives a restart."""

import asyncio
import json
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tabpfn_emulator._emulator import Emulator
from tabpfn_emulator._envelopes import DataError
from tabpfn_emulator._state.reasoning import ReasoningStore
from tabpfn_emulator._storage.incoming import scratch_beside

if TYPE_CHECKING:
    from tabpfn_emulator._learning.reasoning import ReasoningModel

_MODELS_IN_MEMORY: Final = 8

ResultT = TypeVar("ResultT")
NO_FOREIGN_TEACHER: Final = (
    "The emulator calls no foreign URL: a teacher of your own is part of the real service only. "
    "Use teacher_model_id, or no teacher."
)


class ReasoningJobs:
    """Works on jobs and keeps the models that were used last.

    A model is learnt again from its data set when it is not in memory: learning is deterministic.

    Args:
        emulator: Whose worker threads to use.
        store: Where jobs are.
    """

    def __init__(self, emulator: Emulator, store: ReasoningStore) -> None:
        self._emulator = emulator
        self._store = store
        self._running: set[asyncio.Task[None]] = set()
        self._models: OrderedDict[str, ReasoningModel] = OrderedDict()

    def begin(self, account: str, job_id: str) -> None:
        """Begin to work on a job that was committed; call it on the event loop."""
        task = asyncio.create_task(self._work(account, job_id, self._store.get("reasoning_job", account, job_id)))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def resume(self) -> None:
        """Work on the jobs again that an earlier process has accepted and not ended; call it on the event loop."""
        for account, job_id in self._store.unfinished_jobs():
            self.begin(account, job_id)

    async def _work(self, account: str, job_id: str, job: dict[str, Any]) -> None:
        self._store.change("reasoning_job", account, job_id, status="running", updated_at=time.time())
        if job.get("endless"):
            await asyncio.Event().wait()
        model: ReasoningModel | None = None
        ended: dict[str, Any] = {"status": "completed"}
        try:
            if job["job_type"] == "reasoning_fit":
                model = await self._fit(account, job)
            else:
                await self._predict(account, job_id, job)
        except Exception as problem:  # whatever goes wrong must end the job, or clients would poll for ever
            text = str(problem) if isinstance(problem, DataError) else f"{type(problem).__name__}: {problem}"
            ended = {"status": "failed", "error_message": text}
        self._end(account, job_id, job, ended, model)

    def _end(
        self, account: str, job_id: str, job: dict[str, Any], ended: dict[str, Any], model: "ReasoningModel | None"
    ) -> None:
        # The job may have gone with its account; then its model would be left behind.
        if not self._store.has("reasoning_job", account, job_id):
            return
        now = time.time()
        with self._store.transaction():
            if model is not None:
                ended["model_id"] = self._store.add("reasoning_model", account, {"recipe": job["recipe"]})
            self._store.change("reasoning_job", account, job_id, **ended, updated_at=now, completed_at=now)
        if model is not None:
            self._remember(ended["model_id"], model)

    async def _fit(self, account: str, job: dict[str, Any]) -> "ReasoningModel":
        if job.get("doomed") is not None:
            raise DataError(job["doomed"])
        recipe = job["recipe"]
        if recipe["foreign_teacher"]:
            raise DataError(NO_FOREIGN_TEACHER)
        return await self._learn(account, recipe)

    async def _predict(self, account: str, job_id: str, job: dict[str, Any]) -> None:
        model = await self._model(account, job["model_id"])
        dataset, target = job["dataset"], self._store.result_path(job_id)
        path, file_format = self._file(account, dataset)

        def work() -> None:
            with tempfile.TemporaryDirectory() as scratch:
                source, source_format = _project(path, file_format, dataset["columns"], Path(scratch))
                predictions = model.predict_file(source, source_format, dataset["filter"])
            written = scratch_beside(target)
            written.write_text(json.dumps({"model_id": job["model_id"], "predictions": predictions}))
            written.replace(target)

        await self._in_worker(work)

    async def _model(self, account: str, model_id: str) -> "ReasoningModel":
        recipe = self._store.get("reasoning_model", account, model_id)["recipe"]
        if model_id not in self._models:
            self._remember(model_id, await self._learn(account, recipe))
        self._models.move_to_end(model_id)
        return self._models[model_id]

    def _remember(self, model_id: str, model: "ReasoningModel") -> None:
        self._models[model_id] = model
        while len(self._models) > _MODELS_IN_MEMORY:
            self._models.popitem(last=False)

    async def _learn(self, account: str, recipe: dict[str, Any]) -> "ReasoningModel":
        teacher = await self._model(account, recipe["teacher_model_id"]) if recipe["teacher_model_id"] else None
        dataset = self._store.get("reasoning_dataset", account, recipe["dataset_id"])
        path, file_format = self._file(account, dataset)
        filters = [part for part in (dataset["filter"], recipe["filter"]) if part is not None]
        both = {"kind": "bool", "op": "and", "args": filters} if len(filters) == 2 else None

        def work() -> "ReasoningModel":
            from tabpfn_emulator._learning.reasoning import fit

            with tempfile.TemporaryDirectory() as scratch:
                source, source_format = _project(path, file_format, dataset["columns"], Path(scratch))
                if teacher is not None:
                    source, source_format = _taught(
                        source, source_format, recipe["label_column"], teacher, Path(scratch)
                    )
                return fit(
                    source,
                    source_format,
                    recipe["label_column"],
                    recipe["task_kind"],
                    both or next(iter(filters), None),
                    recipe["random_state"],
                )

        return await self._in_worker(work)

    def _file(self, account: str, dataset: dict[str, Any]) -> tuple[Path, str]:
        upload = self._store.get("reasoning_upload", account, dataset["upload_id"])
        return self._store.upload_path(dataset["upload_id"]), upload["file_format"]

    async def _in_worker(self, work: Callable[[], ResultT]) -> ResultT:
        return await asyncio.get_running_loop().run_in_executor(self._emulator.workers, work)


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
