"""A server that misbehaves, as the client sees it: what it bears, what it repeats, what it tells."""

import pytest
from pydantic import ValidationError

PREDICT = "/tabpfn/predict"


@pytest.fixture
def predict(fit, few, control):
    """Predict with a fitted model while a fault is waiting: `predict(kind=...)`."""
    model = fit()

    def run(**fault):
        control.inject({"route": PREDICT, **fault})
        return model.predict(few[1])

    return run


def test_a_route_that_will_go_away_is_a_warning(predict, few):
    headers = {"deprecation": "true", "sunset": "2027-01-01", "link": '<https://example.com/new>; rel="deprecation"'}
    with pytest.warns(DeprecationWarning, match=r"2027-01-01.*https://example\.com/new"):
        assert predict(kind="deprecation", headers=headers).shape == (len(few[1]),)


def test_a_slow_answer_is_waited_for(predict, few):
    assert predict(kind="drip", seconds=0.5).shape == (len(few[1]),)


@pytest.mark.parametrize("when", ["before", "middle", "after"])
def test_a_dropped_connection_is_a_second_prediction(predict, few, posts, when):
    assert predict(kind="drop", when=when).shape == (len(few[1]),)
    assert len(posts(PREDICT)) == 2


@pytest.mark.parametrize("fault", [{"kind": "truncated"}, {"kind": "garbage"}], ids=str)
def test_an_answer_that_is_no_json_is_an_error(predict, posts, fault):
    with pytest.raises(ValidationError):
        predict(**fault)
    assert len(posts(PREDICT)) == 1


def test_a_failure_inside_a_200_is_an_error(predict):
    with pytest.raises(ValidationError):
        predict(kind="status", status=200, body={"detail": "worker failed"})


def test_a_failure_at_the_end_of_a_stream_is_told(predict):
    with pytest.raises(RuntimeError, match="streamed, worker lost"):
        predict(kind="streamed_error", error="worker lost")


@pytest.mark.parametrize(("kind", "code"), [("rate_limit", "429"), ("quota", "429")])
def test_limits_are_told_and_not_tried_again(predict, posts, kind, code):
    with pytest.raises(RuntimeError, match=rf"\[HTTP {code}\]"):
        predict(kind=kind)
    assert posts(PREDICT) == [429]


def test_the_token_does_not_follow_a_redirect_to_another_origin(predict, control):
    mark = len(control.journal())
    with pytest.raises(RuntimeError, match=r"\[HTTP 401\]"):
        predict(kind="redirect")
    rows = [(row["status"], row["bearer"]) for row in control.journal(route=PREDICT, after=mark)]
    assert rows == [(307, True), (401, False)]


def test_a_fit_without_a_status_has_run_all_the_same(control, fit, account):
    control.inject({"kind": "missing_status"})
    with pytest.raises(ValidationError, match="status"):
        fit()
    assert [job["status"] for job in control.fits(account=account)] == ["completed"]


def test_a_fit_that_is_cut_while_it_is_kept_alive_is_fitted_twice(control, fit, account):
    control.configure(fit_seconds=0.6, keepalive_after_secs=0.1, keepalive_every_secs=0.1)
    control.inject({"route": "/tabpfn/fit", "kind": "drop", "when": "keepalive"})
    fit()
    assert len(control.fits(account=account)) == 2


def test_a_put_that_is_cut_is_repeated(control, few, fit):
    model = fit()
    control.inject({"kind": "cut_upload"})
    assert model.predict(few[1]).shape == (len(few[1]),)


def test_a_fit_that_never_ends_is_given_up(control, fit):
    control.configure(retry_in_secs=0.3, poll_timeout_secs=0.5)
    control.inject({"kind": "endless_fit"})
    with pytest.raises(TimeoutError, match="did not reach a terminal state"):
        fit(api_mode="async")
