"""OpenLineage: what a fit, a scoring and an evaluation read, wrote and were asked, in the words of that standard.

Everything here but `Emitter` is pure and works without the extra `openlineage`: `fit_lineage`, `score_lineage` and
`evaluation_lineage` give plain data (inputs, outputs, run facets, job facets) that an engine's own integration can hand
over, and `run_event` makes a whole event of it.

Nothing is sent unless somebody asks for it (design.md, promise 5), and a worker's `OPENLINEAGE_URL` does not ask:
inside Airflow the engine's own listener has it too, and would report the same run twice. Ask with
`openlineage=True`, or with an `Emitter`; where events go is then read by OpenLineage's own client, from its own
settings (`OPENLINEAGE_URL`, `OPENLINEAGE_CONFIG`, `OPENLINEAGE__TRANSPORT__...`, `OPENLINEAGE_DISABLED`).
"""

from tabpfn_operators.openlineage._emitter import Emitter, EventClient, emitter_of
from tabpfn_operators.openlineage._events import ParentRun, RunIdentity, run_event, run_identity
from tabpfn_operators.openlineage._facets import PRODUCER, run_facets
from tabpfn_operators.openlineage._lineage import (
    RunLineage,
    evaluation_lineage,
    fit_lineage,
    fit_start,
    score_lineage,
    score_start,
)
from tabpfn_operators.openlineage._naming import DatasetId, dataset_id, model_id, source_ids
from tabpfn_operators.openlineage._reporting import reported_evaluation, reported_fit, reported_score

__all__ = [
    "PRODUCER",
    "DatasetId",
    "Emitter",
    "EventClient",
    "ParentRun",
    "RunIdentity",
    "RunLineage",
    "dataset_id",
    "emitter_of",
    "evaluation_lineage",
    "fit_lineage",
    "fit_start",
    "model_id",
    "reported_evaluation",
    "reported_fit",
    "reported_score",
    "run_event",
    "run_facets",
    "run_identity",
    "score_lineage",
    "score_start",
    "source_ids",
]
