"""Every error: plain data that pickles and copies, and a docstring that says what to do."""

import copy
import inspect
import pickle
import subprocess
import sys

import cloudpickle
import pytest

from tabpfn_operators import errors
from tabpfn_operators.errors import TabPFNError


def family(cls):
    return [cls, *(found for child in cls.__subclasses__() for found in family(child))]


#: Those of the module; other tests may define children of their own.
CLASSES = [cls for cls in family(TabPFNError) if cls.__module__ == errors.__name__]
#: What a class needs or takes beside the message.
EXTRA = {
    "problems": ("first", "second"),
    "fitted_train_set_id": "fitted-1",
    "retry_after": 7.0,
    "refit": "client.fit(...)",
    "alias": "champion",
    "version": "20261121T170500000Z-3fa9c1d2",
    "estimated_cost": 222_000,
    "allowed": 10_000,
    "reason": "some columns are encrypted",
    "size": 5_000_000_000,
    "bytes_per_second": 1e6,
    "lifetime": 3600.0,
    "plan_id": "5" * 32,
    "until": 1_795_262_430.5,
    "status": 418,
    "code": "SOME_CODE",
    "trace_id": "trace-1",
}


def build(cls):
    taken = inspect.signature(cls.__init__).parameters
    return cls("what happened", **{name: value for name, value in EXTRA.items() if name in taken})


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.__name__)
def error(request):
    return build(request.param)


@pytest.mark.parametrize(
    "through",
    [
        *(lambda error, n=n: pickle.loads(pickle.dumps(error, n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)),
        lambda error: cloudpickle.loads(cloudpickle.dumps(error)),
        copy.copy,
        copy.deepcopy,
    ],
    ids=[*(f"pickle{n}" for n in range(pickle.HIGHEST_PROTOCOL + 1)), "cloudpickle", "copy", "deepcopy"],
)
def test_an_error_survives(error, through):
    again = through(error)
    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert again.args == error.args
    assert str(again) == str(error)
    assert again.terminal is error.terminal


def test_an_error_survives_into_another_process():
    found = [build(cls) for cls in CLASSES]
    code = (
        "import pickle, sys\n"
        "for e in pickle.load(sys.stdin.buffer): print(type(e).__name__, e.terminal, e.message, sorted(vars(e)))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(found), capture_output=True, check=True)
    told = [f"{type(e).__name__} {e.terminal} {e.message} {sorted(vars(e))}" for e in found]
    assert done.stdout.decode().splitlines() == told


def test_a_childs_own_arguments_survive():
    class LocalError(errors.ServerError):
        def __init__(self, first, second):
            super().__init__(f"{first} {second}")
            self.second = second

    again = cloudpickle.loads(cloudpickle.dumps(LocalError(1, 2)))
    assert (again.second, str(again)) == (2, "1 2")


def test_an_error_holds_plain_data_only(error):
    plain = str | int | float | bool | None
    for value in vars(error).values():
        assert all(isinstance(item, plain) for item in (value if isinstance(value, tuple) else (value,)))


def test_the_text_names_status_code_and_trace(error):
    taken = inspect.signature(type(error).__init__).parameters
    text = str(error)
    assert text.startswith("what happened")
    for name, shown in [("status", "HTTP 418"), ("code", "SOME_CODE"), ("trace_id", "trace trace-1")]:
        assert (shown in text) == (name in taken)


def test_a_docstring_says_whether_and_what_next(error):
    assert type(error) is TabPFNError or len(inspect.getdoc(type(error))) > 40
    if type(error) not in {TabPFNError, errors.SourceChangedError}:
        assert "erminal" in inspect.getdoc(type(error)).split("Args:")[0]


def test_what_an_engine_may_retry():
    passing = {cls.__name__ for cls in CLASSES if not cls.terminal}
    assert passing == {
        "DestinationBusyError",
        "SourceChangedError",
        "StorageError",
        "RateLimitedError",
        "ServerError",
        "ConnectionFailedError",
        "UploadError",
    }


def test_the_documented_tree_is_the_real_one():
    drawn = [line.split()[0] for line in errors.__doc__.splitlines() if line.startswith("    ")]
    assert sorted(drawn) == sorted(cls.__name__ for cls in CLASSES)


def test_bad_input_is_a_value_error_with_every_problem():
    found = errors.InvalidInputError("two things", problems=("one", "two"))
    assert isinstance(found, ValueError)
    assert found.problems == ("one", "two")
    assert errors.InvalidInputError("one thing").problems == ("one thing",)
