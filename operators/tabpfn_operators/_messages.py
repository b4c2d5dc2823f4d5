"""Requests to send and answers to read, as plain data and pure functions."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite
from typing import Any, Protocol

from tabpfn_assets import FitParameters, FitStatus
from tabpfn_operators.errors import OutcomeUnknownError, RequestRejectedError, ServerError, TabPFNError
from tabpfn_operators.settings import WireForm

#: Seconds without a byte after which a long POST counts as lost. The server sends keepalive whitespace on fits over
#: 2 s (contract 1.3); predictions send nothing until they are done, and the vendor's client allows 900 s.
LONG_READ_TIMEOUT = 900.0
#: Keys of an answer that says why it is no success (contract 1.0, the envelopes).
_TELLS_OF_FAILURE = frozenset({"_streamed_error", "message", "detail", "error", "error_code", "code"})


class Body(Protocol):
    """Bytes of known size that can be read any number of times.

    One that knows its hash has an attribute `crc32c` as well: CRC32C of its bytes in base64 (contract 3), or None.
    """

    @property
    def size(self) -> int:
        """Bytes in total."""

    def chunks(self, chunk_size: int, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Open anew and yield the bytes of [start, stop) in order, at most `chunk_size` at a time."""


@dataclass(frozen=True)
class Part:
    """The bytes [start, stop) of a body, itself a body.

    Args:
        whole: The body to cut from.
        start: First byte.
        stop: One past the last byte.
    """

    whole: Body
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Bytes in this part."""
        return self.stop - self.start

    def chunks(self, chunk_size: int, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Open anew and yield the part's bytes in order."""
        end = self.size if stop is None else min(stop, self.size)
        return self.whole.chunks(chunk_size, self.start + start, self.start + end)


def split_into_parts(body: Body, count: int) -> tuple[Part, ...]:
    """Cut a body the way the server joins it: equal parts, the last takes the rest (contract 3)."""
    base = body.size // count
    bounds = [index * base for index in range(count)] + [body.size]
    return tuple(Part(body, start, stop) for start, stop in pairwise(bounds))


class Intake(Protocol):
    """Takes the body of a success as it arrives, for answers too large for memory."""

    def begin(self) -> None:
        """Begin anew: the request may have been sent before."""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""

    def end(self) -> bytes:
        """Return what stands for the body."""


@dataclass(frozen=True)
class Request:
    """One HTTP request without its credentials, which only the wire adds.

    Args:
        method: HTTP method.
        url: A path below the API base, or a whole URL of a storage host.
        label: How texts name the call; never holds a signed URL.
        json: JSON body.
        body: Byte body of known size.
        headers: Headers to send as they are.
        bearer: Whether the wire adds the token; never for storage hosts.
        billed: Whether carrying it out twice costs twice or creates two things; such a call opens a fresh connection.
        read_timeout: Seconds to wait for the next byte; None takes the settings'.
        intake: Takes the body of a 2xx; None has it read whole.
    """

    method: str
    url: str = field(repr=False)
    label: str
    json: Mapping[str, Any] | None = field(default=None, repr=False)
    body: Body | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    bearer: bool = True
    billed: bool = False
    read_timeout: float | None = None
    intake: Intake | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Response:
    """One HTTP answer, read whole, with leading keepalive whitespace dropped.

    Args:
        status: HTTP status.
        headers: Header names in lower case.
        body: Answer bytes; what the request's intake left of them, where it has one.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class UploadTicket:
    """Where to put one file (contract 1.1).

    Args:
        signed_urls: One URL, or one for each part in order.
        expires_at: Epoch seconds until which they work; None where the server does not say.
        required_headers: Headers to send verbatim.
    """

    signed_urls: tuple[str, ...] = field(repr=False)
    expires_at: float | None
    required_headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class PreparedUpload:
    """An upload the server knows of: tickets to use, or none because it has the content already.

    Args:
        upload_id: The server's id.
        tickets: Tickets in the order of the files.
        duplicate: Whether the server answered 409 with the id of equal content.
    """

    upload_id: str
    tickets: tuple[UploadTicket, ...] = ()
    duplicate: bool = False


def get(path: str) -> Request:
    """Build a GET below the API base."""
    return Request("GET", path, f"GET {path}")


def post(path: str, body: Mapping[str, Any] | None = None, *, billed: bool = False) -> Request:
    """Build a JSON POST below the API base; a billed one waits long and is not repeated blindly."""
    timeout = LONG_READ_TIMEOUT if billed else None
    return Request("POST", path, f"POST {path}", json=body, billed=billed, read_timeout=timeout)


def prepare_train_set_upload(x: Mapping[str, Any], y: Mapping[str, Any], *, force_reupload: bool) -> Request:
    """Build the call that prepares a train set upload (contract 1.1); `x` and `y` are FileInfo objects."""
    body: dict[str, Any] = {"x_train_info": x, "y_train_info": y}
    return post("/tabpfn/prepare_train_set_upload", {**body, "force_reupload": force_reupload})


def prepare_test_set_upload(fitted_train_set_id: str, x: Mapping[str, Any], *, force_reupload: bool) -> Request:
    """Build the call that prepares a test set upload for one fitted model (contract 1.7)."""
    body = {"fitted_train_set_id": fitted_train_set_id, "x_test_info": x, "force_reupload": force_reupload}
    return post("/tabpfn/prepare_test_set_upload", body)


def file_info(size_bytes: int, crc32c: str | None) -> dict[str, Any]:
    """Build a FileInfo: Parquet, with size and (where known) hash, so that equal content is not sent twice."""
    info: dict[str, Any] = {"format": "parquet", "size_bytes": size_bytes}
    return info if crc32c is None else {**info, "hash": crc32c}


def put_part(url: str, headers: Mapping[str, str], body: Body, *, label: str) -> Request:
    """Build the PUT of one part to a signed URL: exact headers, exact size, no bearer (contract 3)."""
    return Request("PUT", url, label, body=body, headers=headers, bearer=False, read_timeout=LONG_READ_TIMEOUT)


def fit(train_set_upload_id: str, parameters: FitParameters, *, wire: WireForm) -> Request:
    """Build the streamed fit (contract 1.3) in either form of its body."""
    return post("/tabpfn/fit", fit_body(train_set_upload_id, parameters, wire=wire), billed=True)


def submit_fit_job(train_set_upload_id: str, parameters: FitParameters) -> Request:
    """Build the submission of a fit job (contract 1.4), which knows the nested form only."""
    return post("/tabpfn/submit_fit_job", fit_body(train_set_upload_id, parameters, wire="nested"), billed=True)


def fit_body(train_set_upload_id: str, parameters: FitParameters, *, wire: WireForm) -> dict[str, Any]:
    """Build the body of a fit (contract 2.1): `nested` for today's clients, `flat` for the published OpenAPI."""
    systems: list[str] = [system for system in parameters.systems if system != "thinking"]
    if parameters.thinking is not None:
        systems.append("thinking")
    body: dict[str, Any] = {"train_set_upload_id": train_set_upload_id, "tabpfn_systems": systems}
    if wire == "flat":
        return body | _flat_part(parameters)
    body["task_config"] = task_config(parameters)
    if parameters.text_handling is not None:
        body["text_handling"] = parameters.text_handling
    if parameters.thinking is not None:
        body["thinking_config"] = parameters.thinking.model_dump(exclude_none=True)
    return body


def _flat_part(parameters: FitParameters) -> dict[str, Any]:
    thinking = parameters.thinking
    part: dict[str, Any] = {"task": parameters.task}
    if parameters.config:
        part["tabpfn_config"] = dict(parameters.config)
    if thinking is not None:
        named = {
            "thinking_effort": thinking.effort,
            "thinking_timeout_s": thinking.timeout_secs,
            "thinking_effort_metric": thinking.metric,
        }
        part |= {key: value for key, value in named.items() if value is not None}
    return part


def flat_form_lacks(parameters: FitParameters) -> tuple[str, ...]:
    """Name what the flat form cannot carry, so that nothing is dropped in silence (contract 2.1)."""
    lacks = ["text_handling"] if parameters.text_handling is not None else []
    if parameters.thinking is not None:
        columns = ("group_col", "time_col", "group_time_col")
        lacks += [f"thinking.{c}" for c in columns if getattr(parameters.thinking, c) is not None]
    return tuple(lacks)


def task_config(parameters: FitParameters) -> dict[str, Any]:
    """Build the task part that fit and predict share (contract 1.8)."""
    config: dict[str, Any] = {"task": parameters.task}
    return {**config, "tabpfn_config": dict(parameters.config)} if parameters.config else config


def predict(
    test_set_upload_id: str,
    fitted_train_set_id: str,
    parameters: FitParameters,
    *,
    output_type: str,
    quantiles: tuple[float, ...] | None,
) -> Request:
    """Build a prediction (contract 1.8)."""
    params: dict[str, Any] = {"output_type": output_type}
    if quantiles is not None:
        params["quantiles"] = list(quantiles)
    body = {
        "test_set_upload_id": test_set_upload_id,
        "fitted_train_set_id": fitted_train_set_id,
        "task_config": {**task_config(parameters), "predict_params": params},
    }
    return post("/tabpfn/predict", body, billed=True)


def read_object(response: Response, label: str, *required: str, billed: bool = False) -> dict[str, Any]:
    """Read a JSON object that a success must hold `required` keys of.

    A 2xx can still carry a failure (contract 1.0: `_streamed_error`, or the failure text under `detail`).

    Args:
        response: The answer.
        label: What the call is called in messages.
        *required: Keys of a success.
        billed: Whether the call must not be repeated where the answer does not tell what became of it.

    Raises:
        ServerError: The answer is no success; run again and quote the trace id.
        OutcomeUnknownError: The call is billed, and the answer cannot be read; look at the account's usage.
    """
    data = parse_json(response.body)
    whole = isinstance(data, dict) and all(data.get(key) is not None for key in required)
    if billed and not whole and not (isinstance(data, dict) and _TELLS_OF_FAILURE & data.keys()):
        raise OutcomeUnknownError(
            f"{label}: HTTP {response.status} with an answer that cannot be read, so it was probably carried out, and "
            "is not sent again. Look at the account's usage before you repeat it.",
            status=response.status,
        )
    if not isinstance(data, dict):
        raise ServerError(f"{label}: the answer is not a JSON object; run again.", status=response.status)
    if data.get("_streamed_error") or not whole:
        raise failure_inside_success(data, response, label)
    return data


def parse_json(body: bytes) -> Any:
    """Parse JSON, or return None for anything else."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def failure_inside_success(data: Mapping[str, Any], response: Response, label: str) -> TabPFNError:
    """Build the error of a 2xx that carries a failure."""
    text = data.get("message") or data.get("detail") or "the answer lacks what a success has"
    code = data.get("error_code") or data.get("code")
    trace = data.get("trace_id")
    kind = RequestRejectedError if response.status == 409 else ServerError
    return kind(
        f"{label} failed: {text}",
        status=response.status,
        code=code if isinstance(code, str) else None,
        trace_id=trace if isinstance(trace, str) else None,
    )


def read_prepared(response: Response, label: str, id_key: str, *file_keys: str) -> PreparedUpload:
    """Read the answer to a prepare call: tickets, or 409 with the id of equal content (contract 1.1, 1.7)."""
    if response.status == 409:
        data = read_object(response, label, id_key)
        return PreparedUpload(str(data[id_key]), duplicate=True)
    data = read_object(response, label, id_key, *file_keys)
    return PreparedUpload(str(data[id_key]), tuple(_read_ticket(data[key], label) for key in file_keys))


def _read_ticket(info: Any, label: str) -> UploadTicket:
    urls = info.get("signed_urls") if isinstance(info, dict) else None
    if not isinstance(urls, list) or not urls or not all(isinstance(url, str) for url in urls):
        raise ServerError(f"{label}: the answer holds no signed URL; run again.")
    headers = info.get("required_headers")
    headers = headers if isinstance(headers, dict) else {}
    return UploadTicket(tuple(urls), _number(info.get("expires_at")), {str(k): str(v) for k, v in headers.items()})


def read_fit_status(response: Response, label: str, *, fitted_train_set_id: str | None = None) -> FitStatus:
    """Read the answer to a fit or a look at one; a fit without `status` is completed (contract 8, row 3).

    Args:
        response: The answer.
        label: How texts name the call.
        fitted_train_set_id: The id that was asked for, where the answer may leave it out.
    """
    required = () if fitted_train_set_id else ("fitted_train_set_id",)
    data = read_object(response, label, *required, billed=fitted_train_set_id is None)
    if fitted_train_set_id and "status" not in data:
        raise failure_inside_success(data, response, label)
    timings = data.get("timings")
    timings = timings if isinstance(timings, dict) else {}
    return FitStatus(
        fitted_train_set_id=str(data.get("fitted_train_set_id") or fitted_train_set_id),
        status=str(data.get("status") or "completed"),
        retry_in_secs=_number(data.get("retry_in_secs")),
        error=_text(data.get("error")),
        error_code=_text(data.get("error_code")),
        timings={str(key): value for key, value in timings.items() if isinstance(value, int | float | None)},
    )


def _number(value: Any) -> float | None:
    """Read a number; whatever else a server may send counts as absent."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if isfinite(value) else None
    except OverflowError:  # a whole number that no float can hold
        return None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
