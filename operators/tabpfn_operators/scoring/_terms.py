"""How a scoring is carried out; its results do not depend on it."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from tabpfn_operators.errors import ConfigurationError
from tabpfn_operators.pricing import check_max_cost
from tabpfn_operators.progress import ProgressCallback
from tabpfn_operators.reading import Compression
from tabpfn_operators.storage import StorageOptions

OnUnknown = Literal["resend", "raise"]
#: Predictions in flight where nobody says: the server's limit of calls per minute is reached with fewer.
CONCURRENCY = 4


@dataclass(frozen=True)
class Terms:
    """How a scoring is carried out; its results do not depend on it.

    Args:
        destination: fsspec URL or path of a folder.
        destination_options: fsspec options of the destination; used, never recorded.
        concurrency: Shards in flight.
        on_unknown: What is done with a shard of which nobody knows whether it was carried out.
        max_resends: Shards of the plan that may be sent again for that, over all workers and reruns.
        max_cost: The most tokens that what is left to do may cost; None asks nothing.
        recompress: Codec and level of rows that are written anew.
        checksum: As in `upload_test_set`.
        allow_unsafe_store: Take a destination on which two workers may both get a shard.
        progress: Called with rows scored, and with the steps of each shard.
    """

    destination: str = field(repr=False)
    destination_options: StorageOptions | None = field(repr=False)
    concurrency: int
    on_unknown: OnUnknown
    max_resends: int | None
    max_cost: int | None
    recompress: Compression | None
    checksum: bool | None
    allow_unsafe_store: bool
    progress: ProgressCallback = field(repr=False)

    def check(self) -> None:
        """Refuse terms that are none.

        Raises:
            ConfigurationError: The message names which.
        """
        check_max_cost(self.max_cost)
        if type(self.concurrency) is not int or self.concurrency < 1:
            raise ConfigurationError(f"concurrency is a whole number of at least 1, not {self.concurrency!r}.")
        if self.on_unknown not in get_args(OnUnknown):
            raise ConfigurationError(f"on_unknown is one of {', '.join(get_args(OnUnknown))}, not {self.on_unknown!r}.")
        if self.max_resends is not None and (type(self.max_resends) is not int or self.max_resends < 0):
            raise ConfigurationError(f"max_resends is a whole number, 0 or more; not {self.max_resends!r}.")

    @property
    def resends(self) -> int:
        """Shards that may be sent again: as many as one killed process can have had in flight."""
        return self.concurrency if self.max_resends is None else self.max_resends
