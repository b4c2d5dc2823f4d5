"""What a fit may be asked to do."""

import pytest
from pydantic import ValidationError

from tabpfn_assets import FitParameters, Thinking


def test_a_standard_fit_is_free_and_a_thinking_one_is_billed():
    assert not FitParameters(task="regression").billed
    assert FitParameters(task="regression", thinking=Thinking()).billed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"task": "clustering"}, "task"),
        ({"task": "regression", "config": {"n_estimators": 0}}, "n_estimators must be a whole number"),
        ({"task": "regression", "config": {"n_estimators": True}}, "n_estimators must be a whole number"),
        ({"task": "regression", "config": {"n_estimators": "4"}}, "n_estimators must be a whole number"),
        ({"task": "regression", "systems": ("thinking",)}, "'thinking' needs thinking="),
        ({"task": "regression", "systems": ("prose",)}, "systems"),
        ({"task": "regression", "text_handling": "none"}, "text_handling"),
        ({"task": "regression", "n_estimators": 4}, "n_estimators"),
        ({"task": "regression", "thinking": {"effort": "low"}}, "effort"),
        ({"task": "regression", "thinking": {"timeout_secs": 0}}, "timeout_secs"),
        ({"task": "regression", "thinking": {"group_col": "g", "time_col": "t"}}, "exclude each other"),
        ({"task": "regression", "thinking": {"group_time_col": "t"}}, "needs group_col"),
    ],
)
def test_a_mistake_is_named(arguments, words):
    with pytest.raises(ValidationError) as caught:
        FitParameters.model_validate(arguments)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "thinking",
    [{}, {"group_col": "g"}, {"time_col": "t"}, {"group_col": "g", "group_time_col": "t"}, {"timeout_secs": 2400}],
)
def test_columns_of_thinking_that_agree(thinking):
    assert FitParameters(task="regression", thinking=Thinking(**thinking)).thinking == Thinking(**thinking)


def test_the_empty_set_of_systems_is_the_papers_version_and_stays():
    assert FitParameters(task="regression", systems=()).systems == ()
