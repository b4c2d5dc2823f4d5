"""OpenLineage events as plain data: valid for any record, named as other jobs name things, and free of secrets."""

import dataclasses
import enum
import json
import math
import types
import typing
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import attr
import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabpfn_assets import EngineRun, Evaluation, FitParameters, FittedModel, PredictionSet, SourceRef, __version__
from tabpfn_operators import openlineage as ol
from tabpfn_operators.errors import ConfigurationError, FitFailedError
from tabpfn_operators.openlineage import _naming

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECRET = "canary-2a1f77c0"
OWN = {"tabpfn_fit": "TabPFNFitRunFacet", "tabpfn_score": "TabPFNScoreRunFacet"}
OWN["tabpfn_evaluation"] = "TabPFNEvaluationRunFacet"
STANDARD = {
    "columnLineage": ("column_lineage_dataset", "ColumnLineageDatasetFacet"),
    "datasetType": ("dataset_type_dataset", "DatasetTypeDatasetFacet"),
    "errorMessage": ("error_message_run", "ErrorMessageRunFacet"),
    "externalQuery": ("external_query_run", "ExternalQueryRunFacet"),
    "inputStatistics": ("input_statistics_input_dataset", "InputStatisticsInputDatasetFacet"),
    "jobType": ("job_type_job", "JobTypeJobFacet"),
    "lifecycleStateChange": ("lifecycle_state_change_dataset", "LifecycleStateChangeDatasetFacet"),
    "outputStatistics": ("output_statistics_output_dataset", "OutputStatisticsOutputDatasetFacet"),
    "parent": ("parent_run", "ParentRunFacet"),
    "processing_engine": ("processing_engine_run", "ProcessingEngineRunFacet"),
    "schema": ("schema_dataset", "SchemaDatasetFacet"),
    "symlinks": ("symlinks_dataset", "SymlinksDatasetFacet"),
    "version": ("dataset_version_dataset", "DatasetVersionDatasetFacet"),
}
FORMATS = {"eventTime": "date-time", "runId": "uuid"}
FORMATS |= dict.fromkeys(("producer", "schemaURL", "_producer", "_schemaURL"), "uri")


# OpenLineage publishes its JSON Schema on the web only; the classes of its own Python package are generated from it.
# They say the same about fields, types, enumerations and what is required, and these lines turn them into a schema
# again, stricter than the published one: a field that the standard does not know is refused.


def schema_of(kind):
    """JSON Schema of a type that OpenLineage's generated classes use."""
    if kind in {str, int, float, bool}:
        return {"type": {str: "string", int: "integer", float: "number", bool: "boolean"}[kind]}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {"enum": [each.value for each in kind]}
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in {types.UnionType, typing.Union}:
        return {"anyOf": [schema_of(each) for each in arguments if each is not type(None)]}
    if origin is list:
        return {"type": "array", "items": schema_of(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    return {"$ref": f"#/$defs/{kind.__module__}.{kind.__qualname__}"}


def definition_of(cls):
    """JSON Schema of one of the classes."""
    from openlineage.client.generated import base

    hints = typing.get_type_hints(cls)
    open_to_all = cls.__module__ == base.__name__ and issubclass(cls, base.BaseFacet)
    required = [field.name for field in attr.fields(cls) if field.default is attr.NOTHING]
    required += [name for name in ("producer", "schemaURL", "_producer", "_schemaURL") if name in hints]
    properties = {
        field.name: schema_of(hints[field.name]) | ({"format": FORMATS[field.name]} if field.name in FORMATS else {})
        for field in attr.fields(cls)
    }
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": open_to_all,
    }


def every_definition():
    """All of OpenLineage's generated classes, by the name that `schema_of` refers to them with."""
    from openlineage.client import event_v2, facet_v2

    modules = [getattr(facet_v2, name) for name in facet_v2.__all__]
    modules = [each for each in modules if isinstance(each, types.ModuleType)]
    found = {}
    for module in [__import__(event_v2.RunEvent.__module__, fromlist=["_"]), *modules]:
        for cls in vars(module).values():
            if isinstance(cls, type) and attr.has(cls):
                found[f"{cls.__module__}.{cls.__qualname__}"] = definition_of(cls)
    return found


def checker(schema):
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True)


class Standard:
    """Checks events by OpenLineage's own definitions, and our facets by the schemas that ship with the package."""

    def __init__(self):
        from openlineage.client import event_v2, facet_v2

        definitions = every_definition()
        self.classes = {key: getattr(getattr(facet_v2, module), cls) for key, (module, cls) in STANDARD.items()}

        def of(cls):
            return checker({"$defs": definitions, "$ref": f"#/$defs/{cls.__module__}.{cls.__qualname__}"})

        self.event = of(event_v2.RunEvent)
        folder = Path(ol.__file__).parent
        self.facets = {key: of(cls) for key, cls in self.classes.items()}
        self.facets |= {
            key: checker(json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))) for key, name in OWN.items()
        }

    def check(self, event):
        """Refuse an event that is not valid; return its facets by key."""
        event = json.loads(json.dumps(event, allow_nan=False))
        self.event.validate(event)
        found = {}
        holders = [(event[each], ("facets",)) for each in ("run", "job")]
        holders += [(each, ("facets", "inputFacets")) for each in event["inputs"]]
        holders += [(each, ("facets", "outputFacets")) for each in event["outputs"]]
        for holder, names in holders:
            for key, facet in (pair for name in names for pair in holder.get(name, {}).items()):
                self.facets[key].validate(facet)
                found.setdefault(key, []).append(facet)
        return found


@pytest.fixture(scope="module")
def standard():
    return Standard()


@pytest.fixture
def build_predictions(build_model):
    def build(**fields):
        record = {
            "uri": "s3://out/day=1/predictions.parquet",
            "lineage_uri": "s3://out/day=1/_lineage.json",
            "rows": 5,
            "columns": ["prediction", "probability_no", "probability_yes"],
            "output_type": "probas",
            "source": {"uris": ["s3://in/score.parquet"], "rows": 5, "fingerprint": "f2"},
            "test_set_upload_id": "test-1",
            "model": build_model(),
            "created_at": NOW,
        }
        return PredictionSet.model_validate({**record, **fields})

    return build


def event_of(lineage, state="COMPLETE", **options):
    return ol.run_event(state, ol.run_identity("fit"), lineage, time=NOW, **options)


# Random records

words = st.text(min_size=1, max_size=12)
numbers = st.floats()
urls = st.builds(
    "{}{}".format,
    st.sampled_from(["s3://b/", "gs://b/", "abfss://c@a.dfs.core.windows.net/", "file:///", "/", "", "https://h:1/"]),
    words,
)
sources = st.builds(
    SourceRef,
    uris=st.lists(urls, max_size=3).map(tuple),
    fingerprint=st.none() | words,
    size_bytes=st.none() | st.integers(0, 2**60),
    rows=st.integers(0, 10**9),
)
engine_runs = st.none() | st.builds(
    EngineRun, engine=words, engine_version=st.none() | words, run_id=st.none() | words, url=st.none() | urls
)
labels = st.lists(words | st.integers() | st.booleans(), max_size=3).map(tuple)
intervals = st.fixed_dictionaries({"low": numbers, "high": numbers, "resamples": st.just(10)})
metrics = st.dictionaries(words, numbers, max_size=3)
evaluations = st.builds(
    lambda **fields: Evaluation.model_validate(fields),
    fitted_train_set_id=words,
    task=st.sampled_from(["classification", "regression"]),
    target=words,
    headline=words,
    metrics=metrics,
    interval=st.none() | intervals,
    baseline=metrics,
    comparison=st.none()
    | st.fixed_dictionaries(
        {"fitted_train_set_id": words, "metrics": metrics, "improvement": numbers, "interval": st.none() | intervals}
    ),
    rows=st.integers(0, 100),
    rows_scored=st.integers(0, 100),
    rows_evaluated=st.integers(0, 100),
    seed=st.integers(),
    classes=st.none() | labels,
    latency=st.none() | st.floats(min_value=0),
    charged=st.none() | st.integers(0, 10**9),
    notes=st.lists(words, max_size=2).map(tuple),
    holdout=st.none() | sources,
    created_at=st.just(NOW),
)
parameters = st.fixed_dictionaries(
    {
        "task": st.sampled_from(["classification", "regression"]),
        "config": st.dictionaries(words, numbers | words | st.lists(st.integers(), max_size=2), max_size=3),
        "thinking": st.none() | st.fixed_dictionaries({"metric": st.none() | words, "group_col": st.none() | words}),
    }
)
models = st.builds(
    lambda **fields: FittedModel.model_validate(fields),
    name=st.none() | st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,9}", fullmatch=True),
    fitted_train_set_id=words,
    train_set_upload_id=st.none() | words,
    status=st.sampled_from(["pending", "completed", "failed"]),
    target=words,
    features=st.lists(st.fixed_dictionaries({"name": words, "dtype": words}), min_size=1, max_size=4).map(tuple),
    classes=st.none() | labels,
    rows=st.integers(1, 10**9),
    source=sources,
    fingerprint=st.none() | words,
    parameters=parameters,
    timings=st.dictionaries(words, st.none() | numbers, max_size=3),
    estimated_cost=st.none() | st.integers(0, 10**9),
    charged=st.none() | st.integers(0, 10**9),
    evaluation=st.none() | evaluations,
    api_url=st.none() | st.just("https://api.priorlabs.ai"),
    run=engine_runs,
    packages=st.dictionaries(words, words, max_size=2),
    parent_id=st.none() | words,
    created_at=st.just(NOW),
)
predictions = st.builds(
    lambda **fields: PredictionSet.model_validate(fields),
    uri=urls,
    lineage_uri=urls,
    rows=st.integers(1, 10**9),
    columns=st.lists(words, min_size=1, max_size=4).map(tuple),
    output_type=words,
    quantiles=st.none() | st.lists(st.floats(0.01, 0.99), max_size=3).map(tuple),
    source=sources,
    test_set_upload_id=words,
    estimated_cost=st.none() | st.integers(0, 10**9),
    charged=st.none() | st.integers(0, 10**9),
    model=models,
    timings=st.dictionaries(words, st.none() | numbers, max_size=2),
    run=engine_runs,
    created_at=st.just(NOW),
)
errors = st.none() | st.builds(FitFailedError, words, fitted_train_set_id=st.none()) | st.builds(ValueError, words)
parents = st.none() | st.builds(ol.ParentRun, run_id=st.uuids().map(str), namespace=words, job=words)


@given(model=models, error=errors, parent=parents, state=st.sampled_from(["START", "COMPLETE", "FAIL"]))
def test_any_fit_makes_a_valid_event(standard, model, error, parent, state):
    run = ol.run_identity("fit", name=model.name, parent=parent, engine_run=model.run)
    for record in (model, model.redacted()):
        event = ol.run_event(state, run, ol.fit_lineage(record), time=NOW, error=error)
        facets = standard.check(event)
        assert facets["tabpfn_fit"][0]["fittedTrainSetId"] == model.fitted_train_set_id
        assert ("tabpfn_evaluation" in facets) == (model.evaluation is not None)
        assert ("errorMessage" in facets) == (error is not None)
        assert ("parent" in facets) == (parent is not None)


@given(record=predictions, error=errors)
def test_any_scoring_makes_a_valid_event(standard, record, error):
    for each in (record, record.redacted()):
        facets = standard.check(event_of(ol.score_lineage(each), error=error))
        assert facets["tabpfn_score"][0]["rows"] == record.rows


@given(evaluation=evaluations, model=models)
def test_any_evaluation_makes_a_valid_event(standard, evaluation, model):
    for redact in (False, True):
        shown = (evaluation.redacted(), model.redacted()) if redact else (evaluation, model)
        facets = standard.check(event_of(ol.evaluation_lineage(*shown)))
        assert facets["tabpfn_evaluation"][0]["headline"] == evaluation.headline


@given(model=models, source=urls | st.lists(urls, max_size=2) | st.just(object()))
def test_any_start_is_a_valid_event(standard, model, source):
    start = ol.fit_start(source, model.target, model.parameters, name=model.name, api_url=model.api_url)
    standard.check(event_of(start, "START"))
    standard.check(event_of(ol.score_start(source, model), "START"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda event: event.pop("run"),
        lambda event: event.update(eventType="BEGUN"),
        lambda event: event.update(eventTime="yesterday"),
        lambda event: event["run"].update(runId="not-a-uuid"),
        lambda event: event["outputs"][0].pop("namespace"),
        lambda event: event["outputs"][0]["facets"]["schema"].pop("_producer"),
        lambda event: event["outputs"][0]["facets"]["schema"].update(colums=[]),
        lambda event: event["outputs"][0]["facets"]["schema"]["fields"][0].pop("name"),
        lambda event: event["outputs"][0]["outputFacets"]["outputStatistics"].update(rowCount="100"),
        lambda event: event["outputs"][0]["facets"]["columnLineage"]["fields"]["a"].pop("inputFields"),
        lambda event: event["outputs"][0]["facets"].update(
            lifecycleStateChange={"_producer": "x:y", "_schemaURL": "x:y", "lifecycleStateChange": "MADE"}
        ),
        lambda event: event["run"]["facets"]["tabpfn_fit"].pop("target"),
        lambda event: event["run"]["facets"]["tabpfn_fit"].update(rows=0),
    ],
)
def test_the_check_refuses_what_is_wrong(standard, build_model, damage):
    event = event_of(ol.fit_lineage(build_model(rows=100)))
    standard.check(event)
    damage(event)
    with pytest.raises(jsonschema_rs.ValidationError):
        standard.check(event)


def test_facets_name_published_versions_of_their_schemas(standard, build_model, build_predictions, build_evaluation):
    parent = ol.ParentRun(run_id=str(UUID(int=1)), namespace="airflow", job="dag.task")
    run = ol.run_identity("fit", parent=parent)
    model = build_model(name="churn", evaluation=build_evaluation())
    lineages = [ol.fit_lineage(model), ol.score_lineage(build_predictions(model=model))]
    facets = {}
    for lineage in lineages:
        facets |= standard.check(ol.run_event("FAIL", run, lineage, time=NOW, error=ValueError("x")))
    assert set(facets) == set(STANDARD) | set(OWN)  # each that is checked is made
    for key, cls in standard.classes.items():
        ours, theirs = (url.partition("#") for url in (facets[key][0]["_schemaURL"], cls._get_schema()))
        (*folder, version, name), (*their_folder, their_version, their_name) = ours[0].split("/"), theirs[0].split("/")
        assert (folder, name, ours[2]) == (their_folder, their_name, theirs[2])
        # What is newer than their class is not published yet.
        assert [int(n) for n in version.split("-")] <= [int(n) for n in their_version.split("-")]


def test_our_facets_name_their_version_and_their_schema(build_model):
    facet = ol.run_facets(build_model())["tabpfn_fit"]
    assert facet["_producer"] == f"pkg:pypi/tabpfn-providers@{__version__}"
    where = facet["_schemaURL"].partition("#")[2]
    assert where == "tabpfn_operators/openlineage/TabPFNFitRunFacet.json"
    assert Path(ol.__file__).parents[2].joinpath(where).is_file()


# Names


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://bucket/a/b.parquet", ("s3://bucket", "a/b.parquet")),
        ("s3a://bucket/a", ("s3://bucket", "a")),
        ("S3://bucket", ("s3://bucket", "/")),
        ("gcs://bucket/a", ("gs://bucket", "a")),
        ("abfss://box@acc.dfs.core.windows.net/a/b", ("abfss://box@acc.dfs.core.windows.net", "a/b")),
        ("abfs://box@acc.dfs.core.windows.net/a", ("abfss://box@acc.dfs.core.windows.net", "a")),
        ("abfs://box/a", ("abfs://box", "a")),
        ("/data/a.parquet", ("file", "/data/a.parquet")),
        ("a.parquet", ("file", "a.parquet")),
        ("file:///data/a", ("file", "/data/a")),
        ("file://data/a", ("file", "/data/a")),
        ("local:///data/a", ("file", "/data/a")),
        ("memory://a/b", ("memory", "/a/b")),
        ("hdfs://node:8020/a", ("hdfs://node:8020", "/a")),
        ("https://host/a.parquet", ("https://host", "/a.parquet")),
        ("simplecache::s3://bucket/a", ("s3://bucket", "a")),
    ],
)
def test_datasets_have_the_names_of_the_standard(uri, expected):
    assert ol.dataset_id(uri) == expected


def test_the_names_are_those_that_openlineages_own_helpers_make():
    from openlineage.client.naming import dataset as theirs

    for uri, naming in [
        ("s3://b/k/x.parquet", theirs.S3(bucket_name="b", object_key="k/x.parquet")),
        ("gs://b/k", theirs.GCS(bucket_name="b", object_key="k")),
        ("abfs://c@a.dfs.core.windows.net/k", theirs.ABFSS(container="c", service="a", path="k")),
        ("/data/x", theirs.LocalFileSystem(path="/data/x")),
        ("hdfs://n:1/k", theirs.HDFS(namenode_host="n", namenode_port="1", path="/k")),
    ]:
        assert ol.dataset_id(uri) == (naming.get_namespace(), naming.get_name())


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://KEY:{SECRET}@bucket/a",
        f"https://host/a?X-Amz-Signature={SECRET}",
        f"https://user:{SECRET}@host/a",
        f"simplecache::https://host/a?sig={SECRET}",
    ],
)
def test_a_name_holds_no_secret(uri):
    assert SECRET not in "".join(ol.dataset_id(uri))
    assert SECRET not in str(ol.fit_start(uri, "y", FitParameters(task="classification")))


def test_many_files_stand_as_their_folders():
    few = SourceRef(uris=tuple(f"s3://b/t/day={n % 2}/{n}.parquet" for n in range(_naming.MOST_FILES)), rows=1)
    many = SourceRef(uris=(*few.uris, "s3://b/t/day=0/last.parquet"), rows=1)
    assert len(ol.source_ids(few)) == _naming.MOST_FILES
    assert ol.source_ids(many) == (("s3://b", "t/day=0"), ("s3://b", "t/day=1"))


def test_before_anything_is_read_only_files_are_inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert _naming.named_uris("train.parquet") == (str(tmp_path / "train.parquet"),)
    assert _naming.named_uris(["s3://b/a.parquet", Path("/x/b.csv")]) == ("s3://b/a.parquet", "/x/b.csv")
    for source in ("s3://b/folder", "s3://b/*.parquet", object(), []):
        assert _naming.named_uris(source) == ()


# What events say


def test_a_model_is_known_by_its_name_and_by_its_fitted_id(build_model):
    model = build_model(name="churn", api_url="https://api.priorlabs.ai")
    (output,) = ol.fit_lineage(model).outputs
    assert (output["namespace"], output["name"]) == ("tabpfn://api.priorlabs.ai", "churn")
    assert output["facets"]["version"]["datasetVersion"] == "fitted-1"
    assert output["facets"]["symlinks"]["identifiers"][0]["name"] == "fitted-1"
    (nameless,) = ol.fit_lineage(build_model(api_url="http://127.0.0.1:8080/v1")).outputs
    assert (nameless["namespace"], nameless["name"]) == ("tabpfn://127.0.0.1:8080", "fitted-1")


def test_predictions_meet_the_model_and_the_model_its_source(build_model, build_predictions):
    model = build_model(name="churn")
    fitted, scored = ol.fit_lineage(model), ol.score_lineage(build_predictions(model=model))
    (made,) = fitted.outputs
    assert (made["namespace"], made["name"]) in [(each["namespace"], each["name"]) for each in scored.inputs]
    fields = made["facets"]["columnLineage"]["fields"]
    assert {name: each["inputFields"][0]["field"] for name, each in fields.items()} == {"a": "a", "b": "b", "y": "y"}
    (written,) = scored.outputs
    lineage = written["facets"]["columnLineage"]["fields"]
    assert list(lineage) == ["prediction", "probability_no", "probability_yes"]
    for each in lineage.values():
        found = {(one["namespace"], one["name"], one["field"]) for one in each["inputFields"]}
        assert found == {("s3://in", "score.parquet", "a"), ("s3://in", "score.parquet", "b"), ("tabpfn", "churn", "y")}


def test_rows_are_counted_once(build_model):
    one = ol.fit_lineage(build_model(source={"uris": ["a"], "rows": 7, "size_bytes": 9, "fingerprint": "f"})).inputs
    statistics = one[0]["inputFacets"]["inputStatistics"]
    assert (statistics["rowCount"], statistics["size"], statistics["fileCount"]) == (7, 9, 1)
    assert one[0]["facets"]["version"]["datasetVersion"] == "f"
    two = ol.fit_lineage(build_model(source={"uris": ["a", "b"], "rows": 7})).inputs
    assert [each.get("inputFacets") for each in two] == [None, None]


def test_a_table_in_memory_is_no_dataset(build_model):
    lineage = ol.fit_lineage(build_model(source={"uris": [], "rows": 7}))
    assert lineage.inputs == ()
    assert "columnLineage" not in lineage.outputs[0]["facets"]


def test_column_lineage_has_a_bound(standard, build_model, build_predictions):
    wide = [{"name": f"f{n}", "dtype": "double"} for n in range(1_000)]
    model = build_model(features=wide)
    columns = ["prediction", *(f"probability_{n}" for n in range(9))]
    event = event_of(ol.score_lineage(build_predictions(model=model, columns=columns)))
    (facet,) = standard.check(event)["columnLineage"]
    assert facet["fields"] == {}  # all depend on all: told once
    assert len(facet["dataset"]) == 1_001
    assert len(json.dumps(event)) < 1_000_000
    many = {"uris": [f"s3://b/{n}.parquet" for n in range(6)], "rows": 1}
    assert "columnLineage" not in ol.fit_lineage(build_model(features=wide, source=many)).outputs[0]["facets"]


def test_numbers_that_json_lacks(standard, build_model, build_evaluation):
    evaluation = build_evaluation(metrics={"log_loss": math.nan, "rmse": math.inf, "mae": 1.5})
    model = build_model(timings={"fit": math.nan, "load": math.inf, "total": 2.5}, evaluation=evaluation)
    facets = standard.check(event_of(ol.fit_lineage(model)))
    assert facets["tabpfn_fit"][0]["timings"] == {"total": 2.5}
    assert facets["tabpfn_evaluation"][0]["metrics"] == {"log_loss": "NaN", "rmse": "Infinity", "mae": 1.5}


def test_a_field_of_a_newer_record_is_not_sent_on(build_model):
    assert SECRET not in json.dumps(event_of(ol.fit_lineage(build_model(something_new=SECRET))))


# Secrets, labels


def test_labels_are_data_and_only_column_names_carry_them(build_model, build_predictions):
    label = "<script>alert(1)</script>"
    model = build_model(classes=["no", label])
    assert label not in json.dumps(event_of(ol.fit_lineage(model)))
    record = build_predictions(model=model, columns=["prediction", f"probability_{label}"])
    schema = ol.score_lineage(record).outputs[0]["facets"]["schema"]
    assert [field["name"] for field in schema["fields"]] == ["prediction", f"probability_{label}"]


def test_redacted_records_name_no_column_and_no_label(build_model, build_predictions, build_evaluation):
    names = {"col-canary", "target-canary", "label-canary", "group-canary", "note-canary"}
    evaluation = build_evaluation(
        target="target-canary",
        classes=["label-canary"],
        notes=["note-canary"],
        confusion=[[1]],
        curves={"roc:0": [[0, 1]]},
    )
    model = build_model(
        target="target-canary",
        features=[{"name": "col-canary", "dtype": "double"}],
        classes=["label-canary"],
        parameters={"task": "classification", "thinking": {"group_col": "group-canary"}},
        evaluation=evaluation,
    )
    record = build_predictions(model=model, columns=["prediction", "probability_label-canary"]).redacted()
    error = FitFailedError("column col-canary holds label-canary", fitted_train_set_id=None)
    events = [
        event_of(ol.fit_start("a.csv", model.target, model.parameters, redact=True), error=error, redact=True),
        event_of(ol.fit_lineage(model.redacted())),
        event_of(ol.score_lineage(record)),
        event_of(ol.evaluation_lineage(evaluation.redacted(), model.redacted())),
    ]
    text = json.dumps(events)
    assert not [name for name in names if name in text]
    assert "FitFailedError" in text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"PUT https://store/x?X-Amz-Signature={SECRET} was refused", "PUT https://store/x was refused"),
        (f"s3://KEY:{SECRET}@bucket/a is gone", "s3://bucket/a is gone"),
        (f"sent Authorization: Bearer {SECRET}", "sent Authorization: Bearer ***"),
    ],
)
def test_an_error_tells_no_secret(text, told):
    facets = event_of(ol.RunLineage(), "FAIL", error=FitFailedError(text, fitted_train_set_id="f"))["run"]["facets"]
    assert facets["errorMessage"]["message"] == f"FitFailedError: {told}"


def test_of_an_error_that_is_not_ours_only_the_class_is_told():
    facets = event_of(ol.RunLineage(), "FAIL", error=RuntimeError(f"token={SECRET}"))["run"]["facets"]
    assert facets["errorMessage"]["message"] == "RuntimeError; the log of the run has its text."
    assert "stackTrace" not in facets["errorMessage"]


def test_a_fit_and_a_scoring_as_the_client_makes_them(standard, client, classification, tmp_path, bearer):
    model = client.fit(classification.train, classification.target, parameters=classification.parameters, name="churn")
    scored = client.predict(model, classification.score, str(tmp_path / "out"))
    events = [event_of(ol.fit_lineage(model)), event_of(ol.score_lineage(scored))]
    facets = [standard.check(event) for event in events]
    assert facets[0]["tabpfn_fit"][0]["status"] == "completed"
    assert facets[1]["tabpfn_score"][0]["rows"] == 25
    assert [each["name"] for each in events[0]["inputs"]] == [classification.train]
    assert (tmp_path / "out" / "predictions.parquet").samefile(events[1]["outputs"][0]["name"])
    assert bearer not in json.dumps(events)
    start = ol.fit_start(classification.train, classification.target, classification.parameters)
    assert [(each["namespace"], each["name"]) for each in start.inputs] == [("file", classification.train)]


# Runs


def test_a_rerun_in_the_same_engine_run_is_the_same_run():
    run = EngineRun(engine="airflow", engine_version="3.3.2", run_id="manual__1", task_id="fit_churn")
    first = ol.run_identity("fit", engine_run=run, parts=["a.parquet", "y"])
    assert first == ol.run_identity("fit", engine_run=run, parts=["a.parquet", "y"])
    assert first.job == "fit_churn.fit"
    others = [
        ol.run_identity("fit", engine_run=run, parts=["b.parquet", "y"]),
        ol.run_identity("score", engine_run=run, parts=["a.parquet", "y"]),
        ol.run_identity("fit", engine_run=run.model_copy(update={"run_id": "manual__2"}), parts=["a.parquet", "y"]),
        ol.run_identity("fit"),
        ol.run_identity("fit"),
    ]
    assert len({first.run_id, *(each.run_id for each in others)}) == 6


def test_the_run_id_is_the_same_in_every_process():
    run = EngineRun(engine="dagster", run_id="1", task_id="t")
    assert ol.run_identity("fit", engine_run=run).run_id == "311841cd-78b0-543e-84fe-9ab1d22d44de"


def test_a_job_is_named_after_task_or_model():
    assert ol.run_identity("fit", name="churn").job == "churn.fit"
    assert ol.run_identity("score").job == "tabpfn.score"
    assert ol.run_identity("fit", name="churn", job="nightly").job == "nightly"


def test_the_engine_is_named_where_one_runs_it(build_model):
    run = EngineRun(engine="dagster", engine_version="1.12.7", run_id="r")
    identity = ol.run_identity("fit", engine_run=run)
    facet = ol.run_event("START", identity, ol.RunLineage(), time=NOW)["run"]["facets"]["processing_engine"]
    assert (facet["name"], facet["version"], facet["openlineageAdapterVersion"]) == ("dagster", "1.12.7", __version__)
    facet = event_of(ol.fit_lineage(build_model()))["run"]["facets"]["processing_engine"]
    assert (facet["name"], facet["version"]) == ("tabpfn-providers", __version__)


def test_a_parent_is_read_from_text():
    run_id = str(UUID(int=7))
    parent = ol.ParentRun.read(f"prod/eu/dag.task/{run_id}")
    assert (parent.namespace, parent.job, parent.run_id) == ("prod/eu", "dag.task", run_id)
    for text in ("", "job/1", "ns/job/not-a-uuid"):
        with pytest.raises(ConfigurationError, match=r"run id|no UUID"):
            ol.ParentRun.read(text)


def test_lineage_is_plain_data_that_an_engine_can_hand_on(build_model, build_predictions):
    for lineage in (ol.fit_lineage(build_model()), ol.score_lineage(build_predictions())):
        parts = dataclasses.asdict(lineage)
        assert set(parts) == {"inputs", "outputs", "run_facets", "job_facets"}
        assert json.loads(json.dumps(parts)) == {
            **parts,
            "inputs": list(lineage.inputs),
            "outputs": list(lineage.outputs),
        }
