"""Promise 5: a key in a block or in the environment is found in no log, state, event, artifact or result."""

import base64
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from urllib.parse import urlsplit

from prefect.settings import get_current_settings

from prefect_tabpfn import TabPFNCredentials

SCRIPT = textwrap.dedent(
    """
    import logging
    import sys

    from prefect import flow

    from prefect_tabpfn import TabPFNCredentials, predict, retrain_and_score, submit_fit, upload_train_set
    from prefect_tabpfn import wait_for_fit

    train, score, destination, mark = sys.argv[1:]

    @flow(persist_result=True)
    def outer():
        first = retrain_and_score(train, score, "outcome", destination, model_name=mark,
                                  credentials_block_name="secret-block")
        block = TabPFNCredentials.load("secret-block")
        model = submit_fit(upload_train_set(train, "outcome", credentials=block), credentials=block)
        predict(wait_for_fit(model, credentials=block), score, destination, credentials=block)
        upload_train_set(train, "outcome")  # with the environment's key, which the server refuses
        return first

    logging.getLogger("httpx").setLevel(logging.DEBUG)
    state = outer(return_state=True)
    assert state.is_failed(), state
    assert "AuthenticationError" in state.message, state.message
    """
)


def contents(*folders: Path) -> dict[Path, bytes]:
    """Everything below the folders; persisted results also without the base64 in which Prefect keeps pickles."""
    found = {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}
    for path, content in list(found.items()):
        if path.parent.name == "storage":
            # A record with metadata, or the bare pickle where Prefect keeps the metadata in its database.
            encoded = json.loads(content)["result"] if content.startswith(b"{") else content
            found[path] += base64.b64decode(encoded)
    return found


def test_no_secret_is_found_in_anything_prefect_keeps(classification, emulator, bearer, tmp_path):
    right, wrong, mark = bearer, "wrong-canary-5b1e", tmp_path.name
    TabPFNCredentials(token=right, base_url=emulator).save("secret-block", overwrite=True)
    script = tmp_path / "outer.py"
    script.write_text(SCRIPT)
    settings = get_current_settings()
    home = tmp_path / "home"
    done = subprocess.run(
        [sys.executable, str(script), classification.train, classification.score, classification.destination, mark],
        env={
            **os.environ,
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": settings.api.url or "",
            "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
            "PREFECT_LOGGING_LEVEL": "DEBUG",
            "PREFECT_LOGGING_EXTRA_LOGGERS": "httpx,httpcore,tabpfn_operators",
            "TABPFN_TOKEN": wrong,
            "TABPFN_API_URL": emulator,
        },
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    database = settings.server.database.connection_url
    assert database is not None
    database_folder = Path(urlsplit(database.get_secret_value()).path).parent
    kept = contents(home, database_folder, Path(classification.destination))
    kept[Path("output")] = done.stdout + done.stderr

    def found(text: str) -> set[str]:
        return {str(path) for path, content in kept.items() if text.encode() in content}

    assert found(right) == set()
    assert found(wrong) == set()
    # The search sees what is there: the folder's name is in the database and the results, the error in all three.
    places = {database_folder, home / "storage"}
    assert {Path(path).parent for path in found(mark)} >= places
    assert {Path(path).parent for path in found("AuthenticationError")} >= {*places, Path()}
