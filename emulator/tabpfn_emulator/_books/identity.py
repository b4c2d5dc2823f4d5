"""Who is asking: tokens become account ids and digests, and only those are ever stored. Standard library only."""

import hashlib
import re
from typing import Final

DERIVED: Final = re.compile(r"acct-[0-9a-f]{16}")
"""What `account_of` returns: no other account is named so, or somebody's token might open it."""


def digest_of(token: str) -> str:
    """Return what the emulator keeps of a token: its SHA-256, in hex digits."""
    return hashlib.sha256(token.encode()).hexdigest()


def account_of(token: str) -> str:
    """Return the account id that a token opens where no account was named for it.

    Args:
        token: The bearer token.

    Returns:
        `acct-` and 16 hex digits of the token's SHA-256: the same on every run, and no way back to the token.
    """
    return f"acct-{digest_of(token)[:16]}"


def registered_name(email: str, number: int) -> str:
    """Return the name of an account that was registered; no bearer text is turned into such a name.

    Args:
        email: Its e-mail address, in lower case.
        number: How many accounts of this address were deleted before.

    Returns:
        `user-` and 16 hex digits.
    """
    return f"user-{digest_of(f'{email} {number}')[:16]}"
