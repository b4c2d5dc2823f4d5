"""The pure parts of the lineage store: names of versions, markers of sources, logs of aliases, differences."""

import hashlib
import json
import random
import string
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_assets import FittedModel
from tabpfn_operators.errors import ConfigurationError, ModelNotRecordedError
from tabpfn_operators.lineage import _layout as layout
from tabpfn_operators.lineage._entries import changes_between, promoted, rolled_back
from tabpfn_operators.lineage._forget import without_names

MOMENTS = st.datetimes(
    datetime.fromisoformat("0001-01-02"), datetime.fromisoformat("9999-12-30"), timezones=st.just(UTC)
)
NAMES = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=20).filter(lambda n: n[0] != ".")


# Versions


def test_a_version_is_the_time_of_the_fit_and_a_hash_of_its_id():
    at = datetime(2026, 11, 21, 13, 30, 5, 999_999, tzinfo=timezone(timedelta(hours=1)))
    digits = hashlib.sha256(b"fitted-1").hexdigest()[:8]
    assert layout.version_id(at, "fitted-1") == f"20261121T123005999Z-{digits}"


@given(MOMENTS, st.text(max_size=50))
def test_every_version_id_is_one_and_is_found_again(at, fitted):
    version = layout.version_id(at, fitted)
    assert layout.is_version(version)
    assert layout.versions_in([f"{version}.json", f"{version}.erased.json", f"{version}.evaluations", "aliases"]) == [
        version
    ]
    assert layout.marked_in([layout.marker("a.b-c", version)]) == [("a.b-c", version)]


@given(MOMENTS, MOMENTS, st.text(max_size=5), st.text(max_size=5))
def test_versions_sort_by_second(a, b, one, other):
    early, late = sorted([a, b])
    first, second = layout.version_id(early, one), layout.version_id(late, other)
    assert first[:16] <= second[:16]
    assert (first[:16] == second[:16]) == (early.replace(microsecond=0) == late.replace(microsecond=0))


@given(st.lists(st.builds(layout.version_id, MOMENTS, st.text(max_size=5)), unique=True, max_size=6), st.data())
def test_a_beginning_means_the_one_version_that_has_it(versions, data):
    versions = sorted(versions)
    text = data.draw(st.sampled_from([v[:n] for v in versions for n in (1, 8, 16, 20, 25)] or ["2026"]))
    found = [v for v in versions if v.startswith(text)]
    if len(found) == 1:
        assert layout.chosen_version("m", text, versions, frozenset()) == found[0]
    else:
        with pytest.raises(ModelNotRecordedError, match="several versions begin" if found else "there is no version"):
            layout.chosen_version("m", text, versions, frozenset())


@pytest.mark.parametrize("text", ["", "x", "2027"])
def test_what_no_version_begins_with_names_those_there_are(text):
    version = layout.version_id(datetime(2026, 1, 1, tzinfo=UTC), "f")
    with pytest.raises(ModelNotRecordedError, match=version):
        layout.chosen_version("m", text, [version], frozenset())


def test_latest_is_never_erased():
    old, new = (layout.version_id(datetime(year, 1, 1, tzinfo=UTC), "f") for year in (2025, 2026))
    assert layout.chosen_version("m", "latest", [old, new], frozenset()) == new
    assert layout.chosen_version("m", "latest", [old, new], frozenset({new})) == old
    with pytest.raises(ModelNotRecordedError, match="every version is erased"):
        layout.chosen_version("m", "latest", [old, new], frozenset({old, new}))


@pytest.mark.parametrize("alias", ["latest", "@champion", "../champion", "", ".hidden", "a/b", "a" * 129])
def test_no_alias_moves_a_path_or_shadows_the_newest(alias):
    with pytest.raises(ConfigurationError, match=r"no name|cannot be an alias"):
        layout.checked_alias(alias)


@pytest.mark.parametrize("version", ["../../x", "latest", "", "20261121", "20261121T000000000Z-0123456g"])
def test_only_a_whole_version_becomes_part_of_a_path(version):
    with pytest.raises(ConfigurationError, match="no whole version"):
        layout.checked_version(version)


@given(st.lists(st.text(max_size=12)))
def test_stray_files_are_no_versions_entries_or_markers(names):
    assert all(f"{version}.json" in names for version in layout.versions_in(names))
    assert all(f"{number:08d}.json" in names for number in layout.entries_in(names))
    assert all(layout.marker(*key) in names for key in layout.marked_in(names))


# Sources


def keys_of(*uris, **source):
    model = build(source={"uris": uris, "rows": 1, **source})
    return {key for index, key in layout.index_folders(model) if index == "sources"}


@pytest.mark.parametrize(
    ("recorded", "asked"),
    [
        ("s3://bucket/day/a.parquet", "s3://bucket/day/a.parquet"),
        ("s3://bucket/day/a.parquet", "s3://KEY:SECRET@bucket/day/a.parquet?versionId=1"),
        ("s3://bucket/day/a.parquet", "s3a://bucket/day/a.parquet"),
        ("s3://bucket/day/a.parquet", "s3://bucket/day/"),
        ("s3://bucket/day/a.parquet", "s3://bucket"),
        ("gcs://bucket/a.parquet", "gs://bucket/a.parquet"),
        ("abfss://box@account/a.parquet", "abfs://box@account/a.parquet"),
        ("/data/a.parquet", "file:///data/a.parquet"),
        ("/data/a.parquet", "/data/b/../a.parquet"),
        ("/data/a.parquet", "/data"),
        ("https://host/a.parquet", "https://host/a.parquet?X-Amz-Signature=secret"),
        ("zip://a.parquet::s3://bucket/z.zip", "zip://a.parquet::s3://bucket/z.zip"),
    ],
)
def test_a_source_is_found_however_it_is_spelled(recorded, asked):
    assert layout.source_key(asked) in keys_of(recorded)
    assert "secret" not in layout.source_key(asked).lower()


@pytest.mark.parametrize(
    "asked", ["s3://bucket/da", "s3://bucket/day/a.parque", "s3://bucket2/day/a.parquet", "/day/a.parquet", "s3://"]
)
def test_a_neighbour_is_not_found(asked):
    assert layout.source_key(asked) not in keys_of("s3://bucket/day/a.parquet")


def test_a_relative_path_is_found_as_the_record_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert layout.source_key("train.parquet") in keys_of(str(tmp_path / "train.parquet"))


def test_a_source_is_found_by_its_fingerprint():
    assert layout.source_key("0" * 64) in keys_of(fingerprint="0" * 64)


@given(
    st.lists(NAMES.filter(lambda n: n not in {"..", "."}), min_size=1, max_size=5), st.sampled_from(["s3://b/", "/"])
)
def test_every_folder_above_a_file_finds_it(parts, root):
    keys = keys_of(root + "/".join(parts))
    for depth in range(1, len(parts) + 1):
        assert layout.source_key(root + "/".join(parts[:depth])) in keys
    assert len(keys) == len(parts) + (root != "/")


# Logs of aliases


@given(st.lists(st.one_of(st.integers(0, 4), st.none()), max_size=30))
def test_a_rollback_undoes_the_newest_promotion_that_is_not_undone(steps):
    """The links between entries say the same as a stack of promotions."""
    log, stack = [], []
    for step in steps:
        if step is not None:
            if not log or log[-1].version != f"v{step}":
                model = build(fitted_train_set_id=f"f{step}")
                log.append(promoted(log[-1] if log else None, model, "champion", f"v{step}", None, AT))
                stack.append(f"v{step}")
        elif log and log[-1].previous is not None:
            log.append(rolled_back(log[-1], log[log[-1].previous - 1], AT))
            stack.pop()
        assert not log or (log[-1].version, log[-1].fitted_train_set_id) == (stack[-1], f"f{stack[-1][1:]}")
        assert [entry.number for entry in log] == list(range(1, len(log) + 1))
        assert [entry.replaced for entry in log[1:]] == [entry.version for entry in log[:-1]]
    assert len({entry.nonce for entry in log}) == len(log)


# Differences

AT = datetime(2026, 11, 21, tzinfo=UTC)


def build(**fields):
    record = {
        "name": "churn",
        "fitted_train_set_id": "fitted-1",
        "train_set_upload_id": "upload-1",
        "status": "completed",
        "target": "y",
        "features": [{"name": "a", "dtype": "double"}, {"name": "b", "dtype": "string"}],
        "classes": ["no", "yes"],
        "rows": 100,
        "source": {"uris": [], "rows": 100},
        "parameters": {"task": "classification"},
        "created_at": AT,
    }
    return FittedModel.model_validate({**record, **fields})


def changed(a, b):
    return {change.field: (change.before, change.after) for change in changes_between(a, b)}


def test_a_model_differs_from_itself_in_nothing():
    assert changes_between(build(), build()) == ()


def test_a_difference_names_the_field_and_both_values():
    other = build(
        rows=101,
        features=[{"name": "b", "dtype": "string"}, {"name": "a", "dtype": "int64"}, {"name": "c", "dtype": "bool"}],
        parameters={"task": "classification", "config": {"n_estimators": 4}},
        packages={"pyarrow": "22"},
    )
    assert changed(build(), other) == {
        "features.a": ("double", "int64"),
        "features.c": (None, "bool"),
        "rows": (100, 101),
        "parameters.config.n_estimators": (None, 4),
        "packages.pyarrow": (None, "22"),
        "feature_order": (["a", "b"], ["b", "a", "c"]),
    }


def test_labels_differ_by_type():
    assert changed(build(classes=[0, 1]), build(classes=[False, True])) == {"classes": ([0, 1], [False, True])}


def test_curves_are_not_compared(build_evaluation):
    one = build(evaluation=build_evaluation(metrics={"log_loss": 0.5}, curves={"reliability": ((0.0, 1.0, 1.0),)}))
    other = build(evaluation=build_evaluation(metrics={"log_loss": 0.4}, curves={"reliability": ((0.5, 1.0, 1.0),)}))
    assert changed(one, other) == {"evaluation.metrics.log_loss": (0.5, 0.4)}


CONFIGS = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(min_size=1, max_size=3), CONFIGS, max_size=4),
    st.dictionaries(st.text(min_size=1, max_size=3), CONFIGS, max_size=4),
)
def test_a_difference_read_backwards_is_the_difference_backwards(one, other):
    models = [build(parameters={"task": "classification", "config": {"nested": config}}) for config in (one, other)]
    forth, back = changes_between(*models), changes_between(*reversed(models))
    assert {(c.path, json.dumps([c.before, c.after])) for c in forth} == {
        (c.path, json.dumps([c.after, c.before])) for c in back
    }
    if json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True):
        assert forth == ()


# Forgetting


def test_no_name_or_label_is_left(build_evaluation):
    seed = random.Random(7)
    secret = ["".join(seed.choices("αβγδ<>", k=8)) for _ in range(7)]
    model = build(
        target=secret[0],
        features=[{"name": name, "dtype": "double"} for name in secret[1:4]],
        classes=secret[4:6],
        parameters={
            "task": "classification",
            "thinking": {"group_col": secret[1], "group_time_col": secret[2]},
        },
        evaluation=build_evaluation(target=secret[0], classes=secret[4:6], notes=(f"no {secret[4]}",)),
        of_a_newer_version={"columns": secret},
        source={"uris": ["s3://b/a.parquet"], "rows": 1, "filter": secret[6]},
    )
    text = without_names(model).model_dump_json()
    assert [name for name in secret if name in text or hashlib.sha256(name.encode()).hexdigest()[:12] in text] == []
    left = without_names(model)
    assert (left.fitted_train_set_id, left.source.uris, left.rows) == ("fitted-1", ("s3://b/a.parquet",), 100)
    assert left.feature_names == ("column-1", "column-2", "column-3")
    assert left.parameters.thinking.group_col == "column-1"
    assert left.classes == left.evaluation.classes == ("class-1", "class-2")
    assert left.evaluation.metrics == model.evaluation.metrics
    assert without_names(left) == without_names(model.redacted()) == left
