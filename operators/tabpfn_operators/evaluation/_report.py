"""The report of an evaluation: a page that needs nothing but itself, and a picture for engines' interfaces."""

import base64
import json
import struct

from tabpfn_assets import Decision, Evaluation, FittedModel, SourceRef
from tabpfn_operators.errors import InvalidInputError
from tabpfn_operators.evaluation._report_facts import (
    between,
    class_scores,
    confusions,
    direction,
    facts,
    summary,
)
from tabpfn_operators.evaluation._report_html import (
    Content,
    Node,
    coded,
    document,
    fact_table,
    given,
    section,
    table,
    tag,
)
from tabpfn_operators.evaluation._report_pictures import picture, poster
from tabpfn_operators.evaluation._report_plots import Plot, plots
from tabpfn_operators.evaluation._report_style import STYLE
from tabpfn_operators.evaluation._report_text import (
    NOTHING,
    amount,
    brief,
    inline,
    label,
    percent,
    seconds,
    short,
    title,
    whole,
)

_LABEL_LENGTH = 160
#: Classes that are listed openly; the others are a click away.
_LISTED_CLASSES = 20
_MISTAKES = 10


def render_report(evaluation: Evaluation, *, model: FittedModel | None = None, decision: Decision | None = None) -> str:
    """Write the report of an evaluation as one HTML page.

    The page loads and runs nothing, whoever opens it: plots are part of it, and its policy forbids the rest. Labels,
    names and notes are escaped. It shows class labels and column names; pass redacted records where many people read.
    Equal records make an equal page.

    Args:
        evaluation: The evaluation.
        model: The evaluated model, to show what it was made of.
        decision: The decision on its promotion, to show the conditions.

    Returns:
        The page; write it as UTF-8.

    Raises:
        InvalidInputError: Model or decision are of another fit than the evaluation; pass those that belong to it.
        ConfigurationError: matplotlib is not installed; the message names the `pip install`.
    """
    mine = evaluation.fitted_train_set_id
    for what, other in (
        ("model", model and model.fitted_train_set_id),
        ("decision", decision and decision.candidate_id),
    ):
        if other not in {None, mine}:
            raise InvalidInputError(f"The {what} is of {other}, and the evaluation of {mine}; pass what belongs to it.")
    name = (model and model.name) or f"Model {mine[:8]}"
    body = [
        tag(
            "header",
            tag("div", "TabPFN evaluation report", class_="eyebrow"),
            tag("h1", given(name)),
            tag("div", _about(evaluation), class_="about"),
        ),
        tag(
            "main",
            tag("p", summary(evaluation), class_="lede"),
            _verdict(decision) if decision else None,
            _cards(evaluation),
            _checks(decision) if decision else None,
            _metrics(evaluation),
            section("Plots", _plots(evaluation)),
            _classes(evaluation),
            _holdout(evaluation),
            _model(model) if model else None,
        ),
        tag("footer", "Made by tabpfn-providers from the records above; this page loads nothing from anywhere."),
    ]
    return document(f"{name}: evaluation report", STYLE, body)


def render_png(evaluation: Evaluation) -> bytes:
    """Draw the headline and the plots of an evaluation as one picture, for interfaces that show images.

    Args:
        evaluation: The evaluation; class labels that it holds are shown.

    Returns:
        PNG, about 2,000 pixels wide; the same bytes for the same evaluation.

    Raises:
        ConfigurationError: matplotlib is not installed; the message names the `pip install`.
    """
    return poster(evaluation)


def _about(evaluation: Evaluation) -> Content:
    when = f"{evaluation.created_at:%d %B %Y, %H:%M} UTC"
    return [evaluation.task.capitalize(), " of ", given(evaluation.target), f" · evaluated {when}"]


def _verdict(decision: Decision) -> Node:
    failed = [check.rule for check in decision.checks if not check.passed]
    total = len(decision.checks)
    line = f"{total - len(failed)} of {total} conditions hold, decided on {inline(decision.headline)}."
    return tag(
        "div",
        tag("strong", "Promote" if decision.promote else "Do not promote"),
        line,
        [" Not met: ", coded(", ".join(failed)), "."] if failed else None,
        class_=f"verdict {'yes' if decision.promote else 'no'}",
    )


def _cards(evaluation: Evaluation) -> Node:
    cards = []
    for name, number, under, good in facts(evaluation):
        kind = {True: " good", False: " bad", None: ""}[good]
        cards.append(
            tag(
                "dl",
                tag("dt", name),
                tag("dd", number, class_=f"number{kind}"),
                tag("dd", under, class_="under"),
                class_="card",
            )
        )
    return tag("div", cards, class_="cards")


def _checks(decision: Decision) -> Node:
    rows = []
    for check in decision.checks:
        mark = tag(
            "td", "✓ holds" if check.passed else "✗ fails", class_=f"mark {'passed' if check.passed else 'failed'}"
        )
        numbers = [tag("td", brief(number), class_="n") for number in (check.actual, check.required)]
        rows.append(tag("tr", mark, tag("th", coded(check.rule), scope="row"), tag("td", given(check.reason)), numbers))
    about = fact_table(
        [
            ("Candidate", coded(decision.candidate_id)),
            ("Champion", coded(decision.champion_id) if decision.champion_id else "none yet"),
            ("Decided", f"{decision.decided_at:%Y-%m-%d %H:%M:%S} UTC"),
        ]
    )
    return section("Decision", table(["", "Condition", "In words", "Actual", "Required"], rows, numbers=2), about)


def _metrics(evaluation: Evaluation) -> Node:
    comparison = evaluation.comparison
    columns = [("This model", evaluation.metrics), ("Baseline", evaluation.baseline)]
    if comparison:
        columns.append(("Champion", comparison.metrics))
    names = list(dict.fromkeys(name for _, values in columns for name in values))
    rows = []
    for name in sorted(names, key=lambda each: each != evaluation.headline):
        head = tag("th", title(name), " ", tag("span", direction(name), class_="hint"), scope="row")
        cells = [tag("td", amount(values.get(name)), class_="n") for _, values in columns]
        rows.append(tag("tr", head, cells, class_="headline" if name == evaluation.headline else "plain"))
    interval = [
        (f"Interval of {inline(evaluation.headline)}", evaluation.interval),
        ("Interval of the improvement", comparison.interval if comparison else None),
    ]
    about = [(what, f"{between(each)}, {whole(each.resamples)} bootstrap resamples") for what, each in interval if each]
    if comparison:
        about.append(("Improvement on the champion", brief(comparison.improvement)))
    return section(
        "Metrics",
        table(["Metric", *(name for name, _ in columns)], rows, numbers=len(columns)),
        fact_table([*about, ("Champion", coded(comparison.fitted_train_set_id) if comparison else None)])
        if about
        else None,
    )


def _plots(evaluation: Evaluation) -> Node:
    shown = plots(evaluation)
    if not shown:
        return tag("p", "This record holds no points to plot: it is redacted, or an evaluation without curves.")
    figures = [
        tag("figure", tag("h3", plot.title), _picture(plot), tag("figcaption", plot.how_to_read)) for plot in shown
    ]
    return tag("div", figures, class_="plots")


def _picture(plot: Plot) -> Node:
    light, dark = (picture(plot, theme) for theme in ("light", "dark"))
    # A PNG's size stands in its first chunk; with it the page does not jump while it is laid out.
    width, height = struct.unpack(">II", light[16:24])
    return tag(
        "picture",
        tag("source", media="screen and (prefers-color-scheme: dark)", srcset=_data(dark)),
        tag("img", src=_data(light), alt=plot.alt, width=str(width), height=str(height), id=f"plot-{plot.name}"),
    )


def _data(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _classes(evaluation: Evaluation) -> Node | None:
    classes = evaluation.classes or ()
    if not classes:
        return None
    scores = class_scores(evaluation)
    names = [given(short(label(each), _LABEL_LENGTH)) for each in classes]
    if len(scores) != len(classes):
        rows = [tag("tr", tag("td", f"#{i}", class_="mark"), tag("td", name)) for i, name in enumerate(names, 1)]
        return section("Classes", table(["No.", "Class"], rows))
    rows = [
        tag(
            "tr",
            tag("td", f"#{score.index + 1}", class_="mark"),
            tag("th", names[score.index], scope="row"),
            [
                tag("td", text, class_="n")
                for text in (whole(score.rows), _share(score.recall), _share(score.precision))
            ],
        )
        for score in scores
    ]
    head = ["No.", "Class", "Rows", "Recall", "Precision"]
    parts: list[Content] = [table(head, rows[:_LISTED_CLASSES], numbers=3)]
    if more := rows[_LISTED_CLASSES:]:
        line = f"{len(more)} rarer classes" if len(more) > 1 else "1 rarer class"
        parts.append(tag("details", tag("summary", line), table(head, more, numbers=3)))
    return section("Classes", *parts, _mistakes(evaluation))


def _mistakes(evaluation: Evaluation) -> Content:
    names = [short(label(each), _LABEL_LENGTH) for each in evaluation.classes or ()]
    found = confusions(evaluation, _MISTAKES)
    if len(names) < 3 or not found:
        return None
    rows = [
        tag(
            "tr",
            tag("td", given(names[true])),
            tag("td", given(names[predicted])),
            tag("td", whole(count), class_="n"),
            tag("td", percent(share), class_="n"),
        )
        for true, predicted, count, share in found
    ]
    head = ["True class", "Predicted class", "Rows", "Of the true class"]
    return [tag("h2", "Most frequent mistakes"), table(head, rows, numbers=2)]


def _share(share: float | None) -> str:
    return NOTHING if share is None else percent(share)


def _holdout(evaluation: Evaluation) -> Node:
    holdout = evaluation.holdout
    notes = tag("div", tag("ul", [tag("li", given(note)) for note in evaluation.notes]), class_="panel")
    return section(
        "Holdout",
        notes if evaluation.notes else None,
        fact_table(
            [
                ("Rows", whole(evaluation.rows)),
                ("Rows predicted", whole(evaluation.rows_scored)),
                ("Rows evaluated", _sampled(evaluation)),
                ("Seed", whole(evaluation.seed)),
                ("Server's time to predict", seconds(evaluation.latency)),
                ("Cost of the predictions", _tokens(evaluation.charged)),
                *(_source(holdout) if holdout else ()),
                ("Evaluated", f"{evaluation.created_at:%Y-%m-%d %H:%M:%S} UTC"),
            ]
        ),
    )


def _sampled(evaluation: Evaluation) -> str:
    rows = whole(evaluation.rows_evaluated)
    return rows if evaluation.rows_evaluated >= evaluation.rows_scored else f"{rows}, a sample by the seed"


def _tokens(charged: int | None) -> str:
    return "not known" if charged is None else f"{whole(charged)} tokens"


def _source(source: SourceRef) -> list[tuple[str, Content]]:
    size = source.size_bytes
    return [
        ("Source", [tag("div", coded(uri)) for uri in source.uris]),
        ("Source's fingerprint", coded(source.fingerprint) if source.fingerprint else None),
        ("Source's size", f"{whole(source.rows)} rows" + ("" if size is None else f", {whole(size)} bytes")),
    ]


def _model(model: FittedModel) -> Node:
    run, parameters = model.run, model.parameters
    thinking = parameters.thinking
    ran = run and " · ".join(
        part for part in (f"{run.engine} {run.engine_version or ''}".strip(), run.run_id, run.task_id) if part
    )
    versions = ", ".join(f"{name} {version}" for name, version in sorted(model.packages.items()))
    timings = ", ".join(f"{name} {brief(value)}" for name, value in sorted(model.timings.items()) if value is not None)
    return section(
        "Model",
        fact_table(
            [
                ("Name", given(model.name) if model.name else None),
                ("Fitted id", coded(model.fitted_train_set_id)),
                ("Fit fingerprint", coded(model.fingerprint) if model.fingerprint else None),
                ("Parent (its champion)", coded(model.parent_id) if model.parent_id else None),
                ("Target", given(model.target)),
                ("Train data", f"{whole(model.rows)} rows, {whole(len(model.features))} features"),
                *_source(model.source),
                ("Systems", ", ".join(parameters.systems) or "none"),
                ("Config", coded(json.dumps(parameters.config, ensure_ascii=False, sort_keys=True, default=str))),
                ("Thinking", coded(thinking.model_dump_json(exclude_none=True)) if thinking else "no"),
                ("Cost of the fit", _tokens(model.charged)),
                ("Server's seconds", given(timings) if timings else None),
                ("Possible orphans", whole(model.possible_orphans) if model.possible_orphans else None),
                ("Run", given(ran) if ran else None),
                ("Run's page", coded(run.url) if run and run.url else None),
                ("Code version", coded(run.code_version) if run and run.code_version else None),
                ("Packages", given(versions) if versions else None),
                ("API", coded(model.api_url) if model.api_url else None),
                ("Fitted", f"{model.created_at:%Y-%m-%d %H:%M:%S} UTC"),
            ]
        ),
    )
