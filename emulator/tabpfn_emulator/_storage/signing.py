"""Signed URLs: HMAC over method, path, expiry and required headers, in the manner of object stores."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode

_PARAMETERS = ["X-Expires", "X-SignedHeaders", "X-Signature"]


class SignatureMismatchError(Exception):
    """Something of the request is not what was signed."""


class SignatureExpiredError(Exception):
    """The URL was good once.

    Args:
        expires_at: Epoch seconds at which it ended.
    """

    def __init__(self, expires_at: int) -> None:
        super().__init__(f"The signed URL expired at {expires_at}.")
        self.expires_at = expires_at


class Signer:
    """Makes and checks signed URLs.

    The host is not signed: the emulator may be reached through another name or port than the one it bound.

    Args:
        key: Secret of the HMAC, 32 bytes; the same key makes the URLs of an earlier process work.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

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
        return urlencode(dict(zip(_PARAMETERS, (expires, names, signature), strict=True)))

    def check(self, method: str, path: str, query: str, headers: Mapping[str, str], now: float) -> dict[str, str]:
        """Check a request against the URL that it came with.

        Args:
            method: HTTP method in capitals.
            path: Path of the request, undecoded: no encoded slash may lead to another file.
            query: Query string of the request, undecoded. A parameter that is missing, added, repeated or moved is
                not what was signed.
            headers: Headers of the request, names in lower case, repeated ones joined by a comma.
            now: Epoch seconds.

        Returns:
            The headers that were signed; no other header may be relied on.

        Raises:
            SignatureMismatchError: When anything differs from what was signed.
            SignatureExpiredError: When the URL is genuine and too old: ask for a new one.
        """
        pairs = parse_qsl(query, keep_blank_values=True)
        if [name for name, _ in pairs] != _PARAMETERS:
            raise SignatureMismatchError
        expires, names, signature = (value for _, value in pairs)
        sent = {name: headers.get(name, "") for name in names.split(";") if name}
        expected = self._digest(method, path, expires, names, sent)
        # Bytes, because compare_digest refuses text that is not ASCII.
        if not hmac.compare_digest(expected.encode(), signature.encode(errors="replace")):
            raise SignatureMismatchError
        if now >= int(expires):
            raise SignatureExpiredError(int(expires))
        return sent

    def _digest(self, method: str, path: str, expires: str, names: str, headers: Mapping[str, str]) -> str:
        # JSON, because no caller's text can then pass for the end of one field and the start of the next.
        signed = json.dumps(
            [method, path, expires, names, *((name, headers[name].strip()) for name in sorted(headers))]
        )
        return hmac.new(self._key, signed.encode(), hashlib.sha256).hexdigest()
