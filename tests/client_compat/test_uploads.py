"""What reaches the storage: equal data once, many parts, broken PUTs; and predictions that come from there."""

import pytest

PREPARE_TRAIN = "/tabpfn/prepare_train_set_upload"
PREPARE_TEST = "/tabpfn/prepare_test_set_upload"


def test_equal_data_is_uploaded_once(fit, posts):
    fit()
    fit()
    assert posts(PREPARE_TRAIN) == [200, 409]
    assert posts("/storage") == [200, 200]


def test_predict_and_predict_proba_share_an_upload(fit, few, posts):
    model = fit()
    model.predict(few[1])
    model.predict_proba(few[1])
    assert posts(PREPARE_TEST) == [200, 409]
    assert posts("/storage") == [200] * 3


def test_other_data_is_uploaded(client, few, fit, posts):
    fit()
    client.TabPFNClassifier().fit(few[0] + 1, few[2])
    assert posts(PREPARE_TRAIN) == [200, 200]
    assert posts("/storage") == [200] * 4


@pytest.mark.parametrize(
    ("option", "value"), [("TABPFN_CLIENT_DEDUP_DATASETS", False), ("TABPFN_CLIENT_FORCE_REUPLOAD", True)]
)
def test_equal_data_is_uploaded_again_on_demand(client_option, fit, posts, option, value):
    client_option(option, value)
    fit()
    fit()
    assert posts(PREPARE_TRAIN) == [200, 200]
    assert posts("/storage") == [200] * 4


@pytest.mark.parametrize("parts", [3, 20])
def test_uploads_in_many_parts(control, fit, few, posts, parts):
    control.configure(upload_parts=parts)
    assert fit().predict(few[1]).shape == (len(few[1]),)
    assert posts("/storage") == [200] * 3 * parts


def test_large_files_are_cut_by_the_server(control, fit, few, posts):
    control.configure(chunk_above_bytes=500)
    assert fit().predict(few[1]).shape == (len(few[1]),)
    assert len(posts("/storage")) > 6


@pytest.mark.parametrize("storage", ["gcs", "s3"])
@pytest.mark.parametrize("parts", [1, 2])
def test_either_kind_of_storage_is_served(control, fit, few, posts, storage, parts):
    control.configure(storage=storage, upload_parts=parts)
    assert fit().predict(few[1]).shape == (len(few[1]),)
    assert posts("/storage") == [200] * 3 * parts


def test_the_books_show_that_this_client_sends_its_token_to_the_storage(control, fit, account):
    fit()
    assert [row["bearer"] for row in control.journal(route="/storage", account=account)] == [True, True]


def test_parts_are_joined_in_their_order(client, control, diabetes):
    train, test, y_train, _ = diabetes
    whole = client.TabPFNRegressor().fit(train, y_train).predict(test)
    client.UserDataClient.delete_all_datasets()
    control.configure(upload_parts=7)
    assert (client.TabPFNRegressor().fit(train, y_train).predict(test) == whole).all()


@pytest.mark.parametrize(
    "status",
    [
        503,
        pytest.param(408, marks=pytest.mark.needs("a repeated PUT after 408 or 429")),
        pytest.param(429, marks=pytest.mark.needs("a repeated PUT after 408 or 429")),
    ],
)
def test_a_put_is_repeated(control, fit, few, status):
    model = fit()
    mark = len(control.journal())
    control.inject({"route": "/storage", "method": "PUT", "kind": "status", "status": status})
    assert model.predict(few[1]).shape == (len(few[1]),)
    rows = control.journal(route="/storage", after=mark)
    assert [(row["method"], row["status"]) for row in rows] == [("PUT", status), ("PUT", 200)]


def test_an_expired_url_is_told(control, fit):
    control.configure(url_ttl_secs=-1.0)
    with pytest.raises(RuntimeError, match="upload permanently failed"):
        fit()


@pytest.mark.needs("prediction_uri")
def test_a_prediction_behind_a_url_is_followed_without_the_bearer(control, fit, few):
    model = fit()
    inline = model.predict(few[1])
    control.inject({"kind": "prediction_uri"})
    mark = len(control.journal())
    assert (model.predict(few[1]) == inline).all()
    (row,) = control.journal(route="/storage", after=mark)
    assert (row["method"], row["bearer"]) == ("GET", False)


@pytest.mark.needs("prediction_uri")
def test_a_full_output_behind_a_url_is_followed(client, control, diabetes):
    train, test, y_train, _ = diabetes
    model = client.TabPFNRegressor().fit(train, y_train)
    inline = model.predict(test, output_type="full")
    control.inject({"kind": "prediction_uri"})
    behind = model.predict(test, output_type="full")
    assert set(behind) == set(inline)
    assert all((behind[name] == inline[name]).all() for name in inline)
