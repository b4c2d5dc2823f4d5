"""Models as the vendor's own client keeps them: the JSON of its `save_model()` and `load_model()`. Pure functions.

The format is that of tabpfn-client 0.6.1: fitted id, constructor parameters of the estimator, class labels, train rows.
That client rebuilds each predict request from the parameters, so they decide what the server computes.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from tabpfn_assets import ClassLabel, Feature, FitParameters, FittedModel, SourceRef, Task, Thinking, public_url
from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.storage import StorageOptions, read_text

#: The version whose constructors the parameters are written for; its `load_model()` names it when it refuses some.
CLIENT_VERSION = "0.6.1"

_CONFIG = (
    "model_path",
    "n_estimators",
    "softmax_temperature",
    "average_before_softmax",
    "ignore_pretraining_limits",
    "inference_precision",
    "random_state",
    "inference_config",
    "categorical_features_indices",
    "fit_mode",
)
_OF_ONE_TASK: Mapping[Task, tuple[str, ...]] = {"classification": ("balance_probabilities",), "regression": ()}
#: What that client sends although nobody set it (contract 2.1); None alone keeps a constructor's value unsent.
_SENT_UNASKED = {"random_state": 0, "ignore_pretraining_limits": False, "balance_probabilities": False}
_THINKING = {
    "thinking_effort": "effort",
    "thinking_timeout_s": "timeout_secs",
    "thinking_metric": "metric",
    "group_col": "group_col",
    "time_col": "time_col",
    "group_time_col": "group_time_col",
}
_COLUMNS = ("group_col", "time_col", "group_time_col")
#: How that client calls the server, nothing of the model.
_HOW_IT_CALLS = frozenset({"api_mode"})
_OTHERS = frozenset({"paper_version", "thinking_mode", "text_handling", *_THINKING}) | _HOW_IT_CALLS
_STANDARD = frozenset({"preprocessing", "text"})


def to_tabpfn_client(model: FittedModel) -> dict[str, Any]:
    """Write a model as `TabPFNClassifier.load_model()` or `TabPFNRegressor.load_model()` of tabpfn-client takes it.

    The estimator that comes back sends the same predict requests as this package does. It needs a token of the same
    account, and an API of tabpfn-client 0.6.1 or newer.

    Args:
        model: A completed model, not redacted.

    Returns:
        A JSON-plain dict, to pass on or to write to a file: fitted id, constructor parameters, class labels, train
        rows. It holds class labels and the columns of thinking, which may be personal data, and nothing secret.

    Raises:
        InvalidInputError: The model cannot be told in that format; the message names each part that stands in the way.
    """
    problems = [*_state_problems(model), *_parameter_problems(model.parameters)]
    if problems:
        raise _refused(f"The model {model.fitted_train_set_id} cannot be written for tabpfn-client", problems)
    return {
        "tabpfn_client_version": CLIENT_VERSION,
        "task": model.task,
        "model_id": str(UUID(model.fitted_train_set_id)),
        "params": _constructor_parameters(model.parameters),
        "n_train_rows": model.rows,
        "classes": None if model.classes is None else list(model.classes),
    }


def _state_problems(model: FittedModel) -> list[str]:
    problems = []
    if model.status != "completed":
        problems.append(f"its fit is {model.status}; wait for it, or fit again")
    if model.redacted_fields:
        problems.append("its names and labels are hashes; take the record that is not redacted")
    try:
        UUID(model.fitted_train_set_id)
    except ValueError:
        problems.append("its fitted id is no UUID, and that client takes no other; predict with this package")
    return problems


def _parameter_problems(parameters: FitParameters) -> list[str]:
    """Name what the estimator's constructor has no place for."""
    known = _config_keys(parameters.task)
    strange = [f"config {key!r}" for key in parameters.config if key not in known]
    strange += [f"parameter {key!r}" for key in parameters.model_extra or {}]
    thinking = parameters.thinking
    if thinking is not None:
        strange += [f"thinking {key!r}" for key in thinking.model_extra or {}]
    problems = [f"{each} has no counterpart there; predict with this package" for each in strange]
    systems = set(parameters.systems) - {"thinking"}
    if systems and systems != _STANDARD:
        problems.append(f"systems {list(parameters.systems)} is neither [] nor ['preprocessing', 'text']")
    if not systems and thinking is not None:
        problems.append("systems [] with thinking is refused there; predict with this package")
    return problems


def _constructor_parameters(parameters: FitParameters) -> dict[str, Any]:
    thinking = parameters.thinking
    return {
        **{key: parameters.config.get(key) for key in _config_keys(parameters.task)},
        "paper_version": not parameters.systems,
        "thinking_mode": thinking is not None,
        **{theirs: getattr(thinking, ours, None) for theirs, ours in _THINKING.items()},
        "text_handling": parameters.text_handling or "advanced",
    }


def _config_keys(task: Task) -> tuple[str, ...]:
    return (*_CONFIG, *_OF_ONE_TASK[task])


def _refused(subject: str, problems: Sequence[str]) -> InvalidInputError:
    return InvalidInputError(f"{subject}: {'; '.join(problems)}.", problems=tuple(problems))


def from_tabpfn_client(
    record: Mapping[str, Any] | str | os.PathLike[str],
    *,
    target: str,
    features: Iterable[str | Feature],
    name: str | None = None,
    rows: int | None = None,
    classes: Sequence[ClassLabel] | None = None,
    source: SourceRef | None = None,
    api_url: str | None = None,
    account: str | None = None,
    created_at: datetime | None = None,
    storage_options: StorageOptions | None = None,
) -> FittedModel:
    """Take over a model that tabpfn-client fitted, from what its `save_model()` returned or wrote.

    No request is made. Predictions need a token of the account that fitted it.

    Args:
        record: The dict that `save_model()` returned, or fsspec URL or path of the file that it wrote.
        target: Target column, which the record does not name.
        features: Feature columns in the order of the `X` that was fitted; as `Feature` where types are known, which
            preflight then compares.
        name: Name for the model.
        rows: Train rows, at least 1; None takes those of the record.
        classes: Class labels, sorted; None takes those of the record.
        source: Where the train rows came from; None where nobody knows.
        api_url: The API that holds it.
        account: Label of the account that holds it.
        created_at: When it was fitted; None takes the time of this call.
        storage_options: fsspec options of `record`; used, never recorded.

    Returns:
        A completed model without upload id: where its data came from is not known, unless `source` says so.

    Raises:
        InvalidInputError: It is no such record, or says what cannot be told here; the message names each part.
        StorageError: The storage did not answer; run again.
    """
    shown, facts = _read(record, storage_options)
    task, params = facts["task"], facts["params"]
    count: int | None = facts.get("n_train_rows") if rows is None else rows
    labels: Sequence[ClassLabel] = (facts.get("classes") if classes is None else classes) or ()
    columns = tuple(Feature(name=each) if isinstance(each, str) else each for each in features)
    problems = _unmapped(task, params)
    if task == "classification" and not labels:
        problems.append("it names no classes; pass classes=, sorted")
    if isinstance(features, str) or not columns:
        problems.append("features is the list of feature columns, in the order that was fitted")
    if count is None:
        problems.append("it does not say how many rows it was fitted on; pass rows=")
    if problems or count is None:
        raise _refused(f"{shown} cannot be taken over", problems)
    try:
        return FittedModel(
            name=name,
            fitted_train_set_id=str(UUID(facts["model_id"])),
            train_set_upload_id=None,
            status="completed",
            target=target,
            features=columns,
            classes=tuple(labels) if task == "classification" else None,
            rows=count,
            source=SourceRef(uris=(), rows=count) if source is None else source,
            parameters=_fit_parameters(task, params),
            api_url=api_url,
            account=account,
            packages={"tabpfn-client": str(facts["tabpfn_client_version"])},
            created_at=datetime.now(UTC) if created_at is None else created_at,
        )
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, each['loc'])) or 'it'}: {each['msg']}" for each in error.errors()]
        raise _refused(f"{shown} cannot be taken over", wrong) from None


def _read(record: object, options: StorageOptions | None) -> tuple[str, dict[str, Any]]:
    """Read a record; whatever else may be in it is of no use here, as in that client's own reader."""
    facts: Any = record
    shown = "The record"
    if isinstance(record, str | os.PathLike):
        shown = public_url(os.fspath(record))
        text = read_text(os.fspath(record), options)
        try:
            facts = json.loads(text)
        except ValueError:
            facts = None
    wrong = _form_problems(facts)
    if wrong:
        raise InvalidInputError(
            f"{shown} is no record of tabpfn-client ({', '.join(wrong)}); pass what save_model() of version 0.6 or "
            "newer returned or wrote."
        )
    return shown, dict(facts)


def _form_problems(facts: object) -> list[str]:
    if not isinstance(facts, Mapping):
        return ["not a JSON object"]
    try:
        UUID(facts.get("model_id"))
        known_id = True
    except (AttributeError, TypeError, ValueError):
        known_id = False
    classes, rows = facts.get("classes"), facts.get("n_train_rows")
    right = {
        "tabpfn_client_version": isinstance(facts.get("tabpfn_client_version"), str),
        "task": facts.get("task") in ("classification", "regression"),
        "model_id": known_id,
        "params": isinstance(facts.get("params"), Mapping),
        "n_train_rows": rows is None or (isinstance(rows, int) and not isinstance(rows, bool)),
        "classes": classes is None or isinstance(classes, list | tuple),
    }
    return [key for key, fine in right.items() if not fine]


def _unmapped(task: Task, params: Mapping[str, Any]) -> list[str]:
    """Name parameters, never their values: a constructor's `client_options` may hold headers."""
    known = {*_config_keys(task), *_OTHERS}
    problems = [f"parameter {key!r} is not known here; upgrade tabpfn-providers" for key in params if key not in known]
    thinks = _thinks(params)
    if thinks and params.get("paper_version"):
        problems.append("paper_version and thinking_mode exclude each other")
    if not thinks:
        named = [key for key in _COLUMNS if params.get(key)]
        problems += [f"parameter {key!r} needs thinking mode" for key in named]
    if thinks and not isinstance(_only(params.get("group_col")), str | None):
        problems.append("parameter 'group_col' names several columns, and here it is one; predict with tabpfn-client")
    return problems


def _thinks(params: Mapping[str, Any]) -> bool:
    return bool(params.get("thinking_mode") or params.get("thinking_effort"))


def _only(value: Any) -> Any:
    """Take the one item out of a list of one; that client takes one column either way."""
    return value[0] if isinstance(value, list | tuple) and len(value) == 1 else value


def _fit_parameters(task: Task, params: Mapping[str, Any]) -> FitParameters:
    config = {key: params.get(key, _SENT_UNASKED.get(key)) for key in _config_keys(task)}
    thinking = {ours: _only(params.get(theirs)) for theirs, ours in _THINKING.items()}
    # That client leaves "advanced" unsent, being the server's default (contract 2.1).
    text = params.get("text_handling")
    return FitParameters(
        task=task,
        config={key: value for key, value in config.items() if value is not None},
        systems=() if params.get("paper_version") else ("preprocessing", "text"),
        text_handling=None if text == "advanced" else text,
        thinking=Thinking(**{k: v for k, v in thinking.items() if v is not None}) if _thinks(params) else None,
    )
