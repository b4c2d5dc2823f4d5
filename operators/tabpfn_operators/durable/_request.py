"""What is to be fitted, where it is remembered, and its identity."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from tabpfn_assets import EngineRun, FitParameters, SourceRef, TrainSet
from tabpfn_operators._call import Session
from tabpfn_operators.durable._price import Price
from tabpfn_operators.errors import ConfigurationError
from tabpfn_operators.fit import check_arguments, check_parameters
from tabpfn_operators.identity import account_identity, fit_fingerprint
from tabpfn_operators.lineage import LineageStore
from tabpfn_operators.places import Place, folder_place
from tabpfn_operators.plan import TrainPlan, train_set_fingerprint
from tabpfn_operators.pricing import check_max_cost
from tabpfn_operators.progress import ProgressCallback
from tabpfn_operators.reading import Reading
from tabpfn_operators.resume import OnUnknown, Reuse
from tabpfn_operators.server import model_version_of
from tabpfn_operators.settings import Settings
from tabpfn_operators.upload import upload_train_set


@dataclass(frozen=True, kw_only=True)
class FitRequest:
    """What is to be fitted; arguments as in `Client.fit`."""

    reading: Reading
    target: str
    parameters: FitParameters
    features: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    name: str | None = None
    run: EngineRun | None = None
    streamed: bool = False
    timeout: float | None = None
    on_unknown: OnUnknown = "auto"
    checksum: bool | None = None
    max_cost: int | None = None
    progress: ProgressCallback = field(repr=False)

    @property
    def kind(self) -> Literal["tabpfn_async", "tabpfn_stream"]:
        """How the job is created and looked at."""
        return "tabpfn_stream" if self.streamed else "tabpfn_async"


@dataclass(frozen=True)
class Memory:
    """Where a fit is remembered.

    Args:
        place: What was done of this logical fit; None where nothing is to be resumed.
        store: Models of other places; None where there is none.
        reuse: Which earlier fit will do.
        durable: Whether a billed fit without a place is refused.
    """

    place: Place | None = None
    store: LineageStore | None = None
    reuse: Reuse = "run"
    durable: bool = True


@dataclass(frozen=True)
class Work:
    """A request and its identity.

    Args:
        source: Fingerprint of the source.
        asked: Fingerprint of the fit without the account, by which a place is judged.
        fingerprint: Fingerprint of the fit.
        price: What it costs.
    """

    request: FitRequest
    memory: Memory
    source: str
    asked: str
    fingerprint: str
    price: Price


#: The URL of a folder, or a place in any journal.
JournalHome = Place | str | os.PathLike[str]
#: A lineage store or its URL.
StoreHome = LineageStore | str | os.PathLike[str]


def memory_of(
    journal: JournalHome | None,
    run_key: str | None,
    lineage: StoreHome | None,
    *,
    reuse: Reuse = "run",
    durable: bool = True,
) -> Memory:
    """Open what the arguments of a client's method name.

    Args:
        journal: A place, or the folder of a journal.
        run_key: Names the place in the folder.
        lineage: A store or its URL.
        reuse: Which earlier fit will do.
        durable: Whether a billed fit without a place is refused.

    Raises:
        ConfigurationError: A folder without a run_key, or the reverse; or a URL that cannot be opened.
    """
    if isinstance(journal, Place) or journal is None:
        if run_key is not None:
            raise ConfigurationError("run_key names a place in a journal's folder: pass journal='<URL of a folder>'.")
        place = journal
    elif run_key is None:
        raise ConfigurationError(
            "A journal's folder holds many fits: name this one with run_key= (--run-key), the same for retries, "
            "another for the next run."
        )
    else:
        place = folder_place(journal, run_key)
    store = lineage if lineage is None or isinstance(lineage, LineageStore) else LineageStore(lineage)
    return Memory(place, store, reuse, durable)


def check(request: FitRequest, memory: Memory) -> None:
    """Refuse what contradicts itself, before anything is read or sent."""
    check_parameters(request.parameters)
    check_arguments(name=request.name, timeout=request.timeout)
    check_max_cost(request.max_cost)
    for name, value, known in (
        ("on_unknown", request.on_unknown, get_args(OnUnknown)),
        ("reuse", memory.reuse, get_args(Reuse)),
    ):
        if value not in known:
            raise ConfigurationError(f"{name} is {value!r}; it takes {', '.join(known)}.")
    if memory.store is not None and request.name is None:
        raise ConfigurationError(
            "A lineage store files models by name: pass name= (--name), for instance name='churn'."
        )
    if memory.reuse == "always" and memory.store is None:
        raise ConfigurationError("reuse='always' looks into a lineage store: pass lineage=, or use reuse='run'.")
    if memory.place is None and request.parameters.billed and memory.durable:
        raise ConfigurationError(
            "A thinking fit is billed, and without a journal a kill would lose it: pass journal= and run_key= "
            "(--journal, --run-key), or durable=False (--no-durable) to take that risk."
        )


async def identified(session: Session, request: FitRequest, memory: Memory) -> Work:
    """Identify a request by the footers of its source; a table in memory is read for it."""

    def identify() -> Work:
        source = train_set_fingerprint(
            request.reading, request.target, features=request.features, exclude=request.exclude
        )
        return Work(
            request,
            memory,
            source,
            fit_fingerprint(source, request.parameters, api_url=session.settings.base_url, account=None),
            _fingerprint(session.settings, source, request.parameters),
            Price(session, request.parameters, request.max_cost),
        )

    return await session.wire.call(identify)


async def fingerprint_in(session: Session, source: SourceRef, parameters: FitParameters) -> str | None:
    """Return the fit fingerprint of an uploaded source; None where the source has none."""
    if source.fingerprint is None:
        return None
    return await session.wire.call(_fingerprint, session.settings, source.fingerprint, parameters)


def _fingerprint(settings: Settings, source: str, parameters: FitParameters) -> str:
    account = account_identity(settings.account, settings.bearer())
    return fit_fingerprint(source, parameters, api_url=settings.base_url, account=account)


async def upload(session: Session, request: FitRequest, price: Price, *, force_reupload: bool = False) -> TrainSet:
    """Check the source and the price, and bring the source to the server."""

    async def affordable(planned: TrainPlan) -> None:
        await price.check(rows=planned.rows or 0, columns=len(planned.features))

    return await upload_train_set(
        session,
        request.reading,
        request.target,
        task=request.parameters.task,
        features=request.features,
        exclude=request.exclude,
        model_version=model_version_of(request.parameters.config),
        force_reupload=force_reupload,
        checksum=request.checksum,
        progress=request.progress,
        before_sending=affordable,
    )
