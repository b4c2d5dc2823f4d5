"""`tabpfn-providers fit`."""

from typing import Annotated, Any, Literal

import typer

from tabpfn_assets import EngineRun
from tabpfn_operators.cli._models import ModelRecord
from tabpfn_operators.cli._parameters import read_parameters
from tabpfn_operators.cli._reading import CastOption, FiltersOption, RecompressOption, read_casts, read_compression
from tabpfn_operators.cli._report import watching
from tabpfn_operators.resume import OnUnknown, Reuse
from tabpfn_operators.settings import WireForm

TaskOption = Literal["classification", "regression"]


def fit(
    source: Annotated[str, typer.Argument(help="fsspec URL or path of a file, folder or pattern.")],
    target: Annotated[str, typer.Option(help="Column to predict.")],
    task: Annotated[TaskOption, typer.Option(help="What the model is to predict.")],
    feature: Annotated[list[str] | None, typer.Option(help="Feature column; repeat it. Default: all others.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Column that stays at home; repeat it.")] = None,
    filters: FiltersOption = None,
    cast: CastOption = None,
    recompress: RecompressOption = None,
    config: Annotated[str | None, typer.Option(help="tabpfn_config as JSON, e.g. '{\"n_estimators\": 4}'.")] = None,
    thinking: Annotated[
        str | None, typer.Option(help='Thinking mode as JSON, e.g. \'{"effort": "high"}\'; billed.')
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name for the model.")] = None,
    output: Annotated[str | None, typer.Option(help="Folder to write the record into, as model.json.")] = None,
    journal: Annotated[
        str | None,
        typer.Option(envvar="TABPFN_JOURNAL", help="Folder that remembers the fit, so that a rerun goes on with it."),
    ] = None,
    run_key: Annotated[
        str | None, typer.Option(help="Names this fit in the journal; the same for reruns. Default: --output.")
    ] = None,
    reuse: Annotated[Reuse, typer.Option(help="Which earlier fit of equal inputs will do.")] = "run",
    store: Annotated[
        str | None,
        typer.Option("--store", envvar="TABPFN_LINEAGE_STORE", help="Lineage store to file the model in, by --name."),
    ] = None,
    max_cost: Annotated[
        int | None, typer.Option(help="Tokens that the fit may cost; above it nothing is sent.")
    ] = None,
    on_unknown: Annotated[
        OnUnknown, typer.Option(help="What to do where nobody can know whether a fit was created.")
    ] = "auto",
    durable: Annotated[bool, typer.Option(help="Refuse a billed fit that no journal remembers.")] = True,
    adopt: Annotated[
        str | None, typer.Option(help="Submit nothing: take over this fitted id, of which only a log tells any more.")
    ] = None,
    streamed: Annotated[bool, typer.Option(help="Fit in one long request instead of a job.")] = False,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait; default: the server's own.")] = None,
    base_url: Annotated[str | None, typer.Option(help="API base URL; default: TABPFN_API_URL.")] = None,
    wire: Annotated[WireForm, typer.Option(help="Form of the fit body.")] = "nested",
    openlineage: Annotated[
        bool, typer.Option("--openlineage", help="Tell the OpenLineage server that OPENLINEAGE_URL or its file names.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Fit a model on a Parquet file and print its lineage record."""
    from tabpfn_operators import Client
    from tabpfn_operators.fit import check_arguments
    from tabpfn_operators.storage import folder

    parameters = read_parameters(task, config, thinking)
    check_arguments(name=name, timeout=timeout)
    destination = folder(output, None) if output else None
    if destination is not None:
        destination.check_writable()
    record = ModelRecord(destination)
    with Client(base_url=base_url, wire=wire, openlineage=openlineage) as client, watching() as progress, record:
        common: dict[str, Any] = {
            "parameters": parameters,
            "features": feature or None,
            "exclude": exclude or (),
            "filters": filters,
            "casts": read_casts(cast),
            "name": name,
            "run": EngineRun(engine="python", task_id="tabpfn-providers fit"),
            "timeout": timeout,
            "journal": journal or None,
            "run_key": run_key or (destination.url if journal and destination else None),
            "lineage": store or None,
            "progress": progress,
        }
        if adopt is not None:
            model = client.adopt_fit(adopt, source, target, **common)
        else:
            model = client.fit(
                source,
                target,
                recompress=read_compression(recompress),
                streamed=streamed,
                on_unknown=on_unknown,
                reuse=reuse,
                durable=durable,
                max_cost=max_cost,
                on_submitted=record.write,
                **common,
            )
    record.write(model)
    record.show(model, as_json=as_json)
