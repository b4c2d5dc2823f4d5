"""Faults on demand: what a test injects, and which request it meets."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_WORKER_KINDS = frozenset({"fail_fit"})
_DEFAULT_ROUTES = {"missing_status": "/tabpfn/fit", "prediction_uri": "/tabpfn/predict"}


class Fault(BaseModel):
    """One fault, used by the next `times` matching requests.

    Attributes:
        kind: `status`: answer `status` with `body` and `headers`. `drop`: close the connection. `streamed_error`: HTTP
            200, keepalive spaces, then `_streamed_error` (contract 1.0, envelope D). `delay`: wait `seconds` first.
            `missing_status`: take `status` out of the answer. `prediction_uri`: put the prediction behind a signed
            URL. `fail_fit`: accept the fit and let it fail with `error` and `error_code`.
        route: Path to meet, for example `/tabpfn/predict`; `/storage` for signed URLs; `*` for all of the API.
        method: HTTP method to meet; None for all.
        times: Requests to meet; None for all until the faults are cleared.
        skip: Matching requests to let pass first.
        when: `before` the work, `after` it (`status`, `drop`: the answer is withheld), or in the `middle` of the
            answer (`drop` only: after its headers).
        status: HTTP status of the kind `status`.
        body: JSON answer of the kinds `status` and `streamed_error`; None makes envelope B or D. Text of the kind
            `status` is sent as it is.
        headers: Headers of the kind `status`.
        seconds: Seconds of the kind `delay`.
        error: Text of the kinds `fail_fit`, `streamed_error` and `status`.
        error_code: Code of the kinds `fail_fit` and `status`.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["status", "drop", "streamed_error", "delay", "missing_status", "prediction_uri", "fail_fit"]
    route: str = "*"
    method: str | None = None
    times: int | None = Field(default=1, ge=1)
    skip: int = Field(default=0, ge=0)
    when: Literal["before", "middle", "after"] = "before"
    status: int = Field(default=500, ge=200, le=599)
    body: Any = None
    headers: dict[str, str] = {}
    seconds: float = Field(default=1.0, ge=0)
    error: str = "An injected failure."
    error_code: str = "INJECTED"

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "Fault":
        if self.when == "middle" and self.kind != "drop":
            raise ValueError('when="middle" is for kind="drop" only')
        if self.when == "after" and self.kind not in {"drop", "status"}:
            raise ValueError('when="after" is for the kinds "drop" and "status" only')
        if self.route == "*":
            self.route = _DEFAULT_ROUTES.get(self.kind, "*")
        return self

    def meets(self, method: str, route: str) -> bool:
        """Return whether a request is one that this fault is for."""
        return self.route in {"*", route} and (self.method is None or self.method.upper() == method)


class Faults:
    """The faults that are not used up, oldest first."""

    def __init__(self) -> None:
        self.waiting: list[Fault] = []

    def take(self, method: str, route: str) -> Fault | None:
        """Use the next fault for an arriving request."""
        return self._take(method, route, worker=False)

    def take_for_fit(self, route: str) -> Fault | None:
        """Use the next `fail_fit` for a fit that was accepted."""
        return self._take("POST", route, worker=True)

    def _take(self, method: str, route: str, *, worker: bool) -> Fault | None:
        for fault in self.waiting:
            if (fault.kind in _WORKER_KINDS) != worker or not fault.meets(method, route):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            if fault.times is not None:
                fault.times -= 1
                if fault.times == 0:
                    self.waiting.remove(fault)
            return fault
        return None
