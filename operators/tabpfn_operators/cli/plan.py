"""`tabpfn-providers plan`."""

from typing import Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from tabpfn_operators.cli._cost import cost_as_json, cost_facts
from tabpfn_operators.cli._parameters import read_parameters
from tabpfn_operators.cli._reading import (
    CastOption,
    FiltersOption,
    RecompressOption,
    read_casts,
    read_compression,
)
from tabpfn_operators.cli._report import show_facts, show_json, show_table
from tabpfn_operators.errors import ConfigurationError
from tabpfn_operators.plan import TrainPlan, plan_train_set
from tabpfn_operators.pricing import CostPlan, check_max_cost
from tabpfn_operators.reading import Reading
from tabpfn_operators.server import ModelLimit, model_version_of

_SHOWN_CLASSES = 6


def plan(
    source: Annotated[str, typer.Argument(help="fsspec URL or path of a file, folder or pattern.")],
    target: Annotated[str, typer.Option(help="Column to predict.")],
    task: Annotated[
        Literal["classification", "regression"] | None, typer.Option(help="What the model is to predict.")
    ] = None,
    feature: Annotated[list[str] | None, typer.Option(help="Feature column; repeat it. Default: all others.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Column that stays at home; repeat it.")] = None,
    filters: FiltersOption = None,
    cast: CastOption = None,
    recompress: RecompressOption = None,
    model_version: Annotated[
        str | None, typer.Option(help="Version whose limits apply, e.g. v3; default: the server's.")
    ] = None,
    config: Annotated[str | None, typer.Option(help="tabpfn_config as JSON, e.g. '{\"n_estimators\": 4}'.")] = None,
    thinking: Annotated[
        str | None, typer.Option(help='Thinking mode as JSON, e.g. \'{"effort": "high"}\'; billed.')
    ] = None,
    predict: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Source to predict with the model; its footers tell the rows.")
    ] = None,
    predict_rows: Annotated[
        int | None, typer.Option(help="Rows to predict with the model, instead of --predict.")
    ] = None,
    max_cost: Annotated[
        int | None, typer.Option(help="Tokens that fit and predictions may cost; exit code 3 above.")
    ] = None,
    offline: Annotated[
        bool, typer.Option(help="Do not ask the server for limits, prices and pools; needs no token.")
    ] = False,
    base_url: Annotated[str | None, typer.Option(help="API base URL; default: TABPFN_API_URL.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Tell what a fit would send and cost: every column that leaves, rows, classes, bytes, and all that is wrong."""
    from tabpfn_operators import Client

    reading = Reading(source, None, filters, read_casts(cast), read_compression(recompress))
    arguments: dict[str, Any] = {"task": task, "features": feature or None, "exclude": exclude or ()}
    # Without a task the plan checks what holds for either, and the price is the same for both.
    parameters = read_parameters(task or "classification", config, thinking)
    check_max_cost(max_cost)
    cost: CostPlan | None = None
    if offline and any(option is not None for option in (predict, predict_rows, max_cost)):
        raise ConfigurationError("Prices come from the server: leave out --offline, or --predict and --max-cost.")
    if offline:
        planned = plan_train_set(reading, target, limit=ModelLimit(), **arguments)
    else:
        with Client(base_url=base_url) as client:
            planned = client.plan_train_set(
                source,
                target,
                filters=filters,
                casts=reading.casts,
                recompress=reading.recompress,
                model_version=model_version or model_version_of(parameters.config),
                **arguments,
            )
            cost = client.plan_cost(
                planned, parameters, predict_rows=predict_rows, predict_source=predict, model_version=model_version
            )
    if as_json:
        answer = _as_json(planned, limits_checked=not offline)
        show_json({**answer, "cost": None if cost is None else cost_as_json(cost)})
    else:
        costs = {} if cost is None else cost_facts(cost, parameters)
        show_facts("Plan", {**_facts(planned, limits_checked=not offline), **costs})
        show_table(_columns(planned))
    planned.raise_problems()
    if cost is not None:
        cost.raise_exceeded(max_cost)


def _facts(planned: TrainPlan, *, limits_checked: bool) -> dict[str, object]:
    facts: dict[str, object] = {
        "source": planned.url,
        "files": planned.files,
        "rows": "not counted" if planned.rows is None else f"{planned.rows:,}",
        "features": f"{len(planned.features):,}" + ("" if planned.cells is None else f" ({planned.cells:,} cells)"),
        "target": planned.target + ("" if planned.target_dtype is None else f" ({planned.target_dtype})"),
    }
    if planned.nulls is not None:
        facts["rows without target"] = f"{planned.nulls:,}"
    if planned.classes is not None:
        shown = ", ".join(str(label) for label in planned.classes[:_SHOWN_CLASSES])
        more = ", …" if len(planned.classes) > _SHOWN_CLASSES else ""
        facts["classes"] = f"{len(planned.classes):,}: {shown}{more}"
    if planned.bytes_to_send is not None:
        x, y = planned.bytes_to_send
        facts["bytes to send"] = f"{x + y:,} (features {x:,}, target {y:,}), column chunks as they are stored"
    elif planned.reason is not None:
        facts["bytes to send"] = f"known once written: rows are decoded because of {planned.reason}"
    facts["stay at home"] = ", ".join(planned.stays) or "-"
    facts["limits"] = "checked" if limits_checked else "not checked (offline)"
    return facts


def _columns(planned: TrainPlan) -> Table:
    table = Table(title="Columns that leave", title_justify="left", box=None, pad_edge=False)
    table.add_column("column", overflow="fold")
    table.add_column("type", overflow="fold")
    table.add_column("file")
    for feature in planned.features:
        table.add_row(Text(feature.name), Text(feature.dtype or "-"), "features")
    if planned.target_dtype is not None:
        table.add_row(Text(planned.target), Text(planned.target_dtype), "target")
    return table


def _as_json(planned: TrainPlan, *, limits_checked: bool) -> dict[str, Any]:
    return {
        "source": planned.url,
        "files": planned.files,
        "rows": planned.rows,
        "cells": planned.cells,
        "target": planned.target,
        "target_dtype": planned.target_dtype,
        "features": [feature.model_dump(mode="json") for feature in planned.features],
        "stays": list(planned.stays),
        "nulls": planned.nulls,
        "classes": None if planned.classes is None else list(planned.classes),
        "decoded_because_of": planned.reason,
        "bytes_to_send": None if planned.bytes_to_send is None else list(planned.bytes_to_send),
        "limits_checked": limits_checked,
        "problems": list(planned.problems),
        "over_limit": list(planned.over_limit),
    }
