"""The backend `tabpfn`, against a FAKE of that package: the real one and its weights are not installed here.

The fake has the signatures of the real `TabPFNClassifier` and `TabPFNRegressor`, refuses other arguments, and answers
in the same types and shapes; what it predicts is made up.
"""

import subprocess
import sys
from contextlib import ExitStack

import numpy as np
import pandas as pd
import pytest

from tabpfn_emulator._envelopes import DataError
from tabpfn_emulator._learning.backend import fit_local
from tabpfn_emulator.testing import EmulatorControl, running_emulator

FAKE = '''
"""A fake of the package tabpfn, for tests."""

import numpy as np


class Tensor:
    def __init__(self, values):
        self._values = np.asarray(values)

    def detach(self):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return self._values


class Criterion:
    borders = Tensor(np.linspace(0.0, 10.0, 6))


class _Base:
    def __init__(self, *, n_estimators=8, softmax_temperature=0.9, average_before_softmax=False, random_state=0,
                 ignore_pretraining_limits=False):
        assert ignore_pretraining_limits
        self.n_estimators = n_estimators

    def fit(self, X, y):
        assert X.dtype == np.float32
        if len(X) == 3:
            raise RuntimeError("no weights in this folder")
        self.y = y
        return self


class TabPFNClassifier(_Base):
    def __init__(self, *, balance_probabilities=False, **options):
        super().__init__(**options)

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return super().fit(X, y)

    def predict_proba(self, X):
        shares = np.full((len(X), len(self.classes_)), 0.1)
        shares[:, 0] = 1 - shares[:, 1:].sum(axis=1)
        return shares


class TabPFNRegressor(_Base):
    def predict(self, X, *, output_type="mean", quantiles=None):
        assert all(isinstance(level, float) for level in quantiles)
        points = {"mean": 1.0, "median": 2.0, "mode": 3.0 + self.n_estimators}
        answer = {name: np.full(len(X), value, dtype=np.float32) for name, value in points.items()}
        answer["quantiles"] = [np.full(len(X), level) for level in quantiles]
        if output_type == "full":
            logits = np.log(np.tile([0.0, 0.25, 0.5, 0.25, 0.0], (len(X), 1)) + 1e-300)
            logits[:, [0, 4]] = -np.inf
            return {**answer, "criterion": Criterion(), "logits": Tensor(logits)}
        return answer if output_type == "main" else answer[output_type]
'''


@pytest.fixture(scope="module")
def with_fake_package(tmp_path_factory):
    """Base URL of an emulator that runs the fake package."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "tabpfn.py").write_text(FAKE)
    with ExitStack() as stack:
        # Only while this one starts: no other emulator may find the fake.
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(folder))
            url = stack.enter_context(running_emulator(extra_args=("--backend", "tabpfn")))
        yield url


@pytest.fixture
def fake_api(with_fake_package, helpers):
    api = helpers.api(with_fake_package)
    yield api
    api.close()


@pytest.fixture
def frame():
    return pd.DataFrame({"a": range(12), "city": ["Oslo", "Rome", None] * 4})


def test_the_fake_packages_probabilities_come_back_in_sorted_label_order(fake_api, frame):
    fitted = fake_api.fit(frame, pd.Series(["c", "b", "a"] * 4, name="y"), "classification", balance_probabilities=True)
    answer = fake_api.predict(fitted, frame.head(2), "classification").json()
    assert answer["metadata"]["classes"] == ["a", "b", "c"]
    assert np.array(answer["prediction"]) == pytest.approx(np.array([[0.8, 0.1, 0.1]] * 2))
    labels = fake_api.predict(fitted, frame.head(2), "classification", output_type="preds").json()["prediction"]
    assert labels == ["a", "a"]


def test_the_fake_packages_numbers_come_back_in_the_contracts_shapes(fake_api, frame):
    fitted = fake_api.fit(frame, pd.Series(range(12), name="y"), "regression", n_estimators=4)

    def predict(output_type, **more):
        return fake_api.predict(fitted, frame.head(2), "regression", output_type=output_type, **more).json()[
            "prediction"
        ]

    assert predict("mean") == [1.0, 1.0]
    assert predict("median") == [2.0, 2.0]
    assert predict("mode") == [7.0, 7.0]
    assert predict("quantiles", quantiles=[0, 0.5, 1]) == [[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]
    main = predict("main", quantiles=[0.5])
    assert main == {"mean": [1.0, 1.0], "median": [2.0, 2.0], "mode": [7.0, 7.0], "quantiles": [[0.5, 0.5]]}
    full = predict("full")
    assert full["borders"] == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert [len(row) for row in full["logits"]] == [5, 5]
    assert full["logits"][0][0] is None is full["logits"][0][4]
    assert np.exp([mass for mass in full["logits"][0] if mass is not None]).sum() == pytest.approx(1)


def test_what_the_fake_package_raises_ends_the_fit_with_its_text(fake_api, frame, helpers):
    target = pd.Series(range(3), name="y").to_frame()
    upload = fake_api.upload_train(helpers.parquet(frame.head(3)), helpers.parquet(target))
    # A 422, or a 200 with the failure in it once the answer has begun to be streamed.
    answer = fake_api.post("/tabpfn/fit", helpers.nested(upload, "regression")).json()
    assert "RuntimeError: no weights in this folder" in answer["message"]


def test_without_the_package_it_does_not_start():
    done = subprocess.run(
        [sys.executable, "-m", "tabpfn_emulator", "--backend", "tabpfn"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install tabpfn" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_package_the_setting_is_refused_and_nothing_changes(api, bare, control, frame):
    with pytest.raises(ValueError, match=r"pip install tabpfn$"):
        control.configure(backend="tabpfn", predict="constant")
    answer = bare.post(f"{control.url}/_emulator/config", json={"backend": "tabpfn"})
    assert (answer.status_code, answer.json()["error_code"]) == (422, "REQUEST_VALIDATION_ERROR")
    assert answer.json()["message"].endswith("pip install tabpfn")
    settings = bare.get(f"{control.url}/_emulator/config").json()
    assert (settings["backend"], settings["predict"]) == ("sklearn", "model")
    assert api.fit(frame, frame["a"].rename("y"), "regression")


def test_a_model_that_is_learnt_again_without_the_package_says_so():
    with pytest.raises(DataError, match="pip install tabpfn"):
        fit_local(np.zeros((3, 1), np.float32), np.arange(3.0), 0, {})


def test_with_the_package_the_setting_is_taken(with_fake_package, bare):
    control = EmulatorControl(with_fake_package)
    control.configure(backend="sklearn")
    control.configure(backend="tabpfn")
    assert bare.get(f"{with_fake_package}/_emulator/config").json()["backend"] == "tabpfn"


def test_constant_predictions_by_option(helpers, frame):
    with running_emulator(extra_args=("--predict", "constant", "--time-scale", "0.5")) as url:
        api = helpers.api(url)
        fitted = api.fit(frame, pd.Series([1.0, 3.0] * 6, name="y"), "regression")
        assert api.predict(fitted, frame.head(3), "regression").json()["prediction"] == [2.0, 2.0, 2.0]
        (row,) = EmulatorControl(url).fits(account=api.account)
        assert (row["train_rows"], row["sampled_rows"]) == (12, 0)
        api.close()


def test_constant_predictions_on_demand(api, control, frame):
    fitted = api.fit(frame, frame["a"].rename("y"), "regression")
    assert api.predict(fitted, frame, "regression").json()["prediction"] != [5.5] * 12
    control.configure(predict="constant")
    assert api.predict(fitted, frame, "regression").json()["prediction"] == [5.5] * 12
