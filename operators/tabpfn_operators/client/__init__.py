"""The TabPFN API: `Client` for threads and scripts, `AsyncClient` for event loops, equal in names and arguments."""

from tabpfn_operators.client._account import AccountMethods, AsyncAccountMethods
from tabpfn_operators.client._cost import AsyncCostMethods, CostMethods
from tabpfn_operators.client._durable import AsyncDurableFitMethods, DurableFitMethods
from tabpfn_operators.client._evaluate import AsyncEvaluateMethods, EvaluateMethods
from tabpfn_operators.client._fan_out import AsyncFanOutMethods, FanOutMethods
from tabpfn_operators.client._fit import AsyncFitMethods, FitMethods
from tabpfn_operators.client._lineage import AsyncLineageMethods, LineageMethods
from tabpfn_operators.client._predict import AsyncPredictMethods, PredictMethods
from tabpfn_operators.client._score import AsyncScoreMethods, ScoreMethods
from tabpfn_operators.client._takeover import AsyncTakeoverMethods, TakeoverMethods
from tabpfn_operators.client._upload import AsyncUploadMethods, UploadMethods

__all__ = ["AsyncClient", "Client"]


class Client(
    AccountMethods,
    UploadMethods,
    CostMethods,
    FitMethods,
    DurableFitMethods,
    TakeoverMethods,
    PredictMethods,
    ScoreMethods,
    FanOutMethods,
    EvaluateMethods,
    LineageMethods,
):
    """The TabPFN API for threads and scripts.

    Nothing is opened before the first call. Use it as a context manager, or call `close`.

    Args:
        token: API key, or a function that returns it; None reads TABPFN_TOKEN, then PRIORLABS_API_KEY.
        base_url: API base URL; None reads TABPFN_API_URL, then takes the vendor's. https, unless it is loopback.
        account: A label of the account, so that a rotated key stays the same account in fingerprints.
        wire: Form of the fit body: `nested` (current) or `flat` (older servers, contract 2.1).
        connect_timeout: Seconds to wait for a connection.
        read_timeout: Seconds to wait for the next byte of a short call.
        proxy: Proxy URL; None takes the environment's.
        verify: Whether to check certificates, or the path of a CA bundle.
        allow_http: Accept plain http for hosts that are not loopback.
        user_agent: Text appended to the package's own, for instance `airflow/3.3.2`.
        openlineage: True tells the OpenLineage server of the environment of `fit`, `predict` and `evaluate`; so does
            an emitter or an OpenLineage client of your own. Off by default, whatever the environment says: inside
            Airflow its own listener reports the task.

    Raises:
        ConfigurationError: A setting is missing or not usable; the message names it and what to set.
    """


class AsyncClient(
    AsyncAccountMethods,
    AsyncUploadMethods,
    AsyncCostMethods,
    AsyncFitMethods,
    AsyncDurableFitMethods,
    AsyncTakeoverMethods,
    AsyncPredictMethods,
    AsyncScoreMethods,
    AsyncFanOutMethods,
    AsyncEvaluateMethods,
    AsyncLineageMethods,
):
    """The TabPFN API for one event loop; arguments as for `Client`.

    Nothing is opened before the first call. Use it as an async context manager, or await `close`.

    Raises:
        ConfigurationError: A setting is missing or not usable; the message names it and what to set.
    """
