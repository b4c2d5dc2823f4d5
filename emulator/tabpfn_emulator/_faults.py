"""Faults on demand: what a test injects, and which request it meets."""

import re
from random import Random
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from tabpfn_emulator._patterns import covers

Kind = Literal[
    "status",
    "rate_limit",
    "quota",
    "redirect",
    "deprecation",
    "delay",
    "drip",
    "hang",
    "drop",
    "streamed_error",
    "missing_status",
    "truncated",
    "garbage",
    "prediction_uri",
    "expired_url",
    "cut_upload",
    "fail_fit",
    "endless_fit",
]
"""What can be injected; docs/emulator.md has a table of them."""

_WORKER_KINDS = frozenset({"fail_fit", "endless_fit"})
_AFTER_KINDS = frozenset({"status", "rate_limit", "quota", "drop", "hang", "streamed_error", "garbage"})
_WITHOUT_BODY = frozenset({204, 205, 304})
_DEFAULT_ROUTES = {
    "missing_status": "/tabpfn/fit",
    "prediction_uri": "/tabpfn/predict",
    "expired_url": "/storage",
    "cut_upload": "/storage",
}


def _route(route: str) -> str:
    if not route.startswith(("/", "*")):
        raise ValueError(f"{route!r} is no route: give a path, the beginning of one and *, or *")
    return route


def _field_name(name: str) -> str:
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise ValueError(f"{name!r} is no name of a header")
    return name


def _field_value(value: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?|", value):
        raise ValueError(f"{value!r} cannot be sent in a header: it takes one line of Latin-1, no space around it")
    return value


FieldValue = Annotated[str, AfterValidator(_field_value)]
"""What HTTP takes as the value of a header (RFC 9110, section 5.5)."""
Route = Annotated[str, AfterValidator(_route)]
"""A path, or what `_patterns.covers` understands."""


class Fault(BaseModel):
    """One fault, used by the next `times` matching requests.

    Attributes:
        kind: `status`: answer `status` with `body` and `headers`. `rate_limit`: 429 `RATE_LIMIT_EXCEEDED` with
            `Retry-After`. `quota`: 429 `INSUFFICIENT_QUOTA`. `redirect`: 307 to `location`. `deprecation`: the real
            answer with the headers of a route that will go away (contract 1.0). `delay`: wait `seconds` first. `drip`:
            the real answer, a few bytes at a time, for `seconds`. `hang`: never answer. `drop`: close the connection.
            `streamed_error`: HTTP 200, keepalive spaces, then `_streamed_error` (contract 1.0, envelope D).
            `missing_status`: take `status` out of the answer. `truncated`: the first half of the answer, well framed.
            `garbage`: HTTP 200 with a text that is no JSON. `prediction_uri`: put the prediction behind a signed URL.
            `expired_url`: refuse a signed URL as expired. `cut_upload`: close the connection when half of the body has
            arrived. `fail_fit`: accept the fit and let it fail with `error` and `error_code`. `endless_fit`: accept the
            fit and never end it.
        route: Path to meet, for example `/tabpfn/predict`, or `/v1/status/{job_id}` for any id; `/storage` for signed
            URLs; `/v1/*` for all that begin so; `*` for all of the API.
        method: HTTP method to meet; None for all.
        times: Requests to meet; None for all until the faults are cleared.
        skip: Matching requests to let pass first.
        nth: The same, counted from 1: 3 meets the third matching request.
        probability: Chance of each matching request, above 0 and up to 1; give `times` too, or None for no end.
        seed: Seed of the chances: the same seed meets the same requests.
        when: `before` the work, `after` it (the answer is withheld), in the `middle` of the answer (`drop` only: after
            its headers), or in its `keepalive` (`drop` only: after its headers and some spaces).
        status: HTTP status of the kinds `status` and `redirect`.
        body: JSON answer of the kinds `status` and `streamed_error`; None makes envelope B or D. Text of the kinds
            `status` and `garbage` is sent as it is.
        headers: Headers of the kinds `status`, `rate_limit`, `quota`, `redirect` and `deprecation`.
        location: Where the kind `redirect` points; None: the same path of this server under another host name, which
            is another origin.
        seconds: Seconds of the kinds `delay` and `drip`; `Retry-After` of the kind `rate_limit`.
        error: Text of the kinds `fail_fit`, `streamed_error`, `status`, `rate_limit` and `quota`.
        error_code: Code of the kinds `fail_fit` and `status`.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    kind: Kind
    route: Route = "*"
    method: str | None = None
    times: int | None = Field(default=1, ge=1)
    skip: int = Field(default=0, ge=0)
    nth: int | None = Field(default=None, ge=1)
    probability: float = Field(default=1.0, gt=0, le=1)
    seed: int = 0
    when: Literal["before", "middle", "keepalive", "after"] = "before"
    status: int = Field(default=500, ge=200, le=599)
    body: Any = None
    headers: dict[Annotated[str, AfterValidator(_field_name)], FieldValue] = {}
    location: FieldValue | None = None
    seconds: float = Field(default=1.0, ge=0)
    error: str = "An injected failure."
    error_code: str = "INJECTED"
    _random: Random = PrivateAttr()

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "Fault":
        if self.when in {"middle", "keepalive"} and self.kind != "drop":
            raise ValueError(f'when="{self.when}" is for kind="drop" only')
        if self.when == "after" and self.kind not in _AFTER_KINDS:
            raise ValueError(f'when="after" is for the kinds {sorted(_AFTER_KINDS)} only')
        if self.nth is not None:
            if self.skip:
                raise ValueError("give nth or skip, not both")
            self.skip = self.nth - 1
        if self.route == "*":
            self.route = _DEFAULT_ROUTES.get(self.kind, "*")
        self._become_a_status()
        if self.status in _WITHOUT_BODY:
            raise ValueError(f"status {self.status} has no body to answer with; use another one")
        self._random = Random(self.seed)  # noqa: S311  # a repeatable choice, not a secret
        return self

    def _become_a_status(self) -> None:
        if self.kind == "rate_limit":
            self.status, self.error_code = 429, "RATE_LIMIT_EXCEEDED"
            # Whole seconds (contract 1.0).
            self.headers = {"Retry-After": str(round(self.seconds)), **self.headers}
        elif self.kind == "quota":
            self.status, self.error_code = 429, "INSUFFICIENT_QUOTA"
        elif self.kind == "redirect":
            self.status = self.status if "status" in self.model_fields_set else 307
            if not 300 <= self.status <= 399:
                raise ValueError('kind="redirect" needs a status from 300 to 399')

    def meets(self, method: str, route: str) -> bool:
        """Return whether a request is one that this fault is for."""
        return covers(self.route, route) and (self.method is None or self.method.upper() == method)

    def strikes(self) -> bool:
        """Return whether the request that it meets is one to spoil: not skipped, and drawn."""
        if self.skip:
            self.skip -= 1
            return False
        return self.probability == 1 or self._random.random() < self.probability


class Faults:
    """The faults that are not used up, oldest first."""

    def __init__(self) -> None:
        self.waiting: list[Fault] = []

    def take(self, method: str, route: str) -> Fault | None:
        """Use the next fault for an arriving request."""
        return self._take(method, route, worker=False)

    def take_for_fit(self, route: str) -> Fault | None:
        """Use the next `fail_fit` or `endless_fit` for a fit that was accepted."""
        return self._take("POST", route, worker=True)

    def _take(self, method: str, route: str, *, worker: bool) -> Fault | None:
        met = [each for each in self.waiting if (each.kind in _WORKER_KINDS) == worker and each.meets(method, route)]
        # All of them count the request, the ones behind that which spoils it too: the third is the third.
        fault = next(iter([each for each in met if each.strikes()]), None)
        if fault is not None and fault.times is not None:
            fault.times -= 1
            if fault.times == 0:
                self.waiting.remove(fault)
        return fault
