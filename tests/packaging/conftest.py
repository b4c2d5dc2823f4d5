"""Environments that hold the built wheel and nothing of this checkout.

``nox -s packaging`` builds the wheel and passes its path (``TABPFN_WHEEL``) and uv's (``TABPFN_UV``).
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements"


class Environment:
    """A virtual environment outside the checkout, and a folder to run its programs in."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "venv" / "bin"
        self.cwd = folder / "cwd"
        self.cwd.mkdir(parents=True)
        self.uv("venv", "--python", sys.executable, str(folder / "venv"))

    def uv(self, *arguments: str) -> str:
        """Run uv and return what it says; it reads no settings of this checkout."""
        command = [os.environ["TABPFN_UV"], *arguments]
        done = subprocess.run(command, cwd=self.cwd, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def install(self, *requirements: str) -> None:
        """Install into this environment."""
        self.uv("pip", "install", "-q", "-p", str(self.bin / "python"), *requirements)

    def freeze(self) -> list[str]:
        """Return everything that is installed, one ``name==version`` each."""
        return self.uv("pip", "freeze", "-p", str(self.bin / "python")).splitlines()

    @property
    def variables(self) -> dict[str, str]:
        """Return the environment variables to run its programs with."""
        return {**os.environ, "PATH": os.pathsep.join([str(self.bin), *os.get_exec_path()])}

    def run(self, program: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run one of its programs to its end, in an empty folder."""
        return subprocess.run(
            [self.bin / program, *arguments],
            cwd=cwd or self.cwd,
            env=self.variables,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def python(self, code: str) -> str:
        """Run a piece of Python that has to succeed, and return what it prints."""
        done = self.run("python", "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="session")
def wheel() -> Path:
    return Path(os.environ["TABPFN_WHEEL"])


@pytest.fixture(scope="session")
def new_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Environment]:
    return lambda name: Environment(tmp_path_factory.mktemp(name))


@pytest.fixture(scope="session")
def engine_environment(
    new_environment: Callable[[str], Environment], wheel: Path
) -> Callable[[str], tuple[Environment, list[str]]]:
    """Return an engine's pinned environment with the wheel in it, and what was there before the wheel."""
    made: dict[str, tuple[Environment, list[str]]] = {}

    def make(engine: str) -> tuple[Environment, list[str]]:
        if engine not in made:
            environment = new_environment(engine)
            environment.install("-r", str(REQUIREMENTS / f"{engine}.txt"))
            before = environment.freeze()
            environment.install(str(wheel))
            made[engine] = environment, before
        return made[engine]

    return make
