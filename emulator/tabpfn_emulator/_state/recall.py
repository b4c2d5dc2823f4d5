"""Fitted models: the recent ones in memory, any other learnt again from its train set when it is needed.

Learning is deterministic, so a model that was forgotten, or learnt before a restart, comes back the same.
"""

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from tabpfn_emulator._state.store import Fit, Upload

if TYPE_CHECKING:
    from tabpfn_emulator._learning.model import Learned

KEPT_MODELS: Final = 32
"""Models that stay in memory."""


class Models:
    """The models of all completed fits.

    Args:
        workers: Threads to learn in.
    """

    def __init__(self, workers: ThreadPoolExecutor) -> None:
        self._workers = workers
        self._kept: OrderedDict[str, Learned] = OrderedDict()
        self._learning: dict[str, asyncio.Future[Learned]] = {}

    async def of(self, fit: Fit, upload: Upload) -> "Learned":
        """Return the model of a fit, learning it when it is not in memory.

        Args:
            fit: A fit.
            upload: Its train set, complete.

        Raises:
            DataError: When the data cannot be fitted, or is larger than the limits of the fit.
        """
        key = fit.fitted_train_set_id
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if key not in self._learning:
            loop = asyncio.get_running_loop()
            self._learning[key] = loop.run_in_executor(self._workers, _learn, fit, upload)
            self._learning[key].add_done_callback(lambda done: self._learnt(key, done))
        # Several callers may wait for one model: the end of one of them must not end the learning.
        return await asyncio.shield(self._learning[key])

    def _learnt(self, key: str, done: "asyncio.Future[Learned]") -> None:
        del self._learning[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._kept[key] = done.result()
        if len(self._kept) > KEPT_MODELS:
            self._kept.popitem(last=False)


def _learn(fit: Fit, upload: Upload) -> "Learned":
    # Imported in the worker thread: scikit-learn and pandas take seconds, which the server's start does not wait for.
    from tabpfn_emulator._learning.worker import run_fit

    paths = {name: file.whole for name, file in upload.files.items()}
    formats = {name: file.info.format for name, file in upload.files.items()}
    return run_fit(paths, formats, fit.plan, fit.limits, mode=fit.mode, backend=fit.backend)
