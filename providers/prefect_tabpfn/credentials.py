"""The block that holds how to reach TabPFN."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from prefect.blocks.abstract import CredentialsBlock
from pydantic import ConfigDict, Field, HttpUrl, SecretStr, field_validator

if TYPE_CHECKING:
    from tabpfn_operators import AsyncClient, Client


class TabPFNCredentials(CredentialsBlock):
    """Reaches the TabPFN API: key, address, timeouts.

    The fields have the names of `tabpfn_operators.Client`. Prefect stores the key and the proxy as secrets; everything
    else is shown in the UI in clear text. Pass the *name* of a saved block to flows and deployments, never the block:
    Prefect stores flow parameters masked, and a run would receive asterisks for the key.

    Attributes:
        token: API key; when left out, TABPFN_TOKEN, then PRIORLABS_API_KEY of the process that runs the task is used.
        base_url: API base URL; when left out, TABPFN_API_URL, then https://api.priorlabs.ai is used.
        account: Label of the account, so that a rotated key stays the same account.
        wire: Form of the fit request, nested (current) or flat (older documents).
        connect_timeout: Seconds to wait for a connection.
        read_timeout: Seconds to wait for the next byte of an answer.
        proxy: Proxy URL; when left out, the environment's proxy is used.
        verify: Whether to check certificates, or the path of a file of CA certificates.
        allow_http: Accept plain http for hosts other than this machine.

    Example:
        Save a block once, then load it where it is needed:
        ```python
        from prefect_tabpfn import TabPFNCredentials

        credentials = TabPFNCredentials.load("BLOCK_NAME")
        with credentials.get_client() as client:
            client.check_token()
        ```
    """

    # A validation error would otherwise quote the key it was given.
    model_config: ClassVar[ConfigDict] = ConfigDict(hide_input_in_errors=True)

    _block_type_name = "TabPFN Credentials"
    _block_type_slug = "tabpfn-credentials"
    _logo_url = HttpUrl("https://github.com/PriorLabs.png")  # the vendor's; Prefect's UI fetches it from the browser
    _documentation_url = HttpUrl("https://docs.priorlabs.ai")

    token: SecretStr | None = Field(
        default=None,
        title="API key",
        description="TabPFN API key; when left out, TABPFN_TOKEN, then PRIORLABS_API_KEY of the process that runs the"
        " task is used.",
    )
    base_url: str | None = Field(
        default=None,
        title="Base URL",
        description="API base URL; when left out, TABPFN_API_URL, then https://api.priorlabs.ai is used.",
    )
    account: str | None = Field(
        default=None, description="Label of the account, so that a rotated key stays the same account."
    )
    wire: Literal["nested", "flat"] = Field(
        default="nested", description="Form of the fit request: nested (current) or flat (older documents)."
    )
    connect_timeout: float = Field(default=10.0, gt=0, description="Seconds to wait for a connection.")
    read_timeout: float = Field(default=120.0, gt=0, description="Seconds to wait for the next byte of an answer.")
    proxy: SecretStr | None = Field(
        default=None, description="Proxy URL; when left out, the environment's proxy is used."
    )
    verify: bool | str = Field(
        default=True, description="Whether to check certificates, or the path of a file of CA certificates."
    )
    allow_http: bool = Field(
        default=False, title="Allow http", description="Accept plain http for hosts other than this machine."
    )

    @field_validator("token", "proxy")
    @classmethod
    def _not_masked(cls, secret: SecretStr | None) -> SecretStr | None:
        """Refuse what Prefect shows in place of a secret.

        Measured with Prefect 3.8.8: a block passed as a deployment's parameter is stored masked, and the run would use
        the asterisks as the key.
        """
        if secret is not None and set(secret.get_secret_value().strip()) == {"*"}:
            raise ValueError(
                "only asterisks: this is Prefect's mask, not the secret. Pass the block's name"
                " (credentials_block_name) instead of the block, or enter the secret itself"
            )
        return secret

    def get_client(self) -> "Client":
        """Return a client; nothing is opened before its first call, and `with` closes it.

        Returns:
            A synchronous client with this block's settings.

        Raises:
            ConfigurationError: No key in the block and none in the environment, or a setting that is not usable; set
                what the message names.
        """
        from tabpfn_operators import Client

        return Client(**self._options())

    def get_async_client(self) -> "AsyncClient":
        """Return an asynchronous client; nothing is opened before its first call, and `async with` closes it.

        Returns:
            An asynchronous client with this block's settings.

        Raises:
            ConfigurationError: No key in the block and none in the environment, or a setting that is not usable; set
                what the message names.
        """
        from tabpfn_operators import AsyncClient

        return AsyncClient(**self._options())

    def _options(self) -> dict[str, Any]:
        return {
            "token": self.token.get_secret_value() if self.token else None,
            "base_url": self.base_url,
            "account": self.account,
            "wire": self.wire,
            "connect_timeout": self.connect_timeout,
            "read_timeout": self.read_timeout,
            "proxy": self.proxy.get_secret_value() if self.proxy else None,
            "verify": self.verify,
            "allow_http": self.allow_http,
            "user_agent": _user_agent(),
        }


def _user_agent() -> str:
    import prefect

    return f"prefect/{prefect.__version__}"
