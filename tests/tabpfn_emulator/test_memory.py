"""Memory and database: they agree when a commit fails, and what was deleted is not kept in memory."""

import asyncio
import io
from contextlib import closing

import httpx
import numpy as np
import pandas as pd
import pytest

from tabpfn_emulator._app import build_app
from tabpfn_emulator._books.accounts import Accounts
from tabpfn_emulator._books.rates import RateLimiter
from tabpfn_emulator._emulator import open_emulator
from tabpfn_emulator._settings import Settings
from tabpfn_emulator._state.documents import Documents
from tabpfn_emulator._state.store import Store

# SQLite looks at a deferred foreign key at COMMIT and no earlier, so every COMMIT of what is written here fails.
FAILING = "AFTER {verb} ON {table} BEGIN INSERT INTO child VALUES (1); END"
TABLES = ("documents", "creations", "accounts", "tokens")
TRIGGERS = {f"fail_{verb}_{table}": (verb, table) for verb in ("INSERT", "UPDATE", "DELETE") for table in TABLES}
BEARER = {"Authorization": "Bearer mine"}


class Shop:
    """An emulator in this process, whose commits fail when told so."""

    def __init__(self, folder):
        self.folder = folder
        self.emulator = open_emulator(folder, (), Settings())
        database = self.emulator.database
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
        database.execute("CREATE TABLE child (id REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
        app = build_app(self.emulator, control=True)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=BEARER)

    def fail(self):
        for name, (verb, table) in TRIGGERS.items():
            self.emulator.database.execute(f"CREATE TRIGGER {name} {FAILING.format(verb=verb, table=table)}")

    def succeed(self):
        for name in TRIGGERS:
            self.emulator.database.execute(f"DROP TRIGGER {name}")

    def memory(self):
        emulator = self.emulator
        return state(emulator.store, emulator.accounts)

    def disk(self):
        """What another process would find, which has nothing in memory."""
        database = self.emulator.database
        return state(Store(self.folder / "uploads", Documents(database)), Accounts(database))

    def files(self):
        return {path: path.read_bytes() for path in self.folder.glob("uploads/**/*.part")}

    def books(self):
        return self.emulator.journal.creations(), self.emulator.journal.totals()["charge"]

    async def upload(self):
        info = {"format": "csv"}
        body = {"x_train_info": info, "y_train_info": info, "description": "churn"}
        prepared = (await self.http.post("/tabpfn/prepare_train_set_upload", json=body)).json()
        frame = pd.DataFrame({"a": np.arange(20.0), "y": np.arange(20) % 2})
        await self.put(prepared["x_train_info"], frame[["a"]])
        await self.put(prepared["y_train_info"], frame[["y"]])
        return prepared["train_set_upload_id"]

    async def put(self, info, frame):
        content = io.BytesIO()
        frame.to_csv(content, index=False)
        url, headers = info["signed_urls"][0], info["required_headers"]
        (await self.http.put(url, content=content.getvalue(), headers=headers)).raise_for_status()

    async def fit(self, upload):
        body = {"train_set_upload_id": upload, "task_config": {"task": "classification"}}
        return (await self.http.post("/tabpfn/fit", json=body)).raise_for_status().json()["fitted_train_set_id"]

    async def test_set(self, fitted):
        body = {"fitted_train_set_id": fitted, "x_test_info": {"format": "csv"}}
        prepared = (await self.http.post("/tabpfn/prepare_test_set_upload", json=body)).raise_for_status().json()
        await self.put(prepared["x_test_info"], pd.DataFrame({"a": [1.0, 2.0]}))
        return prepared["test_set_upload_id"]


def state(store, accounts):
    owner = accounts.of_token("mine")
    uploads = [] if owner is None else [(each.upload_id, each.sealed) for each in store.account_uploads(owner)]
    fits = [fit.as_document() for fit in store.fits()]
    return uploads, fits, accounts.all(), owner, accounts.of_token("new")


@pytest.fixture
def shop(tmp_path):
    shop = Shop(tmp_path)
    with closing(shop.emulator.database), shop.emulator.workers:
        yield shop


def changes(sealed, loose, fitted, test_set):
    """One request for each way to change what is kept."""
    info = {"format": "csv"}
    task = {"task_config": {"task": "classification"}}
    form = {"email": "user@example.com", "validation_link": "tabpfn-2023"}
    password = {"password": "Secret-Passw0rd", "password_confirm": "Secret-Passw0rd"}
    predict = {"test_set_upload_id": test_set, "fitted_train_set_id": fitted, **task}
    legacy = {
        "data": (None, '{"task": "classification", "schema": {"target": "y"}}'),
        "dataset_file": ("t.csv", b"a,y\n1,0\n2,1\n"),
    }
    return {
        "upload": ("POST", "/tabpfn/prepare_train_set_upload", {"json": {"x_train_info": info, "y_train_info": info}}),
        "fit": ("POST", "/tabpfn/submit_fit_job", {"json": {"train_set_upload_id": loose, **task}}),
        "predict": ("POST", "/tabpfn/predict", {"json": predict}),
        "legacy": ("POST", "/v1/fit", {"files": legacy}),
        "delete": ("DELETE", "/delete_dataset/", {"params": {"dataset_uid": sealed}}),
        "delete all": ("DELETE", "/delete_all_datasets/", {}),
        "close": ("DELETE", "/delete_user_account/", {}),
        "register": ("POST", "/auth/register/", {"json": {**form, **password}}),
        "rotate": ("POST", "/_emulator/accounts", {"json": {"name": "team", "add_tokens": ["new"]}}),
    }


ALL = ("upload", "fit", "predict", "legacy", "delete", "delete all", "close", "register", "rotate")


@pytest.mark.parametrize("change", ALL)
def test_a_commit_that_fails_leaves_memory_as_it_was(shop, change):
    async def walk():
        sealed, loose = await shop.upload(), await shop.upload()
        fitted = await shop.fit(sealed)
        method, path, options = changes(sealed, loose, fitted, await shop.test_set(fitted))[change]
        before, files, books = shop.memory(), shop.files(), shop.books()
        assert before == shop.disk()
        shop.fail()
        refused = await shop.http.request(method, path, **options)
        shop.succeed()
        assert refused.status_code == 500
        assert shop.memory() == shop.disk() == before
        assert shop.files() == files
        assert shop.books() == books
        if change == "upload":
            assert shop.emulator.journal.rows(route=path)[-1]["ids"] == {}
        accepted = await shop.http.request(method, path, **options)
        assert accepted.status_code == 200, accepted.text
        assert shop.memory() == shop.disk()
        assert (shop.memory(), shop.books()) != (before, books)

    asyncio.run(walk())


def test_what_was_deleted_is_in_the_books_and_not_in_memory(shop):
    async def walk():
        upload = await shop.upload()
        fitted = await shop.fit(upload)
        summary = (await shop.http.get("/get_data_summary/")).json()
        assert [each["description"] for each in summary["datasets"]] == ["churn"]
        (await shop.http.delete("/delete_all_datasets/")).raise_for_status()
        assert shop.emulator.store.fits() == []
        (row,) = (await shop.http.get("/_emulator/fits")).json()
        assert (row["fitted_train_set_id"], row["deleted"], row["status"]) == (fitted, True, "completed")
        assert shop.disk()[:2] == ([], [])

    asyncio.run(walk())


def test_windows_that_have_ended_are_not_kept():
    limiter = RateLimiter()
    for minute in range(200):
        for account in range(10):
            assert limiter.take(f"{minute}-{account}", "predict", 60.0 * minute) is None
    # Those of this hour, which began with minute 180, and of this minute.
    assert len(limiter._counts) == 20 * 10 + 10
