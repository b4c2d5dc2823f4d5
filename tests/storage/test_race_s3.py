"""Two processes that start the same fit at once, with their journal on moto's S3.

They are tests/tabpfn_operators/crash_driver.py's. `--all` races 20 times instead of 4.
"""

import signal
import uuid

import pytest

#: Seconds that two which race may be apart in the end (issue 5).
APART = 5.0


@pytest.fixture
def rounds(pytestconfig):
    return 20 if pytestconfig.getoption("--all") else 4


@pytest.fixture
def task(control, emulator, classification, bucket, options):
    """Make a task with an account, a place and a lineage store of its own, all on S3."""
    control.configure(fit_seconds=0.1)

    def make(**more):
        name = f"race-{uuid.uuid4().hex}"
        control.change_account(name, add_tokens=[name])
        return {
            "url": emulator,
            "account": name,
            "token": name,
            "source": classification.train,
            "folder": f"{bucket}/{name}",
            "lineage": f"{bucket}/models-of-{name}",
            "options": options,
            "key": ["churn", "2026-11-21"],
            "lease": 30.0,
            "skew": 1.0,
            "thinking": False,
            **more,
        }

    return make


@pytest.fixture
def fits(control):
    """The ids of an account's fits, oldest first."""
    return lambda task: [fit["fitted_train_set_id"] for fit in control.fits(account=task["account"])]


def test_two_that_start_at_once_make_one_fit(task, fits, run_at_once, rounds):
    apart = []
    for number in range(rounds):
        one = task(thinking=bool(number % 2), longest_sleep=30.0)
        first, second = run_at_once(one, one)
        assert (first["code"], second["code"]) == (0, 0)
        assert [first["id"], second["id"]] == fits(one) * 2
        apart.append(abs(first["ended"] - second["ended"]))
    print(f"apart: {sorted(apart)[len(apart) // 2]:.2f} s at the median, {max(apart):.2f} s at most")
    assert max(apart) < APART


@pytest.mark.parametrize("when", ["before", "after"])
def test_of_two_that_start_at_once_the_winner_is_killed(when, task, fits, run_at_once, rounds, tmp_path):
    for number in range(rounds):
        one = task(thinking=bool(number % 2), lease=2.0, skew=0.5)
        kill = {"at": "send /tabpfn/submit_fit_job", "when": when, "once": str(tmp_path / f"killed-{number}")}
        ran = run_at_once({**one, "kill": kill}, {**one, "kill": kill})
        assert sorted(each["code"] for each in ran) == [-signal.SIGKILL, 0]
        (survivor,) = [each for each in ran if each["code"] == 0]
        created = int(when == "after")
        if one["thinking"]:
            assert survivor["error"] == "OutcomeUnknownError"
            assert len(fits(one)) == created
        else:
            assert len(fits(one)) == created + 1
            assert (survivor["id"], survivor["possible_orphans"]) == (fits(one)[-1], 1)
            assert run_at_once(one)[0]["id"] == survivor["id"]
