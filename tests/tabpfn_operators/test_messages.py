"""Requests as the contract has them, and answers of any shape read without a surprise."""

import json
import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_assets import FitParameters, Thinking
from tabpfn_operators import _messages as messages
from tabpfn_operators._messages import Part, Response, split_into_parts
from tabpfn_operators.errors import OutcomeUnknownError, RequestRejectedError, ServerError, TabPFNError


@dataclass(frozen=True)
class Bytes:
    """A body in memory."""

    content: bytes

    @property
    def size(self):
        return len(self.content)

    def chunks(self, chunk_size, start=0, stop=None):
        piece = self.content[start:stop]
        for at in range(0, len(piece), chunk_size):
            yield piece[at : at + chunk_size]


def answer(body, status=200):
    return Response(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


CHUNKS = st.integers(1, 40)


@given(content=st.binary(max_size=300), count=st.integers(1, 12), chunk_size=CHUNKS)
def test_parts_join_back_to_the_whole(content, count, chunk_size):
    parts = split_into_parts(Bytes(content), count)
    assert len(parts) == count
    assert sum(part.size for part in parts) == len(content)
    assert b"".join(b"".join(part.chunks(chunk_size)) for part in parts) == content
    # The server's way of cutting (contract 3): equal parts, the last takes the rest.
    assert [part.size for part in parts[:-1]] == [len(content) // count] * (count - 1)


@given(
    content=st.binary(max_size=200),
    bounds=st.tuples(st.integers(0, 200), st.integers(0, 200)),
    inner=st.tuples(st.integers(0, 200), st.none() | st.integers(0, 200)),
    chunk_size=CHUNKS,
)
def test_a_part_reads_like_a_slice(content, bounds, inner, chunk_size):
    start, stop = sorted(min(bound, len(content)) for bound in bounds)
    part = Part(Bytes(content), start, stop)
    assert part.size == stop - start
    chunks = list(part.chunks(chunk_size, *inner))
    first, last = inner
    assert b"".join(chunks) == content[start:stop][first : None if last is None else max(first, last)]
    assert all(0 < len(chunk) <= chunk_size for chunk in chunks)


def test_a_part_of_a_part_reads_right():
    outer = Part(Bytes(b"0123456789"), 2, 9)
    assert b"".join(Part(outer, 1, 4).chunks(2)) == b"345"


def test_fit_body_in_the_nested_form():
    parameters = FitParameters(
        task="classification",
        config={"n_estimators": 4},
        text_handling="simple",
        thinking=Thinking(effort="high", timeout_secs=300, metric="log_loss", group_col="g"),
    )
    assert messages.fit_body("u", parameters, wire="nested") == {
        "train_set_upload_id": "u",
        "tabpfn_systems": ["preprocessing", "text", "thinking"],
        "task_config": {"task": "classification", "tabpfn_config": {"n_estimators": 4}},
        "text_handling": "simple",
        "thinking_config": {"effort": "high", "timeout_secs": 300.0, "metric": "log_loss", "group_col": "g"},
    }


def test_fit_body_in_the_flat_form():
    parameters = FitParameters(
        task="regression",
        config={"n_estimators": 4},
        systems=("preprocessing",),
        thinking=Thinking(effort="high", timeout_secs=300, metric="rmse"),
    )
    assert messages.fit_body("u", parameters, wire="flat") == {
        "train_set_upload_id": "u",
        "task": "regression",
        "tabpfn_systems": ["preprocessing", "thinking"],
        "tabpfn_config": {"n_estimators": 4},
        "thinking_effort": "high",
        "thinking_timeout_s": 300.0,
        "thinking_effort_metric": "rmse",
    }


@pytest.mark.parametrize("wire", ["nested", "flat"])
def test_a_plain_fit_sends_no_key_that_was_not_asked_for(wire):
    body = messages.fit_body("u", FitParameters(task="regression"), wire=wire)
    task = {"task": "regression"} if wire == "flat" else {"task_config": {"task": "regression"}}
    assert body == {"train_set_upload_id": "u", "tabpfn_systems": ["preprocessing", "text"], **task}


@pytest.mark.parametrize("systems", [("preprocessing", "text"), ("thinking",), ("text", "thinking"), ()])
def test_thinking_is_named_once_and_only_with_thinking(systems):
    parameters = FitParameters(task="regression", systems=systems, thinking=Thinking())
    assert messages.fit_body("u", parameters, wire="nested")["tabpfn_systems"].count("thinking") == 1


def test_what_the_flat_form_cannot_carry_is_named():
    thinking = Thinking(group_col="g", group_time_col="t")
    parameters = FitParameters(task="regression", text_handling="simple", thinking=thinking)
    lacks = ("text_handling", "thinking.group_col", "thinking.group_time_col")
    assert messages.flat_form_lacks(parameters) == lacks
    assert messages.flat_form_lacks(FitParameters(task="regression", thinking=Thinking())) == ()


@pytest.mark.parametrize(
    ("request_", "billed"),
    [
        (messages.fit("u", FitParameters(task="regression"), wire="nested"), True),
        (messages.submit_fit_job("u", FitParameters(task="regression")), True),
        (messages.predict("t", "f", FitParameters(task="regression"), output_type="mean", quantiles=None), True),
        (messages.prepare_train_set_upload({}, {}, force_reupload=False), False),
        (messages.prepare_test_set_upload("f", {}, force_reupload=True), False),
        (messages.post("/tabpfn/get_fit_status", {}), False),
        (messages.get("/protected/"), False),
    ],
    ids=lambda value: getattr(value, "url", value),
)
def test_which_calls_must_not_be_sent_twice(request_, billed):
    assert request_.billed is billed
    assert request_.bearer


def test_a_put_has_no_bearer_and_its_address_is_in_no_repr():
    request = messages.put_part(
        "https://store/x?sig=hidden", {"x-k": "hidden"}, Bytes(b"hidden"), label="PUT of part 1"
    )
    assert not request.bearer
    assert not request.billed
    assert "hidden" not in repr(request)


def test_predict_repeats_the_config_of_the_fit():
    parameters = FitParameters(task="regression", config={"random_state": 1})
    request = messages.predict("t", "f", parameters, output_type="quantiles", quantiles=(0.1, 0.9))
    assert request.json == {
        "test_set_upload_id": "t",
        "fitted_train_set_id": "f",
        "task_config": {
            "task": "regression",
            "tabpfn_config": {"random_state": 1},
            "predict_params": {"output_type": "quantiles", "quantiles": [0.1, 0.9]},
        },
    }


def test_file_info_leaves_an_unknown_hash_out():
    assert messages.file_info(5, None) == {"format": "parquet", "size_bytes": 5}
    assert messages.file_info(5, "m/GKbQ==")["hash"] == "m/GKbQ=="


def test_a_prepared_upload():
    info = {"signed_urls": ["https://s/1?sig=hidden", "https://s/2"], "expires_at": 1.5, "required_headers": {"x-a": 1}}
    prepared = messages.read_prepared(answer({"id": "u", "x": info, "y": info}), "POST /p", "id", "x", "y")
    assert prepared.upload_id == "u"
    assert not prepared.duplicate
    assert prepared.tickets[0].signed_urls == ("https://s/1?sig=hidden", "https://s/2")
    assert prepared.tickets[1].required_headers == {"x-a": "1"}
    assert "hidden" not in repr(prepared)


def test_a_duplicate_is_told_by_status_and_id_whatever_its_code():
    prepared = messages.read_prepared(answer({"error_code": "ANY", "id": "u"}, 409), "POST /p", "id", "x")
    assert (prepared.upload_id, prepared.duplicate, prepared.tickets) == ("u", True, ())


def test_a_conflict_without_an_id_is_a_rejection():
    conflict = answer({"message": "in use", "error_code": "CONFLICT", "trace_id": "t-1"}, 409)
    with pytest.raises(RequestRejectedError) as caught:
        messages.read_prepared(conflict, "POST /p", "id", "x")
    assert "in use" in str(caught.value)
    assert (caught.value.status, caught.value.code, caught.value.trace_id) == (409, "CONFLICT", "t-1")


def test_a_fit_without_status_is_completed():
    assert messages.read_fit_status(answer({"fitted_train_set_id": "f"}), "POST /fit").status == "completed"


def test_a_look_without_status_is_no_look():
    with pytest.raises(ServerError, match="worker failed"):
        messages.read_fit_status(answer({"detail": "worker failed"}), "POST /s", fitted_train_set_id="f")


def test_a_look_reads_hint_error_and_timings():
    body = {
        "fitted_train_set_id": "f",
        "status": "failed",
        "retry_in_secs": 2,
        "error": "bad data",
        "error_code": "USER_ERROR",
        "timings": {"fit_s": 1.5, "queue_wait_s": None, "note": "x"},
    }
    status = messages.read_fit_status(answer(body), "POST /s")
    assert (status.retry_in_secs, status.error, status.error_code) == (2.0, "bad data", "USER_ERROR")
    assert status.timings == {"fit_s": 1.5, "queue_wait_s": None}


@pytest.mark.parametrize("hint", ["NaN", "Infinity", '"soon"', "null", "{}"])
def test_a_hint_that_is_no_number_of_seconds_counts_as_absent(hint):
    body = f'{{"status": "pending", "retry_in_secs": {hint}}}'.encode()
    assert messages.read_fit_status(answer(body), "POST /s", fitted_train_set_id="f").retry_in_secs is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"_streamed_error": True, "message": "worker lost"}, "worker lost"),
        ({"_streamed_error": True, "fitted_train_set_id": "f", "message": "worker lost"}, "worker lost"),
        ({"detail": "worker failed", "trace_id": "t-9"}, "worker failed"),
        ({"fitted_train_set_id": None}, "lacks"),
        ({}, "lacks"),
        ([], "not a JSON object"),
        (b"<html>", "not a JSON object"),
        (b"", "not a JSON object"),
        (b"[" * 100_000, "not a JSON object"),
    ],
)
def test_a_failure_inside_a_success(body, words):
    with pytest.raises(ServerError) as caught:
        messages.read_object(answer(body), "POST /tabpfn/fit", "fitted_train_set_id")
    assert words in str(caught.value)
    assert "POST /tabpfn/fit" in str(caught.value)
    assert caught.value.status == 200
    assert not caught.value.terminal


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
TICKET = st.fixed_dictionaries({"signed_urls": JSON, "required_headers": JSON, "expires_at": JSON})
URLS = st.fixed_dictionaries({"signed_urls": st.just(["https://s/1"]), "required_headers": JSON, "expires_at": JSON})


@given(body=JSON | st.fixed_dictionaries({"id": JSON, "x": JSON | TICKET | URLS}), status=st.sampled_from([200, 409]))
def test_a_prepared_upload_of_any_shape_is_read_or_refused(body, status):
    try:
        prepared = messages.read_prepared(answer(body, status), "POST /p", "id", "x")
    except TabPFNError:
        return
    assert prepared.duplicate or prepared.tickets[0].signed_urls


STATUS = st.fixed_dictionaries(
    {"fitted_train_set_id": JSON, "status": JSON},
    optional={"retry_in_secs": JSON, "timings": JSON, "error": JSON, "error_code": JSON, "detail": JSON},
)


@given(body=JSON | STATUS, asked=st.none() | st.just("f"))
def test_a_status_of_any_shape_is_read_or_refused(body, asked):
    try:
        status = messages.read_fit_status(answer(body), "POST /s", fitted_train_set_id=asked)
    except ServerError:
        return
    except OutcomeUnknownError:
        assert asked is None, "a look may always be repeated"
        return
    assert status.retry_in_secs is None or math.isfinite(status.retry_in_secs)
