"""The manners of the two kinds of object store: what they require, how they refuse, how they acknowledge.

Statuses, codes and elements are those of the public documentation of Google Cloud Storage's XML API and of Amazon S3;
which of the two the real service uses is not known, the shape of its hash points to the first (contract section 3).
"""

import base64
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, Protocol

from tabpfn_emulator._envelopes import StorageError

StorageMode = Literal["gcs", "s3"]
CONTENT_TYPE: Final = "application/octet-stream"
_LENGTH_RANGE: Final = "x-goog-content-length-range"
_SEALED: Final = "The upload was fitted; its bytes cannot change any more."
_MISMATCH: Final = "The request signature we calculated does not match the signature you provided."


@dataclass(frozen=True)
class Received:
    """What has arrived.

    Attributes:
        size: Its length in bytes.
        crc32c: Its CRC32C, 4 bytes, big-endian.
        md5: Its MD5, 16 bytes.
    """

    size: int
    crc32c: bytes
    md5: bytes


class ObjectStore(Protocol):
    """One kind of object store."""

    needs_length: bool
    """Whether a body needs a Content-Length."""

    def required_headers(self, largest: int) -> dict[str, str]:
        """Return what a PUT must send verbatim, names in lower case.

        Args:
            largest: Largest body, in bytes.
        """

    def acknowledgement(self, received: Received) -> dict[str, str]:
        """Return the headers of the answer to a PUT."""

    def mismatch(self) -> StorageError:
        """Return the refusal of a request that is not what was signed."""

    def expired(self, expires_at: int, now: float) -> StorageError:
        """Return the refusal of a URL that ended at `expires_at` (epoch seconds)."""

    def too_large(self, size: int, largest: int) -> StorageError:
        """Return the refusal of a body of `size` bytes or more."""

    def incomplete(self) -> StorageError:
        """Return the refusal of a body that ended early."""

    def no_length(self) -> StorageError:
        """Return the refusal of a body without Content-Length."""

    def sealed(self) -> StorageError:
        """Return the refusal of a PUT to an upload that was fitted; a stand-in (the service does not say)."""

    def no_bucket(self) -> StorageError:
        """Return the refusal of a PUT to an upload that was deleted."""

    def no_key(self) -> StorageError:
        """Return the refusal of an object that is not there."""

    def full(self, details: str) -> StorageError:
        """Return the refusal of what the disk has no room for; the emulator's own, no real store is full."""


class GoogleStore:
    """Google Cloud Storage's XML API: chunked transfer encoding is welcome, the size is bounded by a signed header."""

    needs_length = False

    def required_headers(self, largest: int) -> dict[str, str]:
        """Return the content type and the range of allowed lengths."""
        return {"content-type": CONTENT_TYPE, _LENGTH_RANGE: f"0,{largest}"}

    def acknowledgement(self, received: Received) -> dict[str, str]:
        """Return ETag, hashes and stored length."""
        crc32c, md5 = base64.b64encode(received.crc32c).decode(), base64.b64encode(received.md5).decode()
        return {
            "ETag": f'"{received.md5.hex()}"',
            "x-goog-hash": f"crc32c={crc32c},md5={md5}",
            "x-goog-stored-content-encoding": "identity",
            "x-goog-stored-content-length": str(received.size),
        }

    def mismatch(self) -> StorageError:
        """Return 403 SignatureDoesNotMatch."""
        details = f"{_MISMATCH} Check your Google secret key and signing method."
        return StorageError(403, "SignatureDoesNotMatch", "Access denied.", {"Details": details})

    def expired(self, expires_at: int, now: float) -> StorageError:  # noqa: ARG002  # the Protocol's signature
        """Return 400 ExpiredToken."""
        details = f"The provided token has expired. Request signature expired at: {_instant(expires_at)}"
        return StorageError(400, "ExpiredToken", "Invalid argument.", {"Details": details})

    def too_large(self, size: int, largest: int) -> StorageError:
        """Return 400 EntityTooLarge."""
        return StorageError(
            400,
            "EntityTooLarge",
            "Your proposed upload is larger than the maximum object size specified in your Policy Document.",
            {"Details": f"Content-length exceeds upper bound on range: {size} of at most {largest} bytes"},
        )

    def incomplete(self) -> StorageError:
        """Return 400 IncompleteBody."""
        return StorageError(400, "IncompleteBody", "The connection was closed before the body had arrived.")

    def no_length(self) -> StorageError:
        """Return 411 MissingContentLength."""
        return StorageError(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")

    def sealed(self) -> StorageError:
        """Return 403 AccessDenied."""
        return StorageError(403, "AccessDenied", "Access denied.", {"Details": _SEALED})

    def no_bucket(self) -> StorageError:
        """Return 404 NoSuchBucket."""
        return StorageError(404, "NoSuchBucket", "The specified bucket does not exist.")

    def no_key(self) -> StorageError:
        """Return 404 NoSuchKey."""
        return StorageError(404, "NoSuchKey", "The specified key does not exist.")

    def full(self, details: str) -> StorageError:
        """Return 507 InsufficientStorage."""
        return StorageError(507, "InsufficientStorage", "There is no room left.", {"Details": details})


class AmazonStore:
    """Amazon S3: a PUT needs a Content-Length, an expired URL is a 403, every answer has a request id."""

    needs_length = True

    def required_headers(self, largest: int) -> dict[str, str]:  # noqa: ARG002  # S3 bounds the length by itself
        """Return the content type and the encryption that the URL was signed with."""
        return {"content-type": CONTENT_TYPE, "x-amz-server-side-encryption": "AES256"}

    def acknowledgement(self, received: Received) -> dict[str, str]:
        """Return ETag, encryption and request id."""
        return {
            "ETag": f'"{received.md5.hex()}"',
            "x-amz-request-id": _request_id(),
            "x-amz-server-side-encryption": "AES256",
        }

    def mismatch(self) -> StorageError:
        """Return 403 SignatureDoesNotMatch."""
        return _s3_error(403, "SignatureDoesNotMatch", f"{_MISMATCH} Check your key and signing method.")

    def expired(self, expires_at: int, now: float) -> StorageError:
        """Return 403 AccessDenied, whose message is the only sign of the expiry."""
        elements = {"Expires": _instant(expires_at), "ServerTime": _instant(now)}
        return _s3_error(403, "AccessDenied", "Request has expired", elements)

    def too_large(self, size: int, largest: int) -> StorageError:
        """Return 400 EntityTooLarge."""
        elements = {"ProposedSize": str(size), "MaxSizeAllowed": str(largest)}
        message = "Your proposed upload exceeds the maximum allowed size"
        return _s3_error(400, "EntityTooLarge", message, elements)

    def incomplete(self) -> StorageError:
        """Return 400 IncompleteBody."""
        message = "You did not provide the number of bytes specified by the Content-Length HTTP header"
        return _s3_error(400, "IncompleteBody", message)

    def no_length(self) -> StorageError:
        """Return 411 MissingContentLength."""
        return _s3_error(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")

    def sealed(self) -> StorageError:
        """Return 403 AccessDenied."""
        return _s3_error(403, "AccessDenied", _SEALED)

    def no_bucket(self) -> StorageError:
        """Return 404 NoSuchBucket."""
        return _s3_error(404, "NoSuchBucket", "The specified bucket does not exist")

    def no_key(self) -> StorageError:
        """Return 404 NoSuchKey."""
        return _s3_error(404, "NoSuchKey", "The specified key does not exist.")

    def full(self, details: str) -> StorageError:
        """Return 507 InsufficientStorage."""
        return _s3_error(507, "InsufficientStorage", details)


STORES: Final[dict[StorageMode, ObjectStore]] = {"gcs": GoogleStore(), "s3": AmazonStore()}
"""The store of each `--storage` mode."""


def bound_on_length(signed: dict[str, str], otherwise: int) -> int:
    """Return the most bytes that a PUT may bring.

    Args:
        signed: The headers that were signed, names in lower case.
        otherwise: What holds when no length range was signed.
    """
    length_range = signed.get(_LENGTH_RANGE)
    return otherwise if length_range is None else int(length_range.split(",")[1])


def _s3_error(status: int, code: str, message: str, elements: dict[str, str] | None = None) -> StorageError:
    request_id = _request_id()
    ids = {"RequestId": request_id, "HostId": base64.b64encode(uuid.uuid4().bytes * 3).decode()}
    return StorageError(status, code, message, {**(elements or {}), **ids}, headers={"x-amz-request-id": request_id})


def _request_id() -> str:
    return uuid.uuid4().hex[:16].upper()


def _instant(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
