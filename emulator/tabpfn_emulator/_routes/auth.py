"""Routes of the interactive sign-up (contract section 1.10): an account, its e-mail address, nothing of its password.

The requests and the keys of the answers are the client's (C); statuses and texts of refusals are not verified.
"""

import hashlib
import hmac
import re
import secrets
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tabpfn_emulator._bodies.requests import Register
from tabpfn_emulator._books.identity import registered_name
from tabpfn_emulator._emulator import body_of, emulator_of, note, row_of
from tabpfn_emulator._envelopes import ApiError, bad_request, invalid

VALIDATION_LINK: Final = "tabpfn-2023"
"""What the client sends as `validation_link`."""
REQUIREMENTS: Final = ["Length(8)", "Uppercase(1)", "Numbers(1)", "Special(1)"]
"""The password policy; only `Length(8)` is in the contract, the others are a stand-in."""

_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s.]+(?:\.[^@\s.]+)+")
_PASSWORD_PARTS = (re.compile(r".{8}", re.DOTALL), re.compile(r"[A-Z]"), re.compile(r"[0-9]"), re.compile(r"[\W_]"))


def _free_name(request: Request, email: str) -> str:
    """Return the name of a new account; a deleted account's name is never used again, nor are its tokens."""
    accounts = emulator_of(request).accounts
    if not _EMAIL.fullmatch(email) or len(email) > 254:
        raise bad_request("This is not an e-mail address.")
    number = 0
    while accounts.is_known(name := registered_name(email.lower(), number)):
        if not accounts.is_closed(name):
            raise bad_request("This e-mail address is in use.")
        number += 1
    return name


async def validate_email(request: Request) -> Response:
    """Say whether an e-mail address is one, and not in use."""
    email = request.query_params.get("email")
    if email is None:
        raise invalid("email: Field required", [("email", "Field required")])
    _free_name(request, email)
    return JSONResponse({"message": "The e-mail address can be used."})


async def password_policy(request: Request) -> Response:  # noqa: ARG001  # Starlette's signature
    """Return what a password must be."""
    return JSONResponse({"requirements": REQUIREMENTS})


async def register(request: Request) -> Response:
    """Open an account whose e-mail address is not verified yet, and return a token for it.

    Raises:
        ApiError: 403 where the start has named the accounts (a stand-in), 400 or 422 when the form cannot be used.
    """
    if emulator_of(request).accounts.restricted:
        raise ApiError(403, "FORBIDDEN", "This server takes the accounts that it was started with, and no others.")
    body = await body_of(request, Register)
    if body.validation_link != VALIDATION_LINK:
        raise bad_request("The validation link is not valid.")
    if body.password != body.password_confirm:
        raise bad_request("The passwords are not the same.")
    if not all(part.search(body.password) for part in _PASSWORD_PARTS):
        raise bad_request(f"The password does not meet the policy {REQUIREMENTS}.")
    name, token = _free_name(request, body.email), secrets.token_urlsafe(32)
    emulator_of(request).accounts.change(name, add_tokens=(token,), email_verified=False)
    row_of(request.scope)["account"] = name
    note(request, registered=name)
    return JSONResponse({"message": "The account was opened. Verify the e-mail address next.", "token": token})


def _verification_token(request: Request, name: str) -> str:
    key = emulator_of(request).database.secret("verification", 32)
    return hmac.new(key, name.encode(), hashlib.sha256).hexdigest()[:32]


async def send_verification_email(request: Request) -> Response:
    """Answer what the e-mail would say: the emulator sends none."""
    name = row_of(request.scope)["account"]
    if name is None:
        raise ApiError(401, "UNAUTHORIZED", "Could not validate credentials")
    token = _verification_token(request, name)
    return JSONResponse(
        {"message": f"The emulator sends no e-mail. The token for /auth/verify_email/ is {token} here."}
    )


async def verify_email(request: Request) -> Response:
    """Verify the e-mail address of the account that `access_token` opens."""
    problems = [(name, "Field required") for name in ("token", "access_token") if name not in request.query_params]
    if problems:
        raise invalid("; ".join(f"{field}: {message}" for field, message in problems), problems)
    emulator = emulator_of(request)
    name = emulator.accounts.of_token(request.query_params["access_token"])
    if name is None:
        raise ApiError(401, "UNAUTHORIZED", "Could not validate credentials")
    row_of(request.scope)["account"] = name
    expected = _verification_token(request, name)
    if not hmac.compare_digest(expected.encode(), request.query_params["token"].encode(errors="replace")):
        raise bad_request("The verification token is not valid.")
    emulator.accounts.change(name, email_verified=True)
    return JSONResponse({"message": "The e-mail address is verified."})


ROUTES = [
    Route("/auth/validate_email/", validate_email, methods=["POST"]),
    Route("/auth/password_policy/", password_policy, methods=["GET"]),
    Route("/auth/register/", register, methods=["POST"]),
    Route("/auth/send_verification_email/", send_verification_email, methods=["POST"]),
    Route("/auth/verify_email/", verify_email, methods=["GET"]),
]
