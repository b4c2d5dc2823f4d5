"""Control routes for tests: faults, settings, accounts, books. No token, not journalled, only with `--faults`."""

import re
from ipaddress import ip_address
from typing import Final

from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tabpfn_emulator._bodies.requests import refusal
from tabpfn_emulator._emulator import emulator_of, json_bytes
from tabpfn_emulator._envelopes import ApiError, invalid
from tabpfn_emulator._extra import TABPFN_REMEDY, has_tabpfn
from tabpfn_emulator._faults import Fault
from tabpfn_emulator._settings import Settings

_FAULTS: TypeAdapter[list[Fault]] = TypeAdapter(list[Fault])
_CHANGES: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


_HOST: Final = re.compile(r"(?:\[(?P<six>[^\]]*)\]|(?P<other>[^:]*))(?::[0-9]*)?")
_AFTER_DIGITS: Final = 19


def _is_loopback(host: str) -> bool:
    found = _HOST.fullmatch(host.lower())
    name = "" if found is None else found["six"] or found["other"] or ""
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _refuse_pages(request: Request) -> None:
    """Refuse a change that a page in a browser of this machine may have sent.

    Raises:
        ApiError: 403 when the request is not addressed to loopback, or has an Origin: ask from a program on the
            emulator's machine.
    """
    page = "origin" in request.headers or not _is_loopback(request.headers.get("host", ""))
    if page and request.method != "GET":
        raise ApiError(
            403, "FORBIDDEN", "Only a program on this machine changes the emulator: no Origin, a loopback Host."
        )


def _after(request: Request) -> int:
    text = request.query_params.get("after", "")
    # Cut, because `int` refuses thousands of digits: nothing comes after such a number either.
    return int(text[:_AFTER_DIGITS]) if text.isdecimal() else 0


async def journal(request: Request) -> Response:
    """Return the rows of the journal, oldest first; `?after=N` leaves out the first N, `account` and `route` others."""
    query = request.query_params
    book = emulator_of(request).journal
    return JSONResponse(book.rows(_after(request), account=query.get("account"), route=query.get("route")))


async def creations(request: Request) -> Response:
    """Return the accepted creations, oldest first; `?after=N` leaves out the first N, `account` and `kind` others."""
    query = request.query_params
    book = emulator_of(request).journal
    return JSONResponse(book.creations(_after(request), account=query.get("account"), kind=query.get("kind")))


async def totals(request: Request) -> Response:
    """Return the sums over the books."""
    return JSONResponse(emulator_of(request).journal.totals())


class _AccountChange(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    add_tokens: list[str] = []
    revoke_tokens: list[str] = []
    expires_in: float | None = None
    email_verified: bool | None = None


async def accounts(request: Request) -> Response:
    """List (GET) the accounts that were named or changed; open or change (POST) one."""
    _refuse_pages(request)
    book = emulator_of(request).accounts
    if request.method == "GET":
        return JSONResponse(book.all())
    try:
        change = _AccountChange.model_validate_json(await json_bytes(request))
    except ValidationError as error:
        raise refusal(error) from None
    try:
        return JSONResponse(book.change(**change.model_dump()))
    except ValueError as error:
        raise invalid(f"{error}.") from None


async def fits(request: Request) -> Response:
    """Return every fit that was accepted, oldest first; `?account=` leaves out those of others."""
    account = request.query_params.get("account")
    return JSONResponse([fit.as_row() for fit in emulator_of(request).store.all_fits(account)])


async def faults(request: Request) -> Response:
    """List (GET), add (POST a JSON list) or clear (DELETE) faults."""
    _refuse_pages(request)
    book = emulator_of(request).faults
    if request.method == "DELETE":
        book.waiting.clear()
    elif request.method == "POST":
        try:
            book.waiting += _FAULTS.validate_json(await json_bytes(request))
        except ValidationError as error:
            raise invalid(str(error)) from None
    return JSONResponse([fault.model_dump() for fault in book.waiting])


async def config(request: Request) -> Response:
    """Show (GET), change (POST a JSON object) or reset (DELETE) the settings."""
    _refuse_pages(request)
    emulator = emulator_of(request)
    if request.method == "DELETE":
        emulator.settings = emulator.start_settings
    elif request.method == "POST":
        try:
            changes = _CHANGES.validate_json(await json_bytes(request))
            changed = Settings.model_validate({**emulator.settings.model_dump(), **changes})
        except ValidationError as error:
            raise invalid(str(error)) from None
        if changed.backend == "tabpfn" and not has_tabpfn():
            raise invalid(TABPFN_REMEDY)
        emulator.settings = changed
    return JSONResponse(emulator.settings.model_dump())


ROUTES = [
    Route("/_emulator/journal", journal, methods=["GET"]),
    Route("/_emulator/creations", creations, methods=["GET"]),
    Route("/_emulator/totals", totals, methods=["GET"]),
    Route("/_emulator/accounts", accounts, methods=["GET", "POST"]),
    Route("/_emulator/fits", fits, methods=["GET"]),
    Route("/_emulator/faults", faults, methods=["GET", "POST", "DELETE"]),
    Route("/_emulator/config", config, methods=["GET", "POST", "DELETE"]),
]
