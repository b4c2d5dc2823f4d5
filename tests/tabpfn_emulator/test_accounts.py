"""Accounts: several tokens each, rotation, revocation, unverified addresses; the control routes that change them."""

import subprocess
import sys
import time
import uuid

import pytest

from tabpfn_emulator._books.accounts import Accounts
from tabpfn_emulator._state.database import Database
from tabpfn_emulator.testing import EmulatorControl, account_of, running_emulator


@pytest.fixture
def change(control, bare):
    def post(**body):
        return bare.post(f"{control.url}/_emulator/accounts", json=body)

    return post


@pytest.fixture
def open_accounts(tmp_path):
    """Open the accounts of one folder, again and again, as restarts do."""
    running = []

    def begin(only=(), named=()):
        while running:
            running.pop().close()
        running.append(Database(tmp_path / "accounts.sqlite3"))
        return Accounts(running[0], only, named)

    yield begin
    for database in running:
        database.close()


@pytest.fixture
def name():
    return f"team-{uuid.uuid4().hex}"


def status(api):
    return api.http.get("/protected/").status_code


def test_two_tokens_open_one_account_and_rotate(api, other_api, change, name, cancer, control):
    answer = change(name=name, add_tokens=[api.token])
    assert answer.json() == {"name": name, "email_verified": True, "tokens": 1}
    fitted = api.fit(cancer[0].head(40), cancer[1].head(40), "classification")
    assert other_api.post("/tabpfn/get_fit_status", {"fitted_train_set_id": fitted}).status_code == 404
    assert change(name=name, add_tokens=[other_api.token], revoke_tokens=[api.token]).json()["tokens"] == 1
    answer = other_api.post("/tabpfn/get_fit_status", {"fitted_train_set_id": fitted})
    assert answer.json()["status"] == "completed"
    assert status(api) == 401
    assert {row["status"] for row in control.journal(account=name)} == {200}
    assert account_of(api.token) not in {row["account"] for row in control.journal(route="/tabpfn/fit")}


def test_keys_rotate_from_python(api, control, name):
    assert control.change_account(name, add_tokens=[api.token])["tokens"] == 1
    assert status(api) == 200
    assert control.change_account(name, email_verified=False)["email_verified"] is False
    assert status(api) == 403
    control.change_account(name, revoke_tokens=[api.token], email_verified=True)
    assert status(api) == 401
    with pytest.raises(ValueError, match="without spaces"):
        control.change_account("two words")


def test_a_token_expires_while_the_server_runs(api, control, name):
    control.change_account(name, add_tokens=[api.token], expires_in=10**9)
    assert status(api) == 200
    control.change_account(name, add_tokens=[api.token], expires_in=0.25)
    for _ in range(600):
        if status(api) == 401:
            break
        time.sleep(0.05)
    assert status(api) == 401
    assert control.change_account(name, add_tokens=[api.token])["tokens"] == 1
    assert status(api) == 200


def test_one_token_of_an_account_expires_and_the_other_does_not(api, other_api, control, name):
    control.change_account(name, add_tokens=[api.token])
    control.change_account(name, add_tokens=[other_api.token], expires_in=0)
    assert (status(api), status(other_api)) == (200, 401)


def test_the_address_is_not_verified_with_an_expired_token(api, bare, control, name):
    control.change_account(name, add_tokens=[api.token], expires_in=0)
    query = {"token": "any", "access_token": api.token}
    assert bare.get(f"{control.url}/auth/verify_email/", params=query).status_code == 401


def test_an_account_that_opened_itself_takes_more_tokens(api, other_api, change, cancer):
    fitted = api.fit(cancer[0].head(40), cancer[1].head(40), "classification")
    assert change(name=api.account, add_tokens=[other_api.token]).status_code == 200
    answers = [caller.post("/tabpfn/get_fit_status", {"fitted_train_set_id": fitted}) for caller in (api, other_api)]
    assert [answer.status_code for answer in answers] == [200, 200]
    change(name=api.account, revoke_tokens=[api.token])
    assert (status(api), status(other_api)) == (401, 200)


def test_an_address_that_is_not_verified_is_403_everywhere(api, change, name):
    change(name=name, add_tokens=[api.token], email_verified=False)
    for method, path in (("GET", "/protected/"), ("GET", "/tabpfn/get_settings"), ("POST", "/get_api_usage/")):
        assert api.http.request(method, path).status_code == 403
    change(name=name, email_verified=True)
    assert status(api) == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "two words"},
        {"name": "a", "add_tokens": [""]},
        {"name": "a", "add_tokens": [" x"]},
        {"name": "a", "colour": "blue"},
        {"name": "a", "expires_in": 5},
        {"name": "a", "add_tokens": ["x"], "expires_in": -1},
        {"name": "a", "add_tokens": ["x"], "expires_in": "soon"},
        {"name": "a", "add_tokens": "x"},
    ],
)
def test_a_change_that_is_not_understood_is_refused(change, body):
    assert change(**body).status_code == 422


def test_a_token_opens_one_account_only_and_a_refusal_shows_no_token(api, change, name):
    change(name=name, add_tokens=[api.token])
    answer = change(name=f"{name}-2", add_tokens=["fresh-one", api.token])
    assert answer.status_code == 422
    assert api.token not in answer.text
    assert change(name=f"{name}-3", add_tokens=["fresh-one"]).status_code == 200


def test_accounts_of_the_command_line_are_the_only_ones(tmp_path, helpers):
    options = ("--account", "ann=one", "--account", "ann=two=2", "--account", "bob=three", "--token", "four")
    with running_emulator(tmp_path, extra_args=options) as url:
        tokens = ("one", "two=2", "three", "four", "five")
        callers = [helpers.api(url, token=token) for token in tokens]
        assert [status(caller) for caller in callers] == [200, 200, 200, 200, 401]
        rows = EmulatorControl(url).journal(route="/protected/")
        assert [row["account"] for row in rows] == ["ann", "ann", "bob", account_of("four"), None]
        for caller in callers:
            caller.close()
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("emulator.sqlite3*"))
    assert b"three" not in kept


@pytest.mark.parametrize("option", ["ann", "=one", "ann=", "an n=one"])
def test_an_account_that_is_not_understood_is_a_usage_error(option):
    done = subprocess.run(
        [sys.executable, "-m", "tabpfn_emulator", "--account", option],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_without_faults_there_are_no_control_routes(helpers):
    with subprocess.Popen([sys.executable, "-m", "tabpfn_emulator"], stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().split()[-1]
        with helpers.client(base_url=url) as client:
            paths = ("journal", "creations", "totals", "accounts", "fits", "faults", "config")
            assert {client.get(f"/_emulator/{path}").status_code for path in paths} == {404}
            assert client.post("/_emulator/accounts", json={"name": "a", "add_tokens": ["b"]}).status_code == 404
            assert client.get("/").status_code == 200
        process.terminate()


def test_tokens_of_a_start_hold_for_that_run_and_added_ones_for_good(open_accounts):
    first = open_accounts(named=[("ann", "old")])
    first.change("ann", add_tokens=["added"])
    second = open_accounts(named=[("ann", "new")])
    assert [second.of_token(token) for token in ("old", "new", "added")] == [None, "ann", "ann"]


def test_what_was_revoked_or_closed_stays_so(open_accounts):
    first = open_accounts(named=[("ann", "a"), ("bob", "b")])
    first.change("ann", revoke_tokens=["a"])
    first.close("bob")
    second = open_accounts(named=[("ann", "a"), ("bob", "b"), ("ann", "c")])
    assert [second.of_token(token) for token in "abc"] == [None, None, "ann"]
    assert {each["name"]: each["closed"] for each in second.all()} == {"ann": False, "bob": True}
    second.change("bob")
    assert second.of_token("b") == "bob"


def test_a_time_that_is_no_time_is_refused(open_accounts):
    for seconds in (float("nan"), float("inf"), -0.5):
        with pytest.raises(ValueError, match="expires_in"):
            open_accounts().change("ann", add_tokens=["a"], expires_in=seconds)


def test_an_expiry_survives_a_restart(open_accounts, monkeypatch):
    begin = time.time()
    first = open_accounts()
    first.change("ann", add_tokens=["short"], expires_in=60)
    first.change("ann", add_tokens=["long"], expires_in=3600)
    first.change(account_of("own"), add_tokens=["own"], expires_in=0)
    # Neither opens an account of its own again, nor does the next start's option bring one back.
    for named in ((), [("ann", "short")]):
        second = open_accounts(named=named)
        assert [second.of_token(token) for token in ("short", "long", "own")] == ["ann", "ann", None]
        with monkeypatch.context() as later:
            later.setattr(time, "time", lambda: begin + 600)
            assert [second.of_token(token) for token in ("short", "long", "own")] == [None, "ann", None]


def test_a_closed_account_that_opened_itself_stays_closed(open_accounts):
    open_accounts().close(account_of("a"))
    assert [open_accounts().of_token(token) for token in "ab"] == [None, account_of("b")]


def test_a_refused_change_changes_nothing(open_accounts):
    accounts = open_accounts(named=[("ann", "a")])
    with pytest.raises(ValueError, match="another account"):
        accounts.change("bob", add_tokens=["b", "a"])
    assert (accounts.of_token("a"), accounts.of_token("b")) == ("ann", None)
    assert [each["name"] for each in accounts.all()] == ["ann"]


def test_what_was_not_committed_has_not_happened(tmp_path):
    database = Database(tmp_path / "accounts.sqlite3")
    accounts = Accounts(database)
    accounts.change("ann", add_tokens=["a"])

    def fail_before_the_commit():
        with database.transaction():
            accounts.change("ann", add_tokens=["b"], revoke_tokens=["a"], email_verified=False)
            accounts.close("ann")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_before_the_commit()
    assert [accounts.of_token(token) for token in "ab"] == ["ann", account_of("b")]
    assert accounts.all() == [{"name": "ann", "email_verified": True, "closed": False, "tokens": 1}]
    database.close()


def test_a_token_that_was_added_elsewhere_is_no_start(open_accounts):
    open_accounts(named=[("ann", "a")]).change("ann", add_tokens=["shared"])
    with pytest.raises(ValueError, match="another account"):
        open_accounts(named=[("bob", "shared")])


@pytest.mark.parametrize("header", ["Bearer", "Basic abc", "bearer", "Token x"])
def test_a_header_without_a_bearer_token_is_401(control, bare, header):
    answer = bare.get(f"{control.url}/protected/", headers={"Authorization": header})
    assert (answer.status_code, answer.json()["error_code"]) == (401, "UNAUTHORIZED")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_no_account_is_named_as_one_that_a_token_opens(open_accounts):
    with pytest.raises(ValueError, match="by themselves"):
        open_accounts(named=[(account_of("a"), "b")])


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Host": ""}, {"Origin": "http://127.0.0.1"}])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "accounts"), ("POST", "faults"), ("DELETE", "faults"), ("POST", "config"), ("DELETE", "config")],
)
def test_a_page_in_a_browser_changes_nothing(control, bare, headers, method, path):
    answer = bare.request(method, f"{control.url}/_emulator/{path}", headers=headers, content=b"[]")
    assert (answer.status_code, answer.json()["error_code"]) == (403, "FORBIDDEN")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.2:80", "[::1]:80"])
def test_every_name_of_loopback_will_do(control, bare, host):
    assert bare.delete(f"{control.url}/_emulator/faults", headers={"Host": host}).status_code == 200
