"""`tabpfn-providers demo`: the main job, offline, in any engine."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import typer

from tabpfn_operators.cli._plugins import missing_extra, part
from tabpfn_operators.cli._records import model_facts
from tabpfn_operators.cli._report import show_facts, show_json, stderr
from tabpfn_operators.errors import ConfigurationError, InvalidInputError


def demo(
    engine: Annotated[Literal["airflow", "prefect", "dagster"], typer.Option(help="Engine to run the example in.")],
    task: Annotated[
        Literal["classification", "regression"],
        typer.Option(help="classification: breast cancer data. regression: diabetes data."),
    ] = "classification",
    keep: Annotated[Path | None, typer.Option(help="New or empty folder to keep everything in.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Retrain and score on real data in an engine, against the local emulator: no account, no network."""
    from tabpfn_operators import demo as demos

    runner = part("demo", engine)
    running_emulator = part("demo", "emulator")
    with ExitStack() as stack:
        folder = (
            _folder(keep) if keep else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tabpfn-demo-")))
        )
        try:
            data = demos.write_data(folder / "data", task)
            base_url = stack.enter_context(running_emulator(folder / "emulator"))
        except ImportError as error:
            raise missing_extra("emulator", error) from None
        except RuntimeError as error:  # it did not come up; its text names what to install
            raise ConfigurationError(str(error)) from None
        workspace = demos.workspace(engine, task, folder=folder, base_url=base_url, data=data)
        stderr.print(
            f"Running example_dags/{engine} against {base_url}; log: {workspace.log_path}",
            highlight=False,
            soft_wrap=True,
        )
        runner(workspace)
        report = demos.read_report(workspace, data)
    if as_json:
        show_json(report.as_json())
        return
    kept = "" if keep else " (temporary, now removed; --keep DIR keeps it)"
    metric = report.metric
    show_facts(
        f"TabPFN in {engine}: {data.title}",
        {
            "fitted id": report.record.model.fitted_train_set_id,
            "rows trained": f"{report.record.model.rows:,}",
            "rows scored": f"{report.record.rows:,}",
            f"{metric} on held-out rows": f"{report.score:.4f}",
            f"{metric} of the {report.baseline_name}": f"{report.baseline:.4f}",
            "predictions": f"{report.record.uri}{kept}",
            "lineage": f"{report.record.lineage_uri}{kept}",
            "engine log": f"{workspace.log_path}{kept}",
        },
    )
    show_facts("Lineage record", model_facts(report.record.model))


def _folder(keep: Path) -> Path:
    if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise InvalidInputError(f"--keep {keep} is there already; name a new or an empty folder.")
    try:
        keep.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(f"--keep {keep} cannot be made ({error.strerror}); name another folder.") from None
    return keep.resolve()
