"""Sending events: never fails and never delays what they tell of."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any, Protocol

from tabpfn_assets import EngineRun
from tabpfn_operators.errors import ConfigurationError
from tabpfn_operators.openlineage._events import (
    DEFAULT_NAMESPACE,
    ParentRun,
    RunIdentity,
    State,
    Verb,
    run_event,
    run_identity,
)
from tabpfn_operators.openlineage._facets import Plain
from tabpfn_operators.openlineage._lineage import RunLineage

log = logging.getLogger("tabpfn_operators")

#: Seconds that a connection, and each read of an answer, may take.
_HTTP_SECONDS = 2.0
#: Connecting is tried once more, at once; the five tries and pauses of OpenLineage would hold up a fit by ten seconds.
_HTTP_RETRIES = {"total": 1, "connect": 1, "read": 0}
#: Seconds without another try after one that failed, so that a dead server costs a long pipeline little.
_QUIET_SECONDS = 60.0
#: Seconds that a transport with a queue of its own gets to empty it.
_CLOSE_SECONDS = 2.0


class EventClient(Protocol):
    """What sends an event: `openlineage.client.OpenLineageClient`, or anything that does as it."""

    def emit(self, event: Any) -> Any:
        """Send an event."""


class Emitter:
    """Tells an OpenLineage server what is fitted, scored and evaluated.

    Nothing is opened before the first event, so that it may be made before a fork. Without a client of your own, where
    events go is read from OpenLineage's own settings at that moment; where there are none, or where
    `OPENLINEAGE_DISABLED` is true, nothing is sent.

    Args:
        client: An OpenLineage client of your own, which keeps its own timeouts and which you close; None opens one
            from OpenLineage's settings, which over HTTP waits at most 2 seconds for a connection or the next byte.
        namespace: Namespace of jobs; None reads OPENLINEAGE_NAMESPACE, then takes `default`.
        job: Name of the job; None takes `<task, else model, else tabpfn>.fit`, and likewise for the others.
        parent: The run that started these; None reads OPENLINEAGE_PARENT_ID, `namespace/job/run id`.
        redact_labels: Hash column names and labels, and tell of an error its class alone.

    Raises:
        ConfigurationError: The extra is not installed; the message names what to install.
    """

    def __init__(
        self,
        client: EventClient | None = None,
        *,
        namespace: str | None = None,
        job: str | None = None,
        parent: ParentRun | None = None,
        redact_labels: bool = False,
    ) -> None:
        if not _installed():
            raise ConfigurationError(
                'openlineage-python is not installed; pip install "tabpfn-providers[openlineage]".'
            )
        self.namespace = namespace
        self.job = job
        self.parent = parent
        self.redact_labels = redact_labels
        self._given = client
        self._opened: Any = None
        self._off = False
        self._quiet_until = 0.0
        self._complained = False
        self._lock = threading.Lock()

    def identify(
        self,
        verb: Verb,
        *,
        name: str | None = None,
        engine_run: EngineRun | None = None,
        parts: Iterable[str | None] = (),
    ) -> RunIdentity:
        """Identify a run with this emitter's namespace, job and parent.

        Args:
            verb: `fit`, `score` or `evaluate`.
            name: The model's name.
            engine_run: The engine run.
            parts: What else tells this call from others in the same task.

        Returns:
            The identity, for `report`.
        """
        return run_identity(
            verb,
            name=name,
            job=self.job,
            namespace=self.namespace or os.environ.get("OPENLINEAGE_NAMESPACE") or DEFAULT_NAMESPACE,
            parent=self.parent or self._parent_of_environment(),
            engine_run=engine_run,
            parts=parts,
        )

    def report(
        self, state: State, run: RunIdentity, lineage: Callable[[], RunLineage], error: BaseException | None = None
    ) -> bool:
        """Make an event and send it; whatever goes wrong is logged, once.

        Args:
            state: `START`, then one of `COMPLETE`, `FAIL`, `ABORT`.
            run: Which run.
            lineage: Makes what it read and wrote.
            error: Why it failed.

        Returns:
            Whether it was handed over.
        """
        try:
            event = run_event(state, run, lineage(), time=datetime.now(UTC), error=error, redact=self.redact_labels)
        except Exception as trouble:  # a record we did not think of must not fail what is done already
            self._complain(trouble)
            return False
        return self.emit(event)

    def emit(self, event: Plain) -> bool:
        """Send an event; whatever goes wrong is logged, once, and nothing is tried for a minute.

        Args:
            event: What `run_event` made.

        Returns:
            Whether it was handed over; False also where nothing is configured.
        """
        try:
            with self._lock:
                if time.monotonic() < self._quiet_until:
                    return False
                client = self._given if self._given is not None else self._open()
            if client is None:
                return False
            client.emit(_as_object(event))
        except Exception as error:  # a transport may raise anything
            self._quiet_until = time.monotonic() + _QUIET_SECONDS
            self._complain(error)
            return False
        return True

    def close(self) -> None:
        """Close what this emitter opened; the next event opens it anew."""
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None:
            try:
                opened.close(_CLOSE_SECONDS)
            except Exception as error:  # a transport may raise anything
                self._complain(error)

    def _open(self) -> Any:
        if self._opened is None and not self._off:
            self._opened = _client_of_environment()
            self._off = self._opened is None
        return self._opened

    def _parent_of_environment(self) -> ParentRun | None:
        text = os.environ.get("OPENLINEAGE_PARENT_ID")
        try:
            return ParentRun.read(text) if text else None
        except ConfigurationError as error:
            self._complain(error)
            return None

    def _complain(self, error: Exception) -> None:
        """Log the first failure by class and status: a text may hold the server's address with its password."""
        if self._complained:
            return
        self._complained = True
        status = getattr(getattr(error, "response", None), "status_code", None)
        log.warning(
            "OpenLineage: an event was not sent (%s%s). Nothing else is affected. Check OPENLINEAGE_URL, or whatever "
            "configures OpenLineage here, and that its server is up; later failures are not logged.",
            type(error).__name__,
            f", HTTP {status}" if status else "",
        )


def emitter_of(option: "bool | Emitter | EventClient | None") -> Emitter | None:
    """Turn the argument `openlineage=` of a client into an emitter.

    Args:
        option: False or None for none; True for OpenLineage's own settings; an emitter, or an OpenLineage client.

    Returns:
        The emitter, or None.

    Raises:
        ConfigurationError: The extra is not installed, or the value is none of these.
    """
    if option is None or option is False:
        return None
    if isinstance(option, Emitter):
        return option
    if option is True:
        return Emitter()
    if callable(getattr(option, "emit", None)):
        return Emitter(option)
    raise ConfigurationError(
        f"openlineage takes True, an Emitter or an OpenLineage client, not {type(option).__name__}."
    )


def _installed() -> bool:
    try:
        return find_spec("openlineage.client") is not None
    except ImportError:  # no distribution has the namespace at all
        return False


def _client_of_environment() -> Any:
    """Open OpenLineage's client from its own settings; None, with a line in the log, where there are none."""
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport.noop import NoopConfig, NoopTransport

    if os.environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        log.info("OpenLineage is disabled by OPENLINEAGE_DISABLED; no events are sent.")
        return None
    # Asked first, because a client without settings prints every event.
    settings = OpenLineageClient(transport=NoopTransport(NoopConfig())).config
    if not (settings.transport or {}).get("type") and not os.environ.get("OPENLINEAGE_URL"):
        log.warning(
            "OpenLineage is asked for, but not configured; no events are sent. Set OPENLINEAGE_URL, or name a "
            "transport in openlineage.yml."
        )
        return None
    client = OpenLineageClient()
    for transport in (client.transport, *getattr(client.transport, "transports", ())):
        if transport.kind == "http":
            transport.timeout = min(transport.timeout, _HTTP_SECONDS)
            transport.config.retry = {**transport.config.retry, **_HTTP_RETRIES}
    return client


def _as_object(event: Plain) -> Any:
    """Build the client's own event; it takes no other, and adds to what it is given."""
    from openlineage.client import event_v2

    run, job = event["run"], event["job"]
    return event_v2.RunEvent(
        eventType=event_v2.RunState(event["eventType"]),
        eventTime=event["eventTime"],
        run=event_v2.Run(runId=run["runId"], facets=dict(run["facets"])),
        job=event_v2.Job(namespace=job["namespace"], name=job["name"], facets=dict(job["facets"])),
        inputs=[event_v2.InputDataset(**each) for each in event["inputs"]],
        outputs=[event_v2.OutputDataset(**each) for each in event["outputs"]],
        producer=event["producer"],
    )
