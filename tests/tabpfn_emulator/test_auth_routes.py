"""Interactive sign-up, and the end of an account (contract section 1.10)."""

import io
import json
import re
import uuid
import zipfile

import pytest


@pytest.fixture
def form():
    password = "Correct-Horse-1"
    return {
        "email": f"{uuid.uuid4().hex}@example.com",
        "password": password,
        "password_confirm": password,
        "validation_link": "tabpfn-2023",
        "company": "Example",
    }


@pytest.fixture
def registered(bare, emulator, form):
    return bare.post(f"{emulator}/auth/register/", json=form).raise_for_status().json()["token"]


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def verification_token(bare, emulator, token):
    answer = bare.post(f"{emulator}/auth/send_verification_email/", headers=bearer(token)).raise_for_status()
    return re.search(r"[0-9a-f]{32}", answer.json()["message"])[0]


def verify(bare, emulator, token, access_token):
    params = {"token": token, "access_token": access_token}
    return bare.get(f"{emulator}/auth/verify_email/", params=params)


def test_a_new_account_is_forbidden_until_its_address_is_verified(bare, emulator, registered):
    paths = ["/protected/", "/tabpfn/get_settings", "/get_data_summary/"]
    answers = [bare.get(emulator + path, headers=bearer(registered)) for path in paths]
    assert [answer.status_code for answer in answers] == [403, 403, 403]
    assert set(answers[0].json()) == {"message", "error_code", "trace_id"}
    legacy = bare.post(f"{emulator}/v1/fit", headers=bearer(registered))
    assert (legacy.status_code, legacy.json()["code"]) == (403, "auth.forbidden")
    assert legacy.json()["detail"] == "User account not verified"

    token = verification_token(bare, emulator, registered)
    assert verify(bare, emulator, token, registered).status_code == 200
    assert bare.get(f"{emulator}/protected/", headers=bearer(registered)).status_code == 200


def test_only_the_right_verification_token_verifies(bare, emulator, registered, form):
    other = bare.post(f"{emulator}/auth/register/", json={**form, "email": f"x{form['email']}"}).json()["token"]
    foreign = verification_token(bare, emulator, other)
    assert verify(bare, emulator, foreign, registered).status_code == 400
    assert verify(bare, emulator, "", registered).status_code == 400
    assert bare.get(f"{emulator}/auth/verify_email/", params={"token": foreign}).status_code == 422
    assert bare.get(f"{emulator}/protected/", headers=bearer(registered)).status_code == 403


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"password_confirm": "Another-Horse-2"}, 400),
        ({"password": "short1A-", "password_confirm": "short1A"}, 400),
        ({"password": "lower-case-1", "password_confirm": "lower-case-1"}, 400),
        ({"validation_link": "tabpfn-1999"}, 400),
        ({"email": "nobody"}, 400),
        ({"email": 7}, 422),
        ({"email": "a@b@example.com"}, 400),
    ],
)
def test_registrations_that_are_refused_say_why_and_open_nothing(bare, emulator, form, change, status):
    answer = bare.post(f"{emulator}/auth/register/", json={**form, **change})
    assert answer.status_code == status
    assert answer.json()["message"]
    assert bare.post(f"{emulator}/auth/register/", json=form).status_code == 200


def test_an_address_is_used_once(bare, emulator, form, registered):
    again = bare.post(f"{emulator}/auth/register/", json={**form, "email": form["email"].upper()})
    assert (again.status_code, again.json()["message"]) == (400, "This e-mail address is in use.")
    check = bare.post(f"{emulator}/auth/validate_email/", params={"email": form["email"]})
    assert check.status_code == 400
    free = bare.post(f"{emulator}/auth/validate_email/", params={"email": f"other-{form['email']}"})
    assert free.status_code == 200


def test_the_password_policy_is_what_registration_enforces(bare, emulator, form):
    requirements = bare.get(f"{emulator}/auth/password_policy/").json()["requirements"]
    assert "Length(8)" in requirements
    weak = bare.post(f"{emulator}/auth/register/", json={**form, "password": "Aa1-", "password_confirm": "Aa1-"})
    assert weak.status_code == 400


def test_a_deleted_account_is_gone_and_its_address_can_be_registered_again(bare, emulator, form, registered):
    token = verification_token(bare, emulator, registered)
    verify(bare, emulator, token, registered).raise_for_status()
    assert bare.delete(f"{emulator}/delete_user_account/", headers=bearer(registered)).status_code == 200
    assert bare.get(f"{emulator}/protected/", headers=bearer(registered)).status_code == 401
    second = bare.post(f"{emulator}/auth/register/", json=form).raise_for_status().json()["token"]
    assert bare.get(f"{emulator}/protected/", headers=bearer(registered)).status_code == 401
    assert bare.get(f"{emulator}/protected/", headers=bearer(second)).status_code == 403


def test_deleting_an_account_takes_its_data_and_no_one_elses(api, other_api, emulator_folder, cancer):
    frame, target = cancer
    mine = api.fit(frame.head(30), target.head(30), "classification")
    theirs = other_api.fit(frame.head(30), target.head(30), "classification")
    uploads = [row["dataset_uid"] for row in api.http.get("/get_data_summary/").json()["datasets"]]
    assert api.http.delete("/delete_user_account/").status_code == 200
    assert api.post("/tabpfn/get_fit_status", {"fitted_train_set_id": mine}).status_code == 401
    assert uploads
    assert not any((emulator_folder / "uploads" / upload).exists() for upload in uploads)
    assert other_api.post("/tabpfn/get_fit_status", {"fitted_train_set_id": theirs}).status_code == 200


def test_no_password_and_no_token_is_kept(bare, emulator, emulator_folder, form, registered):
    secrets = [form["password"].encode(), registered.encode(), form["email"].encode()]
    for path in emulator_folder.glob("emulator.sqlite3*"):
        content = path.read_bytes()
        assert not [secret for secret in secrets if secret in content]


def test_everything_uploaded_can_be_downloaded_as_a_zip(api, control, helpers, cancer):
    frame, target = cancer
    x, y = helpers.parquet(frame.head(40)), helpers.parquet(target.head(40).to_frame())
    control.configure(upload_parts=3)
    train = api.upload_train(x, y)
    answer = api.http.get("/download_all_data/")
    assert answer.headers["Content-Disposition"] == "attachment; filename=tabpfn_data.zip"
    assert answer.headers["Content-Type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.read(f"train_sets/{train}/x_train.parquet") == x
        assert archive.read(f"train_sets/{train}/y_train.parquet") == y
        summary = json.loads(archive.read("summary.json"))
    assert [row["dataset_uid"] for row in summary["datasets"]] == [train]


def test_the_zip_holds_nothing_of_other_accounts(api, other_api, helpers, cancer):
    frame, target = cancer
    api.upload_train(helpers.parquet(frame.head(20)), helpers.parquet(target.head(20).to_frame()))
    with zipfile.ZipFile(io.BytesIO(other_api.http.get("/download_all_data/").content)) as archive:
        assert archive.namelist() == ["summary.json"]


def test_where_accounts_are_named_nobody_registers(bare, strict_emulator, form):
    answer = bare.post(f"{strict_emulator}/auth/register/", json=form)
    assert (answer.status_code, answer.json()["error_code"]) == (403, "FORBIDDEN")
    assert set(answer.json()) == {"message", "error_code", "trace_id"}
