"""Hashing of what may be personal."""

import hashlib

_DIGITS = 12


def redact_name(name: str) -> str:
    """Replace a column name by a short hash: equal names stay equal, across records too."""
    return "redacted-" + hashlib.sha256(name.encode()).hexdigest()[:_DIGITS]


def redact_label(label: object) -> str:
    """Replace a class label by a short hash of its JSON type and value."""
    return redact_name(f"{type(label).__name__}:{label}")
