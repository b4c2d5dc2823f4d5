"""What a scoring has left in a bucket is found, also where it is the user's cache that says otherwise."""

import pytest

from tabpfn_operators.scoring import Earlier, find_earlier
from tabpfn_operators.scoring._ledger import Ledger
from tabpfn_operators.scoring._plan import Shard
from tabpfn_operators.storage import folder

PLANS = ("a" * 32, "b" * 32)


@pytest.fixture(params=[False, True])
def target(request, bucket, options):
    """A destination, also of a user who has turned a listings cache on."""
    return folder(f"{bucket}/scores/daily", {**options, "use_listings_cache": request.param})


def begin(target, plan_id, shards):
    ledger = Ledger(target, plan_id, "worker")
    ledger.enter()
    for index in range(shards):
        shard = Shard(index, index * 10, 10)
        ledger.look(shard)
        assert ledger.take(shard)
        assert ledger.send(shard)
        ledger.doubt(shard)
    ledger.leave()


def test_scorings_that_were_begun(target, bucket, options):
    assert find_earlier(target) == Earlier()
    another = folder(f"{bucket}/scores/daily", options)
    begin(another, PLANS[0], 0)  # it came and went
    assert find_earlier(target).empty
    begin(another, PLANS[0], 3)
    assert find_earlier(target).begun == {PLANS[0]: 3}
    begin(another, PLANS[1], 1)
    assert find_earlier(target).begun == dict(zip(PLANS, (3, 1), strict=True))


def test_single_files(target, bucket, options):
    fs = folder(bucket, options).fs
    fs.pipe_file(f"{target.path}/predictions.parquet", b"PAR1")
    fs.pipe_file(f"{target.path}/_manifest.json", b"{")
    found = find_earlier(target)
    assert (found.predictions, found.damaged, found.manifest, found.begun) == (True, True, None, {})
