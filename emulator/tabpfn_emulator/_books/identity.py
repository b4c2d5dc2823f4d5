"""Who is asking: tokens become account ids and digests, and only those are ever stored. Standard library only."""

import hashlib


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
