"""`tabpfn-providers score`."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from tabpfn_assets import EngineRun, ScoringPlan
from tabpfn_operators.cli._earlier import admit, destination_fact
from tabpfn_operators.cli._reading import CastOption, FiltersOption, RecompressOption, read_casts, read_compression
from tabpfn_operators.cli._records import find_model, prediction_facts, some_uris
from tabpfn_operators.cli._report import show_facts, show_json
from tabpfn_operators.cli._scoring import watching_shards
from tabpfn_operators.errors import ConfigurationError
from tabpfn_operators.pricing import CostPlan, check_max_cost
from tabpfn_operators.scoring import CONCURRENCY, Earlier, OnUnknown


def score(
    model: Annotated[
        str, typer.Argument(help="A model record (model.json, _lineage.json), or name@alias or a fitted id of --store.")
    ],
    source: Annotated[str, typer.Argument(help="fsspec URL or path of a file, folder or pattern with the features.")],
    destination: Annotated[
        str, typer.Argument(help="Folder (fsspec URL or path) on local disk, S3, Google Cloud Storage or Azure.")
    ],
    output_type: Annotated[
        str | None, typer.Option(help="probas, preds; mean, median, mode, quantiles, main, full.")
    ] = None,
    quantile: Annotated[list[float] | None, typer.Option(help="A quantile between 0 and 1; repeat it.")] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="Column to copy beside the predictions, such as a key; repeat it.")
    ] = None,
    partition_by: Annotated[
        list[str] | None, typer.Option(help="Kept column whose values become folders (day=7/); repeat it.")
    ] = None,
    wide: Annotated[bool, typer.Option(help="A column for each class and quantile, or one of lists.")] = True,
    allow_extra: Annotated[
        bool, typer.Option("--allow-extra", help="Take a source with columns that nobody asked for.")
    ] = False,
    rows_per_shard: Annotated[
        int | None, typer.Option(min=1, help="Most rows of a prediction; default: the server's limit.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Predictions in flight.")] = CONCURRENCY,
    on_unknown: Annotated[
        OnUnknown, typer.Option(help="A shard that was sent and had no answer: send it again, or leave it and say so.")
    ] = "resend",
    max_resends: Annotated[
        int | None, typer.Option(min=0, help="Shards sent again, over all runs; default: --concurrency.")
    ] = None,
    filters: FiltersOption = None,
    cast: CastOption = None,
    recompress: RecompressOption = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume", help="Go on with what DESTINATION has of this very scoring, or refuse to."
        ),
    ] = True,
    replace: Annotated[
        bool, typer.Option("--replace", help="Other scorings in DESTINATION may go, once this one is complete.")
    ] = False,
    plan_only: Annotated[bool, typer.Option("--plan", help="Say what it would do and cost; nothing is sent.")] = False,
    redact_labels: Annotated[bool, typer.Option(help="Hash column names and labels in the records.")] = False,
    store: Annotated[
        str | None,
        typer.Option("--store", envvar="TABPFN_LINEAGE_STORE", help="Lineage store for MODEL."),
    ] = None,
    max_cost: Annotated[
        int | None,
        typer.Option(help="Tokens that what is left may cost; above, or above the pools' rest, none is sent."),
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="API base URL; default: TABPFN_API_URL.")] = None,
    openlineage: Annotated[
        bool, typer.Option("--openlineage", help="Tell the OpenLineage server that OPENLINEAGE_URL or its file names.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Score any number of rows, in shards that are each one billed call, paid for once.

    Repeated unchanged, after a kill or at the same time elsewhere, it goes on where it was: what is done is checked and
    not sent again. Where DESTINATION holds another scoring (another model, source or option) it is refused before
    anything is sent, unless --replace says that this may go.
    """
    from tabpfn_operators import Client
    from tabpfn_operators.scoring import find_earlier
    from tabpfn_operators.storage import folder

    if replace and not resume:
        raise ConfigurationError("--no-resume wants an empty destination, --replace does not; pass one of them.")
    check_max_cost(max_cost)
    fitted = find_model(model, store)
    target = folder(destination, None)
    began = datetime.now(UTC)
    common: dict[str, Any] = {
        "output_type": output_type,
        "quantiles": quantile or None,
        "keep": keep or (),
        "partition_by": partition_by or (),
        "wide": wide,
        "allow_extra": allow_extra,
        "rows_per_shard": rows_per_shard,
        "filters": filters,
        "casts": read_casts(cast),
    }
    with Client(base_url=base_url, openlineage=openlineage) as client:
        earlier = find_earlier(target)
        # A source that has to be decoded is read for it; where nothing can be lost, once is enough.
        plan = None if earlier.empty and not plan_only else client.plan_score(fitted, source, **common)
        if plan is not None and plan_only:
            _show_plan(plan, earlier, max_cost, as_json=as_json)
            return
        if plan is not None:
            admit(earlier, plan, target.url, resume=resume, replace=replace)
        with watching_shards() as progress:
            record = client.score(
                fitted,
                source,
                destination,
                plan=plan,
                concurrency=concurrency,
                on_unknown=on_unknown,
                max_resends=max_resends,
                recompress=read_compression(recompress),
                run=EngineRun(engine="python", task_id="tabpfn-providers score"),
                redact_labels=redact_labels,
                max_cost=max_cost,
                progress=progress,
                **common,
            )
    if as_json:
        show_json(record.model_dump(mode="json"))
    else:
        done_before = {"this run": "all was done before; nothing was sent"} if record.created_at < began else {}
        show_facts("Predictions", prediction_facts(record) | done_before)


def _show_plan(plan: ScoringPlan, earlier: Earlier, max_cost: int | None, *, as_json: bool) -> None:
    if as_json:
        complete = earlier.manifest.plan.plan_id if earlier.manifest else None
        show_json(plan.model_dump(mode="json") | {"destination": {"complete": complete, "begun": dict(earlier.begun)}})
    else:
        show_facts("Plan", _facts(plan) | {"destination": destination_fact(earlier, plan)})
    cost = CostPlan(0, plan.estimated_cost, plan.rows, plan.shards, unpriced="the server does not tell prices")
    cost.raise_exceeded(max_cost)


def _facts(plan: ScoringPlan) -> dict[str, object]:
    most = "as many rows as there are" if plan.rows_per_shard is None else f"at most {plan.rows_per_shard:,} rows"
    decoded = plan.shards - plan.spliced
    facts: dict[str, object] = {
        "scoring": plan.plan_id,
        "fitted id": plan.fitted_train_set_id,
        "source": some_uris(plan.source.uris),
        "rows": f"{plan.rows:,}",
        "shards": f"{plan.shards:,} of {most}; {plan.spliced:,} sent as they are stored, {decoded:,} decoded",
        "bytes to send": "known once written" if plan.bytes_to_send is None else f"{plan.bytes_to_send:,}",
        "output type": plan.output_type,
        "estimated cost": "not known" if plan.estimated_cost is None else f"{plan.estimated_cost:,} for all shards",
    }
    if plan.keep:
        facts["kept columns"] = ", ".join(plan.keep)
    return facts
