"""Errors of the core become Airflow's; what is terminal is not retried."""

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_tabpfn.exceptions import airflow_errors
from tabpfn_assets import FitParameters
from tabpfn_operators.errors import AuthenticationError, ServerError


def test_a_terminal_error_is_not_retried():
    with pytest.raises(AirflowFailException, match="AuthenticationError: wrong key") as raised, airflow_errors():
        raise AuthenticationError("wrong key", status=401)
    assert raised.value.__suppress_context__


def test_another_error_stays_and_is_retried():
    with pytest.raises(ServerError), airflow_errors():
        raise ServerError("overloaded", status=503)


def test_wrong_arguments_are_named_without_their_values():
    with pytest.raises(AirflowFailException, match="FitParameters: task: ") as raised, airflow_errors():
        FitParameters.model_validate({"task": "secret-value", "config": {}})
    assert "secret-value" not in str(raised.value)
