"""What batch scoring refuses before anything is billed, and what of another's work it leaves alone."""

import errno

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tabpfn_assets import FitParameters, ScoringManifest
from tabpfn_operators import Client
from tabpfn_operators.errors import (
    ConfigurationError,
    CostExceededError,
    DestinationBusyError,
    DestinationError,
    FittedModelNotFoundError,
    InvalidInputError,
    LimitExceededError,
    OutcomeUnknownError,
    StoreNotExclusiveError,
)
from tabpfn_operators.scoring._ledger import Ledger
from tabpfn_operators.storage import folder

PREDICT = "/tabpfn/predict"
UPLOAD = "/tabpfn/prepare_test_set_upload"


@pytest.fixture
def client(emulator, bearer):
    """One kind of client, for time; those of arguments have both."""
    with Client(bearer, base_url=emulator) as client:
        yield client


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def nothing_sent(journal):
    yield
    assert journal.posts(PREDICT) == journal.posts(UPLOAD) == 0


def parts(out):
    return sorted(path.name for path in out.glob("part-*"))


# Columns


def test_all_that_is_wrong_with_the_columns_is_one_error(client, fit_once, classification, write, out, nothing_sent):
    source = write(
        {
            "x": ["not", "a", "number"],
            "name": [1, 2, 3],
            "more": [1, 2, 3],
            "prediction": [1, 2, 3],
            "span": pa.array([1, 2, 3], pa.int8()),
        }
    )
    with pytest.raises(InvalidInputError) as caught:
        client.score(fit_once(classification), source, str(out), keep=["name", "name", "gone", "prediction"])
    text = str(caught.value)
    assert source in text
    for told in (
        "feature 'other' of the model is missing",
        "feature 'x' is string, the model was fitted with double; cast it",
        "column 'gone' is to be kept and is not there",
        "column 'name' is to be kept twice",
        "column 'prediction' is to be kept and named as a column of predictions is; rename it",
        "the model does not know 'more', 'span'; keep such columns beside the predictions, or allow extra ones",
    ):
        assert told in text
    assert not out.exists()


def test_a_feature_that_is_nested_is_named_beside_one_that_is_missing(
    client, fit_once, classification, write, out, nothing_sent
):
    source = write({"x": pa.array([[1.0]] * 3)})
    with pytest.raises(InvalidInputError, match=r"(?s)'x' is nested.*'other' of the model is missing"):
        client.score(fit_once(classification), source, str(out))


def test_a_kept_column_that_parquet_cannot_hold(client, fit_once, classification, out, nothing_sent):
    table = pq.read_table(classification.score)
    span = pa.array([(1, 2, 3)] * 25, pa.month_day_nano_interval())
    with pytest.raises(InvalidInputError, match=r"'span' is to be kept and is month_day.*cast it"):
        client.score(fit_once(classification), table.append_column("span", span), str(out), keep=["span"])


def test_extra_columns_are_let_in_and_stay_at_home(client, fit_once, classification, write, out, uploaded):
    table = pq.read_table(classification.score)
    source = write(table.append_column("more", pa.array(["secret"] * 25)), "more.parquet")
    model = fit_once(classification)
    client.score(model, source, str(out), allow_extra=True)
    manifest = ScoringManifest.model_validate_json((out / "_manifest.json").read_bytes())
    assert uploaded(manifest.shards[0].test_set_upload_id, "x_test").equals(table)
    assert "more" not in pq.read_table(out).column_names


def test_the_target_may_be_there(client, fit_once, classification, write, out):
    table = pq.read_table(classification.score)
    source = write(table.append_column("outcome", pa.array(["yes"] * 25)), "labelled.parquet")
    record = client.score(fit_once(classification), source, str(out), keep=["outcome"])
    assert record.columns[0] == "outcome"


# Arguments


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"output_type": "probas"}, InvalidInputError, "'probas' is not one of mean, median"),
        ({"output_type": "quantiles", "quantiles": (1.5,)}, InvalidInputError, "between 0 and 1"),
        ({"keep": "other"}, InvalidInputError, r"a list of column names, not one text; pass \['other'\]"),
        ({"rows_per_shard": 0}, InvalidInputError, "rows_per_shard is a whole number of at least 1, not 0"),
        ({"rows_per_shard": True}, InvalidInputError, "rows_per_shard is a whole number"),
        ({"concurrency": 0}, ConfigurationError, "concurrency is a whole number of at least 1, not 0"),
        ({"concurrency": 2.5}, ConfigurationError, "concurrency is a whole number"),
        ({"on_unknown": "ignore"}, ConfigurationError, "on_unknown is one of resend, raise, not 'ignore'"),
        ({"max_resends": -1}, ConfigurationError, "max_resends is a whole number, 0 or more; not -1"),
        ({"max_cost": -1}, ConfigurationError, "max_cost is a whole number of tokens"),
    ],
)
def test_arguments(connect, fit_once, regression, out, nothing_sent, options, kind, text):
    with pytest.raises(kind, match=text):
        connect().score(fit_once(regression), regression.score, str(out), **options)
    assert not out.exists()


def test_a_pending_model(client, classification, out, control, nothing_sent):
    control.configure(fit_seconds=0.5)
    train_set = client.upload_train_set(classification.train, "outcome", task="classification")
    pending = client.submit_fit_job(train_set, parameters=classification.parameters)
    with pytest.raises(InvalidInputError, match=f"{pending.fitted_train_set_id} is pending; wait for it before"):
        client.score(pending, classification.score, str(out))


def test_a_model_of_another_account(fit_once, connect, classification, out, journal):
    model = fit_once(classification)
    with pytest.raises(FittedModelNotFoundError, match="another account"):
        connect("somebody-else").score(model, classification.score, str(out), rows_per_shard=10)
    assert journal.posts(PREDICT) == 0
    assert not (out / "_manifest.json").exists()


def test_a_redacted_record(client, fit_once, classification, out, nothing_sent):
    with pytest.raises(InvalidInputError, match="redacted"):
        client.score(fit_once(classification).redacted(), classification.score, str(out))


def test_no_rows(client, fit_once, regression, out, nothing_sent):
    model = fit_once(regression)
    with pytest.raises(InvalidInputError, match="holds no rows"):
        client.score(model, pq.read_table(regression.score).slice(0, 0), str(out))
    with pytest.raises(InvalidInputError, match="no rows"):
        client.score(model, regression.score, str(out), filters=[("other", "=", 77)])


def test_a_model_of_which_the_server_takes_no_row(client, fit_once, regression, out, control, nothing_sent):
    model = fit_once(regression)
    control.configure(limits={"predict_row_pairs_budget": 10})
    with pytest.raises(LimitExceededError):
        client.score(model, regression.score, str(out))


@pytest.mark.parametrize(
    ("limit", "output_type"),
    [("test_set_max_rows", "mean"), ("test_set_max_rows_w_full_regression_output", "full")],
)
def test_the_servers_limits_cut(client, fit_once, regression, out, control, limit, output_type):
    model = fit_once(regression)
    control.configure(limits={limit: 6})
    record = client.score(model, regression.score, str(out), rows_per_shard=20, output_type=output_type)
    assert record.shards == 5
    assert pq.read_table(out).num_rows == 25


# Cost


def test_more_than_is_allowed(client, fit_once, regression, out, nothing_sent):
    model = fit_once(regression)
    plan = client.plan_score(model, regression.score, rows_per_shard=10)
    with pytest.raises(CostExceededError) as caught:
        client.score(model, regression.score, str(out), rows_per_shard=10, max_cost=plan.estimated_cost - 1)
    assert (caught.value.estimated_cost, caught.value.allowed) == (plan.estimated_cost, plan.estimated_cost - 1)
    assert parts(out) == []


def test_more_than_is_left(client, fit_once, regression, out, control, nothing_sent):
    model = fit_once(regression)
    control.configure(daily_tokens=20_000)
    with pytest.raises(CostExceededError, match="daily pool has 20,000 left"):
        client.score(model, regression.score, str(out), rows_per_shard=10, max_cost=10**6)


def test_only_what_is_left_to_do_is_priced(client, fit_once, regression, out):
    model = fit_once(regression)
    cost = client.plan_score(model, regression.score, rows_per_shard=10).estimated_cost
    client.score_shards(model, regression.score, str(out), [0], rows_per_shard=10)
    record = client.score(model, regression.score, str(out), rows_per_shard=10, max_cost=cost * 2 // 3)
    assert (record.shards, record.estimated_cost, record.charged) == (3, cost, None)


def test_a_price_that_nobody_tells(client, fit_once, regression, out, control, nothing_sent):
    model = fit_once(regression)
    control.inject(kind="status", status=404, route="/tabpfn/estimate_cost", times=None)
    with pytest.raises(ConfigurationError, match="does not tell prices"):
        client.score(model, regression.score, str(out), max_cost=10**6)


# Destinations


def test_a_store_that_cannot_keep_two_apart(client, fit_once, regression, tmp_path, journal):
    model = fit_once(regression)
    (tmp_path / "store").mkdir()
    unsafe = {"path": str(tmp_path / "store"), "target_protocol": "file"}
    with pytest.raises(StoreNotExclusiveError, match="allow_unsafe_store"):
        client.score(model, regression.score, "dir://out", destination_options=unsafe)
    assert journal.posts(UPLOAD) == 0
    client.score(model, regression.score, "dir://out", destination_options=unsafe, allow_unsafe_store=True)
    assert pq.read_table(tmp_path / "store" / "out").num_rows == 25


def test_a_store_in_memory(client, fit_once, regression, bearer):
    record = client.score(fit_once(regression), regression.score, f"memory://{bearer}/out", rows_per_shard=10)
    assert (record.uri, record.shards) == (f"memory://{bearer}/out", 3)


def test_a_destination_that_cannot_be_written_to(client, fit_once, regression, tmp_path, nothing_sent):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DestinationError, match="cannot be written to"):
        client.score(fit_once(regression), regression.score, str(tmp_path / "file" / "out"))


def test_predictions_of_one_call_and_a_scoring_do_not_mix(client, fit_once, regression, out, tmp_path):
    model, single = fit_once(regression), tmp_path / "single"
    client.predict(model, regression.score, str(single))
    with pytest.raises(DestinationError, match=r"holds the predictions of a single call \(predictions.parquet\)"):
        client.score(model, regression.score, str(single))
    client.score(model, regression.score, str(out))
    kept = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    with pytest.raises(DestinationError, match="holds a batch scoring"):
        client.predict(model, regression.score, str(out))
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == kept


def test_another_scoring_at_work_is_left_alone(client, fit_once, regression, out, nothing_sent):
    other = Ledger(folder(str(out), None), "f" * 32, "another worker")
    other.enter()
    try:
        with pytest.raises(DestinationBusyError, match="f" * 32):
            client.score(fit_once(regression), regression.score, str(out))
    finally:
        other.leave()
    assert not (out / "_manifest.json").exists()


def test_another_scorings_predictions_stay_until_this_one_is_complete(client, fit_once, regression, out, control):
    model = fit_once(regression)
    first = client.score(model, regression.score, str(out), rows_per_shard=10)
    (out / "notes.txt").write_text("mine")
    (out / "part-of-mine.parquet").write_text("mine")
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.is_file()}
    control.inject(kind="status", status=500, route=PREDICT, nth=2)
    options = {"rows_per_shard": 10, "output_type": "median", "concurrency": 1, "on_unknown": "raise"}
    with pytest.raises(OutcomeUnknownError, match=r"2 of 3 shards are done and kept"):
        client.score(model, regression.score, str(out), **options)
    now = {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.is_file()}
    assert {name: now[name] for name in before} == before
    second = client.score(model, regression.score, str(out), **{**options, "on_unknown": "resend"})
    assert second.plan_id != first.plan_id
    manifest = ScoringManifest.model_validate_json((out / "_manifest.json").read_bytes())
    named = {shard.files[0].name for shard in manifest.shards}
    assert {path.name for path in out.iterdir()} == {
        *named,
        "_claims",
        "_lineage.json",
        "_manifest.json",
        "notes.txt",
        "part-of-mine.parquet",
    }
    assert not (out / "_claims" / first.plan_id).exists()


@pytest.fixture
def away(monkeypatch):
    """Let the disk fail as often as asked when a part is moved to its place: `away(3)`."""
    from fsspec.implementations.local import LocalFileSystem

    from tabpfn_operators.scoring import _shard

    left = []
    move = LocalFileSystem.mv

    def shaky(self, path1, path2, **options):
        if "/part-" in path2 and left:
            raise OSError(left.pop(), "away")
        return move(self, path1, path2, **options)

    monkeypatch.setattr(LocalFileSystem, "mv", shaky)
    monkeypatch.setattr(_shard, "_PUT_AGAIN", (0.01, 0.01, 0.01))
    return lambda times, code=errno.EIO: left.extend([code] * times)


def test_a_part_that_cannot_be_put_is_put_again(client, fit_once, regression, out, away, journal):
    model = fit_once(regression)
    away(3)
    client.score(model, regression.score, str(out), rows_per_shard=10, concurrency=1)
    assert journal.posts(PREDICT) == 3
    assert pq.read_table(out).num_rows == 25
    assert list(out.glob("*.tmp")) == []


def test_a_destination_that_refuses_what_was_paid_for_is_not_paid_for_again_and_again(
    client, fit_once, regression, out, away, journal
):
    model = fit_once(regression)
    away(1, errno.EACCES)
    with pytest.raises(OutcomeUnknownError, match=r"probably charged.*cannot be written to.*0 of 3 shards are done"):
        client.score(model, regression.score, str(out), rows_per_shard=10, concurrency=1)
    assert journal.posts(PREDICT) == 1
    record = client.score(model, regression.score, str(out), rows_per_shard=10, concurrency=1)
    assert (record.resends, journal.posts(PREDICT)) == (1, 4)


def test_labels_of_a_class_that_would_be_a_kept_columns_name(client, write, out, nothing_sent):
    source = write({"x": [0.0, 1.0] * 10, "label": ["a", "b"] * 10})
    model = client.fit(source, "label", parameters=FitParameters(task="classification"), streamed=True)
    rows = write({"x": [0.0, 1.0], "probability_a": [1, 2]}, "rows.parquet")
    with pytest.raises(InvalidInputError, match="'probability_a' is to be kept and named as"):
        client.score(model, rows, str(out), keep=["probability_a"])
