"""Stores and the server together: the methods of both clients, side by side."""

from tabpfn_operators._run import run as run_flow
from tabpfn_operators.client._base import AsyncBase, SyncBase, same_docstrings
from tabpfn_operators.lineage import Erasure, LineageStore, Verification
from tabpfn_operators.lineage import _flows as flows


class LineageMethods(SyncBase):
    """Stores and the server together."""

    def verify_models(
        self,
        store: LineageStore,
        *,
        name: str | None = None,
        version: str | None = None,
        repair: bool = False,
        concurrency: int = 8,
    ) -> Verification:
        """Ask whether every model of a store is still on the server, and whether the store agrees with itself; free.

        Args:
            store: The store.
            name: One model; None takes all.
            version: One version of it, as for `LineageStore.get`; None takes all.
            repair: Write the index markers that are missing.
            concurrency: Models that are asked for at a time.

        Returns:
            State of each version, and what is wrong; its `ok` says whether nothing is.

        Raises:
            ModelNotRecordedError: The store holds no such model; the message names those it holds.
            AuthenticationError: The token is not valid; set another.
            TabPFNError: The server refused or did not answer; the class says what to do.
        """
        return run_flow(
            flows.verify_models(
                self._session, store, name=name, version=version, repair=repair, concurrency=concurrency
            )
        )

    def erase_model(
        self,
        store: LineageStore,
        name: str,
        version: str,
        *,
        dry_run: bool = True,
        force: bool = False,
        forget_names: bool = False,
        accept_gone: bool = False,
    ) -> Erasure:
        """Delete a model's training data at the server, with every model on it, and mark their records (contract 1.10).

        A kill in between is repaired by the same call. The record stays, as the proof of what was trained on what.

        Args:
            store: The store.
            name: The model.
            version: As for `LineageStore.get`.
            dry_run: Only say what would be deleted; the server is not asked.
            force: Delete what an alias points to as well.
            forget_names: Number the column names and class labels in the records and evaluations, for good.
            accept_gone: Take the server's "not found" for "deleted", where no key is left of the account that held
                it: another account's models are not found either.

        Returns:
            What was or would be deleted; its `complete` says whether all of it is gone.

        Raises:
            ModelNotRecordedError: There is no such model, version or alias; the message names those there are.
            ConfigurationError: An alias points to it; move the alias first, or pass `force=True`.
            RecordUnreadableError: The record is damaged or may not be read; the message names the file.
            TabPFNError: The server refused or did not answer; run again, nothing is marked that is not gone.
        """
        return run_flow(
            flows.erase_model(
                self._session,
                store,
                name,
                version,
                dry_run=dry_run,
                force=force,
                forget_names=forget_names,
                accept_gone=accept_gone,
            )
        )

    def erase_source(
        self,
        store: LineageStore,
        source: str,
        *,
        dry_run: bool = True,
        force: bool = False,
        forget_names: bool = False,
        accept_gone: bool = False,
    ) -> Erasure:
        """Delete all training data that came from a source, as `erase_model` does for one model.

        Args:
            store: The store.
            source: URL or path as it was passed to `fit`, a folder above it, or a source fingerprint.
            dry_run: As in `erase_model`.
            force: As in `erase_model`.
            forget_names: As in `erase_model`.
            accept_gone: As in `erase_model`.

        Returns:
            What was or would be deleted; its `complete` says whether all of it is gone.

        Raises:
            ModelNotRecordedError: No recorded model was trained on it; name it as it was passed to `fit`.
            ConfigurationError: An alias points to one of them; move it first, or pass `force=True`.
            TabPFNError: The server refused or did not answer; run again, nothing is marked that is not gone.
        """
        return run_flow(
            flows.erase_source(
                self._session,
                store,
                source,
                dry_run=dry_run,
                force=force,
                forget_names=forget_names,
                accept_gone=accept_gone,
            )
        )


@same_docstrings(LineageMethods)
class AsyncLineageMethods(AsyncBase):
    """Stores and the server together."""

    async def verify_models(
        self,
        store: LineageStore,
        *,
        name: str | None = None,
        version: str | None = None,
        repair: bool = False,
        concurrency: int = 8,
    ) -> Verification:
        return await flows.verify_models(
            self._session, store, name=name, version=version, repair=repair, concurrency=concurrency
        )

    async def erase_model(
        self,
        store: LineageStore,
        name: str,
        version: str,
        *,
        dry_run: bool = True,
        force: bool = False,
        forget_names: bool = False,
        accept_gone: bool = False,
    ) -> Erasure:
        return await flows.erase_model(
            self._session,
            store,
            name,
            version,
            dry_run=dry_run,
            force=force,
            forget_names=forget_names,
            accept_gone=accept_gone,
        )

    async def erase_source(
        self,
        store: LineageStore,
        source: str,
        *,
        dry_run: bool = True,
        force: bool = False,
        forget_names: bool = False,
        accept_gone: bool = False,
    ) -> Erasure:
        return await flows.erase_source(
            self._session,
            store,
            source,
            dry_run=dry_run,
            force=force,
            forget_names=forget_names,
            accept_gone=accept_gone,
        )
