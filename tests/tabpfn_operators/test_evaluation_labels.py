"""Labels of a holdout find their class, whatever type they come back in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_operators.evaluation._labels import UNSEEN, match_labels


@pytest.mark.parametrize(
    ("found", "classes", "matched"),
    [
        (["b", "a", "x"], ["a", "b"], (1, 0, UNSEEN)),
        ([2, 1, 3], [1, 2], (1, 0, UNSEEN)),
        ([1.0, 2.5], [1, 2], (0, UNSEEN)),
        ([1, 2], [1.0, 2.0], (0, 1)),
        (["1", "2", "2.0"], [1, 2], (0, 1, 1)),
        ([1, 2.0], ["1", "2"], (0, 1)),
        ([1, 2], ["1.0", "2.0"], (0, 1)),
        (["1", "01"], ["1", "01"], (0, 1)),
        ([1], ["1", "01"], (0,)),
        ([1], ["01", "001"], (UNSEEN,)),
        ([True, False], [False, True], (1, 0)),
        (["True", "false", "TRUE"], [False, True], (1, 0, UNSEEN)),
        ([True, False], ["false", "true"], (1, 0)),
        ([True, False], ["False", "True"], (1, 0)),
        ([True, False], [0, 1], (1, 0)),
        ([1, 0, 2], [False, True], (1, 0, UNSEEN)),
        ([1.0, 0.0], [False, True], (1, 0)),
        ([True], [1, 2], (UNSEEN,)),
        ([1], ["one", "two"], (UNSEEN,)),
        (["nan", "inf"], [1, 2], (UNSEEN, UNSEEN)),
        ([1], ["nan", "1e999"], (UNSEEN,)),
        ([2**53 + 1, str(2**53 + 1)], [2**53, 2**53 + 2], (UNSEEN, UNSEEN)),
        ([10**400, "1"], ["1" + "0" * 400, "1"], (0, 1)),
        (["--1", "-1"], [-1, 1], (UNSEEN, 0)),
        (["<script>"], ["<script>", "b"], (0,)),
    ],
)
def test_a_label_finds_its_class(found, classes, matched):
    assert match_labels(found, classes) == matched


labels = st.one_of(
    st.lists(st.text(max_size=5), min_size=1, unique=True),
    st.lists(st.integers(), min_size=1, unique=True),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, unique=True),
    st.just([False, True]),
)


@given(labels)
def test_every_class_finds_itself(classes):
    assert match_labels(classes, classes) == tuple(range(len(classes)))


@given(st.lists(st.integers(), min_size=1, unique=True))
def test_numbers_find_themselves_in_every_type(classes):
    itself = tuple(range(len(classes)))
    assert match_labels([str(label) for label in classes], classes) == itself
    assert match_labels(classes, [str(label) for label in classes]) == itself
