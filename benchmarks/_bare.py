"""The requests of a scoring and nothing else: files made ready are put, and answers dropped; started by score.py.

Usage: `_bare.py BASE_URL TOKEN FITTED_TRAIN_SET_ID FOLDER CONCURRENCY`
"""

import http.client
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from _memory import Watch, answer

_PIECE_BYTES = 1 << 20


class Caller:
    """One account's calls, each on a connection of its own.

    Args:
        base_url: Base URL of the API.
        token: A token of the account.
        fitted: Id of the model.
    """

    def __init__(self, base_url: str, token: str, fitted: str) -> None:
        self._host = urlsplit(base_url).netloc
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._fitted = {"fitted_train_set_id": fitted}

    def shard(self, path: Path) -> int:
        """Upload a file and have it predicted; return the bytes of the answer."""
        info = {"format": "parquet", "size_bytes": path.stat().st_size}
        opened = json.loads(self._post("/tabpfn/prepare_test_set_upload", x_test_info=info))
        self._put(opened["x_test_info"], path)
        task = {"task": "classification", "predict_params": {"output_type": "probas"}}
        upload = opened["test_set_upload_id"]
        return len(self._post("/tabpfn/predict", drop=True, test_set_upload_id=upload, task_config=task))

    def _post(self, path: str, *, drop: bool = False, **body: Any) -> Any:
        return self._called("POST", path, json.dumps({**self._fitted, **body}), self._headers, drop=drop)

    def _put(self, info: dict[str, Any], path: Path) -> None:
        target = urlsplit(info["signed_urls"][0])
        with path.open("rb") as file:
            self._called("PUT", f"{target.path}?{target.query}", file, info["required_headers"])

    def _called(self, method: str, path: str, body: Any, headers: dict[str, str], *, drop: bool = False) -> Any:
        connection = http.client.HTTPConnection(self._host, timeout=600, blocksize=_PIECE_BYTES)
        try:
            more = {} if isinstance(body, str) else {"Content-Length": str(Path(body.name).stat().st_size)}
            connection.request(method, path, body, {**headers, **more})
            got = connection.getresponse()
            if got.status != 200:
                raise RuntimeError(f"{method}: {got.status} {got.read()[:500]!r}")
            return range(_dropped(got)) if drop else got.read()
        finally:
            connection.close()


def _dropped(got: http.client.HTTPResponse) -> int:
    piece, count = bytearray(64 << 10), 0
    while more := got.readinto(piece):
        count += more
    return count


def main(base_url: str, token: str, fitted: str, folder: str, concurrency: str) -> None:
    """Make the requests of all files, and hand over the figures."""
    caller = Caller(base_url, token, fitted)
    files = sorted(Path(folder).iterdir())
    watch = Watch()
    with ThreadPoolExecutor(int(concurrency)) as pool:
        received = sum(pool.map(caller.shard, files))
    answer(**watch.stop(), received=received, shards=len(files))


main(*sys.argv[1:])
