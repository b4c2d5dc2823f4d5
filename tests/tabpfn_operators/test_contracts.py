"""The vendor's own JSON examples, in tests/contracts: our builders make those requests, our readers take those answers.

`request` is the example as it is published; `we_add` is what we send beyond it, always fields that the contract knows.
"""

import json
from pathlib import Path

import pytest

from tabpfn_assets import FitParameters
from tabpfn_operators import _messages as messages
from tabpfn_operators import errors
from tabpfn_operators._envelopes import choose_error
from tabpfn_operators._messages import Response
from tabpfn_operators.predictions import AnswerIntake

FOLDER = Path(__file__).parents[1] / "contracts"
PAIRS = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))}
ERRORS = PAIRS.pop("errors")["answers"]
INFO = {"format": "parquet"}


def build(pair):
    ids = pair["ids"]
    parameters = FitParameters.model_validate(pair.get("parameters", {"task": "regression"}))
    return {
        "fit": lambda: messages.fit(**ids, parameters=parameters, wire=pair["wire"]),
        "submit_fit_job": lambda: messages.submit_fit_job(**ids, parameters=parameters),
        "get_fit_status": lambda: messages.post("/tabpfn/get_fit_status", ids),
        "prepare_train_set_upload": lambda: messages.prepare_train_set_upload(INFO, INFO, force_reupload=False),
        "prepare_test_set_upload": lambda: messages.prepare_test_set_upload(**ids, x=INFO, force_reupload=False),
        "predict": lambda: messages.predict(
            **ids, parameters=parameters, output_type=pair["output_type"], quantiles=None
        ),
    }[pair["call"]]()


def answer(status, body, headers=None):
    return Response(status, headers or {}, json.dumps(body).encode())


@pytest.mark.parametrize("name", PAIRS)
def test_a_request_is_the_published_one(name):
    pair = PAIRS[name]
    request = build(pair)
    assert (request.method, request.url) == (pair["method"], pair["path"])
    assert dict(request.json) == {**pair["request"], **pair["we_add"]}
    json.dumps(request.json, allow_nan=False)


@pytest.mark.parametrize(
    "name", [n for n, p in PAIRS.items() if p["call"] in {"fit", "submit_fit_job", "get_fit_status"}]
)
@pytest.mark.parametrize("before", [b"", b" " * 50, b"\n \r\n\t"])
def test_a_fits_answer_is_read(name, before):
    pair = PAIRS[name]
    body = before + json.dumps(pair["response"]).encode()
    status = messages.read_fit_status(Response(pair["status"], {}, body), pair["path"])
    assert {key: getattr(status, key) for key in pair["read_as"]} == pair["read_as"]


@pytest.mark.parametrize("name", [n for n, p in PAIRS.items() if p["call"].startswith("prepare")])
def test_a_prepared_uploads_answer_is_read(name):
    pair = PAIRS[name]
    kind = "train" if "train" in name else "test"
    files = ("x_train_info", "y_train_info") if kind == "train" else ("x_test_info",)
    found = messages.read_prepared(
        answer(pair["status"], pair["response"]), pair["path"], f"{kind}_set_upload_id", *files
    )
    urls = [len(ticket.signed_urls) for ticket in found.tickets]
    assert {"upload_id": found.upload_id, "duplicate": found.duplicate, "urls": urls} == pair["read_as"]


def test_a_predictions_answer_is_read(build_model):
    pair = PAIRS["predict"]
    with AnswerIntake("probas") as intake:
        intake.reader.feed(json.dumps(pair["response"]).encode())
        data = messages.read_object(Response(200, {}, intake.reader.end()), pair["path"], "metadata")
        found = intake.decoded(data, build_model(classes=[0, 1]), quantiles=None, rows=2).loaded()
    assert found.columns["prediction"].to_pylist() == pair["read_as"]["prediction"]


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: f"{case['status']}-{case['error']}")
def test_an_error_is_read(case):
    response = answer(case["status"], case["body"], case.get("headers"))
    if case["status"] == 200:
        with pytest.raises(errors.ServerError) as caught:
            messages.read_object(response, "POST /tabpfn/fit", "fitted_train_set_id")
        error = caught.value
    else:
        error = choose_error(response, "POST /tabpfn/fit")
    assert type(error).__name__ == case["error"]
    assert case["words"] in str(error)
    assert error.trace_id == case.get("trace_id")
    assert error.status == case["status"]
