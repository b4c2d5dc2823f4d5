"""The Airflow test of docs/emulator.md passes as it is printed, with the fixtures of the pytest plugin."""

import pytest


@pytest.fixture
def migrated():
    from airflow.utils.db import initdb

    initdb()


def test_the_printed_test(migrated, run_printed_test):
    run_printed_test("Airflow")
