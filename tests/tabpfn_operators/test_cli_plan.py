"""`tabpfn-providers plan` and `predict --max-cost`: what it would cost, and the exit code where that is too much."""

import json

import pytest

from tabpfn_emulator.testing import account_of

THINKING = ("--task", "classification", "--thinking", '{"effort": "high"}')
FREE = {"/tabpfn/get_settings", "/tabpfn/estimate_cost", "/get_api_usage/"}


@pytest.fixture
def plan(cli, classification):
    """Run `plan` on 60 rows of two features."""

    def run(*arguments):
        return cli("plan", classification.train, "--target", classification.target, *arguments)

    return run


@pytest.fixture
def sent_nothing(journal, control, bearer):
    """Tell whether only free questions reached the server."""
    return lambda: set(journal.routes()) <= FREE and control.creations(account=account_of(bearer)) == []


def test_a_standard_fit_is_free(plan, sent_nothing):
    ran = plan("--max-cost", 0)
    assert (ran.code, ran.err) == (0, "")
    assert "cost of the fit      0 tokens (standard, free)\n" in ran.out
    assert "pools left           daily 5,000,000, monthly 20,000,000; reset at 20" in ran.out
    assert "cost of predictions" not in ran.out
    assert sent_nothing()


def test_a_thinking_fit_and_its_predictions(plan, classification, control, sent_nothing):
    control.configure(limits={"test_set_max_rows": 10})
    ran = plan(*THINKING, "--predict", classification.score)
    assert (ran.code, ran.err) == (0, "")
    assert "cost of the fit      400,000 tokens (thinking, effort high)\n" in ran.out
    assert "cost of predictions  30,000 tokens (25 rows in 3 calls)\n" in ran.out
    assert "pricing              quota_v3, in tokens\n" in ran.out
    assert sent_nothing()


def test_the_cost_as_json(plan, sent_nothing):
    cost = json.loads(plan("--json", *THINKING, "--predict-rows", 1).out)["cost"]
    reset = cost.pop("reset_time")
    assert cost == {
        "fit": 400_000,
        "predictions": 10_000,
        "total": 410_000,
        "unit": "tokens",
        "rows": 1,
        "calls": 1,
        "pricing_version": "quota_v3",
        "not_known_because": None,
        "pools_left": {"daily": 5_000_000, "monthly": 20_000_000, "current": 5_000_000},
    }
    assert reset.startswith("20")
    assert sent_nothing()


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_dearer_than_max_cost(plan, sent_nothing, as_json):
    assert plan(*THINKING, "--predict-rows", 1, "--max-cost", 410_000, *as_json).code == 0
    ran = plan(*THINKING, "--predict-rows", 1, "--max-cost", 409_999, *as_json)
    assert ran.code == 3
    assert "410,000 tokens and max_cost allows 409,999" in ran.err
    assert ('"total": 410000' if as_json else "cost of predictions  10,000 tokens") in ran.out
    assert sent_nothing()


def test_dearer_than_what_is_left(plan, control, sent_nothing):
    control.configure(daily_tokens=399_999)
    ran = plan(*THINKING)
    assert ran.code == 3
    assert "the daily pool has 399,999 left" in ran.err
    assert "pools left           daily 399,999," in ran.out
    assert sent_nothing()


def test_a_server_that_tells_no_prices(plan, control):
    control.inject({"kind": "status", "status": 404, "route": "/tabpfn/estimate_cost", "times": None})
    control.inject({"kind": "status", "status": 404, "route": "/get_api_usage/", "times": None})
    ran = plan(*THINKING)
    assert ran.code == 0
    assert "cost of the fit      not known: this server has no estimate_cost (HTTP 404)" in ran.out
    assert "pools left           not known\n" in ran.out
    ran = plan(*THINKING, "--max-cost", 10**9)
    assert ran.code == 2
    assert "the price cannot be known" in ran.err


def test_the_config_decides_the_price_and_the_limits(plan, control):
    control.configure(limits={"train_set_max_rows": 60})
    ran = plan("--config", '{"model_path": "v2.6_default"}', "--predict-rows", 1)
    assert (ran.code, "cost of predictions  5,000 tokens (1 row in 1 call)" in ran.out) == (0, True)


def test_what_is_wrong_with_the_source_comes_first(cli, classification):
    ran = cli("plan", classification.train, "--target", "nowhere", *THINKING, "--max-cost", 1)
    assert ran.code == 2
    assert "'nowhere' is not among the columns" in ran.err
    assert "not known: the source cannot be fitted as it is" in ran.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--offline", "--max-cost", "0"), "Prices come from the server"),
        (("--offline", "--predict-rows", "5"), "Prices come from the server"),
        (("--max-cost", "-1"), "max_cost is a whole number of tokens, 0 or more; not -1"),
        (("--predict-rows", "0"), "a whole number of at least 1, not 0"),
        (("--predict-rows", "1", "--predict", "x.parquet"), "not both"),
        (("--thinking", "high"), "--thinking must be a JSON object"),
        (("--config", '{"n_estimators": 0}'), "n_estimators must be a whole number"),
    ],
)
def test_options_that_cannot_be_used(plan, sent_nothing, arguments, words):
    ran = plan(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert sent_nothing()


def test_predictions_dearer_than_max_cost(cli, classification, tmp_path, journal):
    out = tmp_path / "model"
    fit = ("--target", classification.target, "--task", "classification", "--output", out, "--streamed")
    assert cli("fit", classification.train, *fit).code == 0
    puts = len(journal.puts())
    predict = ("predict", out / "model.json", classification.score, tmp_path / "predictions")
    ran = cli(*predict, "--max-cost", 9_999)
    assert ran.code == 3
    assert "10,000 tokens and max_cost allows 9,999" in ran.err
    assert len(journal.puts()) == puts
    ran = cli(*predict, "--max-cost", 10_000)
    assert ran.code == 0
    assert "estimated cost  10,000\n" in ran.out
    assert "charged         10,000\n" in ran.out
    assert "charged" not in cli(*predict).out
