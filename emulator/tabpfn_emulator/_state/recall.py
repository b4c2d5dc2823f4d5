"""Fitted models: the recent ones in memory, any other learnt again from its train set when it is needed.

Learning is deterministic, so a model that was forgotten, or learnt before a restart, comes back the same.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from tabpfn_emulator._state.records import Fit, Upload

if TYPE_CHECKING:
    from tabpfn_emulator._learning.model import Learned

KEPT_MODELS: Final = 32
"""Models of a kind that stay in memory."""

ModelT = TypeVar("ModelT")


class Models(Generic[ModelT]):
    """Models of one kind, by the id of what they were learnt for."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, ModelT] = OrderedDict()
        self._learning: dict[str, asyncio.Future[ModelT]] = {}

    async def of(self, key: str, learn: Callable[[], Awaitable[ModelT]]) -> ModelT:
        """Return a model, learning it when it is not in memory.

        Args:
            key: Its id.
            learn: Learns it; what it raises, this raises.
        """
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if key not in self._learning:
            self._learning[key] = asyncio.ensure_future(learn())
            self._learning[key].add_done_callback(lambda done: self._learnt(key, done))
        # Several callers may wait for one model: the end of one of them must not end the learning.
        return await asyncio.shield(self._learning[key])

    def _learnt(self, key: str, done: "asyncio.Future[ModelT]") -> None:
        del self._learning[key]
        if not done.cancelled() and done.exception() is None:
            self.keep(key, done.result())

    def keep(self, key: str, model: ModelT) -> None:
        """Keep a model that was just learnt."""
        self._kept[key] = model
        if len(self._kept) > KEPT_MODELS:
            self._kept.popitem(last=False)


def learn(fit: Fit, upload: Upload) -> "Learned":
    """Return the model of a fit; call it in a worker thread.

    Args:
        fit: A fit.
        upload: Its train set, complete.

    Raises:
        DataError: When the data cannot be fitted, or is larger than the limits of the fit.
        OSError: When the train set is gone.
    """
    # Imported in the worker thread: scikit-learn and pandas take seconds, which the server's start does not wait for.
    from tabpfn_emulator._learning.worker import run_fit

    paths = {name: file.whole for name, file in upload.files.items()}
    formats = {name: file.info.format for name, file in upload.files.items()}
    return run_fit(paths, formats, fit.plan, fit.limits, mode=fit.mode, backend=fit.backend)
