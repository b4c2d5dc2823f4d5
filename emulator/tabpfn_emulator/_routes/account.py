"""Routes about the service, the account and its data (contract sections 1.6 and 1.10)."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tabpfn_emulator._books.billing import resets, used
from tabpfn_emulator._books.limits import limits_answer
from tabpfn_emulator._emulator import account, emulator_of, note
from tabpfn_emulator._envelopes import invalid, not_found
from tabpfn_emulator._state.archive import FILE_NAME, archive
from tabpfn_emulator._state.store import Store


async def root(request: Request) -> Response:  # noqa: ARG001  # Starlette's signature
    """Say that the server is reachable."""
    return JSONResponse({"message": "TabPFN emulator"})


async def protected(request: Request) -> Response:
    """Say whether the token is valid."""
    account(request)
    return JSONResponse({"message": "The token is valid."})


async def greetings(request: Request) -> Response:
    """Return no messages: nothing to print in anybody's pipeline."""
    account(request)
    return JSONResponse({"messages": []})


async def api_usage(request: Request) -> Response:
    """Return what the account has used."""
    owner = account(request)
    emulator = emulator_of(request)
    today, month = used(emulator, owner)
    midnight, _ = resets()
    return JSONResponse(
        {
            "current_usage": today,
            "usage_limit": emulator.settings.daily_tokens,
            "reset_time": midnight.isoformat(),
            "daily_tokens_used": today,
            "daily_token_limit": emulator.settings.daily_tokens,
            "monthly_tokens_used": month,
            "monthly_token_limit": emulator.settings.monthly_tokens,
        }
    )


def _limits(request: Request) -> dict[str, Any]:
    settings = emulator_of(request).settings
    return limits_answer(settings.limits, settings.dataset_max_size_bytes)


async def get_settings(request: Request) -> Response:
    """Return limits and settings for asynchronous fits."""
    account(request)
    settings = emulator_of(request).settings
    if not settings.get_settings:
        raise not_found("The route /tabpfn/get_settings")
    asynchronous = {
        "use_above_trainset_size_bytes": settings.async_threshold_bytes,
        "poll_timeout_secs": settings.poll_timeout_secs,
    }
    return JSONResponse({**_limits(request), "async_settings": asynchronous})


async def get_model_limits(request: Request) -> Response:
    """Return limits, the way of older clients."""
    account(request)
    return JSONResponse(_limits(request))


def _summary(store: Store, owner: str) -> dict[str, Any]:
    descriptions = store.descriptions(owner)
    uploads = [
        {
            "dataset_uid": upload.upload_id,
            "kind": upload.kind,
            "description": descriptions[upload.upload_id],
            "complete": upload.complete,
            "fitted_train_set_id": upload.fitted_train_set_id,
        }
        for upload in store.account_uploads(owner)
    ]
    fits = [fit.fitted_train_set_id for fit in store.fits() if fit.account == owner]
    return {"datasets": uploads, "fitted_train_set_ids": fits}


async def data_summary(request: Request) -> Response:
    """Return what the account has on the server; the contract leaves the shape free."""
    return JSONResponse(_summary(emulator_of(request).store, account(request)))


async def download_all_data(request: Request) -> Response:
    """Return everything that the account has uploaded, as a zip that is made while it is sent."""
    owner = account(request)
    store = emulator_of(request).store
    # No quotes around the name: the client takes everything behind `filename=` for it.
    headers = {"Content-Disposition": f"attachment; filename={FILE_NAME}"}
    pieces = archive(store.account_uploads(owner), _summary(store, owner))
    return StreamingResponse(pieces, media_type="application/zip", headers=headers)


async def delete_dataset(request: Request) -> Response:
    """Delete one upload; a train set takes its models and their test sets with it."""
    owner = account(request)
    dataset = request.query_params.get("dataset_uid")
    if not dataset:
        raise invalid("dataset_uid: Field required")
    gone = emulator_of(request).store.delete(owner, dataset)
    note(request, dataset_uid=dataset)
    return JSONResponse({"deleted_dataset_uids": gone})


async def delete_all_datasets(request: Request) -> Response:
    """Delete all uploads and models of the account."""
    owner = account(request)
    return JSONResponse({"deleted_dataset_uids": _delete_all(emulator_of(request).store, owner)})


def _delete_all(store: Store, owner: str) -> list[str]:
    return store.delete_many(owner, [upload.upload_id for upload in store.account_uploads(owner)])


async def delete_user_account(request: Request) -> Response:
    """Delete the account with all its data; its tokens open nothing any more."""
    owner = account(request)
    emulator = emulator_of(request)
    with emulator.database.transaction():
        _delete_all(emulator.store, owner)
        emulator.reasoning.delete_account(owner)
        emulator.documents.delete_all("download", owner)
        emulator.accounts.close(owner)
    return JSONResponse({"message": "The account was deleted."})


ROUTES = [
    Route("/", root, methods=["GET"]),
    Route("/protected/", protected, methods=["GET"]),
    Route("/retrieve_greeting_messages/", greetings, methods=["GET"]),
    Route("/get_api_usage/", api_usage, methods=["POST"]),
    Route("/tabpfn/get_settings", get_settings, methods=["GET"]),
    Route("/tabpfn/get_model_limits", get_model_limits, methods=["GET"]),
    Route("/get_data_summary/", data_summary, methods=["GET"]),
    Route("/delete_dataset/", delete_dataset, methods=["DELETE"]),
    Route("/download_all_data/", download_all_data, methods=["GET"]),
    Route("/delete_all_datasets/", delete_all_datasets, methods=["DELETE"]),
    Route("/delete_user_account/", delete_user_account, methods=["DELETE"]),
]
