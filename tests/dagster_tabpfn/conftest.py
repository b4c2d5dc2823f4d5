"""An instance of its own for every test, real data for both tasks, and assets bound to the emulator."""

import os
import uuid
from dataclasses import dataclass

import pytest


@pytest.fixture(autouse=True)
def dagster_home(tmp_path, monkeypatch):
    """Whatever makes an instance by itself finds an empty home with telemetry off, not the person's."""
    for name in [name for name in os.environ if name.startswith("DAGSTER_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "dagster_home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return home


@pytest.fixture
def instance():
    """An instance in memory, which costs a third of one on disk."""
    import dagster as dg

    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def stored_instance(tmp_path):
    """An instance on disk: SQLite, as Dagster has it where nothing is configured."""
    import dagster as dg

    folder = tmp_path / "instance"
    folder.mkdir()
    with dg.DagsterInstance.local_temp(str(folder), overrides={"telemetry": {"enabled": False}}) as instance:
        yield instance


@pytest.fixture
def token(monkeypatch):
    """A token, and so an account of the emulator, that no other test uses."""
    token = f"secret-{uuid.uuid4().hex}"
    monkeypatch.setenv("TABPFN_TOKEN", token)
    return token


@pytest.fixture(scope="session")
def datasets(tmp_path_factory):
    """Real data by task: train and score files, target, and the truth of the score rows."""
    from tabpfn_operators.demo import write_data

    folder = tmp_path_factory.mktemp("data")
    return {task: write_data(folder / task, task) for task in ("classification", "regression")}


@dataclass
class Pipeline:
    """A fitted-model asset `model` and a predictions asset `scores`, with the resource they need."""

    model: object
    scores: object
    resources: dict
    destination: str

    def materialize(self, instance, selection=None, **options):
        import dagster as dg

        return dg.materialize(
            [self.model, self.scores],
            instance=instance,
            resources=self.resources,
            selection=selection,
            raise_on_error=False,
            **options,
        )


@pytest.fixture
def build(emulator, token, datasets, tmp_path):
    """Build a pipeline on the data set of a task; arguments override those of the asset builders."""
    import dagster as dg

    from dagster_tabpfn import TabPFNResource, build_tabpfn_fitted_model_asset, build_tabpfn_predictions_asset
    from tabpfn_assets import FitParameters

    def build(task="classification", *, fit=None, predict=None, resource=None):
        data = datasets[task]
        destination = str(tmp_path / "scores")
        model = build_tabpfn_fitted_model_asset(
            "model",
            **{
                "source": str(data.train),
                "target": data.target,
                "parameters": FitParameters(task=task),
                **(fit or {}),
            },
        )
        scores = build_tabpfn_predictions_asset(
            "scores",
            fitted_model=model,
            **{"source": str(data.score), "destination": destination, **(predict or {})},
        )
        settings = {"token": dg.EnvVar("TABPFN_TOKEN"), "base_url": emulator, **(resource or {})}
        return Pipeline(model, scores, {"tabpfn": TabPFNResource(**settings)}, destination)

    return build


@pytest.fixture
def failure_of():
    """The one failed step of a run: its `StepFailureData`, and how often it was tried."""

    def failure_of(result):
        failures = [event for event in result.all_events if event.is_step_failure]
        assert len(failures) == 1
        retries = [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
        return failures[0].step_failure_data, 1 + len(retries)

    return failure_of
