"""The trigger alone: what it stores, and that it outlives outages and triggerers."""

import asyncio
import json
import time
from pkgutil import resolve_name

import pytest
from airflow.sdk.serde import deserialize, serialize
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_tabpfn.operators.fit import TabPFNFitOperator
from airflow_provider_tabpfn.triggers.fit import FitEvent, TabPFNFitTrigger
from tabpfn_assets import JobRecord

CLASSPATH = "airflow_provider_tabpfn.triggers.fit.TabPFNFitTrigger"


def job(fitted_id, *, seconds=60.0):
    now = time.time()
    record = JobRecord(
        kind="tabpfn_async", phase="submitted", job_id=fitted_id, submitted_at=now, deadline_at=now + seconds
    )
    return record.model_dump(mode="json")


def fire(trigger):
    async def collect():
        return [event.payload async for event in trigger.run()]

    (payload,) = asyncio.run(collect())
    assert json.loads(json.dumps(payload)) == payload
    return payload


@pytest.fixture
def pending(tables, connection, control, context):
    """The id of a fit that takes half a second."""
    control.configure(fit_seconds=0.5)
    fit = TabPFNFitOperator(
        task_id="fit",
        source=tables.train,
        target="label",
        task="classification",
        wait_for_completion=False,
    )
    return fit.execute(context)["fitted_train_set_id"]


@given(st.text(), st.floats(allow_nan=False, allow_infinity=False), st.text(min_size=1))
def test_it_survives_storage(conn_id, deadline, fitted_id):
    record = JobRecord(kind="tabpfn_async", phase="submitted", job_id=fitted_id, deadline_at=deadline)
    path, kwargs = TabPFNFitTrigger(conn_id, record.model_dump(mode="json")).serialize()
    assert path == CLASSPATH
    stored = deserialize(json.loads(json.dumps(serialize(kwargs))))
    again = resolve_name(path)(**stored)
    assert again.serialize() == (path, kwargs)
    assert JobRecord.model_validate(again.job) == record


def test_it_looks_until_the_fit_is_over(pending, control):
    payload = fire(TabPFNFitTrigger("tabpfn_default", job(pending)))
    event = FitEvent.parse(payload, fitted_train_set_id=pending)
    assert (event.status, event.look.status, event.error) == ("completed", "completed", None)
    assert len(control.journal(route="/tabpfn/get_fit_status")) >= 2


def test_it_may_run_twice(pending):
    first, second = (fire(TabPFNFitTrigger("tabpfn_default", job(pending))) for _ in range(2))
    assert first == second


def test_an_outage_is_no_news_about_the_fit(pending, control):
    control.inject({"kind": "status", "status": 503, "route": "/tabpfn/get_fit_status", "times": 3})
    assert fire(TabPFNFitTrigger("tabpfn_default", job(pending)))["status"] == "completed"


def test_a_server_that_is_gone_ends_at_the_deadline(connect):
    connect(host="http://127.0.0.1:9")
    payload = fire(TabPFNFitTrigger("tabpfn_default", job("fit-1", seconds=0.5)))
    assert (payload["status"], payload["terminal"]) == ("failed", True)
    assert "FitTimeoutError" in payload["error"]


def test_an_unknown_fit_is_a_terminal_failure(connection, control):
    payload = fire(TabPFNFitTrigger("tabpfn_default", job("7f9c1a52-0000-4000-8000-000000000000")))
    assert (payload["status"], payload["terminal"], payload["look"]) == ("failed", True, None)
    assert "NotFound" in payload["error"]


def test_a_connection_without_a_usable_key_is_a_terminal_failure(connect):
    connect(password="   ")
    payload = fire(TabPFNFitTrigger("tabpfn_default", job("fit-1")))
    assert (payload["status"], payload["terminal"]) == ("failed", True)
    assert "ConfigurationError" in payload["error"]


def test_the_key_is_scrubbed_from_errors(connection, control, pending, token):
    leak = {"detail": f"Bearer {token} is not welcome"}
    control.inject({"kind": "status", "status": 403, "body": leak, "route": "/tabpfn/get_fit_status", "times": None})
    payload = fire(TabPFNFitTrigger("tabpfn_default", job(pending)))
    assert "not welcome" in payload["error"]
    assert token not in json.dumps(payload)


def test_a_killed_task_is_told_that_the_fit_goes_on(capsys):
    asyncio.run(TabPFNFitTrigger("tabpfn_default", job("fit-1")).on_kill())
    assert "fit-1 goes on at the server" in capsys.readouterr().out


def test_many_wait_in_one_loop(pending):
    async def all_of_them():
        triggers = [TabPFNFitTrigger("tabpfn_default", job(pending)) for _ in range(8)]

        async def one(trigger):
            return [event.payload async for event in trigger.run()]

        return await asyncio.gather(*map(one, triggers))

    events = asyncio.run(all_of_them())
    assert [len(fired) for fired in events] == [1] * 8
    assert {fired[0]["status"] for fired in events} == {"completed"}
