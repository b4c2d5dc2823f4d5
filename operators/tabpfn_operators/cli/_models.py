"""What `fit` and `wait` share: the record is on storage before anyone waits, and an interrupt says how to go on."""

from typing import TYPE_CHECKING, Self

from tabpfn_assets import FittedModel
from tabpfn_operators.cli._records import model_facts
from tabpfn_operators.cli._report import show_facts, show_json, stderr
from tabpfn_operators.errors import FitFailedError

if TYPE_CHECKING:
    from tabpfn_operators.storage import Folder


class ModelRecord:
    """The record of a fit under way; use as a context manager around whatever waits for it.

    Whoever ends the wait is told that the fit goes on, and how to wait again. A failed fit leaves no record.

    Args:
        destination: Folder for the record; None where the user asked for no file.
        file_name: Name of the record's file.
        submitted: The pending record, where an earlier command wrote it.
    """

    def __init__(
        self, destination: "Folder | None", file_name: str = "model.json", *, submitted: FittedModel | None = None
    ) -> None:
        self._destination = destination
        self._file_name = file_name
        self._model = submitted

    def write(self, model: FittedModel) -> None:
        """Write the record, pending or completed, where the user asked for it."""
        if self._destination is not None:
            with self._destination.replacing(self._file_name) as file:
                file.write(model.model_dump_json(indent=2).encode())
        self._model = model

    def show(self, model: FittedModel, *, as_json: bool) -> None:
        """Print the record."""
        if as_json:
            show_json(model.model_dump(mode="json"))
            return
        record = {"record": self._destination.file_url(self._file_name)} if self._destination else {}
        show_facts("Fitted model", model_facts(model) | record)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or self._model is None or self._destination is None:
            return
        if issubclass(kind, FitFailedError):
            self._destination.discard(self._file_name)
            return
        again = f"tabpfn-providers wait {self._destination.file_url(self._file_name)}"
        stderr.print(
            f"The wait for fit {self._model.fitted_train_set_id} ended. To wait again: {again}", soft_wrap=True
        )
