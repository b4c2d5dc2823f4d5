"""Who is asking: tokens become account ids, and only those are ever stored."""

import hashlib


def account_of(token: str) -> str:
    """Return the account id that a token opens.

    Args:
        token: The bearer token.

    Returns:
        `acct-` and 16 hex digits of the token's SHA-256: the same on every run, and no way back to the token.
    """
    return f"acct-{hashlib.sha256(token.encode()).hexdigest()[:16]}"
