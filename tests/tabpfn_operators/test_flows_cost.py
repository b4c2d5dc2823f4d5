"""The cost guard against the emulator, whose books tell what was really charged."""

import json
import uuid
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest

from tabpfn_assets import FitParameters, PredictionSet, Thinking
from tabpfn_emulator.testing import account_of
from tabpfn_operators import Client
from tabpfn_operators.cost import charged, check_fit_cost, usage_before
from tabpfn_operators.errors import (
    ConfigurationError,
    CostExceededError,
    InvalidInputError,
    LimitExceededError,
    ServerError,
)
from tabpfn_operators.server import ApiUsage

PRICE, USAGE, PREDICT = "/tabpfn/estimate_cost", "/get_api_usage/", "/tabpfn/predict"
STANDARD = FitParameters(task="classification")
THINKING = FitParameters(task="classification", config={"n_estimators": 2}, thinking=Thinking(effort="high"))


@pytest.fixture
def books(control, bearer):
    """What the emulator charged this test's account, by kind."""

    def charges(kind=None):
        return [row["charge"] for row in control.creations(kind=kind, account=account_of(bearer))]

    return charges


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def plan(client):
    """Plan the fit of a source."""

    def planned(tables):
        return client.plan_train_set(tables.train, tables.target, task=tables.task)

    return planned


@pytest.fixture
def driver(drive, emulator, bearer):
    """A client of either kind whose flows can be called."""
    return drive(emulator, token=bearer)


def check(driver, parameters, *, max_cost=None, rows=60, columns=2):
    session = driver.client._session
    return driver.flow(lambda: check_fit_cost(session, parameters, rows=rows, columns=columns, max_cost=max_cost))


@pytest.fixture
def large(classification, write):
    """Tables whose predictions cost more than the minimum charge, so that each row counts."""
    rows = {"x": [i / 600 for i in range(600)], "other": [i % 7 for i in range(600)]}
    return replace(
        classification,
        train=write({**rows, "outcome": [("no", "yes")[x > 0.5] for x in rows["x"]]}, "large.parquet"),
        parameters=FitParameters(task="classification", config={"n_estimators": 8, "model_path": "v2.6_default"}),
    )


# Fits


def test_a_standard_fit_is_free_and_nobody_is_asked(driver, journal):
    session = driver.client._session
    assert check(driver, STANDARD, max_cost=0).total == 0
    before = ApiUsage(daily_tokens_used=0, daily_token_limit=1)
    assert driver.flow(lambda: charged(session, before, 0, billed=False)) == 0
    assert journal.routes() == []


def test_the_charge_of_a_thinking_fit_is_what_the_books_say(driver, classification, books):
    session = driver.client._session
    cost = check(driver, THINKING)
    before = driver.flow(lambda: usage_before(session))
    driver("fit", classification.train, classification.target, parameters=THINKING, durable=False)
    charge = driver.flow(lambda: charged(session, before, cost.total, billed=True))
    assert [charge] == books("fit_created")
    assert charge == cost.fit > 0


def test_the_charge_is_not_known_where_another_fits_too(driver, classification, emulator, bearer, books):
    session = driver.client._session
    cost = check(driver, THINKING)
    before = driver.flow(lambda: usage_before(session))
    driver("fit", classification.train, classification.target, parameters=THINKING, durable=False)
    with Client(bearer, base_url=emulator) as other:
        other.fit(classification.train, classification.target, parameters=THINKING, durable=False)
    assert driver.flow(lambda: charged(session, before, cost.total, billed=True)) is None
    assert books("fit_created") == [cost.fit, cost.fit]


def test_a_thinking_fit_above_max_cost(driver, journal):
    price = check(driver, THINKING).fit
    assert check(driver, THINKING, max_cost=price).total == price
    with pytest.raises(CostExceededError, match=f"{price:,} tokens and max_cost allows {price - 1:,}") as caught:
        check(driver, THINKING, max_cost=price - 1)
    assert (caught.value.estimated_cost, caught.value.allowed) == (price, price - 1)
    assert journal.routes() == [PRICE, USAGE, PRICE, USAGE, PRICE]


def test_a_thinking_fit_above_what_is_left(driver, control):
    control.configure(daily_tokens=50_000)
    with pytest.raises(CostExceededError, match="daily pool has 50,000 left") as caught:
        check(driver, THINKING)
    assert caught.value.allowed == 50_000


@pytest.mark.parametrize("status", [404, 405])
def test_a_server_without_prices(driver, control, status):
    control.inject(kind="status", status=status, route=PRICE, times=None)
    cost = check(driver, THINKING)
    assert (cost.fit, cost.total) == (None, None)
    with pytest.raises(ConfigurationError, match=rf"has no estimate_cost \(HTTP {status}\)"):
        check(driver, THINKING, max_cost=10**9)


def test_a_guess_that_nobody_asked_for_never_ends_a_fit(driver, control, journal, no_waiting):
    control.inject(kind="status", status=503, route=PRICE, times=None)
    assert check(driver, THINKING).fit is None
    assert journal.routes() == [PRICE]
    with pytest.raises(ServerError):
        check(driver, THINKING, max_cost=10**9)


@pytest.mark.parametrize("answer", [{"status": 500}, {"status": 200, "body": "<html>"}, {"status": 429}])
def test_a_look_at_the_usage_is_one_call_and_never_an_error(driver, control, journal, answer):
    control.inject({"kind": "status", "route": USAGE, "times": None, **answer})
    session = driver.client._session
    assert driver.flow(lambda: usage_before(session)) is None
    assert journal.routes() == [USAGE]


# Predictions


def test_predictions_ask_nothing_of_costs_unless_told_to(client, fit_once, classification, out, journal):
    model = fit_once(classification)
    journal_before = len(journal.routes())
    record = client.predict(model, classification.score, str(out))
    assert (record.estimated_cost, record.charged) == (None, None)
    assert journal.routes()[journal_before:] == [
        "/tabpfn/get_settings",
        "/tabpfn/prepare_test_set_upload",
        "/storage",
        PREDICT,
    ]


@pytest.mark.parametrize("config", [{}, {"n_estimators": 3, "fit_mode": "fit_with_cache"}, {"model_path": "v2.6_x"}])
def test_the_charge_of_a_prediction_is_what_the_books_say(client, classification, out, journal, books, config):
    parameters = FitParameters(task="classification", config=config)
    model = client.fit(classification.train, classification.target, parameters=parameters, streamed=True)
    record = client.predict(model, classification.score, str(out), max_cost=10_000)
    assert [record.charged] == books("predict_run")
    assert record.charged == record.estimated_cost > 0
    written = PredictionSet.model_validate_json(Path(out, "_lineage.json").read_text())
    assert (written.estimated_cost, written.charged) == (record.estimated_cost, record.charged)
    assert [route for route in journal.routes() if route in {PRICE, USAGE}] == [PRICE, USAGE, USAGE, USAGE]


def test_the_charge_of_predicting_with_a_thinking_model(client, classification, out, books):
    model = client.fit(classification.train, classification.target, parameters=THINKING, durable=False)
    record = client.predict(model, classification.score, str(out), max_cost=10_000)
    assert [record.charged] == books("predict_run")


def test_the_charge_is_not_known_where_another_predicts_too(
    client, fit_once, classification, out, tmp_path, emulator, bearer, books
):
    model = fit_once(classification)

    def meanwhile(step):
        if step.step == "predict":
            with Client(bearer, base_url=emulator) as other:
                other.predict(model, classification.score, str(tmp_path / "theirs"))

    record = client.predict(model, classification.score, str(out), max_cost=10_000, progress=meanwhile)
    assert (record.estimated_cost, record.charged) == (10_000, None)
    assert books("predict_run") == [10_000, 10_000]


def test_another_account_does_not_disturb(client, fit_once, classification, out, tmp_path, emulator):
    model = fit_once(classification)
    with Client(f"canary-{uuid.uuid4().hex}", base_url=emulator) as other:
        theirs = other.fit(
            classification.train, classification.target, parameters=classification.parameters, streamed=True
        )

        def meanwhile(step):
            if step.step == "predict":
                other.predict(theirs, classification.score, str(tmp_path / "theirs"))

        record = client.predict(model, classification.score, str(out), max_cost=10_000, progress=meanwhile)
    assert record.charged == 10_000
    assert PredictionSet.model_validate_json((tmp_path / "theirs" / "_lineage.json").read_text()).charged is None


def test_max_cost_refuses_before_any_byte_moves(client, fit_once, classification, out, journal, books):
    model = fit_once(classification)
    puts, created = len(journal.puts()), books()
    with pytest.raises(CostExceededError, match="10,000 tokens and max_cost allows 9,999"):
        client.predict(model, classification.score, str(out), max_cost=9_999)
    assert (len(journal.puts()), books()) == (puts, created)
    assert journal.routes()[-2:] == ["/tabpfn/get_settings", PRICE]
    assert not Path(out, "_lineage.json").exists()


def test_max_cost_counts_the_rows_that_a_filter_keeps(client, fit_once, large, out):
    model = fit_once(large)
    with pytest.raises(CostExceededError) as caught:
        client.predict(model, large.score, str(out), max_cost=0, filters=[("other", "<", 3)])
    kept = pq.read_table(large.score, filters=[("other", "<", 3)]).num_rows
    assert 0 < kept < pq.read_metadata(large.score).num_rows
    assert caught.value.estimated_cost == (600 + kept) * 2 * 8  # the published price of v2 (contract 4.2)


@pytest.mark.parametrize(("pool", "name"), [("daily_tokens", "daily"), ("monthly_tokens", "monthly")])
def test_a_pool_that_is_too_small_refuses_before_any_byte_moves(
    client, fit_once, classification, control, out, journal, books, pool, name
):
    model = fit_once(classification)
    puts, created = len(journal.puts()), books()
    control.configure(**{pool: 9_999})
    with pytest.raises(CostExceededError, match=f"the {name} pool has 9,999 left") as caught:
        client.predict(model, classification.score, str(out), max_cost=50_000)
    assert (caught.value.estimated_cost, caught.value.allowed) == (10_000, 9_999)
    assert (len(journal.puts()), books()) == (puts, created)


def test_max_cost_on_a_server_without_prices(client, fit_once, classification, control, out, journal):
    model = fit_once(classification)
    puts = len(journal.puts())
    control.inject(kind="status", status=404, route=PRICE, times=None)
    with pytest.raises(ConfigurationError, match=r"max_cost=5 cannot be kept.*has no estimate_cost"):
        client.predict(model, classification.score, str(out), max_cost=5)
    assert len(journal.puts()) == puts
    assert client.predict(model, classification.score, str(out)).charged is None


def test_a_usage_that_is_not_told_ends_no_prediction(client, fit_once, classification, control, out, books):
    model = fit_once(classification)
    control.inject(kind="status", status=500, route=USAGE, times=None)
    record = client.predict(model, classification.score, str(out), max_cost=10_000)
    assert (record.estimated_cost, record.charged, books("predict_run")) == (10_000, None, [10_000])


@pytest.mark.parametrize("wrong", [-1, 1.5, True])
def test_a_limit_that_is_none_is_refused_first(client, build_model, classification, out, journal, wrong):
    with pytest.raises(ConfigurationError, match="max_cost is a whole number"):
        client.predict(build_model(), classification.score, str(out), max_cost=wrong)
    assert journal.routes() == []


def test_an_upload_that_was_stale_is_billed_and_charged_once(client, fit_once, classification, control, out, books):
    model = fit_once(classification)
    control.configure(duplicate_unfinished=True)
    control.inject(kind="status", status=403, route="/storage", method="PUT", times=None)
    with pytest.raises(Exception, match="refused"):
        client.predict(model, classification.score, str(out))
    control.clear_faults()
    record = client.predict(model, classification.score, str(out), max_cost=10_000)
    assert [record.charged] == books("predict_run") == [10_000]


# Plans


def test_the_plan_of_a_standard_fit_is_free_and_shows_the_pools(client, plan, classification, journal):
    planned = plan(classification)
    cost = client.plan_cost(planned, STANDARD)
    assert (cost.fit, cost.predictions, cost.calls, cost.total) == (0, 0, 0, 0)
    assert (cost.pools.daily, cost.pools.monthly) == (5_000_000, 20_000_000)
    assert cost.pools.reset_time.startswith("20")
    assert journal.routes() == ["/tabpfn/get_settings", USAGE]


def test_a_plan_is_what_the_books_say_in_the_end(client, plan, classification, control, tmp_path, books):
    control.configure(limits={"test_set_max_rows": 10})
    cost = client.plan_cost(plan(classification), THINKING, predict_source=classification.score)
    assert (cost.rows, cost.calls, cost.pricing_version, cost.unit) == (25, 3, "quota_v3", "tokens")
    model = client.fit(classification.train, classification.target, parameters=THINKING, durable=False)
    table = pq.read_table(classification.score)
    for start in (0, 10, 20):
        client.predict(model, table.slice(start, 10), str(tmp_path / str(start)))
    assert books("fit_created") == [cost.fit]
    assert sum(books("predict_run")) == cost.predictions == 30_000
    assert client.get_api_usage().daily_tokens_used == cost.total
    assert client.plan_cost(plan(classification), STANDARD).pools.daily == 5_000_000 - cost.total


def test_predictions_of_unequal_size_are_priced_each_by_its_rows(client, plan, large, control):
    control.configure(limits={"predict_row_pairs_budget": 600 * 20})
    cost = client.plan_cost(plan(large), large.parameters, predict_rows=50)
    assert cost.calls == 3
    assert cost.predictions == (2 * (600 + 20) + (600 + 10)) * 2 * 8
    subsampled = {**large.parameters.config, "inference_config": {"SUBSAMPLE_SAMPLES": 9}}
    parameters = FitParameters(task="classification", config=subsampled)
    assert client.plan_cost(plan(large), parameters, predict_rows=50).calls == 1


def test_the_model_version_decides_the_price(client, plan, classification):
    planned = plan(classification)
    assert client.plan_cost(planned, STANDARD, predict_rows=1).predictions == 10_000
    assert client.plan_cost(planned, STANDARD, predict_rows=1, model_version="v2").predictions == 5_000


def test_a_model_that_could_not_predict_one_row(client, plan, classification, control):
    control.configure(limits={"predict_row_pairs_budget": 59})
    with pytest.raises(LimitExceededError, match="predicts not even one row"):
        client.plan_cost(plan(classification), STANDARD, predict_rows=1)


def test_rows_that_only_a_scan_tells_are_asked_for(client, plan, classification, tmp_path):
    path = tmp_path / "score.csv"
    pcsv.write_csv(pa.table({"x": [1, 2], "other": [3, 4]}), path)
    with pytest.raises(InvalidInputError, match="give the number as predict_rows"):
        client.plan_cost(plan(classification), STANDARD, predict_source=str(path))


@pytest.mark.parametrize("wrong", [0, -1, True, 2.0])
def test_rows_to_predict_that_are_none(client, plan, classification, wrong):
    planned = plan(classification)
    with pytest.raises(ConfigurationError, match="whole number of at least 1"):
        client.plan_cost(planned, STANDARD, predict_rows=wrong)
    with pytest.raises(ConfigurationError, match="not both"):
        client.plan_cost(planned, STANDARD, predict_rows=1, predict_source=classification.score)


def test_a_source_that_cannot_be_fitted_has_no_price(client, classification):
    planned = client.plan_train_set(classification.train, "nowhere")
    cost = client.plan_cost(planned, THINKING, predict_rows=1)
    assert (cost.fit, cost.predictions, cost.unpriced) == (None, None, "the source cannot be fitted as it is")
    assert client.plan_cost(planned, STANDARD, predict_rows=1).fit == 0


def test_a_plan_on_a_server_without_prices_and_pools(client, plan, classification, control):
    control.inject({"kind": "status", "status": 404, "route": PRICE, "times": None})
    control.inject({"kind": "status", "status": 404, "route": USAGE, "times": None})
    cost = client.plan_cost(plan(classification), THINKING, predict_rows=1)
    assert (cost.fit, cost.predictions, cost.pools.smallest) == (None, None, None)
    assert "no estimate_cost" in cost.unpriced


@pytest.mark.parametrize("limit", [-1, 7])
def test_old_pricing_counts_credits(drive, loopback, limit):
    answers = {
        PRICE: {"estimated_cost": 8, "pricing_version": "legacy_v2", "inputs": {}},
        USAGE: {"current_usage": 0, "usage_limit": limit, "reset_time": "tomorrow"},
    }
    server = loopback(lambda seen: (200, answers[seen.path]))
    driver = drive(server.url)
    cost = check(driver, THINKING, max_cost=8)
    assert (cost.unit, cost.total, cost.pools.current, cost.pools.daily) == ("credits", 8, limit, None)
    with pytest.raises(CostExceededError, match="8 credits, as the server counts in its pricing legacy_v2"):
        check(driver, THINKING, max_cost=7)
    assert json.loads(server.seen[0].body)["operation"] == "thinking_fit"
