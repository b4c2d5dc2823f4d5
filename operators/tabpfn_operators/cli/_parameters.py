"""Parameters of a fit, from the texts of options."""

import json
import typing
from typing import Any

from pydantic import ValidationError

from tabpfn_assets import FitParameters, Task
from tabpfn_operators.errors import ConfigurationError


def read_parameters(task: Task, config: str | None, thinking: str | None) -> FitParameters:
    """Read `--config` and `--thinking`.

    Args:
        task: What the model is to predict.
        config: `tabpfn_config` as JSON.
        thinking: Thinking mode as JSON.

    Raises:
        ConfigurationError: A text is no JSON object, or holds what no fit takes; correct the key that is named.
    """
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
