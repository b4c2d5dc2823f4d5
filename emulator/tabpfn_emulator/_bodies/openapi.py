"""The OpenAPI 3.1 document at /openapi.json, made of the models that requests are read with."""

import json
from functools import cache
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tabpfn_emulator._bodies.answers import ErrorA, ErrorAPrime, ErrorB
from tabpfn_emulator._bodies.operations import OPERATIONS, Operation
from tabpfn_emulator._envelopes import SUPPORT_URL, V1

_SCHEMES: Final = {"BearerAuth": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
_MEANINGS: Final = {
    400: "A file is missing or malformed, or a value cannot be used.",
    401: "No token, or none that opens an account: unknown, revoked, expired, or of an account that was deleted.",
    403: "The account's e-mail address is not verified; or, where an account is to be opened, the server was started "
    "with the accounts that it takes.",
    404: "There is no such thing, or it has expired, or it is another account's.",
    409: "The same content is there already, or the job has not ended.",
    413: "The request is larger than the largest upload.",
    422: "The request is understood and refused: the fields that are wrong are named.",
    429: "Too many requests (with Retry-After), or the quota is used up (without).",
    500: "The fit has failed on the server.",
    507: "The disk of the emulator is full; nothing was done. The text names its folder and the remedy.",
}
_CODES: Final = {
    400: ("error.bad_request", "BAD_REQUEST"),
    401: ("auth.unauthorized", "UNAUTHORIZED"),
    403: ("auth.forbidden", "EMAIL_NOT_VERIFIED"),
    404: ("error.not_found", "NOT_FOUND"),
    409: ("error.conflict", "DUPLICATE_TRAIN_SET_UPLOAD"),
    413: ("error.too_large", "CONTENT_TOO_LARGE"),
    422: ("validation.failed", "REQUEST_VALIDATION_ERROR"),
    429: ("rate.limit.exceeded", "RATE_LIMIT_EXCEEDED"),
    500: ("error.internal", "USER_ERROR"),
    507: ("error.insufficient_storage", "INSUFFICIENT_STORAGE"),
}


@cache
def document() -> dict[str, Any]:
    """Return the document; the same object at every call."""
    bodies = {model for operation in OPERATIONS for model in (*operation.body, *(operation.form or ())[:1])}
    answers = {model for each in OPERATIONS for model in (each.answer, each.conflict, each.streamed) if model}
    answers |= {ErrorA, ErrorAPrime, ErrorB}
    # Sorted: the document is the same bytes at every start.
    inputs = sorted(bodies, key=lambda model: model.__name__)
    outputs = sorted(answers, key=lambda model: model.__name__)
    references, definitions = models_json_schema(
        [(model, "validation") for model in inputs] + [(model, "serialization") for model in outputs],
        ref_template="#/components/schemas/{model}",
    )
    reads = {model: schema for (model, mode), schema in references.items() if mode == "validation"}
    writes = {model: schema for (model, mode), schema in references.items() if mode == "serialization"}
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, reads, writes)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "TabPFN emulator",
            "version": "2.0.0",
            "description": "The TabPFN API as a local emulator serves it, and the reasoning API. Section numbers are "
            "those of the contract. Signed URLs (/storage/*) are used as they come and are not listed: one that was "
            "changed or, on S3, has expired, or whose train set a fit has used, answers 403 in XML.",
        },
        "paths": paths,
        "components": {"schemas": definitions["$defs"], "securitySchemes": _SCHEMES},
    }


def _operation(operation: Operation, reads: dict[Any, Any], writes: dict[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": _operation_id(operation),
        "summary": operation.summary,
        "description": f"Contract section {operation.source}",
        "security": [{"BearerAuth": []}] if operation.token else [],
        "responses": {"200": _success(operation, writes)},
    }
    if operation.deprecated:
        described["deprecated"] = True
    parameters = [_parameter(name, "query") for name in operation.query]
    parameters += [_parameter(part[1:-1], "path") for part in operation.path.split("/") if part.startswith("{")]
    parameters += [
        {"name": name, "in": "header", "required": False, "schema": {"type": "string"}} for name in operation.headers
    ]
    if parameters:
        described["parameters"] = parameters
    if operation.body:
        described["requestBody"] = _json_body(operation, reads)
    if operation.form:
        described["requestBody"] = _multipart_body(operation, reads)
    for status in operation.statuses:
        described["responses"][str(status)] = _refusal(operation, status, writes)
    return described


def _operation_id(operation: Operation) -> str:
    words = operation.path.replace("{", "").replace("}", "").strip("/").replace("/", "_") or "root"
    return f"{operation.method}_{words}"


def _parameter(name: str, where: str) -> dict[str, Any]:
    return {"name": name, "in": where, "required": True, "schema": {"type": "string", "minLength": 1}}


def _success(operation: Operation, writes: dict[Any, Any]) -> dict[str, Any]:
    if operation.answer is None:
        content: dict[str, Any] = {"application/zip": {"schema": {"type": "string", "format": "binary"}}}
        name = {"description": "attachment; filename=NAME", "schema": {"type": "string"}}
        return {"description": "The archive.", "content": content, "headers": {"Content-Disposition": name}}
    summary = (operation.answer.__doc__ or "").split("\n")[0]
    schema = writes[operation.answer]
    if operation.streamed is not None:
        schema = {"anyOf": [schema, writes[operation.streamed]]}
    return {"description": summary, "content": {"application/json": {"schema": schema}}}


def _json_body(operation: Operation, reads: dict[Any, Any]) -> dict[str, Any]:
    schemas = [reads[model] for model in operation.body]
    schema = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
    return {"required": True, "content": {"application/json": {"schema": schema, "example": operation.example}}}


def _multipart_body(operation: Operation, reads: dict[Any, Any]) -> dict[str, Any]:
    model, files = operation.form or (BaseModel, ())
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": reads[model],
        "description": "A JSON string.",
        "examples": [json.dumps(operation.example)],
    }
    properties: dict[str, Any] = {"data": data}
    for name in files:
        properties[name] = {"type": "string", "format": "binary", "description": "A CSV file with a header row."}
    # A single file is what the route is for; of several there is a choice.
    required = ["data", *(files if len(files) == 1 else ())]
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


def _refusal(operation: Operation, status: int, writes: dict[Any, Any]) -> dict[str, Any]:
    code_a, code_b = _CODES[status]
    if operation.path.startswith(V1):
        model: type[BaseModel] = ErrorAPrime if status == 422 else ErrorA
        example: dict[str, Any] = {
            "code": code_a,
            "detail": _MEANINGS[status],
            "retryable": status == 429,
            "support": SUPPORT_URL,
        }
        if status == 422:
            example["errors"] = [{"field": "task", "message": "Field required"}]
    else:
        if status == 403 and not operation.token:
            code_b = "FORBIDDEN"
        model = operation.conflict if status == 409 and operation.conflict else ErrorB
        example = {
            "message": _MEANINGS[status],
            "error_code": code_b,
            "trace_id": "c0ffee00-0000-4000-8000-000000000000",
        }
        if status == 409:
            example |= {
                name: "123e4567-e89b-12d3-a456-426614174000"
                for name in model.model_fields
                if name.endswith("_upload_id")
            }
            if "test" in operation.path:
                example["error_code"] = "DUPLICATE_TEST_SET_UPLOAD"
    answer = {
        "description": _MEANINGS[status],
        "content": {"application/json": {"schema": writes[model], "example": example}},
    }
    if status == 429:
        answer["headers"] = {"Retry-After": {"description": "Whole seconds.", "schema": {"type": "integer"}}}
    return answer


async def openapi(request: Request) -> Response:  # noqa: ARG001  # Starlette's signature
    """Return the document; it wants no token."""
    return Response(json.dumps(document()), media_type="application/json")


ROUTES = [Route("/openapi.json", openapi, methods=["GET"])]
