"""What is asked about prices, what is allowed, and what the account's counters prove: pure functions."""

import pickle

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tabpfn_assets import FitParameters, Thinking
from tabpfn_operators.errors import ConfigurationError, CostExceededError
from tabpfn_operators.preflight import test_limit_problems as limit_problems
from tabpfn_operators.pricing import (
    UNLIMITED,
    CostPlan,
    PoolsLeft,
    Shape,
    charge_of,
    check_max_cost,
    fit_dimensions,
    pools_left,
    predict_dimensions,
    rows_per_call,
    split_rows,
)
from tabpfn_operators.server import ApiUsage, ModelLimit

PAIRS = (
    ("current_usage", "usage_limit"),
    ("daily_tokens_used", "daily_token_limit"),
    ("monthly_tokens_used", "monthly_token_limit"),
)
some = st.none() | st.integers(0, 10**7)
limits = st.builds(
    ModelLimit,
    test_set_max_rows=some,
    test_set_max_cells=some,
    test_set_max_rows_w_full_regression_output=some,
    predict_row_pairs_budget=st.none() | st.integers(0, 10**12),
)
tokens = st.integers(0, 10**9)
pools = st.none() | st.integers(-1, 10**9)
usages = st.fixed_dictionaries(
    {field: values for used, size in PAIRS for field, values in ((used, st.none() | tokens), (size, pools))}
).map(ApiUsage.model_validate)


def usage(**fields):
    return ApiUsage(
        **{"daily_tokens_used": 100, "daily_token_limit": 1_000, "reset_time": "2026-11-22T00:00:00Z", **fields}
    )


def thinking(**config):
    return FitParameters(task="regression", config=config, thinking=Thinking(effort="high"))


# How many predictions


@given(limits, st.integers(1, 10**6), st.integers(1, 2_000), st.sampled_from(["full", "mean", None]), st.booleans())
def test_one_prediction_takes_as_many_rows_as_the_server_allows(limit, train_rows, columns, output_type, subsampled):
    facts = {"train_rows": train_rows, "columns": columns, "output_type": output_type, "subsampled": subsampled}
    most = rows_per_call(limit, **facts)
    facts["output_type"] = output_type or ""
    if most is None:
        assert limit_problems(limit, rows=10**12, **facts) == []
    else:
        assert limit_problems(limit, rows=most, **facts) == []
        assert limit_problems(limit, rows=most + 1, **facts) != []


@given(st.integers(1, 10**7), st.none() | st.integers(1, 10**6))
def test_every_row_is_in_one_prediction_and_there_are_as_few_as_can_be(rows, most):
    parts = split_rows(rows, most)
    assert sum(calls * each for calls, each in parts) == rows
    assert all(calls >= 1 and each >= 1 for calls, each in parts)
    assert max(each for _, each in parts) <= (most or rows)
    assert sum(calls for calls, _ in parts) == -(-rows // (most or rows))
    assert len(parts) <= 2


# What is asked


def test_a_thinking_fit_is_asked_about_by_its_shape_alone():
    assert fit_dimensions(thinking(n_estimators=4, random_state=7), Shape(80, 3, "v3")) == {
        "train_rows": 80,
        "raw_columns": 3,
        "model_version": "v3",
        "n_estimators": 4,
        "operation": "thinking_fit",
        "thinking_effort": "high",
    }


@pytest.mark.parametrize(
    ("parameters", "operation", "effort"),
    [
        (FitParameters(task="regression"), "predict", None),
        (FitParameters(task="regression", config={"fit_mode": "fit_with_cache"}), "cache_predict", None),
        (thinking(), "thinking_predict", "high"),
        (thinking(fit_mode="fit_with_cache"), "thinking_predict", "high"),
    ],
)
def test_a_prediction_is_asked_about_as_what_it_is(parameters, operation, effort):
    asked = predict_dimensions(parameters, Shape(80, 3), 25)
    assert (asked["operation"], asked["thinking_effort"]) == (operation, effort)
    assert (asked["train_rows"], asked["raw_columns"], asked["test_rows"]) == (80, 3, 25)
    assert asked["model_version"] is asked["n_estimators"] is None


# What is left


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({}, 900),
        ({"daily_tokens_used": 1_200}, 0),
        ({"daily_token_limit": -1}, UNLIMITED),
        ({"daily_token_limit": -1, "daily_tokens_used": None}, UNLIMITED),
        ({"daily_token_limit": None}, None),
        ({"daily_tokens_used": None}, None),
    ],
)
def test_what_a_pool_has_left(fields, left):
    assert pools_left(usage(**fields)).daily == left


def test_pools_that_nobody_told():
    assert pools_left(None) == PoolsLeft()
    assert PoolsLeft().smallest is None
    assert PoolsLeft(daily=UNLIMITED, monthly=UNLIMITED).smallest is None


@given(usages)
def test_the_smallest_pool_is_the_smallest_that_ends(found):
    left = pools_left(found)
    ends = [pool for pool in (left.daily, left.monthly, left.current) if pool not in {None, UNLIMITED}]
    assert (left.smallest and left.smallest[1]) == (min(ends) if ends else None)
    assert all(pool >= 0 for pool in ends)


# What is allowed


@pytest.mark.parametrize("wrong", [-1, True, 1.5, "10", float("nan")])
def test_a_limit_that_is_none(wrong):
    with pytest.raises(ConfigurationError, match="max_cost is a whole number"):
        check_max_cost(wrong)


@given(tokens, st.none() | tokens, st.none() | tokens)
def test_a_cost_is_allowed_up_to_the_limit_and_to_the_pool(cost, max_cost, left):
    known = None if left is None else ApiUsage(daily_tokens_used=0, daily_token_limit=left)
    plan = CostPlan(0, cost, 1, 1, "quota_v3", usage=known)
    bounds = [bound for bound in (max_cost, left) if bound is not None]
    if all(cost <= bound for bound in bounds):
        plan.raise_exceeded(max_cost)
        return
    with pytest.raises(CostExceededError) as caught:
        plan.raise_exceeded(max_cost)
    error = pickle.loads(pickle.dumps(caught.value))
    assert error.estimated_cost == cost > error.allowed
    assert error.allowed in bounds
    assert f"{cost:,} tokens" in error.message


def test_the_pool_is_named_with_its_reset():
    with pytest.raises(CostExceededError, match=r"daily pool has 900 left; wait for its reset \(2026-11-22"):
        CostPlan(901, usage=usage()).raise_exceeded(None)
    monthly = usage(daily_token_limit=-1, monthly_tokens_used=5, monthly_token_limit=10)
    with pytest.raises(CostExceededError, match="monthly pool has 5 left; wait for its reset or"):
        CostPlan(6, usage=monthly).raise_exceeded(None)


def test_an_unlimited_account_may_do_what_max_cost_allows():
    plan = CostPlan(10**9, usage=usage(daily_token_limit=-1))
    plan.raise_exceeded(None)
    with pytest.raises(CostExceededError):
        plan.raise_exceeded(10**9 - 1)


def test_credits_are_called_so_and_are_not_held_against_tokens():
    plan = CostPlan(0, 5_000, 1, 1, "legacy_v2", usage=usage())
    plan.raise_exceeded(5_000)
    with pytest.raises(CostExceededError, match="5,000 credits, as the server counts in its pricing legacy_v2"):
        plan.raise_exceeded(4_999)


@pytest.mark.parametrize("plan", [CostPlan(None, unpriced="no route"), CostPlan(0, None, 1, unpriced="no route")])
def test_an_unknown_price_is_an_error_only_where_there_is_a_limit(plan):
    assert plan.total is None
    plan.raise_exceeded(None)
    with pytest.raises(ConfigurationError, match="the price cannot be known: no route"):
        plan.raise_exceeded(10**9)


# What was charged


@given(usages, usages, some)
def test_what_is_free_costs_nothing_whatever_the_counters_say(before, after, estimate):
    assert charge_of(before, after, estimate, billed=False) == 0
    assert charge_of(None, None, None, billed=False) == 0


@given(usages, usages, some)
def test_nothing_but_the_estimate_is_ever_proven(before, after, estimate):
    assert charge_of(before, after, estimate, billed=True) in {None, estimate}


@given(usages, tokens, tokens)
def test_a_charge_is_known_where_the_account_was_ours_alone(before, charge, others):
    after = before.model_copy(
        update={used: getattr(before, used) + charge + others for used, _ in PAIRS if getattr(before, used) is not None}
    )
    limited = [used for used, size in PAIRS if (getattr(before, size) or 0) > 0 and getattr(before, used) is not None]
    assume(limited)
    assert charge_of(before, after, charge, billed=True) == (charge if others == 0 else None)


BEFORE = usage(monthly_tokens_used=500, monthly_token_limit=9_000)


@pytest.mark.parametrize(
    ("before", "after", "estimate"),
    [
        (None, usage(), 10),
        (usage(), None, 10),
        (usage(), usage(daily_tokens_used=110), None),
        (usage(), usage(daily_tokens_used=10), 10),  # reset to 0, then ours: 10 - 100 is no 10
        (usage(), usage(daily_tokens_used=110, reset_time="2026-11-23T00:00:00Z"), 10),
        (usage(), usage(daily_tokens_used=None), 10),
        (usage(daily_tokens_used=None), usage(daily_tokens_used=10), 10),
        (usage(daily_token_limit=-1), usage(daily_token_limit=-1, daily_tokens_used=110), 10),
        (usage(daily_token_limit=None), usage(daily_token_limit=None, daily_tokens_used=110), 10),
        (usage(), usage(daily_tokens_used=111), 10),
        (usage(), usage(daily_tokens_used=109), 10),
        (BEFORE, BEFORE.model_copy(update={"daily_tokens_used": 110}), 10),  # the month does not know of it
        (ApiUsage(), ApiUsage(), 0),
    ],
)
def test_a_charge_that_nothing_proves_is_not_known(before, after, estimate):
    assert charge_of(before, after, estimate, billed=True) is None


def test_a_charge_that_every_counter_proves():
    after = BEFORE.model_copy(update={"daily_tokens_used": 110, "monthly_tokens_used": 510})
    assert charge_of(BEFORE, after, 10, billed=True) == 10
    assert charge_of(usage(), usage(), 0, billed=True) == 0
