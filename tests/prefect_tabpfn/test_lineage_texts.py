"""Asset keys and Markdown: whatever a column is called, Prefect accepts the key and a reader sees the name."""

import json
from datetime import UTC, datetime

from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from prefect.assets import Asset

from prefect_tabpfn._markdown import escape, model_report, predictions_report
from prefect_tabpfn.lineage import asset_key, model_asset_key
from tabpfn_assets import EngineRun, Feature, FitParameters, FittedModel, PredictionSet, SourceRef

RENDERER = MarkdownIt("gfm-like", {"linkify": False, "html": True})
HOSTILE = "a|b`c`<script>alert(1)</script>[x](http://h/) **b** _i_ ![p](q)\n```\n# h &amp; \\"


def model(**changes: object) -> FittedModel:
    values = {
        "fitted_train_set_id": "fit-1",
        "train_set_upload_id": "upload-1",
        "status": "completed",
        "target": HOSTILE,
        "features": tuple(Feature(name=f"{HOSTILE}{n}", dtype="double") for n in range(30)),
        "classes": ("no", HOSTILE),
        "rows": 100,
        "source": SourceRef(uris=("s3://lake/train data.parquet",), fingerprint="f00", rows=100),
        "parameters": FitParameters(task="classification"),
        "run": EngineRun(engine="prefect", run_id="run-1"),
        "created_at": datetime(2026, 11, 21, tzinfo=UTC),
    }
    return FittedModel.model_validate(values | changes)


def predictions() -> PredictionSet:
    return PredictionSet(
        uri="s3://lake/scores/predictions.parquet",
        lineage_uri="s3://lake/scores/_lineage.json",
        rows=7,
        columns=("prediction", f"probability_{HOSTILE}"),
        output_type="probas",
        source=SourceRef(uris=("s3://lake/score.parquet",), rows=7),
        test_set_upload_id="test-1",
        model=model(),
        created_at=datetime(2026, 11, 21, tzinfo=UTC),
    )


def rendered_cells(markdown: str) -> list[str]:
    tokens = RENDERER.parse(markdown)
    cells = [tokens[i + 1] for i, token in enumerate(tokens) if token.type == "td_open"]
    for cell in cells:
        assert {child.type for child in cell.children} <= {"text", "text_special"}, cell.content
    return ["".join(child.content for child in cell.children) for cell in cells]


@settings(derandomize=True)
@given(st.text(min_size=1))
@example(HOSTILE)
@example("www.example.com")
@example("&lt;")
def test_an_escaped_name_is_shown_literally_in_a_table(name):
    (cell,) = rendered_cells(f"| |\n|---|\n| {escape(f'[{name}]')} |\n")
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(f"[{name}]".split()))
    assert cell == shown


def test_reports_show_hostile_names_and_hold_the_whole_record():
    flat = " ".join(HOSTILE.split())
    for report, record in (
        (model_report(model()), model()),
        (predictions_report(predictions()), predictions()),
    ):
        cells = rendered_cells(report)
        assert cells[cells.index("Target") + 1] == flat
        assert cells[cells.index("Classes") + 1] == f"no, {flat}"
        assert cells[cells.index("Features") + 1].endswith(f"{flat}19 and 10 more")
        assert cells[cells.index("Flow run") + 1] == "run-1"
        (fence,) = [token for token in RENDERER.parse(report) if token.type == "fence"]
        assert type(record).model_validate(json.loads(fence.content)) == record


def test_a_regression_report_has_no_classes():
    report = model_report(model(classes=None, parameters=FitParameters(task="regression"), run=None))
    assert "Classes" not in rendered_cells(report)


@settings(derandomize=True)
@given(st.text(min_size=1) | st.builds("{}://{}".format, st.text(max_size=6), st.text()))
@example("s3://KEY:SECRET@lake/train.parquet?sig=SECRET")
@example("simplecache::s3://lake/train.parquet")
@example("S3://lake/" + "x" * 900)
def test_prefect_accepts_every_asset_key(url):
    key = asset_key(url)
    assert Asset(key=key).key == key
    assert "SECRET" not in key


def test_asset_keys_are_the_urls_themselves_where_prefect_allows_it(tmp_path):
    assert asset_key("s3://lake/day=1/train.parquet") == "s3://lake/day=1/train.parquet"
    assert asset_key("simplecache::s3://lake/train.parquet") == "s3://lake/train.parquet"
    assert asset_key("s3://KEY:SECRET@lake/my train.parquet?sig=1") == "s3://lake/my_train.parquet"
    assert asset_key(str(tmp_path / "t.parquet")) == f"file://{tmp_path}/t.parquet"
    long = [asset_key("s3://lake/" + "x" * 900 + end) for end in "ab"]
    assert len(set(long)) == 2
    assert {len(key) for key in long} == {512}


def test_a_model_is_known_by_its_name_then_by_its_fitted_id():
    assert model_asset_key(model(name="churn.v2")) == "tabpfn://models/churn.v2"
    assert model_asset_key(model()) == "tabpfn://models/fit-1"
