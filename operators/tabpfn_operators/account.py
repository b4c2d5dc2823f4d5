"""Account and server facts: settings, usage, cost, deletion. All free, all repeatable."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from tabpfn_operators import _messages as messages
from tabpfn_operators._call import Session, call
from tabpfn_operators._messages import Request
from tabpfn_operators.errors import NotFoundError, ServerError
from tabpfn_operators.server import ApiUsage, CostEstimate, ServerSettings

M = TypeVar("M", bound=BaseModel)


async def check_token(session: Session) -> None:
    """Ask whether the token is valid (contract 1.10)."""
    await call(session, messages.get("/protected/"))


async def get_settings(session: Session) -> ServerSettings:
    """Read limits and settings; an older server has the older route only (contract 8, row 7)."""
    try:
        return await _ask(session, messages.get("/tabpfn/get_settings"), ServerSettings, "max_model_limit")
    except NotFoundError:
        return await get_model_limits(session)


async def get_model_limits(session: Session) -> ServerSettings:
    """Read limits by the older route (contract 1.6)."""
    return await _ask(session, messages.get("/tabpfn/get_model_limits"), ServerSettings, "max_model_limit")


async def get_api_usage(session: Session, *, read_timeout: float | None = None) -> ApiUsage:
    """Read tokens used and allowed (contract 1.10)."""
    request = replace(messages.post("/get_api_usage/"), read_timeout=read_timeout)
    return await _ask(session, request, ApiUsage, "current_usage")


async def estimate_cost(session: Session, dimensions: Mapping[str, Any]) -> CostEstimate:
    """Ask what an operation would cost; free, and only dimensions travel (contract 1.9)."""
    body = {key: value for key, value in dimensions.items() if value is not None}
    return await _ask(session, messages.post("/tabpfn/estimate_cost", body), CostEstimate, "estimated_cost")


async def delete_dataset(session: Session, dataset_uid: str) -> tuple[str, ...]:
    """Delete an upload, with what hangs on it (contract 1.10); one that is gone already counts as deleted."""
    path = f"/delete_dataset/?dataset_uid={quote(dataset_uid, safe='')}"
    try:
        return await _delete(session, Request("DELETE", path, "DELETE /delete_dataset/"))
    except NotFoundError:
        return ()


async def delete_all_datasets(session: Session) -> tuple[str, ...]:
    """Delete every upload of the account (contract 1.10)."""
    return await _delete(session, Request("DELETE", "/delete_all_datasets/", "DELETE /delete_all_datasets/"))


async def _delete(session: Session, request: Request) -> tuple[str, ...]:
    answer = await call(session, request)
    data = messages.read_object(answer, request.label, "deleted_dataset_uids")
    return tuple(str(uid) for uid in data["deleted_dataset_uids"])


async def _ask(session: Session, request: Request, kind: type[M], *required: str) -> M:
    answer = await call(session, request)
    data = messages.read_object(answer, request.label, *required)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
        raise ServerError(
            f"{request.label}: the answer's {field} is not what the contract says; is base_url the TabPFN API?",
            status=answer.status,
        ) from None
