"""Events: a run's identity, its state, and what it read and wrote."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Self
from uuid import UUID, uuid4, uuid5

from tabpfn_assets import EngineRun
from tabpfn_operators.errors import ConfigurationError
from tabpfn_operators.openlineage._facets import EVENT_SCHEMA, PRODUCER, Plain, engine, facet, failure
from tabpfn_operators.openlineage._lineage import RunLineage

State = Literal["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]
Verb = Literal["fit", "score", "evaluate"]

DEFAULT_NAMESPACE = "default"
#: Made once, by chance: what run ids are derived from.
_RUNS = UUID("6a4b8f52-0c0e-4b0b-9f64-3f1f3a3c8c57")


@dataclass(frozen=True)
class ParentRun:
    """The run that started this one, for instance an Airflow task.

    Args:
        run_id: Its run id, a UUID.
        namespace: Namespace of its job.
        job: Name of its job.
    """

    run_id: str
    namespace: str
    job: str

    def __post_init__(self) -> None:
        try:
            UUID(self.run_id)
        except (ValueError, AttributeError, TypeError):
            raise ConfigurationError(
                f"parent run: {self.run_id!r} is no UUID; pass the id that the parent's own events carry."
            ) from None

    @classmethod
    def read(cls, text: str) -> Self:
        """Read `namespace/job/run id`, the form that engines hand on in `OPENLINEAGE_PARENT_ID`.

        Args:
            text: The three parts.

        Returns:
            The parent.

        Raises:
            ConfigurationError: It is not of that form; pass what the engine's macro for it gives.
        """
        parts = text.rsplit("/", 2)
        if len(parts) != 3:
            raise ConfigurationError("A parent run is written namespace/job/run id; see the engine's macro for it.")
        return cls(run_id=parts[2], namespace=parts[0], job=parts[1])


@dataclass(frozen=True)
class RunIdentity:
    """One run of one job: all its events carry the same.

    Args:
        run_id: A UUID.
        job: Name of the job, which stays the same from run to run.
        namespace: Namespace of the job.
        parent: The run that started it.
        engine: The engine that runs it.
    """

    run_id: str
    job: str
    namespace: str = DEFAULT_NAMESPACE
    parent: ParentRun | None = None
    engine: EngineRun | None = None


def run_identity(
    verb: Verb,
    *,
    name: str | None = None,
    job: str | None = None,
    namespace: str = DEFAULT_NAMESPACE,
    parent: ParentRun | None = None,
    engine_run: EngineRun | None = None,
    parts: Iterable[str | None] = (),
) -> RunIdentity:
    """Identify a run: the same for a rerun inside the same engine run, so that a killed worker's run is closed.

    Args:
        verb: `fit`, `score` or `evaluate`.
        name: The model's name.
        job: Name of the job; None takes `<task, else model, else tabpfn>.<verb>`.
        namespace: Namespace of the job.
        parent: The run that started it.
        engine_run: The engine run; without its id each call is a run of its own.
        parts: What else tells this call from others in the same task: source, target, destination.

    Returns:
        The identity.
    """
    task = engine_run.task_id if engine_run is not None else None
    job = job or f"{task or name or 'tabpfn'}.{verb}"
    if engine_run is None or engine_run.run_id is None:
        run_id = uuid4()
    else:
        key = [engine_run.engine, engine_run.run_id, task, namespace, job, name, *parts]
        run_id = uuid5(_RUNS, json.dumps(key))
    return RunIdentity(run_id=str(run_id), job=job, namespace=namespace, parent=parent, engine=engine_run)


def run_event(
    state: State,
    run: RunIdentity,
    lineage: RunLineage,
    *,
    time: datetime,
    error: BaseException | None = None,
    redact: bool = False,
) -> Plain:
    """Make an event.

    Args:
        state: `START`, then one of `COMPLETE`, `FAIL`, `ABORT`.
        run: Which run.
        lineage: What it read and wrote.
        time: When, with a time zone.
        error: Why it failed; its text is told without URLs' secrets, and only if it is an error of this package.
        redact: Tell the error's class alone, because messages name columns and labels.

    Returns:
        A RunEvent as JSON has it, valid by OpenLineage's schema 2-0-2.
    """
    facets = {**lineage.run_facets, "processing_engine": engine(run.engine)}
    if run.parent is not None:
        facets["parent"] = facet(
            "ParentRunFacet",
            run={"runId": run.parent.run_id},
            job={"namespace": run.parent.namespace, "name": run.parent.job},
        )
    if error is not None:
        facets["errorMessage"] = failure(error, redact=redact)
    return {
        "eventType": state,
        "eventTime": time.astimezone(UTC).isoformat(),
        "run": {"runId": run.run_id, "facets": facets},
        "job": {"namespace": run.namespace, "name": run.job, "facets": dict(lineage.job_facets)},
        "inputs": list(lineage.inputs),
        "outputs": list(lineage.outputs),
        "producer": PRODUCER,
        "schemaURL": EVENT_SCHEMA,
    }
