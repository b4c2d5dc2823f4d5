"""Pictures of a report as PNG: matplotlib by its objects alone, so that no global state is touched (never pyplot)."""

import io
import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabpfn_assets import Evaluation
from tabpfn_operators.errors import ConfigurationError
from tabpfn_operators.evaluation._report_axes import Theme
from tabpfn_operators.evaluation._report_facts import headline_lines
from tabpfn_operators.evaluation._report_plots import Plot, plots
from tabpfn_operators.evaluation._report_text import amount, short, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Surface, ink, muted, grid, accent, series (told apart by the colour-blind), lowest share: as in the style sheet.
_COLOURS: dict[str, tuple[str, str, str, str, str, tuple[str, ...], str]] = {
    "light": (
        "#ffffff",
        "#1b2430",
        "#667085",
        "#e6e9ef",
        "#2456c7",
        ("#2456c7", "#d97706", "#0f9d76", "#b5459c", "#64748b"),
        "#eef2fb",
    ),
    "dark": (
        "#161c26",
        "#e8ecf3",
        "#98a3b5",
        "#2b3443",
        "#7aa7ff",
        ("#7aa7ff", "#f5b14c", "#4fd1a5", "#e48bd0", "#a3b1c6"),
        "#1e2736",
    ),
}
THEMES = tuple(_COLOURS)
_DPI = 180
_SIZE = (4.8, 4.1)  # inches


def picture(plot: Plot, theme: str) -> bytes:
    """Draw one plot.

    Args:
        plot: The plot.
        theme: `light` or `dark`.

    Returns:
        PNG; the same bytes for the same plot.

    Raises:
        ConfigurationError: matplotlib is not installed; the message names the `pip install`.
    """
    colours = _theme(theme)
    figure = _figure(_SIZE, colours)
    plot.draw(figure.add_subplot(), colours)
    return _png(figure)


def poster(evaluation: Evaluation) -> bytes:
    """Draw the headline and every plot of an evaluation as one picture, on white.

    Raises:
        ConfigurationError: matplotlib is not installed; the message names the `pip install`.
    """
    theme = _theme("light")
    shown = plots(evaluation)
    cells = [*shown, None] if len(shown) % 2 else shown
    columns = 1 if not shown else 2
    rows = math.ceil(len(cells) / columns)
    height = 1.5 + 4.3 * (rows or 1)
    figure = _figure((11, height if shown else 5.5), theme)
    grid = figure.add_gridspec(1 + (rows or 1), columns, height_ratios=[1.3, *[4.3] * (rows or 1)])
    _headline(figure.add_subplot(grid[0, :]), evaluation, theme)
    for position, plot in enumerate(cells or [None]):
        axes = figure.add_subplot(grid[1 + position // columns, position % columns])
        if plot is None:
            _metrics(axes, evaluation, theme)
            continue
        plot.draw(axes, theme)
        axes.set_title(plot.title, loc="left", color=theme.ink, fontsize=12, fontweight="bold", pad=10, y=1.0)
    return _png(figure)


def _headline(axes: "Axes", evaluation: Evaluation, theme: Theme) -> None:
    axes.set_axis_off()
    first, second, third = headline_lines(evaluation)
    spelled = "".join(c if theme.has_glyph(c) else "□" for c in third)
    for text, height, size, weight, colour in (
        (first, 0.72, 19, "bold", theme.ink),
        (second, 0.34, 11, "normal", theme.ink),
        (spelled, 0.04, 10, "normal", theme.muted),
    ):
        axes.text(0, height, short(text, 120), fontsize=size, fontweight=weight, color=colour, transform=axes.transAxes)


def _metrics(axes: "Axes", evaluation: Evaluation, theme: Theme) -> None:
    axes.set_axis_off()
    axes.set_title("Metrics", loc="left", color=theme.ink, fontsize=12, fontweight="bold", pad=10, y=1.0)
    lines = [(title(name), name) for name in evaluation.metrics]
    columns = [("This model", evaluation.metrics), ("Baseline", evaluation.baseline)]
    if evaluation.comparison:
        columns.append(("Champion", evaluation.comparison.metrics))
    step = 1 / (max(len(lines), 7) + 1)
    rights = [1 - 0.2 * (len(columns) - 1 - position) for position in range(len(columns))]

    def write(x: float, line: int, text: str, colour: str, align: Any = "left", *, bold: bool = False) -> None:
        axes.text(
            x,
            1 - (line + 0.6) * step,
            text,
            color=colour,
            ha=align,
            va="center",
            fontsize=10,
            fontweight="bold" if bold else "normal",
            transform=axes.transAxes,
        )

    for (name, _), right in zip(columns, rights, strict=True):
        write(right, 0, name, theme.muted, "right")
    for line, (shown, name) in enumerate(lines, 1):
        bold = name == evaluation.headline
        spelled = "".join(c if theme.has_glyph(c) else "□" for c in short(shown, 28))
        write(0, line, spelled, theme.ink, bold=bold)
        for (_, values), right in zip(columns, rights, strict=True):
            write(right, line, amount(values.get(name)), theme.ink, "right", bold=bold)


def _figure(size: tuple[float, float], theme: Theme) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.12, wspace=0.05, hspace=0.04)
    return Figure(
        figsize=size,
        dpi=_DPI,
        facecolor=theme.surface,
        edgecolor=theme.surface,
        linewidth=0,
        frameon=True,
        layout=layout,
    )


def _theme(name: str) -> Theme:
    glyphs = _glyphs()
    return Theme(*_COLOURS[name], has_glyph=lambda character: ord(character) in glyphs)


@cache
def _fonts() -> dict[bool, Path]:
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ConfigurationError(
            f'{error.name or "matplotlib"} is not installed; pip install "tabpfn-providers[evaluation]".'
        ) from None
    folder = Path(mpl.get_data_path(), "fonts", "ttf")
    return {bold: folder / f"DejaVuSans{'-Bold' if bold else ''}.ttf" for bold in (False, True)}


@cache
def _glyphs() -> frozenset[int]:
    fonts = _fonts()
    from matplotlib.font_manager import get_font

    return frozenset(get_font(fonts[False]).get_charmap()) & frozenset(get_font(fonts[True]).get_charmap())


def _png(figure: "Figure") -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.font_manager import FontProperties
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        # matplotlib's own font, no TeX, no mathtext: labels are data, and systems have other fonts.
        bold = text.get_fontweight() in {"bold", 700}
        text.set_fontproperties(FontProperties(fname=_fonts()[bold], size=text.get_fontsize()))
        text.set_usetex(False)
        text.set_parse_math(False)
    content = io.BytesIO()
    canvas: Any = FigureCanvasAgg(figure)  # matplotlib has types for figures, not for canvases
    canvas.print_png(content, metadata={"Software": None})
    return content.getvalue()
