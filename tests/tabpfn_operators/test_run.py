"""A flow over a sync wire runs in one step."""

import anyio
import pytest

from tabpfn_operators._run import run


def test_a_flow_runs_in_one_step():
    async def flow():
        return 5

    assert run(flow()) == 5


def test_a_flows_error_comes_out_as_it_is():
    async def flow():
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        run(flow())


def test_a_flow_that_waits_for_something_else_is_a_bug():
    closed = []

    async def flow():
        try:
            await anyio.lowlevel.checkpoint()
        finally:
            closed.append(True)

    async def start():
        with pytest.raises(RuntimeError, match="suspended"):
            run(flow())

    anyio.run(start)
    assert closed == [True]
