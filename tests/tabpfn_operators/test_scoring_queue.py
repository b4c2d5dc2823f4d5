"""Which shard a worker does next."""

from tabpfn_operators.errors import QuotaExceededError
from tabpfn_operators.scoring._plan import Shard
from tabpfn_operators.scoring._queue import LOOK_SECONDS, Next, Queue

A, B, C = (Shard(index, index * 10, 10) for index in range(3))


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_shards_are_given_out_once_in_the_order_wanted():
    queue = Queue([C, A, B])
    assert [queue.next().shard for _ in range(4)] == [C, A, B, None]
    assert queue.next() == Next()


def test_what_others_have_is_looked_at_together_now_and_then():
    clock = Clock()
    queue = Queue([A, B], clock=clock)
    for shard in (queue.next().shard, queue.next().shard):
        queue.later(shard)
    assert queue.next() == Next(wait=LOOK_SECONDS)
    clock.now += LOOK_SECONDS
    assert queue.next() == Next(others=(A, B))
    assert queue.next() == Next(wait=LOOK_SECONDS)  # another worker asks while the first one looks
    queue.again(B)
    assert queue.next() == Next(B)
    clock.now += LOOK_SECONDS
    assert queue.next() == Next(others=(A,))


def test_own_work_goes_before_looking_at_others():
    clock = Clock()
    queue = Queue([A, B], clock=clock)
    queue.later(queue.next().shard)
    clock.now += 1_000
    assert queue.next() == Next(B)


def test_nothing_is_begun_after_an_error_that_concerns_all():
    queue = Queue([A, B])
    queue.next()
    first = QuotaExceededError("empty")
    queue.stop(first)
    queue.stop(QuotaExceededError("empty too"))
    assert queue.next() == Next()
    assert queue.error is first


def test_a_shard_that_fails_alone_leaves_the_others():
    queue = Queue([A, B])
    queue.fail(queue.next().shard, QuotaExceededError("only here"))
    assert queue.next() == Next(B)
    assert list(queue.failed) == [0]


def test_a_shard_that_is_free_again_is_given_out_once_however_many_have_looked():
    queue = Queue([A])
    queue.later(queue.next().shard)
    queue.freed(A)
    queue.freed(A)
    assert [queue.next().shard, queue.next()] == [A, Next()]
