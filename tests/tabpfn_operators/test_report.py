"""The report: complete, the same for the same records, and harmless whatever the labels are."""

import base64
import io
import re
import subprocess
import sys
import warnings
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tabpfn_assets import Evaluation
from tabpfn_operators.errors import ConfigurationError, InvalidInputError
from tabpfn_operators.evaluation import _report_pictures, evaluate_scores, render_png, render_report
from tabpfn_operators.evaluation._report_facts import summary
from tabpfn_operators.evaluation._report_plots import CONFUSION_CLASSES, confusion_shown, plots
from tabpfn_operators.evaluation._report_text import amount, brief, label, plot_labels, short, visible
from tabpfn_operators.promotion import PromotionRule, decide

VOID = {"meta", "link", "img", "source", "br"}
OWN = re.findall(
    r"\w+",
    """
    html head meta link title style body header main footer section div p h1 h2 h3 strong span dl dt dd ul li bdi code
    table thead tbody tr th td figure figcaption picture source img details summary
    """,
)
PLOTS = {
    "classification": ["reliability", "confusion", "roc", "pr"],
    "regression": ["predicted_actual", "residuals", "coverage"],
}
NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></title><svg onload=alert(1)>",
    "&lt;b&gt;&amp;",
    "$x^2$",
    r"$\frac{$",
    "_hidden",
    "two\nlines\tand\x00nul",
    "\u202egnp.exe\u2066",
    "שלום",
    "مرحبا",
    "👩‍👩‍👧 family",
    "日本語",
    "",
    " ",
    "1",
    "%s{0}{x}",
    "long " * 400,
)


class Page(HTMLParser):
    """A page as a strict reader sees it: each element closed where it should be."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), attrs
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    def unknown_decl(self, data):
        raise AssertionError(data)

    def handle_comment(self, data):
        raise AssertionError(data)

    @property
    def text(self):
        return "\n".join(self.texts)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def assert_harmless(page):
    """Only the page's own kinds of elements, no handler, and nothing to load from anywhere."""
    for tag, attributes in page.elements:
        assert tag in OWN, tag
        for name, value in attributes.items():
            assert not name.startswith("on"), attributes
            assert name not in {"style", "action", "formaction"}, attributes
            assert name not in {"src", "srcset", "href"} or value.startswith("data:"), value[:80]
            assert not re.match(r"\s*(https?:|//|javascript:)", value or "", re.IGNORECASE), value[:80]
    assert len(page.all("style")) == 1
    (policy,) = [each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")


def pictures(page):
    """The page's plots by name, light and dark."""
    found = {}
    for source, image in zip(page.all("source"), page.all("img"), strict=True):
        assert image["alt"]
        files = (image["src"], source["srcset"])
        light, dark = (Image.open(io.BytesIO(base64.b64decode(each.partition(",")[2]))) for each in files)
        assert (int(image["width"]), int(image["height"])) == light.size == dark.size
        found[image["id"].removeprefix("plot-")] = (light.convert("RGB"), dark.convert("RGB"))
    return found


def shades(image):
    return len(image.getcolors(maxcolors=1 << 24))


def style_of(html):
    return html[html.index("<style>") : html.index("</style>")]


def without_style(html):
    return html.replace(style_of(html), "")


def nasty(build, **fields):
    size = len(NASTY)
    confusion = [[10 * (i == j) + (i + j) % 3 for j in range(size)] for i in range(size)]
    curves = {
        "reliability": [(0.5, 0.5, 10.0)],
        **{f"roc:{i}": [(0.0, 0.0), (1.0, 1.0)] for i in (0, 4, 6, 7, 8)},
        **{f"pr:{i}": [(0.0, 1.0), (1.0, 0.1)] for i in (0, 4, 6, 7, 8)},
    }
    text = NASTY[0] + NASTY[7]
    given = {"classes": list(NASTY), "confusion": confusion, "curves": curves, "target": text, "notes": list(NASTY)}
    return build(**{**given, **fields})


@pytest.mark.parametrize("task", PLOTS)
def test_a_page_holds_every_plot_of_its_task_in_both_themes(build_judged, task):
    page = Page(render_report(build_judged(task)))
    assert_harmless(page)
    found = pictures(page)
    assert sorted(found) == sorted(PLOTS[task])
    for light, dark in found.values():
        assert shades(light) > 30
        assert shades(dark) > 30
        assert light.getpixel((0, 0)) == (255, 255, 255)
        assert dark.getpixel((0, 0)) == (0x16, 0x1C, 0x26)


def test_a_page_holds_the_numbers_the_model_and_the_decision(build_model, build_judged):
    interval = {"low": -0.01, "high": 0.05, "resamples": 987}
    metrics = {"log_loss": 0.33, "accuracy": 0.8765}
    compared = {"fitted_train_set_id": "fitted-0", "metrics": metrics, "improvement": 0.02, "interval": interval}
    holdout = {"uris": ["s3://KEY:SECRET@bucket/holdout.parquet?sig=abc"], "fingerprint": "ab" * 32, "rows": 1200}
    evaluation = build_judged(comparison=compared, holdout=holdout, latency=3.25, notes=["no ROC AUC: too few rows"])
    model = build_model(
        name="churn",
        fingerprint="cd" * 32,
        parameters={"task": "classification", "config": {"n_estimators": 4}},
        run={"engine": "airflow", "engine_version": "3.3.2", "run_id": "manual__1", "url": "https://example.com/run"},
        parent_id="fitted-0",
    )
    champion = build_model(fitted_train_set_id="fitted-0")
    rule = PromotionRule(min_improvement=0.5, max_latency=60)
    decision = decide(model, evaluation, champion, rule, now=evaluation.created_at)
    page = Page(render_report(evaluation, model=model, decision=decision))
    assert_harmless(page)
    assert page.texts[page.texts.index("TabPFN evaluation report") + 1] == "churn"
    for part in (
        "0.3100",
        "0.6900",
        "0.8765",
        "95% interval −0.01 to 0.05, 987 bootstrap resamples",  # noqa: RUF001
        "1,200",
        "1,000, a sample by the seed",
        "7",
        "3.25 s",
        "no ROC AUC: too few rows",
        "s3://bucket/holdout.parquet",
        "Do not promote",
        "min_improvement",
        *(check.reason for check in decision.checks),
        "fitted-1",
        "fitted-0",
        "cd" * 32,
        "train.parquet",
        '{"n_estimators": 4}',
        "airflow 3.3.2 · manual__1",
        "https://example.com/run",
    ):
        assert part in page.text, part
    assert "a difference that these rows cannot tell from none" in page.text
    assert "SECRET" not in page.text
    assert "sig=abc" not in page.text
    assert (
        "Promote"
        in Page(render_report(evaluation, decision=decision.model_copy(update={"promote": True, "checks": ()}))).texts
    )


def test_nothing_from_data_becomes_markup(build_model, build_judged):
    evaluation = nasty(build_judged)
    clean = build_judged(classes=[f"c{i}" for i in range(len(NASTY))], confusion=evaluation.confusion)
    config = {"</script>": NASTY[1]}
    model = build_model(
        target=NASTY[2],
        parameters={"task": "classification", "config": config},
        packages={NASTY[0]: NASTY[1]},
        run={"engine": NASTY[0], "run_id": NASTY[8], "task_id": NASTY[11], "url": "javascript:alert(1)"},
    )
    html = render_report(evaluation, model=model)
    page = Page(html)
    assert_harmless(page)
    assert style_of(html) == style_of(render_report(clean))
    for each in NASTY[:7] + NASTY[9:13]:
        assert each in page.texts, each
    assert r"two\nlines\tand\x00nul" in page.texts
    assert r"\u202egnp.exe\u2066" in page.texts
    assert "\x00" not in html
    assert "\u202e" not in html
    assert '"1"' in page.texts
    assert max(map(len, page.texts)) < 2100
    assert "<script" not in without_style(html)


def test_a_picture_of_nasty_labels_neither_warns_nor_fails(build_judged):
    assert Image.open(io.BytesIO(render_png(nasty(build_judged)))).size[0] > 1000
    few = build_judged(classes=["$x^2$", "日本"], target=NASTY[11])
    assert Image.open(io.BytesIO(render_png(few))).size[0] > 1000


def test_labels_in_plots_are_distinct_and_spelled_or_numbered():
    def has_glyph(character):
        return character.isascii() or character == "…"

    labels = ["yes", "日本", "category number 1 of many", "category number 2 of many", "a" * 50, "1", 1]
    assert plot_labels(list(enumerate(labels, 1)), has_glyph, 12) == [
        "yes",
        "#2",
        "#3",
        "#4",
        "aaaaaa…aaaaa",
        '"1"',
        "1",
    ]


@pytest.mark.parametrize("task", PLOTS)
def test_equal_records_make_equal_reports(build_judged, task):
    first, second = build_judged(task), Evaluation.model_validate_json(build_judged(task).model_dump_json())
    assert render_report(first) == render_report(second)
    assert render_png(first) == render_png(second)
    assert b"Matplotlib" not in render_png(first)


@pytest.mark.parametrize("task", PLOTS)
def test_a_style_of_the_users_own_changes_nothing(build_judged, task):
    import matplotlib as mpl
    from matplotlib.style import library

    evaluation = build_judged(task)
    plain = render_png(evaluation)
    with mpl.rc_context():
        mpl.rcParams.update(library["dark_background"])
        mpl.rcParams.update(
            {
                "text.usetex": True,
                "text.parse_math": True,
                "axes.grid": True,
                "font.family": "serif",
                "font.size": 30,
                "savefig.dpi": 20,
                "figure.dpi": 30,
                "lines.linestyle": ":",
                "axes.titlelocation": "right",
                "xtick.top": True,
                "xtick.labelbottom": False,
                "figure.autolayout": True,
            }
        )
        before = dict(mpl.rcParams)
        assert render_png(evaluation) == plain
        assert dict(mpl.rcParams) == before


def test_a_report_touches_no_global_state_of_matplotlib(build_judged):
    code = (
        "import sys\nfrom tabpfn_assets import Evaluation\n"
        "from tabpfn_operators.evaluation import render_png, render_report\n"
        "assert 'matplotlib' not in sys.modules\n"
        "evaluation = Evaluation.model_validate_json(sys.stdin.read())\n"
        "render_png(evaluation), render_report(evaluation)\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    stdin = build_judged().model_dump_json()
    subprocess.run([sys.executable, "-c", code], input=stdin, text=True, check=True, timeout=120)


@pytest.mark.parametrize("task", PLOTS)
def test_a_redacted_evaluation_makes_a_page_without_its_words(build_model, build_judged, task):
    secret = {"classes": ["cancer", "healthy"]} if task == "classification" else {}
    evaluation = build_judged(task, target="diagnosis", notes=["cancer is rare"], **secret)
    model = build_model(target="diagnosis", **secret)
    html = render_report(evaluation.redacted(), model=model.redacted())
    page = Page(html)
    assert_harmless(page)
    for word in ("cancer", "healthy", "diagnosis"):
        assert word not in html
    assert sorted(pictures(page)) == (["confusion"] if task == "classification" else [])
    assert shades(Image.open(io.BytesIO(render_png(evaluation.redacted()))).convert("RGB")) > 30


@pytest.mark.parametrize(("task", "classes"), [("classification", 2), ("classification", 7), ("regression", 0)])
def test_every_plot_is_there_for_what_evaluate_makes(build_model, task, classes):
    random = np.random.default_rng(11)
    if task == "classification":
        labels = [f"kind {i}" for i in range(classes)]
        codes = random.integers(0, classes, 300)
        truth = np.array(labels)[codes]
        scores = random.dirichlet(np.ones(classes), 300) + 2 * np.eye(classes)[codes] * random.random((300, 1))
        scores = scores / scores.sum(axis=1, keepdims=True)
    else:
        labels, truth = None, random.normal(50, 10, 300)
        noise = {q: truth + 12 * (q - 0.5) + random.normal(0, 2, 300) for q in (0.1, 0.2, 0.4, 0.5, 0.6, 0.8, 0.9)}
        scores = pa.table({"prediction": noise[0.5], **{f"quantile_{q}": values for q, values in noise.items()}})
    model = build_model(classes=labels, parameters={"task": task})
    evaluation = evaluate_scores(model, truth, scores, resamples=20)
    page = Page(render_report(evaluation, model=model))
    assert_harmless(page)
    assert sorted(pictures(page)) == sorted(PLOTS[task])
    (readable,) = [plot.alt for plot in plots(evaluation) if plot.name in {"confusion", "residuals"}]
    assert ("of 300 rows" if task == "classification" else "in 40 bins") in readable


def test_many_classes_are_summed_up_and_still_all_listed(build_judged):
    count = 160
    confusion = [[count - i if i == j else (i * j) % 3 for j in range(count)] for i in range(count)]
    evaluation = build_judged(classes=[f"kind {i}" for i in range(count)], confusion=confusion)
    page = Page(render_report(evaluation))
    (shown,) = [plot for plot in plots(evaluation) if plot.name == "confusion"]
    assert "19 most frequent of 160 classes" in shown.how_to_read
    assert len(page.all("details")) == 1
    assert all(f"kind {i}" in page.texts for i in range(count))


@given(
    matrix=st.integers(1, 60).flatmap(lambda n: st.lists(st.integers(0, 9), min_size=n, max_size=n)), seed=st.integers()
)
def test_a_shown_confusion_matrix_keeps_every_row_and_the_frequent_classes(matrix, seed):
    size = len(matrix)
    confusion = tuple(tuple((matrix[i] * (j + 1) + seed) % 7 for j in range(size)) for i in range(size))
    evaluation = Evaluation.model_construct(confusion=confusion)
    kept, shown = confusion_shown(evaluation)
    assert len(shown) <= CONFUSION_CLASSES
    assert sum(map(sum, shown)) == sum(map(sum, confusion))
    for position, index in enumerate(kept):
        assert shown[position][position] == confusion[index][index]
        assert sum(shown[position]) == sum(confusion[index])
    left_out = [sum(row) for index, row in enumerate(confusion) if index not in kept]
    assert max(left_out, default=0) <= min(sum(confusion[index]) for index in kept)


ODD = [
    {"metrics": {}, "baseline": {}, "interval": None, "classes": None, "confusion": None, "curves": {}},
    {"metrics": {"log_loss": float("nan"), "accuracy": float("inf")}, "baseline": {"log_loss": float("-inf")}},
    {"metrics": {"log_loss": 0.0, "brand_new": 1e-300, "<b>": 1e300}},
    {"confusion": [[0, 0], [0, 0]]},
    {"confusion": [[5]], "classes": ["only"]},
    {"confusion": [[10**9, 0], [0, 10**12]]},
    {"classes": None},
    {"curves": {"reliability": [], "roc:x": [[1, 2]], "roc:9": [[0, 0], [1, 1]], "pr:": [[1, 1]], "new": [[1]]}},
    {"curves": {"reliability": [[float("nan"), 0.5, 3], [0.5, 0.5, 0]], "roc:1": [[0.0]], "pr:1": [[0.5, 0.5]]}},
]
ODD_REGRESSION = [
    {"curves": {"residuals": [[0, 0, 5]], "predicted_actual": [[3, 3]], "coverage": [[0.8, 1.0]]}},
    {"curves": {"residuals": [[-1e-12, 1e-12, 5]], "predicted_actual": [[1e15, 1e15 + 1], [1e15 + 2, 1e15]]}},
    {"curves": {"residuals": [[1e308, float("inf"), 5]], "predicted_actual": [[1e308, -1e308]]}},
    {"curves": {"residuals": [[-1e20, 0, 0], [0, 1e20, 0]], "predicted_actual": [[-1e99, 1e99]]}},
    {"curves": {"predicted_actual": [[0.0001 * i, 0.0001 * i] for i in range(5)], "coverage": [[2, 3]]}},
]


@pytest.mark.parametrize(
    ("task", "fields"),
    [*(("classification", each) for each in ODD), *(("regression", each) for each in ODD_REGRESSION)],
)
def test_odd_numbers_make_a_report_all_the_same(build_judged, task, fields):
    evaluation = build_judged(task, **fields)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_harmless(Page(render_report(evaluation)))


@pytest.mark.parametrize(
    ("number", "shown", "in_words"),
    [
        (0.84, "0.8400", "0.84"),
        (-0.0123, "−0.0123", "−0.0123"),  # noqa: RUF001
        (0, "0", "0"),
        (1.0812, "1.0812", "1.0812"),
        (12.3456, "12.346", "12.346"),
        (22954.31, "22,954", "22,954"),
        (100.0, "100.00", "100"),
        (1234567.8, "1,234,568", "1,234,568"),
        (0.00012345, "1.234e−04", "1.234e−04"),  # noqa: RUF001
        (2.5e12, "2.500e+12", "2.500e+12"),
        (float("nan"), "not a number", "not a number"),
        (float("-inf"), "−∞", "−∞"),  # noqa: RUF001
        (None, "–", "–"),  # noqa: RUF001
    ],
)
def test_numbers_are_written_for_people(number, shown, in_words):
    assert amount(number) == shown
    assert brief(number) == in_words


def test_words_from_data_are_cut_in_the_middle_and_made_visible():
    assert short("category 1 of 2", 9) == "cate…of 2"
    assert short("short", 9) == "short"
    assert visible("a\u2028b\ud800") == r"a\u2028b\ud800"
    assert [label(each) for each in ("1", 1, True, "True", "", "yes")] == ['"1"', "1", "True", '"True"', '""', "yes"]


def test_a_summary_says_worse_where_it_is_worse(build_judged):
    worse = build_judged(metrics={"log_loss": 0.9}, baseline={"log_loss": 0.7})
    assert summary(worse) == "Log loss is 0.9, 0.2 worse than the 0.7 of a constant prediction."


@pytest.mark.parametrize("what", ["model", "decision"])
def test_records_of_another_fit_are_refused(build_model, build_judged, what):
    evaluation = build_judged()
    other = build_model(fitted_train_set_id="fitted-9")
    if what == "decision":
        judged = build_judged(fitted_train_set_id="fitted-9")
        other = decide(other, judged, None, PromotionRule(), now=judged.created_at)
    with pytest.raises(InvalidInputError, match=f"The {what} is of fitted-9, and the evaluation of fitted-1"):
        render_report(evaluation, **{what: other})


@pytest.mark.parametrize("render", [render_report, render_png])
def test_without_matplotlib_the_extra_is_named(build_judged, monkeypatch, render):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for cached in (_report_pictures._fonts, _report_pictures._glyphs):
        cached.cache_clear()
    with pytest.raises(ConfigurationError, match=r'pip install "tabpfn-providers\[evaluation\]"'):
        render(build_judged())
