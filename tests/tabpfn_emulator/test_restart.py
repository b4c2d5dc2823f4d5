"""kill -9 at moments of a seeded clock, while clients work: after a restart nothing is lost that was answered.

The moments and what the clients do are drawn from KILL_SEED: set it to what a failed run has printed. `--all` kills 50
times instead of 5.
"""

import json
import os
import random
import sys
import threading
import time
from dataclasses import dataclass, field

import httpx
import pandas as pd

CLIENTS = 3
LATEST_KILL_SECONDS = 1.5
PREDICT_PRICE = 10_000
RECHECKED = 3


@dataclass
class Model:
    """A fit of the current API, and what depends on its train set."""

    train: str
    fitted: str
    tests: list = field(default_factory=list)


@dataclass
class Acknowledged:
    """What a client was answered, and nothing that it only hopes for.

    Attributes:
        created: Every id of an upload, a fit or a job, deleted ones included.
        uploads: Uploads that are not deleted.
        complete: Those of them whose bytes were acknowledged.
        open_urls: Files that may have arrived in part.
        sent: The last test set, to be sent again.
        fits: Fits that are not deleted, and the status that each ends with.
        models: Fits with their data sets.
        doubtful: Those whose deletion was asked for and not answered.
        deleted_uploads: Uploads that are gone, and
        deleted_fits: Fits that went with them.
        predictions: Route, body and answer.
        jobs: Reasoning jobs, each with its artifact, or None.
        charged: Tokens of the predictions that were answered, and
        asked: of all that were asked for.
    """

    created: set = field(default_factory=set)
    uploads: set = field(default_factory=set)
    complete: set = field(default_factory=set)
    open_urls: list = field(default_factory=list)
    sent: tuple = ()
    fits: dict = field(default_factory=dict)
    models: list = field(default_factory=list)
    doubtful: list = field(default_factory=list)
    deleted_uploads: set = field(default_factory=set)
    deleted_fits: set = field(default_factory=set)
    predictions: list = field(default_factory=list)
    jobs: dict = field(default_factory=dict)
    charged: int = 0
    asked: int = 0


class Client:
    """Uploads, fits, predicts and deletes until its server is gone."""

    def __init__(self, number, rng, server, helpers):
        self.server, self.helpers, self.rng = server, helpers, rng
        self.api = server.api(f"restart-{number}")
        self.got = Acknowledged()
        self.problem = None
        self.checked = set()

    def run(self):
        work = [self._current, self._legacy, self._reason, self._think_in_vain, self._delete, self._delete_all]
        try:
            while True:
                self.rng.choices(work, [9, 3, 3, 2, 3, 1])[0]()
        except httpx.TransportError:
            pass  # the kill, which is what this waits for
        except Exception as problem:
            self.problem = problem

    def _current(self):
        frame, target = table(self.rng)
        train = self._upload(frame, target)
        model = Model(train, self._submit(self.helpers.nested(train, "classification", random_state=3), "completed"))
        self.got.models.append(model)
        wait_for(self.api, model.fitted, "completed")
        content = self.helpers.parquet(frame.head(3))
        body = {"fitted_train_set_id": model.fitted, "x_test_info": self.helpers.file_info(content)}
        prepared = self._post("/tabpfn/prepare_test_set_upload", body)
        test = prepared["test_set_upload_id"]
        model.tests.append(test)
        self._put(test, [(prepared["x_test_info"], content)])
        self._predict("/tabpfn/predict", json=self.helpers.predict_body(model.fitted, test, "classification"))
        self.got.sent = (test, prepared["x_test_info"], content)
        self._put_again()

    def _upload(self, frame, target):
        x, y = self.helpers.parquet(frame), self.helpers.parquet(target)
        infos = {"x_train_info": self.helpers.file_info(x), "y_train_info": self.helpers.file_info(y)}
        prepared = self._post("/tabpfn/prepare_train_set_upload", infos)
        upload = prepared["train_set_upload_id"]
        files = [(prepared["x_train_info"], x), (prepared["y_train_info"], y)]
        self._put(upload, files + files[:1])
        return upload

    def _put(self, upload, files):
        self.got.created.add(upload)
        self.got.uploads.add(upload)
        self.got.open_urls.append((upload, files))
        self._put_files(files)
        self.got.open_urls.pop()
        self.got.complete.add(upload)

    def _put_files(self, files):
        for info, content in files:
            for answer in self.api.put(self.server.moved_info(info), content):
                answer.raise_for_status()

    def _put_again(self):
        """The same bytes once more, to an upload that is used already: cut off or not, they change nothing."""
        if self.got.sent and self.got.sent[0] in self.got.uploads:
            self._put_files([self.got.sent[1:]])

    def _submit(self, body, ending):
        fitted = self._post("/tabpfn/submit_fit_job", body)["fitted_train_set_id"]
        self.got.created.add(fitted)
        self.got.fits[fitted] = ending
        return fitted

    def _think_in_vain(self):
        """A fit that is charged, fails because its target is no number, and gets its tokens back."""
        train = self._upload(*table(self.rng))
        body = {**self.helpers.nested(train, "regression"), "thinking_config": {"timeout_secs": 300}}
        fitted = self._submit(body, "failed")
        self.got.models.append(Model(train, fitted))
        wait_for(self.api, fitted, "failed")

    def _predict(self, route, **body):
        self.got.asked += PREDICT_PRICE
        answer = self.api.http.post(route, **body).raise_for_status().json()
        self.got.charged += answer.get("used_credits", PREDICT_PRICE)
        self.got.predictions.append((route, body, answer["prediction"]))

    def _legacy(self):
        frame, target = table(self.rng)
        data = {"task": "classification", "schema": {"target": "y"}}
        answer = self.api.http.post("/v1/fit", files=form(data, dataset_file=frame.join(target))).raise_for_status()
        model = answer.json()["model_id"]
        self.got.created.add(model)
        self.got.fits[model] = "completed"
        data = {"model_id": model, "task": "classification"}
        self._predict("/v1/predict", files=form(data, file=frame.head(3)))

    def _reason(self):
        frame, target = table(self.rng)
        whole = frame.join(target)
        opened = self._post("/v1/uploads", {"file_format": "csv"})
        self.got.created.add(opened["connection_config"]["id"])
        headers = {"Content-Type": opened["content_type"]}
        for _ in range(2):
            self.api.storage.put(opened["upload_url"], content=csv(whole), headers=headers).raise_for_status()
        columns = [{"name": name} for name in whole.columns]
        dataset = {"columns": columns, "connection_config": opened["connection_config"]}
        registered = self._post("/v1/datasets", dataset)["id"]
        task = {"task_kind": "binclass", "label_column": "y"}
        fit = self._job("/v1/reasoning/fit", {"dataset_id": registered, "task": task})
        model = self._ended(fit)["result_data"]["model_id"]
        predicted = self._job(f"/v1/models/{model}/predict", {"dataset": dataset})
        self.got.jobs[predicted] = self._artifact(predicted)

    def _job(self, path, body):
        job = self._post(path, body)["job_id"]
        self.got.created.add(job)
        self.got.jobs[job] = None
        return job

    def _ended(self, job):
        until(lambda: self.api.http.get(f"/v1/status/{job}").raise_for_status().json(), "completed")
        return self.api.http.get(f"/v1/results/{job}").raise_for_status().json()

    def _artifact(self, job):
        url = self._ended(job)["result_data"]["presigned_url"]
        return self.api.storage.get(url).raise_for_status().json()

    def _delete(self):
        if self.got.models:
            model = self.got.models.pop(self.rng.randrange(len(self.got.models)))
            self._forget([model])
            self.api.http.delete("/delete_dataset/", params={"dataset_uid": model.train}).raise_for_status()
            self._deleted([model])

    def _delete_all(self):
        fits, uploads = set(self.got.fits), set(self.got.uploads)
        models, self.got.models = self.got.models, []
        self._forget(models)
        # A legacy fit's upload is known to nobody, so that nothing is asked of it meanwhile.
        self.got.fits.clear()
        self.got.uploads.clear()
        self.got.complete.clear()
        self.got.predictions.clear()
        self.api.http.delete("/delete_all_datasets/").raise_for_status()
        self._deleted(models)
        self.got.deleted_fits |= fits
        self.got.deleted_uploads |= uploads

    def _forget(self, models):
        """Expect nothing any more of what is about to be deleted, except that it is there as a whole or not at all."""
        self.got.doubtful += models
        for model in models:
            self.got.fits.pop(model.fitted, None)
            for upload in (model.train, *model.tests):
                self.got.uploads.discard(upload)
                self.got.complete.discard(upload)
        gone = {model.fitted for model in models}
        self.got.predictions = [each for each in self.got.predictions if fit_of(each) not in gone]

    def _deleted(self, models):
        self.got.doubtful = [model for model in self.got.doubtful if model not in models]
        for model in models:
            self.got.deleted_fits.add(model.fitted)
            self.got.deleted_uploads |= {model.train, *model.tests}

    def _post(self, path, body):
        return self.api.post(path, body).raise_for_status().json()

    def check(self, most=RECHECKED):
        """Everything that was answered is still there, what was deleted is gone, and the newest and some others work.

        Args:
            most: Of the things that an earlier check has called, call so many again.
        """
        summary = self.summary()
        known = {entry["dataset_uid"]: entry["complete"] for entry in summary["datasets"]}
        models = set(summary["fitted_train_set_ids"])
        assert self.got.uploads <= set(known)
        assert all(known[upload] for upload in self.got.complete)
        assert self.got.deleted_uploads.isdisjoint(known)
        for model in self.got.doubtful:
            there = {upload in known for upload in (model.train, *model.tests)}
            assert there | {self._is_there(model.fitted)} in ({True}, {False})
        assert set(self.got.fits) <= models
        assert self.got.deleted_fits.isdisjoint(models)
        assert not any(self._is_there(fitted) for fitted in self._some(self.got.deleted_fits, most))
        for upload, files in self.got.open_urls:
            if upload in self.got.uploads:
                self._put_files(files)
                self.got.complete.add(upload)
        self.got.open_urls.clear()
        for fitted in self._some(self.got.fits, most):
            wait_for(self.api, fitted, self.got.fits[fitted])
        self._put_again()
        for route, body, prediction in self.got.predictions[-2:]:
            self._predict(route, **body)
            assert self.got.predictions.pop()[-1] == prediction
        for job in self._some(self.got.jobs, most):
            assert self._ended(job)["status"] == "completed"
            if self.got.jobs[job] is not None:
                assert self._artifact(job) == self.got.jobs[job]

    def _some(self, things, most):
        """Return those that were never checked, and so many of the others."""
        new = sorted(set(things) - self.checked)
        old = sorted(set(things) & self.checked)
        self.checked.update(new)
        return new + self.rng.sample(old, min(most, len(old)))

    def summary(self):
        return self.api.http.get("/get_data_summary/").raise_for_status().json()

    def _is_there(self, fitted):
        answer = self.api.post("/tabpfn/get_fit_status", {"fitted_train_set_id": fitted})
        assert answer.status_code in {200, 404}
        return answer.status_code == 200


def fit_of(prediction):
    route, body, _ = prediction
    return body["json"]["fitted_train_set_id"] if route == "/tabpfn/predict" else None


def csv(frame):
    return frame.to_csv(index=False).encode()


def form(data, **tables):
    return {"data": (None, json.dumps(data)), **{name: (f"{name}.csv", csv(each)) for name, each in tables.items()}}


def wait_for(api, fitted, ending):
    body = {"fitted_train_set_id": fitted}
    until(lambda: api.post("/tabpfn/get_fit_status", body).raise_for_status().json(), ending)


def until(ask, ending):
    for _ in range(1200):
        status = ask()["status"]
        if status not in {"pending", "running"}:
            assert status == ending
            return
        time.sleep(0.05)
    raise AssertionError("it did not end")


def table(rng):
    frame = pd.DataFrame({name: [rng.random() for _ in range(30)] for name in "ab"})
    return frame, pd.DataFrame({"y": ["high" if value > 0.5 else "low" for value in frame["a"]]})


def no_fit_is_pending(control):
    return {"status": "pending" if any(fit["status"] == "pending" for fit in control.fits()) else "ended"}


def check_books(control, clients):
    """Every creation that a client was answered is in the books, once, and the sums are the sums of the rows."""
    # Fits that nobody was told of, too: those that fail are refunded then.
    until(lambda: no_fit_is_pending(control), "ended")
    creations, rows = control.creations(), control.journal()
    for client in clients:
        mine = [creation for creation in creations if creation["account"] == client.api.account]
        made = [made_by(each) for each in mine if each["kind"] != "predict_run" or "job_id" in each["ids"]]
        assert len(set(made)) == len(made)
        assert client.got.created <= set(made)
        charged = sum(creation["charge"] for creation in mine)
        # More than was answered, when a kill came between a commit and its answer.
        usage = client.api.http.post("/get_api_usage/").json()
        # Of the month, because a test may run over midnight.
        assert client.got.charged <= charged == usage["monthly_tokens_used"] <= client.got.asked
    totals = control.totals()
    assert totals["charge"] == sum(row["charge"] for row in rows) == sum(each["charge"] for each in creations)
    assert totals["creations"] == {
        kind: len([each for each in creations if each["kind"] == kind]) for kind in totals["creations"]
    }


def made_by(creation):
    ids = creation["ids"]
    if creation["kind"] == "upload_created":
        return next(iter(ids.values()))
    return ids["job_id"] if "job_id" in ids else ids["fitted_train_set_id"]


def check_bytes(server, clients):
    """On disk is what the accounts have uploaded, and nothing of what was deleted, or of nobody's."""
    known = {each["dataset_uid"]: each["complete"] for client in clients for each in client.summary()["datasets"]}
    kept = {path.name for path in (server.folder / "uploads").iterdir()}
    # An upload without a byte need not have a folder.
    assert {upload for upload, complete in known.items() if complete} <= kept <= set(known)


def test_nothing_is_lost_that_was_answered(server, helpers, pytestconfig):
    points = 50 if pytestconfig.getoption("--all") else 5
    seed = int(os.environ.get("KILL_SEED", random.SystemRandom().randrange(2**32)))
    print(f"KILL_SEED={seed} points={points}")
    clock = random.Random(seed)
    # A day's tokens are no limit here: points come by the dozen.
    running = server("--daily-tokens", str(10**9), "--monthly-tokens", str(10**9))
    clients = [Client(number, random.Random(seed + number + 1), running, helpers) for number in range(CLIENTS)]
    for _ in range(points):
        threads = [threading.Thread(target=client.run) for client in clients]
        for thread in threads:
            thread.start()
        time.sleep(clock.uniform(0.02, LATEST_KILL_SECONDS))
        running.process.kill()
        for thread in threads:
            thread.join()
        assert [client.problem for client in clients] == [None] * CLIENTS
        running.restart()
        for client in clients:
            client.check()
        check_books(running.control, clients)
        check_bytes(running, clients)
    for client in clients:
        client.check(most=sys.maxsize)
    assert any(client.got.created for client in clients)
