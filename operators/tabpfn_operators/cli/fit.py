"""`tabpfn-providers fit`."""

import json
import typing
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from tabpfn_assets import EngineRun, FitParameters
from tabpfn_operators.cli._models import ModelRecord
from tabpfn_operators.cli._reading import CastOption, FiltersOption, RecompressOption, read_casts, read_compression
from tabpfn_operators.cli._report import watching
from tabpfn_operators.errors import ConfigurationError
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
    streamed: Annotated[bool, typer.Option(help="Fit in one long request instead of a job.")] = False,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait; default: the server's own.")] = None,
    base_url: Annotated[str | None, typer.Option(help="API base URL; default: TABPFN_API_URL.")] = None,
    wire: Annotated[WireForm, typer.Option(help="Form of the fit body.")] = "nested",
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Fit a model on a Parquet file and print its lineage record."""
    from tabpfn_operators import Client
    from tabpfn_operators.fit import check_arguments
    from tabpfn_operators.storage import folder

    parameters = _parameters(task, config, thinking)
    check_arguments(name=name, timeout=timeout)
    destination = folder(output, None) if output else None
    if destination is not None:
        destination.check_writable()
    record = ModelRecord(destination)
    with Client(base_url=base_url, wire=wire) as client, watching() as progress, record:
        model = client.fit(
            source,
            target,
            parameters=parameters,
            features=feature or None,
            exclude=exclude or (),
            filters=filters,
            casts=read_casts(cast),
            recompress=read_compression(recompress),
            name=name,
            run=EngineRun(engine="python", task_id="tabpfn-providers fit"),
            streamed=streamed,
            timeout=timeout,
            on_submitted=record.write,
            progress=progress,
        )
    record.write(model)
    record.show(model, as_json=as_json)


def _parameters(task: TaskOption, config: str | None, thinking: str | None) -> FitParameters:
    try:
        return FitParameters(
            task=task,
            config=_json_object("--config", config, '{"n_estimators": 4}') or {},
            thinking=typing.cast("Any", _json_object("--thinking", thinking, '{"effort": "high"}')),
        )
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        text = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{place}: {text}." if place else f"{text}.") from None


def _json_object(option: str, text: str | None, example: str) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ConfigurationError(f"{option} must be a JSON object, for instance '{example}'.")
    return value
