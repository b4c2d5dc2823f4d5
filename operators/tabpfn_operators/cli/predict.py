"""`tabpfn-providers predict`."""

from typing import Annotated

import typer

from tabpfn_assets import EngineRun
from tabpfn_operators.cli._reading import CastOption, FiltersOption, RecompressOption, read_casts, read_compression
from tabpfn_operators.cli._records import find_model, prediction_facts
from tabpfn_operators.cli._report import show_facts, show_json, watching


def predict(
    model: Annotated[
        str, typer.Argument(help="A model record (model.json, _lineage.json), or name@alias or a fitted id of --store.")
    ],
    source: Annotated[str, typer.Argument(help="fsspec URL or path of a Parquet file with the model's features.")],
    destination: Annotated[
        str,
        typer.Argument(help="Folder (fsspec URL or path); an earlier run's predictions are replaced."),
    ],
    output_type: Annotated[
        str | None, typer.Option(help="probas, preds; mean, median, mode, quantiles, main, full.")
    ] = None,
    quantile: Annotated[list[float] | None, typer.Option(help="A quantile between 0 and 1; repeat it.")] = None,
    filters: FiltersOption = None,
    cast: CastOption = None,
    recompress: RecompressOption = None,
    redact_labels: Annotated[bool, typer.Option(help="Hash column names and labels in _lineage.json.")] = False,
    store: Annotated[
        str | None,
        typer.Option("--store", envvar="TABPFN_LINEAGE_STORE", help="Lineage store for MODEL."),
    ] = None,
    max_cost: Annotated[
        int | None, typer.Option(help="Tokens that it may cost; above, or above what is left, nothing is sent.")
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="API base URL; default: TABPFN_API_URL.")] = None,
    openlineage: Annotated[
        bool, typer.Option("--openlineage", help="Tell the OpenLineage server that OPENLINEAGE_URL or its file names.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Predict a Parquet file with a fitted model. One billed call."""
    from tabpfn_operators import Client

    fitted = find_model(model, store)
    with Client(base_url=base_url, openlineage=openlineage) as client, watching() as progress:
        record = client.predict(
            fitted,
            source,
            destination,
            output_type=output_type,
            quantiles=quantile or None,
            filters=filters,
            casts=read_casts(cast),
            recompress=read_compression(recompress),
            run=EngineRun(engine="python", task_id="tabpfn-providers predict"),
            redact_labels=redact_labels,
            max_cost=max_cost,
            progress=progress,
        )
    if as_json:
        show_json(record.model_dump(mode="json"))
    else:
        show_facts("Predictions", prediction_facts(record))
