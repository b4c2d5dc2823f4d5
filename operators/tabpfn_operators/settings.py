"""How the client reaches the API: one frozen value, with the same names in every engine."""

import os
from collections.abc import Callable
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, field_validator

from tabpfn_operators.errors import ConfigurationError

DEFAULT_BASE_URL = "https://api.priorlabs.ai"
TOKEN_VARIABLES = ("TABPFN_TOKEN", "PRIORLABS_API_KEY")
BASE_URL_VARIABLE = "TABPFN_API_URL"
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})

WireForm = Literal["nested", "flat"]
Token = str | Callable[[], str]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine."""
    return (urlsplit(url).hostname or "") in LOOPBACK_HOSTS


class Settings(BaseModel):
    """Settings of a client.

    Args:
        base_url: API base URL; https unless it is loopback or `allow_http`.
        account: A label of the account for fingerprints, so that a rotated key stays the same account.
        wire: Form of the fit body: `nested` (current clients) or `flat` (older documents, contract 2.1).
        connect_timeout: Seconds to wait for a connection.
        read_timeout: Seconds to wait for the next byte; fits and predictions have their own, longer ones.
        proxy: Proxy URL, or None for the environment's.
        verify: Whether to check certificates, or the path of a CA bundle.
        allow_http: Accept plain http for hosts that are not loopback.
        user_agent: Text appended to the package's own, for instance `airflow/3.3.2`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str
    account: str | None = None
    wire: WireForm = "nested"
    connect_timeout: Seconds = 10.0
    read_timeout: Seconds = 120.0
    proxy: SecretStr | None = None
    verify: bool | str = True
    allow_http: bool = False
    user_agent: str | None = None
    _token: Token = PrivateAttr()

    @field_validator("base_url")
    @classmethod
    def _normalized(cls, url: str) -> str:
        return url.rstrip("/")

    @classmethod
    def resolve(cls, token: Token | None = None, *, base_url: str | None = None, **options: object) -> "Settings":
        """Build settings from arguments, falling back to the environment.

        Args:
            token: API key, or a function that returns it; None reads TABPFN_TOKEN, then PRIORLABS_API_KEY.
            base_url: API base URL; None reads TABPFN_API_URL, then takes the vendor's.
            **options: The other fields of this class; None means its default.

        Returns:
            Checked settings.

        Raises:
            ConfigurationError: A setting is missing or not usable; the message names it and what to set.
        """
        from pydantic import ValidationError

        url = base_url or os.environ.get(BASE_URL_VARIABLE) or DEFAULT_BASE_URL
        given = {name: value for name, value in options.items() if value is not None}
        try:
            settings = cls.model_validate({"base_url": url, **given})
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "settings"
            raise ConfigurationError(f"{field}: {first['msg']}.") from None
        _check_url(settings)
        settings._token = _find_token(token)  # noqa: SLF001 - its own class
        return settings

    def bearer(self) -> str:
        """Return the token to send now; a callable token is asked anew, because tokens expire."""
        token = self._token if isinstance(self._token, str) else self._token()
        return _checked_token(token, "the token function's answer")


def _check_url(settings: Settings) -> None:
    if not _is_whole(settings.base_url, {"http", "https"}):
        raise ConfigurationError("base_url must be a whole URL such as https://api.priorlabs.ai.")
    proxy = settings.proxy.get_secret_value() if settings.proxy else None
    if proxy and not _is_whole(proxy, {"http", "https", "socks5", "socks5h"}):
        raise ConfigurationError("proxy must be a whole URL such as http://proxy.example:3128.")
    parts = urlsplit(settings.base_url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError("base_url must not hold user info or a query; pass the key as the token.")
    if parts.scheme == "http" and not settings.allow_http and not is_loopback(settings.base_url):
        raise ConfigurationError(
            f"base_url http://{parts.hostname} would send the token unencrypted: use https, or set allow_http=True."
        )


def _is_whole(url: str, schemes: set[str]) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not close, a port that is no number
        return False


def _find_token(token: Token | None) -> Token:
    if callable(token):
        return token
    if token is not None:
        return _checked_token(token, "token")
    for variable in TOKEN_VARIABLES:
        if value := os.environ.get(variable):
            return _checked_token(value, variable)
    raise ConfigurationError(
        "No TabPFN token: pass token=, configure the engine's secret, or set TABPFN_TOKEN (or PRIORLABS_API_KEY)."
    )


def _checked_token(token: str, origin: str) -> str:
    token = token.strip()
    if not token:
        raise ConfigurationError(f"{origin} is empty; set a TabPFN API key.")
    if set(token) == {"*"}:
        raise ConfigurationError(
            f"{origin} is a masked value (only asterisks), not a TabPFN API key; load the secret itself."
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError(f"{origin} holds characters that no API key has; was something else pasted?")
    return token
