"""The account behind the token: its data, its sign-up and its end; and how the client starts with it."""

import io
import re
import uuid
import zipfile

import pandas as pd
import pytest


@pytest.fixture
def service(client):
    from tabpfn_client.client import ServiceClient

    return ServiceClient


@pytest.fixture
def authentication(client):
    from tabpfn_client.service_wrapper import UserAuthenticationClient

    return UserAuthenticationClient


def test_the_summary_lists_what_was_uploaded(client, few, fit):
    model = fit()
    model.predict(few[1])
    summary = client.UserDataClient.get_data_summary()
    assert sorted(dataset["kind"] for dataset in summary["datasets"]) == ["test", "train"]
    assert summary["fitted_train_set_ids"] == [str(model.model_id_)]


def test_a_test_set_is_deleted_alone(client, few, fit):
    model = fit()
    first = model.predict(few[1])
    (test_set,) = [row for row in client.UserDataClient.get_data_summary()["datasets"] if row["kind"] == "test"]
    assert client.UserDataClient.delete_dataset(test_set["dataset_uid"]) == [test_set["dataset_uid"]]
    assert (model.predict(few[1]) == first).all()


def test_a_train_set_takes_its_test_sets_along(client, few, fit):
    fit().predict(few[1])
    datasets = client.UserDataClient.get_data_summary()["datasets"]
    (train_set,) = [row["dataset_uid"] for row in datasets if row["kind"] == "train"]
    gone = client.UserDataClient.delete_dataset(train_set)
    assert sorted(gone) == sorted(row["dataset_uid"] for row in datasets)


def test_an_unknown_dataset_is_not_deleted(client):
    with pytest.raises(RuntimeError, match=r"delete_dataset: \[HTTP 404\]"):
        client.UserDataClient.delete_dataset(str(uuid.uuid4()))


def test_all_datasets_are_deleted(client, few, fit):
    fit().predict(few[1])
    assert len(client.UserDataClient.delete_all_datasets()) == 2
    assert client.UserDataClient.get_data_summary() == {"datasets": [], "fitted_train_set_ids": []}
    assert client.UserDataClient.delete_all_datasets() == []


def test_all_data_is_downloaded(client, few, fit, tmp_path):
    fit().predict(few[1])
    saved = client.UserDataClient.download_all_data(tmp_path)
    assert saved.parent == tmp_path
    with zipfile.ZipFile(saved) as archive:
        assert archive.testzip() is None
        tables = {
            name.rpartition("/")[2]: pd.read_parquet(io.BytesIO(archive.read(name)))
            for name in archive.namelist()
            if name.endswith(".parquet")
        }
    pd.testing.assert_frame_equal(tables["x_train.parquet"], few[0].reset_index(drop=True))
    pd.testing.assert_frame_equal(tables["x_test.parquet"], few[1].reset_index(drop=True))
    assert tables["y_train.parquet"].iloc[:, 0].tolist() == few[2].tolist()


@pytest.mark.parametrize("typed", ["confirm deletion", "no, wait"])
def test_an_account_is_deleted_after_a_confirmation(client, service, token, few, fit, monkeypatch, typed):
    from tabpfn_client.ui import console

    model = fit()
    monkeypatch.setattr(console, "input", lambda prompt: typed)
    client.UserDataClient.delete_user_account()
    if typed == "no, wait":
        assert model.predict(few[1]).shape == (len(few[1]),)
    else:
        assert service.is_auth_token_outdated(token) is False
        with pytest.raises(RuntimeError, match=r"\[HTTP 401\]"):
            model.predict(few[1])


@pytest.fixture
def registration(authentication):
    """Register with an address of this test's own: `register(password)` returns what the client returns."""
    email = f"{uuid.uuid4().hex}@example.com"
    profile = {
        "first_name": "Ada",
        "last_name": "Byron",
        "company": "Analytical Engines",
        "role": "Researcher",
        "contact_via_email": False,
        "agreed_terms_and_cond": True,
        "agreed_personally_identifiable_information": True,
    }

    def register(password="Correct-horse-7", again=None):
        return authentication.set_token_by_registration(email, password, again or password, "tabpfn-2023", profile)

    register.email = email
    return register


def code_of(message):
    """The code that an e-mail would carry: the emulator sends none, and tells it in its answer."""
    return re.search(r"[0-9a-f]{32}", message)[0]


def test_an_account_is_opened_and_verified(client, authentication, service, registration, few):
    assert authentication.validate_email(registration.email) == (True, "")
    created, message, token = registration()
    assert (created, bool(message), service.get_access_token()) == (True, True, token)
    assert service.is_auth_token_outdated(token) is None  # 403: not verified yet
    with pytest.raises(RuntimeError, match=r"\[HTTP 403\]"):
        client.TabPFNClassifier().fit(few[0], few[2])
    sent, message = authentication.send_verification_email(token)
    assert sent
    assert authentication.verify_email("not-the-code", token)[0] is False
    assert authentication.verify_email(code_of(message), token)[0] is True
    assert service.is_auth_token_outdated(token) is True
    assert client.TabPFNClassifier().fit(few[0], few[2]).predict(few[1]).shape == (len(few[1]),)


def test_an_address_is_used_once(authentication, registration):
    registration()
    valid, message = authentication.validate_email(registration.email)
    assert not valid
    assert "in use" in message
    assert registration()[0] is False


def test_what_is_no_address_is_refused(authentication):
    valid, message = authentication.validate_email("nobody")
    assert not valid
    assert message


@pytest.mark.parametrize(("password", "again"), [("short", None), ("Correct-horse-7", "Correct-horse-8")])
def test_a_password_that_will_not_do_is_refused(registration, password, again):
    created, message, token = registration(password, again)
    assert (created, bool(message), token) == (False, True, None)


def test_the_password_policy_is_one_that_the_client_can_check(authentication):
    from tabpfn_client.prompt_agent import PromptAgent

    policy = PromptAgent.password_req_to_policy(authentication.get_password_policy())
    assert policy.test("Correct-horse-7") == []
    assert policy.test("short") != []


def test_the_whole_sign_up_dialogue(client, service, authentication, monkeypatch, few):
    import getpass

    from tabpfn_client.prompt_agent import PromptAgent
    from tabpfn_client.ui import console

    email = f"{uuid.uuid4().hex}@example.com"
    passwords = iter(["weak", "Correct-horse-7", "Correct-horse-7"])
    codes = iter(["wrong", "resend", "right"])

    def verification_code():
        code = next(codes)
        if code != "right":
            return code
        return code_of(authentication.send_verification_email(service.get_access_token())[1])

    # What is asked, in the words of either version, first match first.
    answers = {
        "(1/2/q)": lambda: "1",
        "I agree": lambda: "y",
        "Email": lambda: email,
        "First name": lambda: "Ada",
        "Last name": lambda: "Byron",
        "(y/n)": lambda: "n",
        "(y/N)": lambda: "n",
        "Choose": lambda: "a",
        "Verification code": verification_code,
        "→": lambda: "calculating Bernoulli numbers",
        "": lambda: "calculating Bernoulli numbers",
    }
    monkeypatch.setattr(console, "input", lambda prompt="": next(answers[key] for key in answers if key in prompt)())
    monkeypatch.setattr(getpass, "getpass", lambda prompt: next(passwords))
    dialogue = getattr(PromptAgent, "prompt_signup", None) or PromptAgent._prompt_and_set_token_impl
    assert dialogue()
    assert (next(passwords, None), next(codes, None)) == (None, None)
    assert service.is_auth_token_outdated(service.get_access_token()) is True
    assert client.TabPFNClassifier().fit(few[0], few[2]).predict(few[1]).shape == (len(few[1]),)


@pytest.fixture
def started_anew(service, monkeypatch):
    """Start the client anew with a token from the environment: `start(token)`."""
    from tabpfn_client.config import Config, init

    def start(token):
        service.reset_authorization()
        monkeypatch.setattr(Config, "is_initialized", False)
        monkeypatch.setenv("TABPFN_TOKEN", token)
        init()

    return start


def test_the_client_starts_with_a_token_from_the_environment(client, service, started_anew, control):
    token = f"token-{uuid.uuid4()}"
    mark = len(control.journal())
    started_anew(token)
    assert client.get_access_token() == token
    assert [(row["route"], row["status"]) for row in control.journal(after=mark)] == [
        ("/protected/", 200),
        ("/retrieve_greeting_messages/", 200),
        ("/tabpfn/get_settings", 200),
    ]


@pytest.mark.needs("an init() that never prompts")
def test_the_client_does_not_start_with_an_unverified_account(registration, started_anew):
    with pytest.raises(RuntimeError, match="email address is not verified"):
        started_anew(registration()[2])


@pytest.mark.needs("interactive_login")
def test_a_login_finds_the_token_that_is_there(client, control, token):
    mark = len(control.journal())
    assert client.interactive_login() == token
    assert [(row["route"], row["status"]) for row in control.journal(after=mark)] == [("/protected/", 200)]


def test_the_server_is_reachable_without_a_token(service):
    service.reset_authorization()
    assert service.try_connection() is True


def test_there_are_no_greetings(service):
    assert service.retrieve_greeting_messages() == []


@pytest.mark.needs("password login")
def test_a_password_opens_nothing(authentication, registration):
    """The emulator keeps no passwords: the route is gone in 0.6.1, and is refused as the client understands it."""
    registration()
    token, message, status = authentication.set_token_by_login(registration.email, "Correct-horse-7")
    assert (token, status) == (None, 404)
    assert message


@pytest.mark.needs("password reset")
def test_a_password_is_not_reset(authentication, registration):
    registration()
    sent, message = authentication.send_reset_password_email(registration.email)
    assert not sent
    assert message
