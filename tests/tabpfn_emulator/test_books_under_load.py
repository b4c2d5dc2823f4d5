"""The books are exact under load from many sides: everything that the API offers, refused, failed and deleted.

The plans are drawn from BOOKS_SEED: set it to what a failed run has printed.
"""

import json
import os
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

SEED = int(os.environ.get("BOOKS_SEED", random.SystemRandom().randrange(2**32)))
PREDICT_PRICE = 10_000
THINKING_PRICE = 200_000
FAULTS = (
    {"kind": "status", "status": 402, "route": "/tabpfn/predict"},
    {"kind": "status", "status": 503, "route": "/tabpfn/predict", "when": "after"},
    {"kind": "drop", "route": "/tabpfn/predict", "when": "after"},
    {"kind": "quota", "route": "/v1/predict"},
    {"kind": "status", "status": 422, "route": "/v1/fit"},
    {"kind": "fail_fit", "route": "/v1/fit"},
    {"kind": "rate_limit", "route": "/tabpfn/submit_fit_job"},
    {"kind": "drop", "route": "/tabpfn/submit_fit_job", "when": "after"},
    {"kind": "fail_fit", "route": "/tabpfn/submit_fit_job"},
    {"kind": "fail_fit", "route": "/v1/reasoning/fit"},
)


class Caller:
    """Does what it is told and counts what it was answered.

    Attributes:
        seen: Requests and bytes of answers by the account that the journal has for them: storage knows the owner of
            an upload that is there, and nobody for anything else.
    """

    def __init__(self, control, helpers, cancer, pool):
        self.control, self.helpers, self.pool = control, helpers, pool
        self.api = helpers.api(control.url)
        self.frame, self.target = cancer[0].head(30), cancer[1].head(30)
        self.seen, self.created, self.charge = Counter(), Counter(), 0
        self.fitted = self.test_set = self.legacy = self.last_put = None

    def run(self, actions):
        for action in actions:
            getattr(self, action)()
            assert self._usage() == self.charge

    def _count(self, account, answer):
        self.seen[account, "requests"] += 1
        self.seen[account, "bytes"] += len(answer.content) if answer is not None else 0
        return answer

    def _ask(self, method, path, body=None, **more):
        try:
            answer = self.api.http.request(method, path, json=body, **more)
        except httpx.RemoteProtocolError:
            answer = None
        return self._count(self.api.account, answer)

    def _send(self, path, data, **files):
        parts = {name: (f"{name}.csv", frame.to_csv(index=False).encode()) for name, frame in files.items()}
        return self._ask("POST", path, files={"data": (None, json.dumps(data)), **parts})

    def _put(self, info, content):
        self.last_put = info, content
        (answer,) = self.api.put(info, content)
        self._count(None if answer.status_code == 404 else self.api.account, answer)
        return answer

    def _usage(self):
        # Of the month, because a test may run over midnight.
        return self._ask("POST", "/get_api_usage/").json()["monthly_tokens_used"]

    def _fits(self):
        return self.control.fits(account=self.api.account)

    def _accepted(self, answer, tokens):
        affordable = self.charge + tokens <= self.pool
        if answer is None or answer.status_code == 503:
            return affordable
        assert answer.status_code in ({200, 402, 429} if affordable else {402, 429})
        return answer.status_code == 200

    def look(self):
        self._ask("GET", "/protected/").raise_for_status()

    def nonsense(self):
        answer = self._ask("POST", "/tabpfn/predict", {"colour": "blue"})
        assert answer is None or answer.status_code in {402, 422, 503}
        assert self._send("/v1/fit", {"task": "clustering"}).status_code == 422
        assert self._ask("POST", "/v1/uploads", {"file_format": "colour"}).status_code == 422

    def upload(self, target=None):
        x, y = (
            self.helpers.parquet(self.frame),
            self.helpers.parquet((self.target if target is None else target).to_frame()),
        )
        infos = {"x_train_info": self.helpers.file_info(x), "y_train_info": self.helpers.file_info(y)}
        answer = self._ask("POST", "/tabpfn/prepare_train_set_upload", {**infos, "force_reupload": True}).json()
        self.created["upload_created"] += 1
        for info, content in ((answer["x_train_info"], x), (answer["y_train_info"], y)):
            self._put(info, content).raise_for_status()
        return answer["train_set_upload_id"]

    def put_again(self):
        if self.last_put is not None:
            assert self._put(*self.last_put).status_code in {200, 403, 404}

    def fit(self):
        body = self.helpers.nested(self.upload(), "classification")
        self.fitted = self._ask("POST", "/tabpfn/fit", body).json()["fitted_train_set_id"]
        self.created["fit_created"] += 1
        self.test_set = None

    def _prepare(self):
        content = self.helpers.parquet(self.frame.head(2))
        info = {"fitted_train_set_id": self.fitted, "x_test_info": self.helpers.file_info(content)}
        answer = self._ask("POST", "/tabpfn/prepare_test_set_upload", info).json()
        self.created["upload_created"] += 1
        self._put(answer["x_test_info"], content).raise_for_status()
        self.test_set = answer["test_set_upload_id"]

    def predict(self):
        if self.fitted is None:
            self.fit()
        if self.test_set is None:
            self._prepare()
        body = self.helpers.predict_body(self.fitted, self.test_set, "classification")
        if self._accepted(self._ask("POST", "/tabpfn/predict", body), PREDICT_PRICE):
            self.created["predict_run"] += 1
            self.charge += PREDICT_PRICE

    def think(self):
        self._think("classification", self.upload())

    def think_in_vain(self):
        words = self.target.map({0: "stays", 1: "goes"})
        assert self._think("regression", self.upload(words), timeout_secs=200) in {None, "failed"}

    def _think(self, task, upload, **thinking):
        """Fit, look at the usage meanwhile, and return how it ended; None when it was refused."""
        dimensions = {"train_rows": 30, "raw_columns": 30, "operation": "thinking_fit"}
        assert self._ask("POST", "/tabpfn/estimate_cost", dimensions).json()["estimated_cost"] == THINKING_PRICE
        body = {**self.helpers.nested(upload, task), "thinking_config": {"effort": "medium", **thinking}}
        if not self._accepted(self._ask("POST", "/tabpfn/submit_fit_job", body), THINKING_PRICE):
            return None
        self.created["fit_created"] += 1
        used = self._usage()
        fit = until(lambda: self._fits()[-1], {"pending", "completed", "failed"})
        if fit["status"] == "pending":
            assert used == self.charge + THINKING_PRICE
        if until(lambda: self._fits()[-1], {"completed", "failed"})["status"] == "completed":
            self.charge += THINKING_PRICE
        return self._fits()[-1]["status"]

    def legacy_fit(self):
        data = {"task": "classification", "schema": {"target": "target"}}
        answer = self._send("/v1/fit", data, dataset_file=self.frame.join(self.target))
        assert answer.status_code in {200, 422, 500}
        if answer.status_code != 422:
            self.created["fit_created"] += 1
        if answer.status_code == 200:
            self.legacy = answer.json()["model_id"]

    def legacy_predict(self):
        if self.legacy is None:
            self.legacy_fit()
        if self.legacy is None:
            return
        answer = self._send("/v1/predict", {"model_id": self.legacy, "task": "classification"}, file=self.frame.head(2))
        if self._accepted(answer, PREDICT_PRICE):
            assert answer.json()["used_credits"] == PREDICT_PRICE
            self.created["predict_run"] += 1
            self.charge += PREDICT_PRICE

    def reason(self):
        opened = self._ask("POST", "/v1/uploads", {"file_format": "csv"}).json()
        self.created["upload_created"] += 1
        info = {"signed_urls": [opened["upload_url"]], "required_headers": {"Content-Type": opened["content_type"]}}
        table = self.frame.join(self.target)
        self._put(info, table.to_csv(index=False).encode()).raise_for_status()
        dataset = {
            "columns": [{"name": name} for name in table.columns],
            "connection_config": opened["connection_config"],
        }
        registered = self._ask("POST", "/v1/datasets", dataset).json()["id"]
        task = {"task_kind": "binclass", "label_column": "target"}
        result = self._job("/v1/reasoning/fit", {"dataset_id": registered, "task": task}, "fit_created")
        if result["status"] == "completed":
            model = result["result_data"]["model_id"]
            result = self._job(f"/v1/models/{model}/predict", {"dataset": dataset}, "predict_run")
            artifact = self.api.storage.get(result["result_data"]["presigned_url"]).raise_for_status()
            assert len(self._count(self.api.account, artifact).json()["predictions"]) == len(table)

    def _job(self, path, body, kind):
        job = self._ask("POST", path, body).json()["job_id"]
        self.created[kind] += 1
        until(lambda: self._ask("GET", f"/v1/status/{job}").json(), {"completed", "failed"})
        return self._ask("GET", f"/v1/results/{job}").raise_for_status().json()

    def delete_fit(self):
        fits = [fit for fit in self._fits() if not fit["deleted"]]
        if fits:
            self._delete(fits[-1]["train_set_upload_id"])

    def delete_test_set(self):
        if self.test_set is not None:
            self._delete(self.test_set)

    def _delete(self, dataset):
        answer = self._ask("DELETE", "/delete_dataset/", params={"dataset_uid": dataset}).raise_for_status()
        self._forget(answer.json()["deleted_dataset_uids"])

    def delete_all(self):
        answer = self._ask("DELETE", "/delete_all_datasets/").raise_for_status()
        self._forget(answer.json()["deleted_dataset_uids"])
        assert all(fit["deleted"] for fit in self._fits())

    def _forget(self, datasets):
        here = {fit["fitted_train_set_id"] for fit in self._fits() if not fit["deleted"]}
        self.fitted = self.fitted if self.fitted in here else None
        self.legacy = self.legacy if self.legacy in here else None
        self.test_set = None if self.test_set in datasets else self.test_set


def until(ask, statuses):
    for _ in range(600):
        answer = ask()
        if answer["status"] in statuses:
            return answer
        time.sleep(0.02)
    raise AssertionError(answer)


@pytest.fixture
def seeded():
    print(f"BOOKS_SEED={SEED}")


ACTIONS = sorted(name for name, value in vars(Caller).items() if callable(value) and name[0] != "_" and name != "run")
PLANS = st.lists(st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=6), min_size=2, max_size=5)
SPOILT = st.lists(st.tuples(st.sampled_from(FAULTS), st.integers(1, 3)), max_size=4)


# Nothing is shrunk: threads meet in another order each time, so that it would take minutes and find little.
@seed(SEED)
@settings(
    max_examples=10,
    phases=[Phase.generate],
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(plans=PLANS, spoilt=SPOILT, pool=st.sampled_from([15_000, 225_000, 5_000_000]))
def test_sums_are_the_sums_of_the_rows_and_what_callers_counted(control, helpers, cancer, seeded, plans, spoilt, pool):
    control.clear()
    control.configure(predict="constant", daily_tokens=pool)
    control.inject(*({**fault, "times": times} for fault, times in spoilt))
    before = control.totals()
    seen = max((row["seq"] for row in control.journal()), default=0)
    callers = [Caller(control, helpers, cancer, pool) for _ in plans]
    with ExitStack() as stack:
        for caller in callers:
            stack.callback(caller.api.close)
        list(stack.enter_context(ThreadPoolExecutor(len(callers))).map(Caller.run, callers, plans))
    rows, totals = control.journal(after=seen), control.totals()
    creations = [each for each in control.creations() if each["seq"] > seen]
    grown = {key: totals[key] - before[key] for key in ("requests", "bytes_in", "bytes_out", "charge")}
    assert grown == {
        "requests": len(rows),
        **{key: sum(row[key] for row in rows) for key in ("bytes_in", "bytes_out", "charge")},
    }
    assert sum(each["charge"] for each in creations) == grown["charge"]
    for caller in callers:
        check(caller, rows, [each for each in creations if each["account"] == caller.api.account], totals)
    assert books_of(rows, None) == tuple(sum(caller.seen[None, what] for caller in callers) for what in COUNTED)
    assert {row["account"] for row in rows} <= {None, *(caller.api.account for caller in callers)}
    made_before = Counter(before["creations"])
    assert Counter(totals["creations"]) - made_before == sum((caller.created for caller in callers), Counter())


COUNTED = ("requests", "bytes")


def books_of(rows, account):
    mine = [row for row in rows if row["account"] == account]
    return len(mine), sum(row["bytes_out"] for row in mine)


def check(caller, rows, made, totals):
    """What one caller has counted is what the books have, in each of the places that tell it."""
    account, fits = caller.api.account, caller.control.fits(account=caller.api.account)
    assert books_of(rows, account) == tuple(caller.seen[account, what] for what in COUNTED)
    assert Counter(each["kind"] for each in made) == caller.created
    assert sum(row["charge"] for row in rows if row["account"] == account) == caller.charge
    assert sum(each["charge"] for each in made) == totals["charges"].get(account, 0) == caller.charge <= caller.pool
    assert {each["fitted_train_set_id"]: each["charge"] for each in fits} == {
        each["ids"]["fitted_train_set_id"]: each["charge"]
        for each in made
        if each["kind"] == "fit_created" and "fitted_train_set_id" in each["ids"]
    }
