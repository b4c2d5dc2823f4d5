"""An answer that arrives in pieces of any size is read as `json` would read it whole (contract 5)."""

import json
import math
import random
import subprocess
import sys
import tracemalloc

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.predictions import AnswerIntake, _arrays, _shelf, write_parquet
from tabpfn_operators.predictions._reader import AnswerReader, array_number
from tabpfn_operators.predictions._shelf import Labels, Shelf

NUMBERS = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**70), 2**70)
    | st.none()
    | st.sampled_from([0.0, -0.0, 1e-320, 5e-324, 1.7976931348623157e308])
)
LABELS = st.text(max_size=12) | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False)
SPACES = st.sampled_from(["", " ", "\n", "\t ", "\r\n  "])
BESIDE = st.dictionaries(
    st.text(max_size=6).filter(lambda key: key != "prediction"),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
        max_leaves=8,
    ),
    max_size=4,
)


def matrix(draw):
    rows, width = draw(st.integers(0, 12)), draw(st.integers(0, 6))
    return [[draw(NUMBERS) for _ in range(width)] for _ in range(rows)]


@st.composite
def arrays(draw):
    return matrix(draw) if draw(st.booleans()) else draw(st.lists(NUMBERS, max_size=40))


@st.composite
def answers(draw, values):
    prediction = draw(st.dictionaries(st.text(max_size=5), values, max_size=4) | values)
    before, after = draw(BESIDE), draw(BESIDE)
    whole = {**before, "prediction": prediction, **{key: after[key] for key in after if key not in before}}
    comma, colon = f"{draw(SPACES)},{draw(SPACES)}", f"{draw(SPACES)}:{draw(SPACES)}"
    text = json.dumps(whole, separators=(comma, colon), ensure_ascii=draw(st.booleans()))
    if draw(st.booleans()):
        text = text.replace("]]", "] \n]").replace("[[", "[ [")  # may change text in strings too: read it back
    return json.loads(text), f"\n  {text} \n".encode()


def pieces_of(data, seed):
    generator, start = random.Random(seed), 0
    while start < len(data):
        size = generator.choice([1, 2, 3, 7, 20, 100])
        yield data[start : start + size]
        start += size


def read(data, seed, *, labels=False):
    """Read an answer in pieces; return it whole, and what was wrong with it."""
    with Shelf() as shelf:
        reader = AnswerReader(shelf, labels=labels)
        for piece in pieces_of(data, seed):
            reader.feed(piece)
        left = reader.end()
        return (None if reader.problem else filled(json.loads(left), reader, shelf)), reader.problem


def filled(value, reader, shelf):
    number = array_number(value)
    if number is not None:
        return taken(reader.arrays[number], shelf)
    if isinstance(value, dict):
        return {key: filled(each, reader, shelf) for key, each in value.items()}
    return [filled(each, reader, shelf) for each in value] if isinstance(value, list) else value


def taken(array, shelf):
    if isinstance(array, Labels):
        places = shelf.read(array.codes.start, array.codes.rows).astype(int)
        return [array.distinct[place] for place in places]
    numbers = shelf.read(array.start, array.rows * (1 if array.width is None else array.width))
    return numbers.tolist() if array.width is None else numbers.reshape(array.rows, array.width).tolist()


def as_floats(value):
    if isinstance(value, dict):
        return {key: as_floats(each) for key, each in value.items()}
    if isinstance(value, list):
        return [as_floats(each) for each in value]
    return "NaN" if value is None or math.isnan(value) else float(value)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """So that a few numbers are many blocks."""
    monkeypatch.setattr(_arrays, "BLOCK_BYTES", 24)


@settings(max_examples=400)
@given(answers(arrays()), st.integers(0, 999))
def test_numbers_are_read_as_json_reads_them(answer, seed):
    whole, data = answer
    found, problem = read(data, seed)
    assert problem is None
    expected = whole.pop("prediction")
    assert as_floats(found.pop("prediction")) == as_floats(expected)
    assert found == whole


@settings(max_examples=300)
@given(answers(st.lists(LABELS, max_size=30)), st.integers(0, 999))
def test_labels_are_read_as_json_reads_them(answer, seed):
    whole, data = answer
    found, problem = read(data, seed, labels=True)
    assert problem is None
    assert found == whole
    kinds = [type(label) for label in found["prediction"]] if isinstance(whole["prediction"], list) else []
    assert kinds == [type(label) for label in whole["prediction"]][: len(kinds)]


@given(arrays(), st.integers(0, 999))
def test_an_answer_may_be_nothing_but_an_array(array, seed):
    found, problem = read(json.dumps(array).encode(), seed)
    assert problem is None
    assert as_floats(found["prediction"]) == as_floats(array)


@settings(max_examples=300)
@given(answers(arrays()), st.data(), st.integers(0, 999))
def test_a_damaged_answer_is_never_taken_for_a_whole_one(answer, data, seed):
    """Cut anywhere it is refused; with a byte changed it is refused, or read as `json` reads the changed one."""
    whole, sent = answer
    place = data.draw(st.integers(0, len(sent.rstrip()) - 1))
    cut, _ = read_or_none(sent[:place], seed)
    assert cut is None
    changed = bytearray(sent)
    changed[place] = data.draw(st.sampled_from(b'[]{},:"0\\ n-'))
    found, problem = read_or_none(bytes(changed), seed)
    if found is not None and "prediction" in found and not problem:
        expected = json.loads(changed)
        if isinstance(expected.get("prediction"), list | dict) and "prediction" in whole:
            assert str(as_text(found["prediction"])) == str(as_text(expected["prediction"]))


def as_text(value):
    try:
        return as_floats(value)
    except (TypeError, ValueError):
        return value


def read_or_none(data, seed):
    try:
        return read(data, seed)
    except ValueError:  # what is left is no JSON: the caller says that the answer cannot be read
        return None, "no JSON"


@pytest.mark.parametrize(
    "text", ['["1.5"]', '[["1.5"]]', "[{}]", "[[1],2]", "[1,[2]]", "[[[1]]]", "[[1,2],[3]]", "[1,,2]"]
)
@pytest.mark.parametrize("seed", range(5))
def test_what_is_no_array_of_numbers_is_refused(text, seed):
    assert read(f'{{"prediction": {text}}}'.encode(), seed)[1]


def test_a_failure_in_a_success_is_left_as_it_is():
    body = b'{"_streamed_error": true, "message": "no [[luck]] \\" today"}'
    with Shelf() as shelf:
        reader = AnswerReader(shelf, labels=False)
        reader.feed(b" " * 100_000)
        reader.feed(body)
        assert reader.end() == body
        assert reader.problem is None


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_stored_prediction_may_be_its_members_alone(wrapped):
    members = {"mean": [1, 2], "quantiles": [[3, 4]], "borders": [0.5]}
    whole = {"metadata": {"classes": [5], "mean": [6]}, **({"prediction": members} if wrapped else members)}
    with Shelf() as shelf:
        reader = AnswerReader(shelf, labels=False, stored=True)
        reader.feed(json.dumps(whole).encode())
        left = json.loads(reader.end())
        assert left["metadata"] == whole["metadata"]
        assert filled(left, reader, shelf) == whole
        assert len(reader.arrays) == 3


def test_keepalive_whitespace_takes_no_memory():
    with Shelf() as shelf:
        reader = AnswerReader(shelf, labels=False)
        tracemalloc.start()
        for _ in range(1000):
            reader.feed(b" " * 65_536)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_request_that_is_sent_again_begins_anew():
    with Shelf() as shelf:
        reader = AnswerReader(shelf, labels=False)
        reader.feed(b'{"prediction": [1, 2, 3, 4, 5, 6, 7, 8, 9')
        reader.begin()
        reader.feed(b'{"prediction": [7]}')
        assert filled(json.loads(reader.end()), reader, shelf) == {"prediction": [7.0]}


def test_an_answer_without_end_is_refused_before_memory_is_full():
    with Shelf() as shelf:
        reader = AnswerReader(shelf, labels=False)
        tracemalloc.start()
        reader.feed(b'{"metadata": "')
        for _ in range(64):
            reader.feed(b"x" * (1 << 20))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert reader.problem
    assert peak < 64 << 20


@pytest.mark.parametrize("bytes_in_memory", [0, 1 << 30])
def test_numbers_come_back_from_memory_and_from_the_file(monkeypatch, bytes_in_memory):
    monkeypatch.setattr(_shelf, "_MEMORY_BYTES", bytes_in_memory)
    numbers = np.arange(100_000, dtype=float)
    with Shelf() as shelf:
        shelf.append(numbers[:60_000])
        shelf.append(numbers[60_000:])
        assert shelf.read(59_990, 20).tolist() == list(range(59_990, 60_010))
        with pytest.raises(ValueError, match="not on the shelf"):
            shelf.read(99_999, 2)


def test_an_answer_that_the_disk_has_no_room_for_is_refused_before_it_is_paid_for():
    with pytest.raises(InvalidInputError, match="set TMPDIR to a larger disk"):
        _shelf.check_room(10**15)


def test_the_file_is_written_in_row_groups_of_some_size(monkeypatch, build_model, tmp_path):
    """Tiny ones make the writer's footer grow; each holds 8 MiB, or 5,000 rows and more."""
    monkeypatch.setattr(_arrays, "BLOCK_BYTES", 256 << 10)
    rows = 60_000
    generator = np.random.default_rng(7)
    body = {
        "prediction": generator.dirichlet(np.ones(40), rows).round(6).tolist(),
        "metadata": {"classes": list(range(40))},
    }
    with AnswerIntake("probas") as intake:
        intake.reader.feed(json.dumps(body).encode())
        found = intake.decoded(json.loads(intake.reader.end()), build_model(), quantiles=None, rows=rows)
        path = tmp_path / "part.parquet"
        with path.open("wb") as file:
            write_parquet(found.columns, file, fitted_train_set_id="fitted-1")
    metadata = pq.read_metadata(path)
    sizes = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    assert sum(sizes) == rows
    assert min(sizes[:-1]) >= 5_000
    assert pq.read_table(path)["probability_7"].to_pylist() == [row[7] for row in body["prediction"]]


_WITHOUT_PANDAS = """
import json, sys
from tabpfn_operators.predictions import AnswerIntake, write_parquet
class Model:
    classes = ("a", "b")
for output_type, body in (("probas", [[0.5, 0.5]]), ("preds", ["a"]), ("quantiles", [[1.0]] * 9)):
    with AnswerIntake(output_type) as intake:
        intake.reader.feed(json.dumps({"prediction": body, "metadata": {}}).encode())
        found = intake.decoded(json.loads(intake.reader.end()), Model, quantiles=None, rows=1)
        write_parquet(found.columns, sys.argv[1], fitted_train_set_id="fitted-1")
print("pandas" in sys.modules)
"""


_KEPT_WITHOUT_PANDAS = """
import sys
import pyarrow as pa
from tabpfn_operators.predictions import is_storable
kinds = (pa.int64(), pa.string(), pa.dictionary(pa.int8(), pa.string()), pa.list_(pa.float64()), pa.timestamp("us"))
assert all(is_storable(pa.field("kept", kind)) for kind in kinds)
print("pandas" in sys.modules)
"""


@pytest.mark.parametrize("code", [_WITHOUT_PANDAS, _KEPT_WITHOUT_PANDAS])
def test_pandas_is_not_imported(tmp_path, code):
    command = [sys.executable, "-c", code, str(tmp_path / "part.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
