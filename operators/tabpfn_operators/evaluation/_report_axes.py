"""Axes as the plots of a report share them.

Every property that a user's matplotlibrc could change is set here, and nothing global is read or set: two threads, or a
notebook with a style of its own, get the same picture.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tabpfn_operators.evaluation._report_text import MINUS, brief

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Theme:
    """Colours of a plot, as hex, and what its font can spell."""

    surface: str
    ink: str
    muted: str
    grid: str
    accent: str
    series: tuple[str, ...]
    low: str
    has_glyph: Callable[[str], bool]


def frame(axes: "Axes", theme: Theme, x: str, y: str, *, grid: bool = True) -> None:
    axes.set_facecolor(theme.surface)
    axes.set_xscale("linear")
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set(visible=grid and side in {"left", "bottom"}, color=theme.grid, linewidth=1)
    axes.grid(visible=False, which="both")
    if grid:
        axes.grid(which="major", axis="both", color=theme.grid, linewidth=0.8, linestyle="-", alpha=1)
    axes.tick_params(
        which="major",
        axis="both",
        direction="out",
        length=0,
        pad=5,
        labelsize=9,
        labelcolor=theme.muted,
        labelbottom=True,
        labelleft=True,
        labeltop=False,
        labelright=False,
    )
    axes.minorticks_off()
    axes.set_xlabel(x, color=theme.ink, fontsize=10, labelpad=6, loc="center")
    axes.set_ylabel(y, color=theme.ink, fontsize=10, labelpad=6, loc="center")


def unit_square(axes: "Axes", theme: Theme, x: str, y: str) -> None:
    frame(axes, theme, x, y)
    steps = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    for set_ticks in (axes.set_xticks, axes.set_yticks):
        set_ticks(steps, labels=[f"{step:.1f}" for step in steps])
    axes.set_xlim(-0.015, 1.015)
    axes.set_ylim(-0.015, 1.03)


def spread(axes: "Axes", low: float, high: float, *, margin: float, both: bool = True) -> None:
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    wide = margin * (high - low)
    ticks(axes, low, high, "x")
    axes.set_xlim(low - wide, high + wide)
    if both:
        ticks(axes, low, high, "y")
        axes.set_ylim(low - wide, high + wide)


def ticks(axes: "Axes", low: float, high: float, axis: str) -> None:
    from matplotlib.ticker import MaxNLocator

    steps = [
        float(s) for s in MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high) if low <= s <= high
    ]
    (axes.set_xticks if axis == "x" else axes.set_yticks)(steps, labels=_step_names(steps))


def _step_names(steps: Sequence[float]) -> list[str]:
    """Write ticks with as many digits as tell them apart."""
    for digits in range(1, 17):
        names = [f"{step:,.{digits}g}".replace("-", MINUS) for step in steps]
        if all(math.isclose(float(f"{step:.{digits}g}"), step, rel_tol=1e-9, abs_tol=1e-300) for step in steps):
            return [_plain(step, name) for step, name in zip(steps, names, strict=True)]
    return [brief(step) for step in steps]


def _plain(step: float, name: str) -> str:
    return f"{step:,.0f}".replace("-", MINUS) if "e" in name and 1 <= abs(step) < 1e7 else name


def diagonal(axes: "Axes", theme: Theme, low: float, high: float) -> None:
    axes.plot([low, high], [low, high], color=theme.muted, linewidth=1.2, linestyle=(0, (4, 3)), marker="", zorder=2)


def line(axes: "Axes", x: Sequence[float], y: Sequence[float], colour: str, marker: str = "") -> None:
    axes.plot(
        x,
        y,
        color=colour,
        linewidth=2,
        linestyle="-",
        marker=marker,
        markersize=6,
        markerfacecolor=colour,
        markeredgecolor=colour,
        solid_capstyle="round",
        solid_joinstyle="round",
        zorder=3,
    )
