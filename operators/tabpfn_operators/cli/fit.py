"""`tabpfn-providers fit`."""

import json
from typing import Annotated, Any, Literal, cast

import typer
from pydantic import ValidationError

from tabpfn_assets import EngineRun, FitParameters
from tabpfn_operators.cli._records import model_facts
from tabpfn_operators.cli._report import show_facts, show_json, watching
from tabpfn_operators.errors import ConfigurationError
from tabpfn_operators.settings import WireForm

TaskOption = Literal["classification", "regression"]


def fit(
    source: Annotated[str, typer.Argument(help="fsspec URL or path of a Parquet file.")],
    target: Annotated[str, typer.Option(help="Column to predict.")],
    task: Annotated[TaskOption, typer.Option(help="What the model is to predict.")],
    feature: Annotated[list[str] | None, typer.Option(help="Feature column; repeat it. Default: all others.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Column that stays at home; repeat it.")] = None,
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
    from tabpfn_operators.storage import folder

    parameters = _parameters(task, config, thinking)
    destination = folder(output, None) if output else None
    if destination is not None:
        destination.check_writable()
    with Client(base_url=base_url, wire=wire) as client, watching() as progress:
        model = client.fit(
            source,
            target,
            parameters=parameters,
            features=feature or None,
            exclude=exclude or (),
            name=name,
            run=EngineRun(engine="python", task_id="tabpfn-providers fit"),
            streamed=streamed,
            timeout=timeout,
            progress=progress,
        )
    if destination is not None:
        with destination.replacing("model.json") as file:
            file.write(model.model_dump_json(indent=2).encode())
    if as_json:
        show_json(model.model_dump(mode="json"))
    else:
        facts = model_facts(model)
        show_facts("Fitted model", facts | ({"record": destination.file_url("model.json")} if destination else {}))


def _parameters(task: TaskOption, config: str | None, thinking: str | None) -> FitParameters:
    try:
        return FitParameters(
            task=task,
            config=_json_object("--config", config) or {},
            thinking=cast("Any", _json_object("--thinking", thinking)),
        )
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"{place}: {first['msg']}." if place else f"{first['msg']}.") from None


def _json_object(option: str, text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ConfigurationError(f"{option} must be a JSON object, for instance '{{\"n_estimators\": 4}}'.")
    return value
