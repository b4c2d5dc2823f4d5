"""What a data engineer stumbled over: types behind categories and extensions, a misspelt task, storage that refuses."""

import errno
import os
import socket
import uuid

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tabpfn_operators.errors import ConfigurationError, InvalidInputError, StorageError
from tabpfn_operators.plan import plan_train_set
from tabpfn_operators.reading import Reading
from tabpfn_operators.server import ModelLimit
from tabpfn_operators.storage import filesystem


def planned(source, *, task="classification", **reading):
    return plan_train_set(Reading(source, **reading), "churn", task=task, features=None, exclude=(), limit=ModelLimit())


def test_a_column_of_uuids_is_refused_as_binary(tmp_path):
    ids = pa.array([uuid.UUID(int=i).bytes for i in range(20)], pa.uuid())
    path = tmp_path / "uuids.parquet"
    pq.write_table(pa.table({"age": range(20), "id": ids, "churn": ["no", "yes"] * 10}), path)

    assert planned(path).problems == ("column 'id' is binary; decode it or leave it out with exclude",)
    assert planned(path, filters=[("age", ">", 3)]).problems == planned(path).problems


def test_pandas_intervals_are_refused_before_anything_is_written():
    frame = pd.DataFrame({"age": range(20), "band": pd.cut(pd.Series(range(20)), 4), "churn": ["no", "yes"] * 10})

    (problem,) = planned(frame).problems

    assert "column 'band' is nested" in problem


def test_categories_of_text_and_pandas_periods_still_pass():
    days = pd.period_range("2026-01-01", periods=20, freq="D")
    frame = pd.DataFrame({"day": days, "plan": pd.Categorical(["a", "b"] * 10), "churn": ["no", "yes"] * 10})

    assert planned(frame).problems == ()


@pytest.mark.parametrize("task", ["clasification", "", "Regression"])
def test_a_misspelt_task_is_refused_before_the_source_is_opened(tmp_path, task):
    with pytest.raises(InvalidInputError, match="name classification or regression"):
        planned(tmp_path / "missing.parquet", task=task)


def test_storage_options_that_are_text_are_refused_without_showing_them():
    with pytest.raises(ConfigurationError, match="as a dict does; it is a str") as caught:
        filesystem("customers.parquet", "key=s3cr3t")

    assert "s3cr3t" not in str(caught.value)


def test_storage_that_refuses_to_connect_is_a_storage_error_without_the_password():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connecting is refused
        with pytest.raises(StorageError, match="could not be reached") as caught:
            filesystem(f"ftp://user:s3cr3t@127.0.0.1:{unused.getsockname()[1]}/x.parquet", None)

    assert "s3cr3t" not in str(caught.value)


def test_a_folder_below_that_cannot_be_listed_is_an_error_and_no_smaller_table(tmp_path, monkeypatch):
    below = tmp_path / "below"
    below.mkdir()
    table = pa.table({"age": range(20), "churn": ["no", "yes"] * 10})
    pq.write_table(table, tmp_path / "a.parquet")
    pq.write_table(table, below / "b.parquet")
    assert planned(tmp_path).rows == 40
    scandir = os.scandir

    def refusing(path="."):  # file modes do not stop root, who may run these tests
        if str(path).rstrip("/") == str(below):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)

    with pytest.raises(InvalidInputError, match="may not be listed"):
        planned(tmp_path)
