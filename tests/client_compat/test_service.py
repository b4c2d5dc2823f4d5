"""What else tabpfn-client 0.6.1 does with the API: uploads, errors, retries, account, data."""

import os
import subprocess
import sys

import pytest

from tabpfn_emulator.testing import EmulatorControl, running_emulator


def fit(client, cancer, **options):
    train, _, y_train, _ = cancer
    return client.TabPFNClassifier(**options).fit(train, y_train)


def test_equal_data_is_uploaded_once(client, control, cancer, account):
    fit(client, cancer)
    first = len(control.journal(route="/storage", account=account))
    fit(client, cancer)
    assert (first, len(control.journal(route="/storage", account=account))) == (2, 2)
    prepared = control.journal(route="/tabpfn/prepare_train_set_upload", account=account)
    assert [row["status"] for row in prepared] == [200, 409]


def test_predict_and_predict_proba_share_an_upload(client, control, cancer, account):
    model = fit(client, cancer)
    model.predict(cancer[1])
    model.predict_proba(cancer[1])
    prepared = control.journal(route="/tabpfn/prepare_test_set_upload", account=account)
    assert [row["status"] for row in prepared] == [200, 409]


def test_uploads_in_many_parts(client, control, cancer, account):
    control.configure(upload_parts=3)
    assert fit(client, cancer).predict(cancer[1]).shape == (len(cancer[1]),)
    assert len(control.journal(route="/storage", account=account)) == 9


def test_a_prediction_behind_a_url_is_followed_without_the_bearer(client, control, cancer):
    model = fit(client, cancer)
    inline = model.predict(cancer[1])
    control.inject({"kind": "prediction_uri"})
    mark = len(control.journal())
    assert (model.predict(cancer[1]) == inline).all()
    (row,) = control.journal(route="/storage", after=mark)
    assert (row["method"], row["bearer"]) == ("GET", False)


def test_a_failed_asynchronous_fit_is_told(client, control, cancer):
    control.inject({"kind": "fail_fit", "error": "worker lost"})
    with pytest.raises(RuntimeError, match="worker lost"):
        fit(client, cancer, api_mode="async")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_failed_synchronous_fit_is_told(client, control, cancer, streamed):
    if streamed:
        control.configure(fit_seconds=0.3, keepalive_after_secs=0.05, keepalive_every_secs=0.05)
    control.inject({"kind": "fail_fit", "error": "worker lost"})
    with pytest.raises(RuntimeError, match="streamed, worker lost" if streamed else r"\[HTTP 500\] worker lost"):
        fit(client, cancer)


def test_an_unavailable_server_is_asked_again(client, control, cancer, account):
    model = fit(client, cancer)
    control.inject({"route": "/tabpfn/predict", "kind": "status", "status": 503})
    assert model.predict(cancer[1]).shape == (len(cancer[1]),)
    assert [row["status"] for row in control.journal(route="/tabpfn/predict", account=account)] == [503, 200]


def test_a_dropped_connection_leads_to_a_second_fit(client, control, cancer, account):
    control.inject({"route": "/tabpfn/fit", "kind": "drop", "when": "after"})
    fit(client, cancer)
    assert len(control.fits(account=account)) == 2


def test_both_kinds_of_429_are_told(client, control, cancer):
    model = fit(client, cancer)
    for code in ("RATE_LIMIT_EXCEEDED", "INSUFFICIENT_QUOTA"):
        body = {"message": f"because of {code}", "error_code": code}
        control.inject({"route": "/tabpfn/predict", "kind": "status", "status": 429, "body": body})
        with pytest.raises(RuntimeError, match=code):
            model.predict(cancer[1])


def test_deprecation_headers_become_a_warning(client, control, cancer):
    model = fit(client, cancer)
    control.inject(
        {
            "route": "/tabpfn/predict",
            "kind": "status",
            "status": 426,
            "body": {"message": "Upgrade, please"},
            "headers": {"deprecation": "true", "sunset": "2027-01-01"},
        }
    )
    with pytest.warns(DeprecationWarning, match="2027-01-01"), pytest.raises(RuntimeError, match="Upgrade, please"):
        model.predict(cancer[1])


def test_without_settings_the_client_goes_on_without_limits(client, control, cancer):
    control.configure(get_settings=False)
    assert fit(client, cancer).predict(cancer[1]).shape == (len(cancer[1]),)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"train_set_max_rows": 100}, "train rows"),
        ({"max_cols": 5}, "train columns"),
        ({"max_classes": 1}, "Number of classes"),
    ],
)
def test_the_servers_limits_are_the_clients_limits(client, control, cancer, limits, words):
    control.configure(limits=limits)
    with pytest.raises(ValueError, match=words):
        fit(client, cancer)


def test_a_deleted_model_is_not_found(client, cancer):
    from tabpfn_client import UserDataClient
    from tabpfn_client.errors import FittedModelNotFoundError

    model = fit(client, cancer)
    (dataset,) = UserDataClient.get_data_summary()["datasets"]
    assert UserDataClient.delete_dataset(dataset["dataset_uid"]) == [dataset["dataset_uid"]]
    with pytest.raises(FittedModelNotFoundError, match="was not found on the server"):
        model.predict(cancer[1])


def test_all_datasets_are_deleted(client, cancer):
    from tabpfn_client import UserDataClient

    fit(client, cancer).predict(cancer[1])
    assert len(UserDataClient.delete_all_datasets()) == 2
    assert UserDataClient.get_data_summary() == {"datasets": [], "fitted_train_set_ids": []}


def test_costs_are_estimated(client, cancer):
    train, test, _, _ = cancer
    quote = client.estimate_cost(train, test, model_version="v2.6")
    assert quote.estimated_cost == (len(train) + len(test)) * train.shape[1] * 8
    assert quote.inputs.n_estimators == 8


def test_usage_is_told(client, cancer):
    fit(client, cancer).predict(cancer[1])
    assert "you have used 1" in client.get_api_usage()


SCRIPT = """
import numpy
from tabpfn_client import TabPFNClassifier
rows = numpy.arange(40.0).reshape(20, 2)
print(TabPFNClassifier().fit(rows, numpy.arange(20) % 2).predict(rows).shape)
"""


def run_script(url, token):
    environment = {**os.environ, "TABPFN_CLIENT_API_URL": url, "TABPFN_TOKEN": token}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_token_from_the_environment_is_taken_and_a_wrong_one_is_refused():
    with running_emulator(extra_args=("--token", "right")) as url:
        good, bad = run_script(url, "right"), run_script(url, "wrong")
        rows = EmulatorControl(url).journal(route="/protected/")
    assert (good.returncode, good.stdout) == (0, "(20,)\n")
    assert [row["status"] for row in rows] == [200, 401]
    assert bad.returncode == 1
    assert "RuntimeError" in bad.stderr
    assert "token" in bad.stderr.lower()
    assert "wrong" not in bad.stdout
