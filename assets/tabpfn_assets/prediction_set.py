"""The record beside a set of predictions."""

from typing import Literal, Self

from pydantic import Field

from tabpfn_assets._record import Record, UtcTime
from tabpfn_assets._redact import redact_name
from tabpfn_assets.fitted_model import FittedModel
from tabpfn_assets.names import PublicUrl
from tabpfn_assets.run import EngineRun
from tabpfn_assets.sets import SourceRef

_PROBABILITY = "probability_"


def redact_columns(columns: tuple[str, ...], *, keep: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return columns of predictions with the class labels in their names hashed, and the names of kept columns.

    Args:
        columns: Column names.
        keep: Those that were kept of the source.
    """
    return tuple(
        redact_name(name)
        if name in keep
        else _PROBABILITY + redact_name(name.removeprefix(_PROBABILITY))
        if name.startswith(_PROBABILITY)
        else name
        for name in columns
    )


class PredictionSet(Record):
    """Predictions on storage: where they are, what made them, from what.

    It is written as `_lineage.json` beside the predictions, last, so that a folder without it is unfinished.

    Args:
        uri: Where the predictions are: a file, or the folder of a scoring's part files.
        lineage_uri: Where this record is.
        rows: Rows predicted, in the order of the source.
        columns: Columns of the predictions.
        output_type: What was asked for, for instance `probas` or `quantiles`.
        quantiles: Quantiles asked for, in (0, 1).
        source: Where the scored rows came from.
        test_set_upload_id: The upload that was predicted; None for a scoring, whose manifest has one for each shard.
        model: The model that predicted.
        metadata: What the server said about the call (contract 5): billing version, execution mode, cache outcome.
        timings: Seconds by stage, as the server reported them.
        estimated_cost: Estimated tokens of the call (credits where the server's pricing is an old one); None where
            nobody asked.
        charged: Tokens that the call cost; None where it is not known, because nobody asked or because others used the
            account at the same time.
        plan_id: The scoring that made it; None for a single prediction.
        manifest_uri: Where the scoring's manifest is: part files, their hashes, charges and resends.
        shards: Predictions that the rows were cut into.
        resends: Predictions that were sent again, because nobody knew what came of an earlier sending or its files were
            gone: possibly charged twice.
        run: The engine run that made it.
        packages: Versions of the packages that took part.
        created_at: When it was written (UTC).
    """

    schema_version: Literal[1] = 1
    uri: PublicUrl
    lineage_uri: PublicUrl
    rows: int = Field(ge=1)
    columns: tuple[str, ...]
    output_type: str
    quantiles: tuple[float, ...] | None = None
    source: SourceRef
    test_set_upload_id: str | None = None
    model: FittedModel
    metadata: dict[str, object] = {}
    timings: dict[str, float | None] = {}
    estimated_cost: int | None = None
    charged: int | None = Field(default=None, ge=0)
    plan_id: str | None = None
    manifest_uri: PublicUrl | None = None
    shards: int = Field(default=1, ge=1)
    resends: int = Field(default=0, ge=0)
    run: EngineRun | None = None
    packages: dict[str, str] = {}
    created_at: UtcTime

    def redacted(self) -> Self:
        """Return the record with column names and class labels hashed."""
        if self.model.redacted_fields:
            return self
        columns = redact_columns(self.columns)
        metadata = {key: value for key, value in self.metadata.items() if key != "classes"}
        return self.model_copy(update={"model": self.model.redacted(), "columns": columns, "metadata": metadata})
