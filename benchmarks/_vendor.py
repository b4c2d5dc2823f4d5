"""The same upload by the vendor's client, in an environment that has it; started by upload.py.

Usage: `_vendor.py SOURCE TARGET` with TABPFN_CLIENT_API_URL set, which that client reads when it is imported.
"""

import sys
import uuid
from importlib.metadata import version
from typing import Any, NoReturn

import pandas as pd
import pyarrow.parquet
from _memory import Watch, answer
from tabpfn_client.api_models import RegressorFitTaskConfig
from tabpfn_client.client import ServiceClient

IMPORTED = (pyarrow.parquet,)


class Uploaded(Exception):  # noqa: N818 - good news
    """The upload is complete, and a fit would begin."""


def stop(*_: Any, **__: Any) -> NoReturn:
    """End before the fit."""
    raise Uploaded


def upload(source: str, target: str) -> None:
    """Read the table as its users do, and let it fit until all bytes are at the server."""
    ServiceClient.authorize(f"token-{uuid.uuid4()}")
    ServiceClient._fit = ServiceClient._submit_fit_job = stop  # noqa: SLF001 - there is no upload without a fit
    watch = Watch()
    frame = pd.read_parquet(source)
    features, labels = frame.drop(columns=[target]), frame[target]
    try:
        ServiceClient.fit(features, labels, task_config=RegressorFitTaskConfig(), tabpfn_systems=[])
    except Uploaded:
        answer(version=version("tabpfn-client"), **watch.stop())
    ServiceClient.delete_all_datasets()


if __name__ == "__main__":
    upload(*sys.argv[1:])
