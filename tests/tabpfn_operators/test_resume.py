"""What follows from what is remembered of a fit: case by case, then what holds in every case."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_assets import FitStatus, JobRecord
from tabpfn_operators.errors import ConfigurationError, FitFailedError, OutcomeUnknownError
from tabpfn_operators.resume import RETRYABLE_FIT_CODES, generation_of, resume_decision

NOW = 1_795_262_400.0
ASKED, OTHER = "a" * 64, "b" * 64
CREATE = {"submit", "resubmit"}


def record(phase, **facts):
    given_facts = {"kind": "tabpfn_async", "phase": phase, "fingerprint": ASKED, "generation": 1, **facts}
    if phase not in {"uploaded", "intent"}:
        given_facts.setdefault("job_id", "fit-1")
    return JobRecord.model_validate(given_facts)


def status(word, **facts):
    return FitStatus(fitted_train_set_id="fit-1", status=word, **facts)


def decide(held, *, fingerprint=ASKED, generation=1, seen=None, now=NOW, billed=False, **options):
    return resume_decision(held, fingerprint, generation, seen, now, billed=billed, **options)


ALIVE = {"owner": "them", "lease_expires_at": NOW + 30}
GONE = {"owner": "them", "lease_expires_at": NOW}

# Record, what is asked, action, kind of error, words.
CASES = {
    "nothing": (None, {}, "submit", None, "nothing was done"),
    "uploaded": (record("uploaded"), {}, "submit", None, "nothing was submitted"),
    "uploaded, other inputs": (record("uploaded", fingerprint=OTHER), {}, "submit", None, "uploaded"),
    "intent of another": (record("intent", **ALIVE), {}, "wait", None, "them is submitting"),
    "intent of another, other inputs": (record("intent", fingerprint=OTHER, **ALIVE), {}, "wait", None, "them"),
    "intent of mine": (record("intent", **ALIVE), {"owner": "them"}, "resubmit", None, "interrupted"),
    "intent, and the claim is mine": (record("intent", **ALIVE), {"alone": True}, "resubmit", None, "interrupted"),
    "intent of one who is gone": (record("intent", **GONE), {}, "resubmit", None, "may have been created"),
    "intent without a lease": (record("intent"), {}, "resubmit", None, "may have been created"),
    "intent, billed": (record("intent", **GONE), {"billed": True}, "raise", OutcomeUnknownError, "adopt_fit"),
    "intent, raise": (record("intent", **GONE), {"on_unknown": "raise"}, "raise", OutcomeUnknownError, "resubmit"),
    "intent, resubmit": (
        record("intent", **GONE),
        {"billed": True, "on_unknown": "resubmit"},
        "resubmit",
        None,
        "may have been created",
    ),
    "intent, other inputs": (
        record("intent", fingerprint=OTHER, **GONE),
        {"billed": True},
        "submit",
        None,
        "interrupted here",
    ),
    "intent, next generation": (record("intent", **GONE), {"generation": 2}, "resubmit", None, "interrupted"),
    "submitted": (record("submitted"), {}, "reattach", None, "fit-1"),
    "submitted, pending": (record("submitted"), {"seen": status("pending")}, "reattach", None, "waited for again"),
    "submitted, a newer server's word": (record("submitted"), {"seen": status("queued")}, "reattach", None, "again"),
    "submitted, completed": (record("submitted"), {"seen": status("completed")}, "finish", None, "not yet delivered"),
    "submitted, failed": (
        record("submitted"),
        {"seen": status("failed", error="constant target", error_code="USER_ERROR")},
        "raise",
        FitFailedError,
        "constant target",
    ),
    "submitted, failed for a while": (
        record("submitted"),
        {"seen": status("failed", error="busy", error_code="RATE_LIMIT_EXCEEDED")},
        "submit",
        None,
        "passes",
    ),
    "submitted, other inputs": (record("submitted", fingerprint=OTHER), {}, "submit", None, "left alone"),
    "submitted, next generation": (record("submitted"), {"generation": 2}, "reattach", None, "waited for again"),
    "submitted, next generation, failed": (
        record("submitted"),
        {"generation": 2, "seen": status("failed")},
        "submit",
        None,
        "new generation",
    ),
    "completed": (record("completed"), {}, "finish", None, "not yet delivered"),
    "completed, next generation": (record("completed"), {"generation": 2}, "finish", None, "not yet delivered"),
    "delivered": (record("completed", delivered=True), {}, "reuse", None, "delivered here before"),
    "delivered, next generation": (
        record("completed", delivered=True),
        {"generation": 2},
        "submit",
        None,
        "new generation",
    ),
    "delivered, other inputs": (record("completed", delivered=True, fingerprint=OTHER), {}, "submit", None, "others"),
    "failed": (record("failed", error="no such metric"), {"billed": True}, "raise", FitFailedError, "no such metric"),
    "failed, no reason": (record("failed"), {}, "raise", FitFailedError, "no reason"),
    "failed for a while": (record("failed", error_code="RATE_LIMIT_EXCEEDED"), {}, "submit", None, "passes"),
    "failed, next generation": (record("failed"), {"generation": 2}, "submit", None, "new generation"),
    "failed, other inputs": (record("failed", fingerprint=OTHER), {}, "submit", None, "others"),
    "a generation that is over": (
        record("completed", delivered=True, generation=3),
        {},
        "raise",
        ConfigurationError,
        "generation 3 has begun",
    ),
    "a streamed fit": (record("submitted", kind="tabpfn_stream"), {}, "reattach", None, "fit-1"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_case(name):
    held, asked, action, kind, words = CASES[name]
    decision = decide(held, **asked)
    assert decision.action == action, decision.reason
    if kind is None:
        assert decision.error is None
        assert words in decision.reason
    else:
        assert type(decision.error) is kind
        assert words in f"{decision.reason} {decision.error}"


def test_a_failure_names_the_fit_and_its_code_and_survives_the_engines_pickle():
    error = decide(record("failed", error="constant target", error_code="USER_ERROR")).error
    again = pickle.loads(pickle.dumps(error))
    assert (again.fitted_train_set_id, again.code, again.terminal) == ("fit-1", "USER_ERROR", True)
    assert "Correct the data" in str(again)


def test_the_servers_word_is_newer_than_the_records():
    held = record("failed", error="old words", error_code="RATE_LIMIT_EXCEEDED")
    decision = decide(held, seen=status("failed", error="new words", error_code="USER_ERROR"))
    assert decision.action == "raise"
    assert "new words" in str(decision.error)


# Generations


@pytest.mark.parametrize(
    ("held", "generation", "reuse", "expected"),
    [
        (None, 0, "run", 0),
        (None, None, "run", 0),
        (None, None, "never", 0),
        (record("completed", delivered=True), None, "run", 1),
        (record("completed", delivered=True), None, "never", 2),
        (record("submitted"), None, "always", 1),
        (None, 4, "never", 4),
        (record("completed", delivered=True), 1, "run", 1),
        (record("completed", delivered=True), 1, "always", 1),
        (record("completed", delivered=True), 0, "run", 0),
        (record("completed", delivered=True), 1, "never", 2),
        (record("completed", delivered=True), 0, "never", 2),
        (record("completed", delivered=True), 5, "never", 5),
        (record("failed"), 1, "never", 2),
        (record("completed"), 1, "never", 1),
        (record("submitted"), 0, "never", 1),
        (record("intent"), 0, "never", 1),
        (record("uploaded"), 0, "never", 1),
    ],
    ids=str,
)
def test_the_generation_of_a_call(held, generation, reuse, expected):
    assert generation_of(held, generation, reuse) == expected


# Whatever is remembered

moments = st.floats(NOW - 100, NOW + 100)
generations = st.integers(0, 3)
codes = st.sampled_from([None, "USER_ERROR", *sorted(RETRYABLE_FIT_CODES)])


@st.composite
def records(draw, **fixed):
    phase = fixed.get("phase") or draw(st.sampled_from(["uploaded", "intent", "submitted", "completed", "failed"]))
    facts = {
        "fingerprint": draw(st.sampled_from([ASKED, OTHER])),
        "generation": draw(generations),
        "owner": draw(st.sampled_from([None, "me", "them"])),
        "lease_expires_at": draw(st.none() | moments),
        "error_code": draw(codes),
        "delivered": phase == "completed" and draw(st.booleans()),
        "resubmissions": draw(st.integers(0, 2)),
    }
    return record(phase, **{**facts, **{name: value for name, value in fixed.items() if name != "phase"}})


statuses = st.none() | st.builds(
    status,
    st.sampled_from(["pending", "running", "completed", "failed"]),
    error=st.none() | st.text(),
    error_code=codes,
)
asked = st.fixed_dictionaries(
    {
        "fingerprint": st.sampled_from([ASKED, OTHER]),
        "generation": generations,
        "seen": statuses,
        "now": moments,
        "billed": st.booleans(),
        "on_unknown": st.sampled_from(["auto", "raise", "resubmit"]),
        "owner": st.sampled_from([None, "me"]),
        "alone": st.booleans(),
    }
)


def is_outdated(held, question):
    return held.generation > question["generation"]


def is_failed(held, question):
    seen = question["seen"]
    return held.phase == "failed" or (seen is not None and seen.status == "failed")


@given(records(phase="intent"), asked)
def test_nobody_submits_while_another_does(held, question):
    live = held.lease_expires_at is not None and question["now"] < held.lease_expires_at
    decision = decide(held, **question)
    if live and held.owner != question["owner"] and not question["alone"]:
        assert decision.action == ("raise" if is_outdated(held, question) else "wait")
    else:
        assert decision.action != "wait"


@given(st.none() | records(), asked)
def test_only_an_intent_is_waited_for(held, question):
    if decide(held, **question).action == "wait":
        assert held.phase == "intent"
        assert not question["alone"]


@given(records(phase="completed", delivered=True, fingerprint=ASKED), asked)
def test_what_was_delivered_is_used_again(held, question):
    question = {**question, "fingerprint": ASKED, "generation": held.generation, "seen": None}
    assert decide(held, **question).action == "reuse"
    question["seen"] = status("completed")
    assert decide(held, **question).action == "reuse"


@given(st.none() | records(), asked)
def test_only_what_was_delivered_of_equal_inputs_is_used_again(held, question):
    if decide(held, **question).action == "reuse":
        assert held.delivered
        assert (held.fingerprint, held.generation) == (question["fingerprint"], question["generation"])


@given(records(phase="intent", fingerprint=ASKED), asked)
def test_what_may_have_been_billed_is_sent_again_by_order_only(held, question):
    question = {**question, "fingerprint": ASKED, "billed": True}
    decision = decide(held, **question)
    assert decision.action != "submit"
    if question["on_unknown"] != "resubmit":
        assert decision.action in {"raise", "wait"}


@given(st.none() | records(), asked)
def test_raise_means_never_twice(held, question):
    assert decide(held, **{**question, "on_unknown": "raise"}).action != "resubmit"


@given(st.none() | records(), asked)
def test_only_an_interrupted_submission_of_these_inputs_is_repeated(held, question):
    if decide(held, **question).action == "resubmit":
        assert held.phase == "intent"
        assert held.fingerprint == question["fingerprint"]


@given(records(), asked)
def test_a_generation_that_is_over_submits_nothing(held, question):
    decision = decide(held, **question)
    if is_outdated(held, question):
        assert decision.action == "raise"
        assert isinstance(decision.error, ConfigurationError)
    else:
        assert not isinstance(decision.error, ConfigurationError)


@given(records(), asked)
def test_a_job_that_runs_is_never_submitted_beside_itself(held, question):
    """In whatever generation: a person's redo of something unfinished takes it up."""
    if (
        held.phase in {"submitted", "completed"}
        and held.fingerprint == question["fingerprint"]
        and not held.delivered
        and not is_failed(held, question)
    ):
        assert decide(held, **question).action not in CREATE


@given(records(fingerprint=ASKED), asked)
def test_a_failure_is_final_in_its_generation(held, question):
    question = {**question, "fingerprint": ASKED}
    if held.phase not in {"submitted", "failed"} or not is_failed(held, question) or is_outdated(held, question):
        return
    code = held.error_code if question["seen"] is None else question["seen"].error_code
    decision = decide(held, **question)
    if held.generation < question["generation"] or code in RETRYABLE_FIT_CODES:
        assert decision.action == "submit"
    else:
        assert isinstance(decision.error, FitFailedError)
        assert decision.error.terminal


@given(st.none() | records(), asked, st.floats(0, 1000))
def test_time_only_ends_a_lease(held, question, later):
    before, after = (decide(held, **{**question, "now": now}) for now in (question["now"], question["now"] + later))
    if before.action != "wait":
        assert (after.action, after.reason, str(after.error)) == (before.action, before.reason, str(before.error))
    elif after.action != "wait":
        assert question["now"] + later >= held.lease_expires_at


@given(st.none() | records(), asked)
def test_an_error_is_there_when_and_only_when_it_is_raised(held, question):
    decision = decide(held, **question)
    assert (decision.error is not None) == (decision.action == "raise")
    assert decision.reason


@given(st.none() | records(), asked)
def test_it_is_pure(held, question):
    before = None if held is None else held.model_copy(deep=True)
    one, two = decide(held, **question), decide(held, **question)
    assert (one.action, one.reason, str(one.error)) == (two.action, two.reason, str(two.error))
    assert held == before


@given(records(), st.none() | generations, st.sampled_from(["never", "run", "always"]))
def test_a_generation_goes_back_only_when_an_engine_says_so(held, generation, reuse):
    mine = generation_of(held, generation, reuse)
    if reuse == "never":
        assert mine >= max(generation or 0, held.generation)
    else:
        assert mine == (held.generation if generation is None else generation)


@given(records(fingerprint=ASKED), generations, asked)
def test_never_means_a_new_fit_once_the_last_has_ended(held, generation, question):
    mine = generation_of(held, generation, "never")
    decision = decide(held, **{**question, "fingerprint": ASKED, "generation": mine})
    assert decision.action != "reuse"
    assert not isinstance(decision.error, ConfigurationError)
    if held.delivered or held.phase == "failed":
        assert decision.action == "submit"
