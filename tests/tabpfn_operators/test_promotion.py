"""Who becomes the champion: by rules that are data, on numbers that are there, and written down."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tabpfn_assets import Decision
from tabpfn_operators.errors import AliasMovedError, InvalidInputError
from tabpfn_operators.evaluation._metrics_table import HIGHER_IS_BETTER
from tabpfn_operators.lineage import LineageStore
from tabpfn_operators.promotion import PromotionRule, decide, promote

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
FIELDS = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def comparison(improvement=0.02, low=0.01, high=0.03, other="fitted-0", **fields):
    interval = None if low is None else {"low": low, "high": high, "resamples": 1000}
    metrics = {"log_loss": 0.31 + improvement, "accuracy": 0.87}
    return {
        "fitted_train_set_id": other,
        "metrics": metrics,
        "improvement": improvement,
        "interval": interval,
        **fields,
    }


@pytest.fixture
def judge(build_model, build_judged):
    """Decide on a candidate, by default against a champion that it was compared with."""

    def judge(rule=None, *, champion="fitted-0", candidate=None, **evaluation):
        evaluation = {"comparison": comparison() if champion else None, **evaluation}
        return decide(
            build_model(**(candidate or {})),
            build_judged(**evaluation),
            build_model(fitted_train_set_id=champion) if champion else None,
            PromotionRule(**(rule or {})),
            now=NOW,
        )

    return judge


def checks_of(decision):
    return {check.rule: check for check in decision.checks}


def test_a_better_model_is_promoted_and_every_number_is_kept(judge):
    rule = {"min_improvement": 0.01, "non_inferiority": 0.0, "max_latency": 5, "max_cost": 1000}
    decision = judge(rule, latency=2.5, charged=600)
    assert decision.promote
    assert (decision.candidate_id, decision.champion_id, decision.headline) == ("fitted-1", "fitted-0", "log_loss")
    assert decision.decided_at == NOW
    assert {name: (check.actual, check.required) for name, check in checks_of(decision).items()} == {
        "must_beat_baseline": (0.31, 0.69),
        "min_improvement": (0.02, 0.01),
        "non_inferiority": (0.01, 0.0),
        "max_latency": (2.5, 5.0),
        "max_cost": (600.0, 1000.0),
    }
    assert checks_of(decision)["non_inferiority"].reason == (
        "The 95% interval of the improvement of log_loss, 0.01 to 0.03 (1000 paired resamples), does not reach below 0."
    )


@pytest.mark.parametrize(
    ("rule", "evaluation", "failed"),
    [
        ({"min_improvement": 0.03}, {}, "min_improvement"),
        ({}, {"comparison": comparison(improvement=-0.001)}, "min_improvement"),
        ({"non_inferiority": 0.005}, {"comparison": comparison(low=-0.006)}, "non_inferiority"),
        ({}, {"metrics": {"log_loss": 0.69}}, "must_beat_baseline"),
        ({"max_latency": 2}, {"latency": 2.1}, "max_latency"),
        ({"max_cost": 10}, {"charged": 11}, "max_cost"),
    ],
)
def test_one_condition_that_fails_refuses(judge, rule, evaluation, failed):
    decision = judge(rule, **evaluation)
    assert not decision.promote
    assert [check.rule for check in decision.checks if not check.passed] == [failed]


@pytest.mark.parametrize(
    ("rule", "evaluation", "failed", "remedy"),
    [
        ({}, {"comparison": None}, "min_improvement", "evaluate the candidate with champion="),
        (
            {"non_inferiority": 0.1, "min_improvement": -1},
            {"comparison": comparison(low=None)},
            "non_inferiority",
            "use a headline that has a value for each row",
        ),
        ({"non_inferiority": 0.1}, {"comparison": None}, "non_inferiority", "with champion="),
        (
            {"headline": "accuracy", "non_inferiority": 0.1},
            {},
            "non_inferiority",
            "evaluate with headline='accuracy'",
        ),
        ({"max_latency": 1}, {"latency": None}, "max_latency", "on a server that reports its seconds"),
        ({"max_cost": 1}, {"charged": None}, "max_cost", "while nobody else uses the account"),
        ({}, {"baseline": {}}, "must_beat_baseline", "on a holdout for which the baseline has one"),
        ({"must_beat_baseline": True, "headline": "brier"}, {}, "must_beat_baseline", "holds accuracy, ece, log_loss"),
        ({"headline": "brier", "must_beat_baseline": False}, {}, "min_improvement", "holds accuracy, ece, log_loss"),
    ],
)
def test_a_number_that_is_missing_fails_and_says_how_to_get_it(judge, rule, evaluation, failed, remedy):
    decision = judge(rule, **evaluation)
    check = checks_of(decision)[failed]
    assert not decision.promote
    assert not check.passed
    assert check.actual is None
    assert remedy in check.reason


def test_the_first_model_is_judged_on_what_needs_no_champion(judge):
    decision = judge({"min_improvement": 0.5, "non_inferiority": 0}, champion=None)
    assert decision.promote
    assert decision.champion_id is None
    assert list(checks_of(decision)) == ["must_beat_baseline", "champion"]
    assert "no champion yet" in checks_of(decision)["champion"].reason
    refused = judge(champion=None, metrics={"log_loss": 0.7})
    assert not refused.promote


def test_another_headline_is_judged_by_its_own_numbers_in_its_own_direction(judge):
    decision = judge({"headline": "accuracy", "min_improvement": 0.005})
    assert decision.headline == "accuracy"
    assert checks_of(decision)["min_improvement"].actual == pytest.approx(0.01)
    assert decision.promote
    assert not judge({"headline": "accuracy", "min_improvement": 0.02}).promote


def test_what_just_reaches_a_condition_holds_and_a_draw_with_the_baseline_does_not(judge):
    exact = comparison(improvement=0.02, low=-0.01)
    rule = {"min_improvement": 0.02, "non_inferiority": 0.01, "max_latency": 2, "max_cost": 10}
    assert judge(rule, comparison=exact, latency=2.0, charged=10).promote
    drawn = {"metrics": {"log_loss": 0.3, "accuracy": 0.55}}
    assert not checks_of(judge({"headline": "accuracy"}, **drawn))["must_beat_baseline"].passed


def test_non_inferiority_alone_lets_a_slightly_worse_model_pass(judge):
    worse = {"comparison": comparison(improvement=-0.001, low=-0.004, high=0.002)}
    assert not judge(**worse).promote
    assert judge({"non_inferiority": 0.005}, **worse).promote
    assert not judge({"non_inferiority": 0.005, "min_improvement": 0}, **worse).promote


def test_a_standard_fit_is_free_and_a_thinking_fit_counts(judge):
    assert checks_of(judge({"max_cost": 100}, charged=60))["max_cost"].actual == 60
    thinking = {"parameters": {"task": "classification", "thinking": {"effort": "medium"}}}
    paid = judge({"max_cost": 100}, charged=60, candidate={**thinking, "charged": 50})
    assert checks_of(paid)["max_cost"].actual == 110
    assert not paid.promote
    unknown = judge({"max_cost": 100}, charged=60, candidate=thinking)
    assert "not known what the fit cost" in checks_of(unknown)["max_cost"].reason


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fitted_train_set_id": "fitted-9"}, "of fitted-9, not of the candidate fitted-1"),
        ({"comparison": comparison(other="fitted-8")}, "with fitted-8, but the champion is fitted-0"),
        ({"candidate": {"status": "pending"}}, "is pending; wait"),
        ({"champion": "fitted-1"}, "is the champion already"),
        ({"headline": "karma", "metrics": {"karma": 1.0}}, "'karma' is no metric"),
    ],
)
def test_records_that_do_not_belong_together_are_named(judge, fields, message):
    with pytest.raises(InvalidInputError, match=message):
        judge(**fields)


def test_a_moment_without_a_zone_is_refused(build_model, build_judged):
    with pytest.raises(InvalidInputError, match="no time zone"):
        decide(build_model(), build_judged(), None, PromotionRule(), now=datetime(2026, 11, 21))  # noqa: DTZ001


@pytest.mark.parametrize(
    "rule",
    [
        {"min_improvment": 0.1},
        {"min_improvement": "0.01"},
        {"min_improvement": True},
        {"min_improvement": float("nan")},
        {"non_inferiority": -0.1},
        {"max_latency": 0},
        {"max_cost": 1.5},
        {"must_beat_baseline": "yes"},
        {"headline": "acuracy"},
    ],
)
def test_a_rule_that_says_something_else_than_it_means_is_refused(rule):
    with pytest.raises(ValidationError):
        PromotionRule.model_validate(rule)


rules = st.builds(
    PromotionRule,
    headline=st.sampled_from([None, "log_loss", "accuracy", "ece", "rmse"]),
    min_improvement=st.none() | st.floats(-1, 1),
    non_inferiority=st.none() | st.floats(0, 1),
    must_beat_baseline=st.booleans(),
    max_latency=st.none() | st.floats(0.01, 10),
    max_cost=st.none() | st.integers(0, 1000),
)
numbers = st.floats(-2, 2)
evaluations = st.fixed_dictionaries(
    {
        "metrics": st.dictionaries(st.sampled_from(["log_loss", "accuracy", "ece"]), numbers),
        "baseline": st.dictionaries(st.sampled_from(["log_loss", "accuracy", "ece"]), numbers),
        "latency": st.none() | st.floats(0, 12),
        "charged": st.none() | st.integers(0, 1200),
        "comparison": st.none()
        | st.builds(
            comparison,
            improvement=numbers,
            low=st.none() | numbers,
            metrics=st.dictionaries(st.sampled_from(["log_loss", "accuracy", "ece"]), numbers),
        ),
    }
)


@given(rule=rules)
def test_a_rule_survives_json(rule):
    assert PromotionRule.model_validate_json(rule.model_dump_json()) == rule
    assert PromotionRule.model_validate(json.loads(rule.model_dump_json(exclude_none=True))) == rule


@FIELDS
@given(rule=rules, evaluation=evaluations, champion=st.booleans())
def test_a_decision_is_the_sum_of_its_checks_and_survives_json(judge, rule, evaluation, champion):
    decision = judge(rule.model_dump(), champion="fitted-0" if champion else None, **evaluation)
    assert decision.promote == all(check.passed for check in decision.checks)
    assert Decision.model_validate_json(decision.model_dump_json()) == decision
    assert all(check.passed or check.reason.endswith(".") for check in decision.checks)
    names = [check.rule for check in decision.checks]
    assert len(names) == len(set(names))
    for asked in ("max_latency", "max_cost"):
        assert (asked in names) == (getattr(rule, asked) is not None)


@FIELDS
@given(
    rule=rules,
    evaluation=evaluations,
    champion=st.booleans(),
    gain=st.floats(0, 1),
    faster=st.floats(0, 1),
    cheaper=st.floats(0, 1),
)
@example(
    rule=PromotionRule(headline="accuracy", must_beat_baseline=True),
    evaluation={
        "metrics": {"accuracy": 0.9},
        "baseline": {"accuracy": 0.5},
        "comparison": comparison(metrics={"accuracy": 0.9}),
    },
    champion=True,
    gain=0.05,
    faster=1,
    cheaper=1,
)
def test_a_better_evaluation_never_turns_a_promotion_into_a_refusal(
    judge, rule, evaluation, champion, gain, faster, cheaper
):
    better = dict(evaluation)
    better["metrics"] = {
        name: value + gain if HIGHER_IS_BETTER[name] else value - gain for name, value in evaluation["metrics"].items()
    }
    if (compared := evaluation["comparison"]) is not None:
        interval = compared["interval"] and {**compared["interval"], "low": compared["interval"]["low"] + gain}
        better["comparison"] = {**compared, "improvement": compared["improvement"] + gain, "interval": interval}
    if evaluation.get("latency") is not None:
        better["latency"] = evaluation["latency"] * faster
    if evaluation.get("charged") is not None:
        better["charged"] = int(evaluation["charged"] * cheaper)
    against = "fitted-0" if champion else None
    before = judge(rule.model_dump(), champion=against, **evaluation)
    after = judge(rule.model_dump(), champion=against, **better)
    assert after.promote or not before.promote


@pytest.fixture
def store(tmp_path):
    return LineageStore(tmp_path / "lineage")


@pytest.fixture
def record(store, build_model, build_judged):
    """Record version `number` of the model `churn`, and an evaluation of it."""

    def record(number, **evaluation):
        fitted = f"fitted-{number}"
        created = datetime(2026, 11, number, tzinfo=UTC)
        version = store.add(build_model(name="churn", fitted_train_set_id=fitted, created_at=created))
        if evaluation is not None:
            store.add_evaluation("churn", version, build_judged(fitted_train_set_id=fitted, **evaluation))
        return version

    return record


def test_a_promotion_moves_the_alias_and_keeps_its_numbers_there(store, record):
    first = record(1)
    decision = promote(store, "churn", rule=PromotionRule(), now=NOW)
    assert decision.promote
    second = record(2, comparison=comparison(other="fitted-1"))
    decision = promote(store, "churn", rule=PromotionRule(), now=NOW)
    assert (decision.promote, decision.champion_id) == (True, "fitted-1")
    entry = store.alias("churn", "champion")
    assert (entry.version, entry.replaced, entry.decision) == (second, first, decision)
    assert store.decisions("churn") == []


def test_a_refusal_leaves_the_alias_and_is_recorded_beside_the_version(store, record):
    first = record(1)
    promote(store, "churn", rule=PromotionRule(), now=NOW)
    second = record(2, comparison=comparison(improvement=-0.1, low=-0.2, other="fitted-1"))
    decision = promote(store, "churn", second, rule=PromotionRule(), now=NOW)
    assert not decision.promote
    assert store.alias("churn", "champion").version == first
    assert store.decisions("churn", second) == [decision]
    assert store.decisions("churn", first) == []
    promote(store, "churn", second, rule=PromotionRule(), now=NOW)
    assert store.decisions("churn", second) == [decision]


def test_a_rerun_after_the_move_comes_to_the_same_decision(store, record):
    record(1)
    decision = promote(store, "churn", rule=PromotionRule())
    assert promote(store, "churn", rule=PromotionRule(min_improvement=9)) == decision
    assert len(store.history("churn", "champion")) == 1


def test_a_champion_by_hand_stays_and_the_decision_says_so(store, record):
    version = record(1)
    store.promote("churn", version)
    decision = promote(store, "churn", version, rule=PromotionRule(), now=NOW)
    assert decision.promote
    assert "by hand" in decision.checks[0].reason
    assert len(store.history("churn", "champion")) == 1


def test_an_older_evaluation_counts_where_only_it_knows_the_champion(store, record, build_judged):
    record(1)
    promote(store, "churn", rule=PromotionRule())
    second = record(2, comparison=comparison(other="fitted-1"))
    fields = {"fitted_train_set_id": "fitted-2", "created_at": "2026-11-22T00:00:00Z"}
    newer = build_judged(comparison=comparison(improvement=-1, low=-2, other="fitted-7"), **fields)
    store.add_evaluation("churn", second, newer)
    assert promote(store, "churn", second, rule=PromotionRule()).promote


def test_an_evaluation_against_a_former_champion_decides_nothing(store, record):
    record(1)
    promote(store, "churn", rule=PromotionRule())
    second = record(2, comparison=comparison(other="fitted-7"))
    with pytest.raises(InvalidInputError, match="with fitted-7, but the champion is fitted-1"):
        promote(store, "churn", second, rule=PromotionRule())
    assert store.decisions("churn", second) == []


def test_a_version_without_an_evaluation_is_refused_with_the_way_to_get_one(store, build_model):
    store.add(build_model(name="churn"))
    with pytest.raises(InvalidInputError, match="no evaluation to be judged by"):
        promote(store, "churn", rule=PromotionRule())


def test_an_alias_that_moved_while_it_was_decided_is_left_alone(store, record, monkeypatch):
    record(1)
    promote(store, "churn", rule=PromotionRule())
    second = record(2, comparison=comparison(other="fitted-1"))
    third = record(3)
    seen = store.evaluations

    def another_is_faster(*args):
        LineageStore(store.url).promote("churn", third)
        return seen(*args)

    # The evaluation of the candidate is looked for between the look at the alias and its move.
    newest = store.get("churn", second).evaluation.model_copy(
        update={"comparison": None, "created_at": datetime(2026, 11, 23, tzinfo=UTC)}
    )
    store.add_evaluation("churn", second, newest)
    monkeypatch.setattr(store, "evaluations", another_is_faster)
    with pytest.raises(AliasMovedError):
        promote(store, "churn", second, rule=PromotionRule())
    assert store.alias("churn", "champion").version == third
