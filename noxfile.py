"""Every check of this repository, each in its own environment made from ``requirements/``.

``nox`` runs all of them, ``nox -l`` lists them, CONTRIBUTING.md says which one to run when.
"""

import functools
import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nox
from nox.command import CommandFailed

ROOT = Path(__file__).parent
REPORTS = ROOT / ".nox" / "reports"
EXTRA_PYTHONS = ("3.12", "3.13")

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.reuse_existing_virtualenvs = True
nox.options.download_python = "never"
# A version that is nowhere on the machine is skipped with a line, also under CI; one that is there has to pass.
nox.options.error_on_missing_interpreters = False
nox.options.sessions = [
    "lint",
    "types",
    "core",
    *(f"core-{version}" for version in EXTRA_PYTHONS),
    "emulator",
    "storage",
    "client_compat",
    "client_compat-0.4.1",
    "airflow",
    "prefect",
    "dagster",
    "packaging",
]


class Pins(NamedTuple):
    """What one file of ``requirements/`` is compiled from."""

    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    project: bool = True


PINS = {
    "core": Pins(("emulator", "evaluation", "openlineage"), ("test", "typing", "core-dev")),
    "emulator": Pins(("emulator",), ("test", "emulator-dev")),
    "client_compat": Pins(("emulator",), ("test", "client-compat")),
    "client_compat_041": Pins(("emulator",), ("test", "client-compat-041")),
    "airflow": Pins(("airflow", "emulator"), ("test", "typing", "airflow-dev")),
    "prefect": Pins(("prefect", "emulator"), ("test", "typing", "prefect-dev")),
    "dagster": Pins(("dagster", "emulator"), ("test", "typing", "dagster-dev")),
    "evaluation": Pins(("evaluation",)),
    "openlineage": Pins(("openlineage",)),
    "storage": Pins(("emulator", "storage"), ("test", "storage-dev")),
    "lint": Pins(groups=("lint",), project=False),
    "packaging": Pins(groups=("test",), project=False),
}
ENGINES = {
    "airflow": "airflow_provider_tabpfn",
    "prefect": "prefect_tabpfn",
    "dagster": "dagster_tabpfn",
}
TESTS = {
    "core": ("tests/tabpfn_assets", "tests/tabpfn_operators"),
    "emulator": ("tests/tabpfn_emulator",),
    "storage": ("tests/storage",),
    "client_compat": ("tests/client_compat",),
    "client_compat_041": ("tests/client_compat",),
    **{engine: (f"tests/{package}",) for engine, package in ENGINES.items()},
}
# Two workers, each with an emulator of its own; what follows ``--`` comes later and wins: ``-- -n 0`` is one process.
TEST_OPTIONS = dict.fromkeys(("core", "emulator"), ("-n", "2"))
SESSION_NAMES = {"client_compat_041": "client_compat-0.4.1"}
TYPED = {
    "core": ("assets/tabpfn_assets", "operators/tabpfn_operators", "emulator/tabpfn_emulator"),
    "airflow": (f"providers/{ENGINES['airflow']}",),  # TaskFlow passes XComArg where a signature says dict
    **{engine: (f"providers/{ENGINES[engine]}", f"example_dags/{engine}") for engine in ("prefect", "dagster")},
}
# Nothing is sent to anyone, no test finds a person's account, and engines start faster with byte code kept.
TEST_ENV: dict[str, str | None] = {
    "DO_NOT_TRACK": "1",
    "TABPFN_DISABLE_TELEMETRY": "1",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "DAGSTER_DG_UPDATE_CHECK_ENABLED": "0",
    "DAGSTER_TELEMETRY_URL": "http://127.0.0.1:9/",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "UV_PYTHON_DOWNLOADS": "never",
    **dict.fromkeys(
        [
            "PREFECT_API_KEY",
            "PREFECT_API_URL",
            "PRIORLABS_API_KEY",
            "PYTHONDONTWRITEBYTECODE",
            "PYTHONPATH",
            "TABPFN_API_URL",
            "TABPFN_TOKEN",
        ]
    ),
}


def timed(session_function: Callable[[nox.Session], None]) -> Callable[[nox.Session], None]:
    """Let a session end with one line that says how long it took, also when it failed."""

    @functools.wraps(session_function)
    def run(session: nox.Session) -> None:
        start = time.monotonic()
        try:
            session_function(session)
        finally:
            session.log(f"{session.name}: {time.monotonic() - start:.1f} s")

    return run


def uv() -> str:
    """Return the uv that ``nox[uv]`` brought (its folder need not be on PATH), else the one on PATH."""
    try:
        from uv import find_uv_bin

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        return shutil.which("uv") or "uv"


def installed_python(version: str) -> str:
    """Return the path of a Python, or the bare version, which nox looks up and else skips.

    pyenv's shims are passed over: they are there for every version, and fail for all but the selected ones.
    """
    name = f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders = [Path(entry) for entry in os.get_exec_path() if Path(entry) != pyenv / "shims"]
    folders += sorted(pyenv.glob(f"versions/{version}*/bin"), reverse=True)
    return next((str(folder / name) for folder in folders if (folder / name).is_file()), version)


def environment(session: nox.Session, name: str, folder: Path | None = None) -> Path:
    """Make the environment of one file of pins with the checkout in it; do nothing when it is up to date.

    Returns its ``bin`` folder. Without ``folder`` it is the place where nox keeps the session of that name,
    so that ``types`` and ``demo`` share the environments of the tests.
    """
    place = folder or ROOT / ".nox" / name
    pins = ROOT / "requirements" / f"{name}.txt"
    made_from = hashlib.sha256(pins.read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    stamp = place / "made-from.txt"
    if not (stamp.is_file() and stamp.read_text() == made_from):
        if not (place / "bin" / "python").exists():
            command = [uv(), "venv", "-q", "--clear", "--python", sys.executable, str(place)]
            session.run(*command, external=True)
        uv_pip(session, place, "sync", "-q", str(pins))
        if name != "packaging":
            uv_pip(session, place, "install", "-q", "--no-deps", "-e", str(ROOT))
        stamp.write_text(made_from)
    return place / "bin"


def uv_pip(session: nox.Session, place: Path, verb: str, *arguments: str) -> None:
    """Run ``uv pip`` on one environment."""
    session.run(uv(), "pip", verb, "-p", str(place / "bin" / "python"), *arguments, external=True)


def home(session: nox.Session) -> dict[str, str | None]:
    """Return the environment variables of a test run, with an empty home for each engine."""
    folder = ROOT / ".nox" / "homes" / session.name
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("airflow", "prefect", "dagster"):
        (folder / name).mkdir(parents=True)
    (folder / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
    (folder / "dg.toml").write_text("[cli.telemetry]\nenabled = false\n")
    return {
        **TEST_ENV,
        "AIRFLOW_HOME": str(folder / "airflow"),
        "PREFECT_HOME": str(folder / "prefect"),
        "DAGSTER_HOME": str(folder / "dagster"),
        "DG_CLI_CONFIG": str(folder / "dg.toml"),
    }


def run_tests(
    session: nox.Session, bin_folder: Path, tests: tuple[str, ...], env: dict[str, str] | None = None
) -> None:
    """Run pytest and leave its counts in ``.nox/reports`` for ``.ci/summary.py``."""
    report = REPORTS / f"{session.name}.xml"
    report.unlink(missing_ok=True)
    pytest = [str(bin_folder / "python"), "-m", "pytest", f"--junitxml={report}"]
    run_env = {**home(session), **on_path(bin_folder), **(env or {})}
    session.run(*pytest, *tests, *session.posargs, env=run_env, external=True)


def on_path(bin_folder: Path) -> dict[str, str]:
    """Return the PATH that finds an environment's own programs first."""
    return {"PATH": os.pathsep.join([str(bin_folder), *os.get_exec_path()])}


def declare_tests(name: str, pins: str, python: str | None = None) -> None:
    """Declare the session that runs the tests of one environment."""

    def tests(session: nox.Session) -> None:
        arguments = (*TEST_OPTIONS.get(pins, ()), *TESTS[pins])
        run_tests(session, environment(session, pins, Path(session.virtualenv.location)), arguments)

    tests.__doc__ = f"Run {' and '.join(TESTS[pins])}."
    nox.session(name=name, python=python)(timed(tests))


for test_name in TESTS:
    declare_tests(SESSION_NAMES.get(test_name, test_name), test_name)
for python_version in EXTRA_PYTHONS:
    declare_tests(f"core-{python_version}", "core", installed_python(python_version))


def engine_asked_for(session: nox.Session) -> str:
    """Return the engine that the arguments after ``--`` name, Airflow if none."""
    asked = re.search(r"(?:^| )--engine[= ](\S+)", " ".join(session.posargs))
    engine = asked.group(1) if asked else "airflow"
    if engine not in ENGINES:
        session.error(f"--engine {engine}: choose one of {', '.join(ENGINES)}")
    return engine


@nox.session(default=False, venv_backend="none")
@timed
def demo(session: nox.Session) -> None:
    """Fit and score real data in one engine: nox -s demo -- --engine dagster --task regression."""
    engine = engine_asked_for(session)
    bin_folder = environment(session, engine)
    command = [str(bin_folder / "tabpfn-providers"), "demo", *session.posargs]
    if "--engine" not in " ".join(session.posargs):
        command += ["--engine", engine]
    session.run(*command, env={**TEST_ENV, **on_path(bin_folder)}, external=True)


@nox.session
@timed
def lint(session: nox.Session) -> None:
    """Check style, import law, house rules, and that the pins are up to date."""
    bin_folder = environment(session, "lint", Path(session.virtualenv.location))
    checks = [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("lint-imports",),
        ("python", ".ci/rules.py"),
    ]
    failed = []
    for check in checks:
        try:
            session.run(str(bin_folder / check[0]), *check[1:], external=True)
        except CommandFailed:
            failed.append(" ".join(check))
    stale = stale_pins(session)
    if stale:
        failed.append(f"pins ({', '.join(stale)} differ from pyproject.toml: run nox -s pins)")
    if failed:
        session.error("failed: " + "; ".join(failed))


def stale_pins(session: nox.Session) -> list[str]:
    """Compile every file of pins again, keeping the versions it names, and return those that come out different."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = {name: Path(folder, f"{name}.txt") for name in PINS}
        for name, file in fresh.items():
            shutil.copy(ROOT / "requirements" / file.name, file)
            compile_pins(session, name, file)
        return [f.name for f in fresh.values() if f.read_text() != (ROOT / "requirements" / f.name).read_text()]


def compile_pins(session: nox.Session, name: str, output: Path, *options: str) -> None:
    """Compile one file of pins for every supported Python, without naming the index it came from."""
    pins = PINS[name]
    session.run(
        uv(),
        "pip",
        "compile",
        "-q",
        "--universal",
        "--python-version=3.11",
        "--no-emit-index-url",
        "--no-emit-find-links",
        "--custom-compile-command=nox -s pins",
        *(["pyproject.toml"] if pins.project else []),
        *(f"--extra={extra}" for extra in pins.extras),
        *(f"--group={group}" for group in pins.groups),
        *options,
        "-o",
        str(output),
        external=True,
        silent=True,
        log=False,
    )


@nox.session(default=False, venv_backend="none")
@timed
def pins(session: nox.Session) -> None:
    """Compile requirements/ anew with the newest versions that pyproject.toml allows."""
    for name in PINS:
        session.log(f"requirements/{name}.txt")
        compile_pins(session, name, ROOT / "requirements" / f"{name}.txt", "--upgrade")


@nox.session(venv_backend="none")
@timed
def types(session: nox.Session) -> None:
    """Run mypy --strict on the core, and on each engine's package and examples beside the real engine."""
    failed = []
    for name, folders in TYPED.items():
        bin_folder = environment(session, name)
        cache = ROOT / ".nox" / "mypy" / name
        try:
            session.run(str(bin_folder / "mypy"), f"--cache-dir={cache}", *folders, external=True)
        except CommandFailed:
            failed.append(name)
    if failed:
        session.error("mypy failed in: " + ", ".join(failed))


@nox.session
@timed
def packaging(session: nox.Session) -> None:
    """Build the wheel, compare it with git, install it everywhere alone, and use it."""
    bin_folder = environment(session, "packaging", Path(session.virtualenv.location))
    dist = ROOT / ".nox" / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run(uv(), "build", "-q", "--out-dir", str(dist), external=True)
    (wheel,) = dist.glob("*.whl")
    # The fixtures above this folder need the project itself, which this environment must not have.
    tests = ("--confcutdir=tests/packaging", "tests/packaging")
    run_tests(session, bin_folder, tests, {"TABPFN_WHEEL": str(wheel), "TABPFN_UV": uv()})


def unpinned(session: nox.Session, name: str, *options: str) -> None:
    """Install one environment straight from pyproject.toml, say what that gave, and run its tests."""
    place = ROOT / ".nox" / f"unpinned-{session.name}" / name
    session.run(uv(), "venv", "-q", "--clear", "--python", sys.executable, str(place), external=True)
    pins = PINS[name]
    groups = [f"--group={group}" for group in pins.groups]
    uv_pip(session, place, "install", *options, "-e", f".[{','.join(pins.extras)}]", *groups)
    run_tests(session, place / "bin", TESTS[name])


@nox.session(default=False, venv_backend="none")
@timed
def latest(session: nox.Session) -> None:
    """Test the core and each engine with the newest versions, ignoring the pins."""
    failed = []
    for name in ("core", *ENGINES):
        try:
            unpinned(session, name, "--upgrade")
        except CommandFailed:
            failed.append(name)
    if failed:
        session.error("failed with the newest versions: " + ", ".join(failed))


def declare_floor(engine: str) -> None:
    """Declare the session that runs one engine's tests with the oldest versions that pyproject.toml allows."""

    def floor(session: nox.Session) -> None:
        unpinned(session, engine, "--resolution=lowest-direct")

    floor.__doc__ = f"Run {' and '.join(TESTS[engine])} with the oldest versions allowed."
    nox.session(name=f"floor-{engine}", default=False, venv_backend="none")(timed(floor))


for engine_name in ENGINES:
    declare_floor(engine_name)
