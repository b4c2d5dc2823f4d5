"""Routes for predictions and what they cost (contract sections 1.8 and 1.9)."""

import json
import time
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tabpfn_emulator._bodies.requests import ClassifierPredictTask, EstimateCost, Predict, RegressorPredictTask
from tabpfn_emulator._books.billing import charge, check_quota, check_rate
from tabpfn_emulator._books.limits import DEFAULT_MODEL_VERSION, model_limits, price, version_of
from tabpfn_emulator._emulator import account, body_of, emulator_of, note
from tabpfn_emulator._envelopes import DataError, invalid
from tabpfn_emulator._fits import DEFAULT_N_ESTIMATORS, assemble
from tabpfn_emulator._state.records import Fit

if TYPE_CHECKING:
    from tabpfn_emulator._learning.model import Learned

PACKAGE_VERSION = "emulator"
"""`metadata.package_version`: says that no TabPFN has predicted here."""

_SERVER_DEFAULTS: dict[str, Any] = {
    "n_estimators": DEFAULT_N_ESTIMATORS,
    "softmax_temperature": 0.9,
    "average_before_softmax": False,
    "random_state": 0,
    "ignore_pretraining_limits": True,
    "inference_precision": "auto",
    "fit_mode": "fit_preprocessors",
    "model_path": "auto",
}


async def predict(request: Request) -> Response:
    """Predict with a fitted model; every call is billed (contract sections 1.8, 2.3 and 5)."""
    emulator = emulator_of(request)
    owner = account(request)
    body = await body_of(request, Predict)
    check_rate(request, "predict")
    fit = emulator.store.fit(owner, str(body.fitted_train_set_id))
    note(request, fitted_train_set_id=fit.fitted_train_set_id)
    upload = emulator.store.upload(owner, str(body.test_set_upload_id), "test")
    note(request, test_set_upload_id=upload.upload_id)
    _check_ready(fit, body, upload.fitted_train_set_id)
    output_type, quantiles = _output(body.task_config)
    started = time.monotonic()
    paths = await assemble(emulator, upload)
    path, file_format = paths["x_test"], upload.files["x_test"].info.format
    given = body.task_config.tabpfn_config
    config = {**_SERVER_DEFAULTS, **(given.model_dump(exclude_none=True) if given else {})}
    limits = model_limits(emulator.settings.limits)[version_of(config["model_path"])]
    transformed = time.monotonic()
    mode = emulator.settings.predict

    def work(model: "Learned") -> tuple[bytes, int]:
        from tabpfn_emulator._learning.worker import run_predict

        prediction, rows = run_predict(model, path, file_format, output_type, quantiles, limits, mode=mode)
        metadata = _metadata(fit, model, config, rows)
        timings = {
            "test_set_transform_queue_wait_s": 0.0,
            "test_set_transform_s": transformed - started,
            "predict_queue_wait_s": 0.0,
            "predict_s": time.monotonic() - transformed,
        }
        answer = {"prediction": prediction, "metadata": metadata, "timings": timings}
        return json.dumps(answer, allow_nan=False).encode(), rows

    try:
        model = await emulator.model_of(fit)
        content, rows = await emulator.in_worker(work, model)
    except DataError as problem:
        raise invalid(str(problem)) from None
    cost = price(
        "cache_predict" if _is_cached(fit) else "predict",
        train_rows=model.rows,
        test_rows=rows,
        columns=model.columns,
        n_estimators=config["n_estimators"],
        version=version_of(config["model_path"]),
        effort=None,
    )
    check_quota(request, cost)
    charge(
        request,
        "predict_run",
        cost,
        fitted_train_set_id=fit.fitted_train_set_id,
        test_set_upload_id=upload.upload_id,
    )
    return Response(content, media_type="application/json")


def _check_ready(fit: Fit, body: Predict, fitted_of_upload: str | None) -> None:
    if fit.status != "completed":
        raise invalid(f"The fit {fit.fitted_train_set_id} is {fit.status}; predictions need a completed one.")
    if fitted_of_upload != fit.fitted_train_set_id:
        raise invalid("The test set was uploaded for another fitted train set.")
    if body.task_config.task != fit.plan.task:
        raise invalid(f"The model was fitted for {fit.plan.task}, not for {body.task_config.task}.")


def _output(task_config: ClassifierPredictTask | RegressorPredictTask) -> tuple[str, list[float] | None]:
    if isinstance(task_config, ClassifierPredictTask):
        return (task_config.predict_params.output_type if task_config.predict_params else "probas"), None
    params = task_config.predict_params
    if params is None:
        return "mean", None
    if params.quantiles is not None and not params.quantiles:
        raise invalid("predict_params.quantiles must not be empty.")
    return params.output_type, params.quantiles


def _is_cached(fit: Fit) -> bool:
    return fit.plan.config.get("fit_mode") == "fit_with_cache"


def _metadata(fit: Fit, model: "Learned", config: dict[str, Any], rows: int) -> dict[str, Any]:
    cached = _is_cached(fit)
    metadata: dict[str, Any] = {
        "task": fit.plan.task,
        "package_version": PACKAGE_VERSION,
        "tabpfn_config": config,
        "test_set_num_rows": rows,
        "test_set_num_cols": model.columns,
        "n_estimators": config["n_estimators"],
        "billing_model_version": version_of(config["model_path"]),
        "execution_mode": "thinking" if fit.plan.thinking else "cache" if cached else "standard",
        "cache_outcome": "hit" if cached else "not_requested",
    }
    if fit.plan.task == "classification":
        metadata["classes"] = list(model.classes)
    return metadata


async def estimate_cost(request: Request) -> Response:
    """Price an operation from its dimensions, free of charge (contract section 1.9)."""
    account(request)
    body = await body_of(request, EstimateCost)
    version = body.model_version or DEFAULT_MODEL_VERSION
    effort = (body.thinking_effort or "medium") if body.operation == "thinking_fit" else body.thinking_effort
    inputs = {
        "train_rows": body.train_rows,
        "raw_columns": body.raw_columns,
        "test_rows": body.test_rows or 0,
        "model_version": version,
        "operation": body.operation,
        "n_estimators": body.n_estimators or DEFAULT_N_ESTIMATORS,
        "thinking_effort": effort,
    }
    cost = price(
        body.operation,
        train_rows=body.train_rows,
        test_rows=body.test_rows or 0,
        columns=body.raw_columns,
        n_estimators=body.n_estimators or DEFAULT_N_ESTIMATORS,
        version=version,
        effort=effort,
    )
    return JSONResponse({"estimated_cost": cost, "pricing_version": "quota_v3", "inputs": inputs})


ROUTES = [
    Route("/tabpfn/predict", predict, methods=["POST"]),
    Route("/tabpfn/estimate_cost", estimate_cost, methods=["POST"]),
]
