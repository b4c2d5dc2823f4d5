"""What a batch scoring has done: its shards, their files, and the manifest that closes it."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tabpfn_assets._record import Record, UtcTime
from tabpfn_assets.scoring_plan import ScoringPlan


def _inside(path: str) -> str:
    if any(part in {"", ".", ".."} for part in path.split("/")) or "\\" in path or "\0" in path:
        raise ValueError("a part file is named by a path inside the destination")
    return path


class PartFile(Record):
    """One file of predictions.

    Args:
        name: Path relative to the destination; it never leads out of it.
        rows: Rows in it.
        size_bytes: Size in bytes.
        sha256: SHA-256 of its content, in hex.
    """

    name: Annotated[str, AfterValidator(_inside)]
    rows: int = Field(ge=1)
    size_bytes: int = Field(ge=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class ScoredShard(Record):
    """One prediction of a scoring, done and on storage.

    Args:
        index: Which shard it is, counted from 0.
        start: Its first row, counted from 0 through the whole source.
        rows: Rows predicted.
        files: Where they are; more than one where the destination is partitioned.
        test_set_upload_id: The upload that was predicted.
        estimated_cost: Estimated tokens of one sending (credits where the server's pricing is an old one); None where
            nobody asked.
        resends: Sendings before this one whose outcome nobody knows, or whose files are gone: each was possibly charged
            as well.
        timings: Seconds by stage, as the server reported them.
        metadata: What the server said about the call (contract 5).
        scored_at: When its files were complete (UTC).
    """

    index: int = Field(ge=0)
    start: int = Field(ge=0)
    rows: int = Field(ge=1)
    files: tuple[PartFile, ...] = Field(min_length=1)
    test_set_upload_id: str
    estimated_cost: int | None = None
    resends: int = Field(default=0, ge=0)
    timings: dict[str, float | None] = {}
    metadata: dict[str, object] = {}
    scored_at: UtcTime


class Resend(Record):
    """A prediction that was sent again: nobody knows what came of an earlier sending, or its files are gone.

    Args:
        shard: Which shard it is, counted from 0.
        estimated_cost: Tokens that were possibly charged twice; None where nobody asked for an estimate.
    """

    shard: int = Field(ge=0)
    estimated_cost: int | None = None


class ScoringManifest(Record):
    """All that a batch scoring has written.

    It is written as `_manifest.json` beside the part files when all of them are there: a folder without it, or with
    that of another plan, is unfinished.

    Args:
        plan: What was to be done.
        columns: Columns of the predictions.
        shards: Every shard, in order.
        rows: Rows predicted.
        estimated_cost: Estimated tokens of all shards, without what was sent again (credits where the server's pricing
            is an old one); None where it is not known of each.
        charged: Tokens that it cost; None where it is not known, because nobody asked or because others used the
            account at the same time.
        resends: What was possibly charged twice, once for each sending.
        started_at: When the first worker began (UTC).
        finished_at: When the last shard was done (UTC).
    """

    schema_version: Literal[1] = 1
    plan: ScoringPlan
    columns: tuple[str, ...]
    shards: tuple[ScoredShard, ...]
    rows: int = Field(ge=1)
    estimated_cost: int | None = None
    charged: int | None = Field(default=None, ge=0)
    resends: tuple[Resend, ...] = ()
    started_at: UtcTime
    finished_at: UtcTime
