"""Control routes for tests: faults, settings, books. No token, not journalled."""

from pydantic import JsonValue, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tabpfn_emulator._emulator import emulator_of, json_bytes
from tabpfn_emulator._envelopes import invalid
from tabpfn_emulator._faults import Fault
from tabpfn_emulator._settings import Settings

_FAULTS: TypeAdapter[list[Fault]] = TypeAdapter(list[Fault])
_CHANGES: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


async def journal(request: Request) -> Response:
    """Return the rows of the journal, oldest first; `?after=N` leaves out the first N."""
    after = request.query_params.get("after", "")
    return JSONResponse(emulator_of(request).journal.rows[int(after) if after.isdecimal() else 0 :])


async def fits(request: Request) -> Response:
    """Return every fit that was accepted, oldest first."""
    return JSONResponse([fit.as_row() for fit in emulator_of(request).store.all_fits()])


async def faults(request: Request) -> Response:
    """List (GET), add (POST a JSON list) or clear (DELETE) faults."""
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
    emulator = emulator_of(request)
    if request.method == "DELETE":
        emulator.settings = emulator.start_settings
    elif request.method == "POST":
        try:
            changes = _CHANGES.validate_json(await json_bytes(request))
            emulator.settings = Settings.model_validate({**emulator.settings.model_dump(), **changes})
        except ValidationError as error:
            raise invalid(str(error)) from None
    return JSONResponse(emulator.settings.model_dump())


ROUTES = [
    Route("/_emulator/journal", journal, methods=["GET"]),
    Route("/_emulator/fits", fits, methods=["GET"]),
    Route("/_emulator/faults", faults, methods=["GET", "POST", "DELETE"]),
    Route("/_emulator/config", config, methods=["GET", "POST", "DELETE"]),
]
