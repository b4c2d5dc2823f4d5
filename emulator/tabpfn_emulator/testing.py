"""Start the emulator from a test, and steer it: faults, settings, journal. Standard library only."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from tabpfn_emulator._books.identity import account_of

__all__ = ["EmulatorAccount", "EmulatorControl", "FaultInjector", "account_of", "running_emulator"]

_READY = "TabPFN emulator listening on "
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0


@contextmanager
def running_emulator(data_dir: Path | str | None = None, *, extra_args: Sequence[str] = ()) -> Iterator[str]:
    """Run the emulator as a subprocess of this interpreter, control routes open, and end it on exit.

    Args:
        data_dir: Folder of uploads and journal; None means a temporary folder of the emulator's own.
        extra_args: More command line options, for example `("--token", "secret")`.

    Yields:
        The base URL, `http://127.0.0.1:PORT` without a trailing slash.

    Raises:
        RuntimeError: When the emulator does not come up; the text holds what it wrote to stderr. Most often the
            extra is missing: `pip install "tabpfn-providers[emulator]"`.
    """
    command = [sys.executable, "-m", "tabpfn_emulator", "--port", "0", "--faults", *extra_args]
    if data_dir is not None:
        command += ["--data-dir", str(data_dir)]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=_environment())
        try:
            yield _base_url(process, errors)
        finally:
            _end(process)


def _environment() -> dict[str, str]:
    # The tests may run from a checkout on PYTHONPATH or sys.path alone; the child must find this very package.
    root = str(Path(__file__).resolve().parents[1])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def _base_url(process: subprocess.Popen[bytes], errors: IO[bytes]) -> str:
    output = cast("IO[bytes]", process.stdout)
    watchdog = threading.Timer(_START_SECONDS, process.kill)
    watchdog.start()
    try:
        line = output.readline().decode().strip()
    finally:
        watchdog.cancel()
        watchdog.join()
    if not line.startswith(_READY):
        process.wait(_STOP_SECONDS)
        errors.seek(0)
        raise RuntimeError(f"The emulator did not start: {line}\n{errors.read().decode(errors='replace')}")
    return line.removeprefix(_READY)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


class EmulatorControl:
    """The emulator's control routes: inject faults, change settings, read the books.

    Args:
        url: Base URL of a running emulator.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        # No proxy from the environment: the emulator is on loopback.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def inject(self, *faults: Mapping[str, Any], **fault: Any) -> None:
        """Add faults, each used by the next matching requests.

        Args:
            faults: One object each, for example `{"route": "/tabpfn/predict", "kind": "status", "status": 503}`; the
                keys are those of `tabpfn_emulator._faults.Fault`, explained in docs/emulator.md.
            fault: One more, key by key: `inject(kind="status", status=503, route="/tabpfn/predict")`.

        Raises:
            ValueError: A fault is not understood; the text names the field.
        """
        self._call("POST", "/_emulator/faults", [*faults, fault] if fault else list(faults))

    def configure(self, **settings: Any) -> None:
        """Change settings until `clear`.

        Args:
            settings: Fields of `tabpfn_emulator._settings.Settings`, for example `fit_seconds=2.0`.

        Raises:
            ValueError: A setting is not understood, or `backend="tabpfn"` where the package is not installed; the
                text names the field, or the remedy. Nothing was changed.
        """
        self._call("POST", "/_emulator/config", settings)

    def clear_faults(self) -> None:
        """Forget all faults."""
        self._call("DELETE", "/_emulator/faults")

    def clear(self) -> None:
        """Forget all faults and go back to the settings that the emulator was started with."""
        self.clear_faults()
        self._call("DELETE", "/_emulator/config")

    def faults(self) -> list[dict[str, Any]]:
        """Return the faults that are not used up."""
        return self._rows("/_emulator/faults")

    def journal(self, *, route: str | None = None, account: str | None = None, after: int = 0) -> list[dict[str, Any]]:
        """Return the rows of the journal, one for each request to the API and its storage, oldest first.

        Args:
            route: Only this route, `/v1/status/{job_id}` for any id, or `/v1/*`; signed URLs are journalled as
                `/storage`.
            account: Only this account, see `account_of`.
            after: Only rows whose `seq` is greater.
        """
        return self._rows("/_emulator/journal", after=after, route=route, account=account)

    def fits(self, *, account: str | None = None) -> list[dict[str, Any]]:
        """Return every fit that the emulator has accepted, oldest first, failed and deleted ones included.

        Args:
            account: Only this account, see `account_of`.
        """
        return self._rows("/_emulator/fits", account=account)

    def creations(self, *, kind: str | None = None, account: str | None = None) -> list[dict[str, Any]]:
        """Return every creation that the emulator has accepted, oldest first, whether or not its answer arrived.

        Args:
            kind: Only `fit_created`, `predict_run` or `upload_created`.
            account: Only this account, see `account_of`.
        """
        return self._rows("/_emulator/creations", kind=kind, account=account)

    def totals(self) -> dict[str, Any]:
        """Return the sums of the books: requests, creations by kind, bytes, tokens charged."""
        totals: dict[str, Any] = self._call("GET", "/_emulator/totals")
        return totals

    def change_account(
        self,
        name: str,
        *,
        add_tokens: Sequence[str] = (),
        revoke_tokens: Sequence[str] = (),
        expires_in: float | None = None,
        email_verified: bool | None = None,
    ) -> dict[str, Any]:
        """Open a named account, or change one: rotate its keys, verify its e-mail address or take that back.

        Args:
            name: The account; one that is not there yet is opened. An account that a token has opened by itself goes
                by `account_of(token)`.
            add_tokens: Tokens that open it from now on.
            revoke_tokens: Tokens that open nothing any more: the API answers 401.
            expires_in: Seconds, 0 or more, after which the tokens in `add_tokens` open nothing any more, restarts
                included; None means that they do not expire.
            email_verified: False makes the API answer 403; None leaves it.

        Returns:
            The account as it is now.

        Raises:
            ValueError: A token is another account's, or an argument is not understood; the text says which.
        """
        change = {
            "name": name,
            "add_tokens": list(add_tokens),
            "revoke_tokens": list(revoke_tokens),
            "expires_in": expires_in,
            "email_verified": email_verified,
        }
        account: dict[str, Any] = self._call("POST", "/_emulator/accounts", change)
        return account

    def _rows(self, path: str, **only: str | int | None) -> list[dict[str, Any]]:
        query = urllib.parse.urlencode({name: value for name, value in only.items() if value is not None})
        rows: list[dict[str, Any]] = self._call("GET", f"{path}?{query}")
        return rows

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(  # noqa: S310  # the URL is the caller's own emulator
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode(errors="replace")
            if error.code == 404:
                raise RuntimeError(f"{self.url} has no control routes: start it with --faults.") from None
            raise ValueError(_message(text)) from None


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text


@dataclass(frozen=True)
class EmulatorAccount:
    """One account on a running emulator, and what the emulator has seen of it.

    Args:
        url: Base URL of the emulator.
        token: A token of the account.
        control: The emulator's control routes.
    """

    url: str
    token: str = field(repr=False)
    control: EmulatorControl = field(repr=False)

    @property
    def account(self) -> str:
        """The account's id in the books."""
        return account_of(self.token)

    def journal(self, *, route: str | None = None) -> list[dict[str, Any]]:
        """Return the account's rows of the journal, oldest first.

        Args:
            route: Only this route, `/v1/status/{job_id}` for any id, or `/v1/*`; signed URLs are journalled as
                `/storage`.
        """
        return self.control.journal(route=route, account=self.account)

    def creations(self, *, kind: str | None = None) -> list[dict[str, Any]]:
        """Return what was created for the account, oldest first, whether or not the answer arrived.

        Args:
            kind: Only `fit_created`, `predict_run` or `upload_created`.
        """
        return self.control.creations(kind=kind, account=self.account)

    def fits(self) -> list[dict[str, Any]]:
        """Return the account's fits, oldest first, failed and deleted ones included."""
        return self.control.fits(account=self.account)

    def expire_token(self, after: float = 0.0) -> None:
        """Let the account's token expire: the API answers it with 401 from then on.

        Args:
            after: Seconds from now, 0 or more.

        Raises:
            ValueError: `after` is no such number; the text says so.
        """
        self.control.change_account(self.account, add_tokens=[self.token], expires_in=after)

    def configure(self, **settings: Any) -> None:
        """Change settings of the emulator, for this test only.

        Args:
            settings: Fields of `tabpfn_emulator._settings.Settings`, for example `fit_seconds=2.0`.

        Raises:
            ValueError: A setting is not understood; the text names the field.
        """
        self.control.configure(**settings)


class FaultInjector:
    """Faults of a running emulator.

    Args:
        control: Its control routes.
    """

    def __init__(self, control: EmulatorControl) -> None:
        self._control = control

    def inject(self, *faults: Mapping[str, Any], **fault: Any) -> None:
        """Add faults, each used by the next matching requests; see `EmulatorControl.inject`.

        Args:
            faults: One object each.
            fault: One more, key by key.

        Raises:
            ValueError: A fault is not understood; the text names the field.
        """
        self._control.inject(*faults, **fault)

    def waiting(self) -> list[dict[str, Any]]:
        """Return the faults that are not used up."""
        return self._control.faults()

    def clear(self) -> None:
        """Forget all faults; settings stay."""
        self._control.clear_faults()
