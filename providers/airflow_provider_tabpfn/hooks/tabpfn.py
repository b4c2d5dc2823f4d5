"""`TabPFNHook`: clients of the TabPFN API from an Airflow connection."""

import asyncio
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, mask_secret

from airflow_provider_tabpfn.get_provider_info import PLACEHOLDERS, RELABELING

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

    from tabpfn_operators import AsyncClient, Client

#: Parts of an option's name that make its value a secret.
_SECRET_PARTS = ("key", "secret", "token", "password", "credential", "connection_string", "sas")
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


class TabPFNHook(BaseHook):
    """Clients of the TabPFN API from an Airflow connection.

    The connection has the API key as password, the base URL as host, and in its extra what the form shows (account,
    wire, timeouts, proxy, CA file, verify, allow_http, storage_options). When the *default* connection does not exist,
    the environment variables of the core are used: TABPFN_TOKEN (or PRIORLABS_API_KEY) and TABPFN_API_URL.

    Args:
        tabpfn_conn_id: Id of the connection.
    """

    conn_name_attr = "tabpfn_conn_id"
    default_conn_name = "tabpfn_default"
    conn_type = "tabpfn"
    hook_name = "TabPFN"

    def __init__(self, tabpfn_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.tabpfn_conn_id = tabpfn_conn_id

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Shape the connection form of Airflow 3.1; later versions read `get_provider_info`."""
        return {
            "hidden_fields": ["schema", "login", "port"],
            "relabeling": RELABELING,
            "placeholders": {**PLACEHOLDERS, "extra": '{"account": "production"}'},
        }

    def get_conn(self) -> "Client":
        """Return a new client; the same as `get_client`."""
        return self.get_client()

    def get_client(self) -> "Client":
        """Return a new client; use it in a `with` statement.

        Raises:
            AirflowNotFoundException: There is no such connection: create one of type `tabpfn`, or set TABPFN_TOKEN.
            ConfigurationError: The connection lacks something; the text names it.
        """
        from tabpfn_operators import Client

        return Client(**self._client_options())

    async def get_async_client(self) -> "AsyncClient":
        """Return a new client for an event loop; use it in an `async with` statement.

        Raises:
            AirflowNotFoundException: There is no such connection: create one of type `tabpfn`, or set TABPFN_TOKEN.
            ConfigurationError: The connection lacks something; the text names it.
        """
        # Off the event loop: under load the import takes longer than a triggerer lets its loop be blocked.
        client_class = await asyncio.to_thread(_async_client_class)
        try:
            connection = await get_async_connection(self.tabpfn_conn_id, hook=type(self))
        except AirflowNotFoundException:
            if not self._environment_serves():
                raise
            return client_class(user_agent=_user_agent())
        return client_class(**client_options(connection, await get_async_extra_dejson(connection)))

    def get_storage_options(self, url: str) -> dict[str, Any] | None:
        """Return the connection's fsspec options for a storage URL.

        They are kept in the connection, never in an operator's argument: rendered arguments are stored and shown.

        Args:
            url: The URL (the last part of a chained one); its protocol selects the options.

        Returns:
            The options under the protocol's name (`s3`, `gs`, `abfs`, `file`), or None for fsspec's own configuration.

        Raises:
            ConfigurationError: `storage_options` in the connection's extra is not a JSON object of objects.
        """
        try:
            extra = self.get_connection(self.tabpfn_conn_id).extra_dejson
        except AirflowNotFoundException:
            if not self._environment_serves():
                raise
            return None
        found = _storage_options(extra).get(urlsplit(url.rpartition("::")[2]).scheme or "file", {})
        _mask(found)
        return found or None

    def test_connection(self) -> tuple[bool, str]:
        """Ask the API whether it takes the token; free of charge. Airflow's connection form calls it."""
        from tabpfn_operators.errors import TabPFNError

        try:
            with self.get_client() as client:
                client.check_token()
        except (TabPFNError, AirflowNotFoundException) as error:
            return False, str(error)
        return True, "The TabPFN API accepts the API key."

    def _client_options(self) -> dict[str, Any]:
        try:
            connection = self.get_connection(self.tabpfn_conn_id)
        except AirflowNotFoundException:
            if not self._environment_serves():
                raise
            return {"user_agent": _user_agent()}
        options = client_options(connection, connection.extra_dejson)
        for secret in (options["token"], options["proxy"]):
            if secret:
                mask_secret(secret)
        return options

    def _environment_serves(self) -> bool:
        """Whether the environment stands in for a missing connection: only for the default one, which nobody named."""
        from tabpfn_operators.settings import TOKEN_VARIABLES

        return self.tabpfn_conn_id == self.default_conn_name and any(map(os.environ.get, TOKEN_VARIABLES))


def client_options(connection: "Connection", extra: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a connection into the arguments of `Client` and `AsyncClient`.

    Args:
        connection: The connection: password = API key, host = base URL (scheme optional, then https).
        extra: Its extra, as a dict.

    Returns:
        Keyword arguments; None where the client's default holds.

    Raises:
        ConfigurationError: A flag is neither true nor false.
    """
    verify: bool | str = extra.get("ca_file") or True
    if not _flag(extra, "verify", default=True):
        verify = False
    return {
        "token": connection.password or None,
        "base_url": _base_url(connection),
        "account": extra.get("account") or None,
        "wire": extra.get("wire") or "nested",
        "connect_timeout": _seconds(extra, "connect_timeout", default=10.0),
        "read_timeout": _seconds(extra, "read_timeout", default=120.0),
        "proxy": extra.get("proxy") or None,
        "verify": verify,
        "allow_http": _flag(extra, "allow_http", default=False),
        "user_agent": _user_agent(),
    }


def _async_client_class() -> "type[AsyncClient]":
    from tabpfn_operators import AsyncClient

    return AsyncClient


def _user_agent() -> str:
    from airflow import __version__

    return f"airflow/{__version__}"


def _base_url(connection: "Connection") -> str | None:
    """Read the base URL from the host: a whole URL, or as Airflow splits `tabpfn://host:port` connections."""
    host = connection.host
    if not host or "://" in host:
        return host or None
    port = f":{connection.port}" if connection.port else ""
    return f"{connection.schema or 'https'}://{host}{port}"


def _flag(extra: Mapping[str, Any], name: str, *, default: bool) -> bool:
    from tabpfn_operators.errors import ConfigurationError

    value = extra.get(name)
    if value is None or value == "":
        return default
    try:
        # Connections from URIs and environment variables hold text.
        return _FLAGS[str(value).lower()]
    except KeyError:
        raise ConfigurationError(f"connection extra {name!r} must be true or false, not {value!r}.") from None


def _seconds(extra: Mapping[str, Any], name: str, *, default: float) -> float:
    from tabpfn_operators.errors import ConfigurationError

    value = extra.get(name)
    try:
        return default if value is None or value == "" else float(value)
    except (TypeError, ValueError):
        raise ConfigurationError(f"connection extra {name!r} must be a number of seconds, not {value!r}.") from None


def _storage_options(extra: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    from tabpfn_operators.errors import ConfigurationError

    options = extra.get("storage_options") or {}
    try:
        options = json.loads(options) if isinstance(options, str) else options
    except ValueError:
        options = None
    if not isinstance(options, dict) or not all(isinstance(value, dict) for value in options.values()):
        raise ConfigurationError(
            'connection extra "storage_options" must be a JSON object of fsspec protocols, '
            'for instance {"s3": {"key": "...", "secret": "..."}}.'
        )
    return options


def _mask(options: Mapping[str, Any]) -> None:
    """Keep secret option values out of logs, also those whose names Airflow's own list lacks (`account_key`)."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            _mask(value)
        elif isinstance(value, str) and any(part in name.lower() for part in _SECRET_PARTS):
            mask_secret(value)
