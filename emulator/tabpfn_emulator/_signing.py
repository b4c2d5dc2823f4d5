"""Signed URLs: HMAC over method, path, expiry and required headers, in the manner of object stores."""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import urlencode

from tabpfn_emulator._envelopes import StorageError


class Signer:
    """Makes and checks signed URLs with a key that never leaves the process."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def sign(self, method: str, path: str, expires_at: float, headers: Mapping[str, str]) -> str:
        """Return the query string that makes `path` usable.

        Args:
            method: HTTP method in capitals.
            path: Path of the URL, as it will be sent.
            expires_at: Epoch seconds; the fraction is cut off.
            headers: Headers that the caller must send verbatim; names in lower case.
        """
        expires = str(int(expires_at))
        names = ";".join(sorted(headers))
        signature = self._digest(method, path, expires, names, headers)
        return urlencode({"X-Expires": expires, "X-SignedHeaders": names, "X-Signature": signature})

    def check(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], now: float) -> None:
        """Check a request against the URL that it came with.

        Args:
            method: HTTP method in capitals.
            path: Path of the request, undecoded.
            query: Query parameters of the request.
            headers: Headers of the request; looked up by lower-case name.
            now: Epoch seconds.

        Raises:
            StorageError: 403 when anything differs from what was signed, 400 when the URL has expired (ask for a new
                one). Statuses and codes are those of Google Cloud Storage.
        """
        names = query.get("X-SignedHeaders", "")
        expires = query.get("X-Expires", "")
        sent = {name: headers.get(name, "") for name in names.split(";") if name}
        expected = self._digest(method, path, expires, names, sent)
        # Bytes, because compare_digest refuses text that is not ASCII.
        if not hmac.compare_digest(expected.encode(), query.get("X-Signature", "").encode()):
            raise StorageError(
                403,
                "SignatureDoesNotMatch",
                "Access denied: method, path, expiry or a required header is not what was signed.",
            )
        if now >= int(expires):
            raise StorageError(400, "ExpiredToken", "The signed URL has expired; ask for a new one.")

    def _digest(self, method: str, path: str, expires: str, names: str, headers: Mapping[str, str]) -> str:
        lines = [method, path, expires, names, *(f"{name}:{headers[name].strip()}" for name in sorted(headers))]
        return hmac.new(self._key, "\n".join(lines).encode(), hashlib.sha256).hexdigest()
