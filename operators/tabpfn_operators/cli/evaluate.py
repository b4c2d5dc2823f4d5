"""`tabpfn-providers evaluate`."""

from typing import Annotated

import typer

from tabpfn_assets import EngineRun, Evaluation, FittedModel
from tabpfn_operators.cli._lineage import notes
from tabpfn_operators.cli._reading import CastOption, FiltersOption, read_casts
from tabpfn_operators.cli._records import find_model
from tabpfn_operators.cli._report import show_facts, show_json, watching
from tabpfn_operators.errors import ModelNotRecordedError
from tabpfn_operators.lineage import version_id


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="A model record, or name@alias, name@version or a fitted id of --store, e.g. churn@latest."
        ),
    ],
    holdout: Annotated[str, typer.Argument(help="fsspec URL or path of a file with the features and the target.")],
    target: Annotated[str | None, typer.Option(help="Target column; default: the model's.")] = None,
    champion: Annotated[
        str | None,
        typer.Option(help="A model to compare with, written as MODEL; predicted and paid too."),
    ] = None,
    filters: FiltersOption = None,
    cast: CastOption = None,
    headline: Annotated[str | None, typer.Option(help="The metric that decides; default: log_loss or rmse.")] = None,
    max_rows: Annotated[int, typer.Option(min=1, help="Most rows that are predicted; above it a sample.")] = 200_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of sample and bootstrap.")] = 0,
    scores: Annotated[
        str | None, typer.Option(help="Folder that keeps the predictions, so that the same evaluation is paid once.")
    ] = None,
    report: Annotated[str | None, typer.Option(help="File (fsspec URL or path) for the report, as HTML.")] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", envvar="TABPFN_LINEAGE_STORE", help="Lineage store; keeps evaluations of its models."),
    ] = None,
    max_cost: Annotated[int | None, typer.Option(help="Tokens it may cost; above that nothing is sent.")] = None,
    base_url: Annotated[str | None, typer.Option(help="API base URL; default: TABPFN_API_URL.")] = None,
    openlineage: Annotated[
        bool, typer.Option("--openlineage", help="Tell the OpenLineage server that OPENLINEAGE_URL or its file names.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Predict a holdout and compare with its target. One billed call for each model."""
    from tabpfn_operators import Client
    from tabpfn_operators.evaluation import render_report
    from tabpfn_operators.storage import folder

    fitted = find_model(model, store)
    rival = None if champion is None else _champion(champion, store, fitted)
    place, _, file_name = (report or "").rpartition("/")
    destination = folder(place or ".", None) if report else None
    if destination is not None:
        destination.check_writable()
    with Client(base_url=base_url, openlineage=openlineage) as client, watching() as progress:
        found = client.evaluate(
            fitted,
            holdout,
            target,
            champion=rival,
            filters=filters,
            casts=read_casts(cast),
            headline=headline,
            max_rows=max_rows,
            seed=seed,
            scores=scores,
            max_cost=max_cost,
            run=EngineRun(engine="python", task_id="tabpfn-providers evaluate"),
            progress=progress,
        )
    filed = _file(store, fitted, found) if store else None
    if destination is not None:
        with destination.replacing(file_name) as file:
            file.write(render_report(found, model=fitted).encode())
    if as_json:
        show_json(found.model_dump(mode="json"))
        return
    places = {"filed": filed, "report": destination.file_url(file_name) if destination else None}
    show_facts("Evaluation", _facts(found) | {name: place for name, place in places.items() if place is not None})
    notes(found.notes)


def _champion(text: str, store: str | None, candidate: FittedModel) -> FittedModel | None:
    """Find the champion; the first model of a name has none, and is evaluated alone."""
    try:
        return find_model(text, store)
    except ModelNotRecordedError as error:
        if store is None or text.partition("@")[0] != candidate.name:
            raise
        notes([f"{error.message} It is evaluated without a champion."])
        return None


def _file(store: str, model: FittedModel, evaluation: Evaluation) -> str:
    from tabpfn_operators.lineage import LineageStore

    version = version_id(model.created_at, model.fitted_train_set_id)
    if model.name is None:
        return "nowhere: the model has no name"
    try:
        LineageStore(store).add_evaluation(model.name, version, evaluation)
    except ModelNotRecordedError:
        return f"nowhere: the store has no version {version} of {model.name}"
    return f"beside {model.name} {version}"


def _facts(evaluation: Evaluation) -> dict[str, object]:
    headline = evaluation.headline
    facts: dict[str, object] = {
        name: f"{value:.6g}{f' (baseline {base:.6g})' if (base := evaluation.baseline.get(name)) is not None else ''}"
        for name, value in evaluation.metrics.items()
    }
    if evaluation.interval is not None:
        interval = evaluation.interval
        facts[headline] = f"{facts[headline]}, {interval.level:.0%} interval {interval.low:.6g} to {interval.high:.6g}"
    if evaluation.comparison is not None:
        compared = evaluation.comparison
        facts["improvement"] = f"{compared.improvement:.6g} in {headline} over {compared.fitted_train_set_id}"
    facts["rows"] = f"{evaluation.rows:,}, scored {evaluation.rows_scored:,}, evaluated {evaluation.rows_evaluated:,}"
    return facts
