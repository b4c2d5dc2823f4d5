"""What `fit` and `wait` share: the record is on storage before anyone waits, and an interrupt says how to go on."""

from typing import TYPE_CHECKING

from tabpfn_assets import FittedModel
from tabpfn_operators.cli._records import model_facts
from tabpfn_operators.cli._report import show_facts, show_json, stderr
from tabpfn_operators.errors import FitFailedError
from tabpfn_operators.progress import ProgressCallback

if TYPE_CHECKING:
    from tabpfn_operators import Client
    from tabpfn_operators.storage import Folder

MODEL_FILE = "model.json"


def write_model(model: FittedModel, destination: "Folder | None") -> None:
    """Write the record, pending or completed, where the user asked for it."""
    if destination is not None:
        with destination.replacing(MODEL_FILE) as file:
            file.write(model.model_dump_json(indent=2).encode())


def finish(
    client: "Client",
    model: FittedModel,
    destination: "Folder | None",
    *,
    timeout: float | None,
    progress: ProgressCallback,
) -> FittedModel:
    """Wait for a submitted fit; whoever ends the wait is told that the fit goes on, and how to wait again."""
    try:
        return client.wait_for_fit(model, timeout=timeout, progress=progress)
    except FitFailedError:
        if destination is not None:
            destination.discard(MODEL_FILE)
        raise
    except BaseException:
        if destination is not None:
            again = f"tabpfn-providers wait {destination.file_url(MODEL_FILE)}"
            stderr.print(f"The wait for fit {model.fitted_train_set_id} ended. To wait again: {again}", soft_wrap=True)
        raise


def show_model(model: FittedModel, destination: "Folder | None", *, as_json: bool) -> None:
    """Print the record."""
    if as_json:
        show_json(model.model_dump(mode="json"))
        return
    record = {"record": destination.file_url(MODEL_FILE)} if destination else {}
    show_facts("Fitted model", model_facts(model) | record)
