"""The wheel holds every tracked file of the packages and the examples, and nothing else."""

import subprocess
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "tabpfn_assets": "assets",
    "tabpfn_operators": "operators",
    "airflow_provider_tabpfn": "providers",
    "prefect_tabpfn": "providers",
    "dagster_tabpfn": "providers",
    "tabpfn_emulator": "emulator",
}


def tracked(folder: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", folder], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [Path(name) for name in listed.split("\0") if name]


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> dict[str, list[str]]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        message = Parser().parsestr(archive.read(name).decode())
    return {key: message.get_all(key) or [] for key in message}


def test_the_wheel_is_what_git_holds(names: set[str], wheel: Path):
    stem = "-".join(wheel.name.split("-")[:2])
    examples = f"{stem}.data/data/share/tabpfn-providers/example_dags"
    expected = {
        str(file.relative_to(root)) for package, root in PACKAGES.items() for file in tracked(f"{root}/{package}")
    }
    expected |= {f"{examples}/{file.relative_to('example_dags')}" for file in tracked("example_dags")}
    about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    expected |= {f"{stem}.dist-info/{name}" for name in about}
    assert names - expected == set(), "in the wheel, not in git"
    assert expected - names == set(), "in git, not in the wheel"


@pytest.mark.parametrize("root", sorted(set(PACKAGES.values())))
def test_every_root_holds_its_packages_only(root: str):
    assert {file.parts[1] for file in tracked(root)} == {name for name, place in PACKAGES.items() if place == root}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_that_it_is_typed(names: set[str], package: str):
    assert f"{package}/py.typed" in names


def test_examples_of_every_engine_are_in_it(names: set[str]):
    shipped = {name.split("/example_dags/")[1].split("/")[0] for name in names if "/example_dags/" in name}
    assert {"airflow", "prefect", "dagster"} <= shipped


def test_metadata(metadata: dict[str, list[str]], wheel: Path):
    assert metadata["Name"] == ["tabpfn-providers"]
    assert metadata["Version"] == [wheel.name.split("-")[1]]
    assert metadata["License-Expression"] == ["Apache-2.0"]
    assert set(metadata["Provides-Extra"]) == {
        "airflow",
        "dagster",
        "emulator",
        "evaluation",
        "openlineage",
        "prefect",
        "storage",
    }


def test_our_own_pins_stay_out_of_the_metadata(metadata: dict[str, list[str]]):
    assert not [line for line in metadata["Requires-Dist"] if line.startswith(("fastapi", "pytest", "mypy"))]
