"""How to fit a model again that is gone from the server: the exact call, from its record alone."""

from tabpfn_assets import FittedModel
from tabpfn_operators.errors import ApiError, ModelGoneError

#: More features than this are named by the record, not one by one.
_SPELLED_FEATURES = 20


def refit_call(model: FittedModel) -> str:
    """Write the call that fits a model again, as Python.

    Args:
        model: The record; sources are named without secrets, so storage options are to be added.

    Returns:
        One expression, in which `client` is a `Client` and, where it occurs, `model` this record. It names no journal,
        since the record knows none: one that is given instead of `durable=False` makes a billed fit safe to repeat.
    """
    uris = model.source.uris
    source = repr(uris[0]) if len(uris) == 1 else repr(list(uris)) if uris else "table"
    asked = model.parameters.model_dump(mode="json", exclude_defaults=True)
    parameters = ", ".join(f"{name}={value!r}" for name, value in asked.items())
    names = model.feature_names
    features = repr(list(names)) if len(names) <= _SPELLED_FEATURES else "model.feature_names"
    name = f", name={model.name!r}" if model.name else ""
    return (
        f"client.fit({source}, {model.target!r}, parameters=FitParameters({parameters}), features={features}{name}, "
        f"reuse='never'{', durable=False' if model.parameters.billed else ''})"
    )


def gone(model: FittedModel, error: ApiError, *, here: bool = False) -> ModelGoneError:
    """Build the error for a model that the server does not know.

    Args:
        model: The record.
        error: The server's 404.
        here: Whether a journal remembers it, so that the same call fits it again in its place.
    """
    call = refit_call(model)
    refined = ", with the filters and casts of the first fit, which are not recorded" if model.source.refined else ""
    same = "repeat this call once with reuse='never' (--reuse never); anywhere else, " if here else ""
    return ModelGoneError(
        f"The server does not know the fitted model {model.fitted_train_set_id}: it was deleted, or belongs to another "
        f"account. Use that account's token, or {same}fit it again{refined}: {call}",
        fitted_train_set_id=model.fitted_train_set_id,
        refit=call,
        status=error.status,
        code=error.code,
        trace_id=error.trace_id,
    )
