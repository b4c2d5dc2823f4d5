"""What is fitted, as one fingerprint: equal on every machine, in every process and library version, and no secret."""

import base64
import hashlib
import json
from collections.abc import Mapping

from tabpfn_assets import FitParameters
from tabpfn_operators.errors import ConfigurationError

_DIGITS = 16


def account_identity(label: str | None, bearer: str) -> str:
    """Tell one account from another (design.md, Identity).

    Args:
        label: What the user calls the account; it outlives a change of key.
        bearer: The token, which is not in the result.

    Returns:
        The label, else a hash of the `sub` claim where the token is a JWT, else a shortened hash of the token.
    """
    if label is not None:
        return f"label {label}"
    subject = _subject(bearer)
    kind, text = ("token", bearer) if subject is None else ("subject", subject)
    return f"{kind} {hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]}"


def _subject(token: str) -> str | None:
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):  # no JSON, or brackets without end
        return None
    subject = claims.get("sub") if isinstance(claims, Mapping) else None
    return subject if isinstance(subject, str) and subject else None


def fit_fingerprint(source: str, parameters: FitParameters, *, api_url: str, account: str | None) -> str:
    """Identify a fit by everything that its outcome depends on (design.md, Identity).

    Args:
        source: Fingerprint of the source, with its columns and target.
        parameters: Task, config, systems and thinking. Parameters at their defaults leave no trace, so that those of
            a later version change no fingerprint; the order of systems and of keys does not count.
        api_url: Base URL of the API.
        account: What `account_identity` returned; None identifies the work alone, which a new key does not change.

    Returns:
        64 hex digits.

    Raises:
        ConfigurationError: A value of `parameters.config` is not JSON; the message says which kind.
    """
    asked = parameters.model_dump(exclude_defaults=True)
    asked["systems"] = sorted(set(parameters.systems))
    asked["config"] = {key: value for key, value in parameters.config.items() if value is not None}
    facts = {"v": 1, "source": source, "parameters": asked, "api": api_url, "account": account}
    try:
        text = json.dumps(facts, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"config holds what JSON cannot: {error}. Use numbers, text, lists and dicts."
        ) from None
    return hashlib.sha256(text.encode()).hexdigest()
