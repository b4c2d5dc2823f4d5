"""Turns: everybody gets one, in order, a few in each pass of the event loop."""

import asyncio

from tabpfn_emulator._turns import PER_PASS, Turns


def test_in_order_a_few_at_a_time_and_over_those_who_have_left():
    async def run():
        turns, passes, done = Turns(), 0, []

        async def one(number):
            await turns.wait()
            done.append((number, passes))

        tasks = [asyncio.create_task(one(number)) for number in range(9)]
        await asyncio.sleep(0)
        tasks[5].cancel()
        while not all(task.done() for task in tasks):
            passes += 1
            await asyncio.sleep(0)
        return done

    done = asyncio.run(run())
    assert [number for number, _ in done] == [0, 1, 2, 3, 4, 6, 7, 8]
    moments = [moment for _, moment in done]
    assert max(moments.count(moment) for moment in moments) == PER_PASS


def test_it_begins_anew_after_a_rest():
    async def run():
        turns = Turns()
        for _ in range(3):
            async with asyncio.timeout(10):
                await turns.wait()
            await asyncio.sleep(0.01)

    asyncio.run(run())
