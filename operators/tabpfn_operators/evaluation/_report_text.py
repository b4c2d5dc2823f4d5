"""Words and numbers of a report: what comes from data made visible, short and harmless."""

import math
from collections.abc import Callable, Sequence

#: Joiners are unprintable by Unicode's rules, and part of many scripts' and emoji's spelling.
_JOINERS = frozenset("\u200c\u200d")
MINUS = "\N{MINUS SIGN}"
#: Where there is no number.
NOTHING = "\N{EN DASH}"
_TITLES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "log_loss": "Log loss",
    "roc_auc_ovr": "ROC AUC (one vs rest)",
    "f1_macro": "F1 (macro)",
    "brier": "Brier score",
    "ece": "Expected calibration error",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
    "pinball": "Pinball loss",
    "coverage_80": "Coverage of the 80% interval",
}


def title(metric: str) -> str:
    """Name a metric as people write it."""
    return _TITLES.get(metric, visible(metric))


def inline(metric: str) -> str:
    """Name a metric inside a sentence."""
    name = title(metric)
    return name[:1].lower() + name[1:] if name[1:2].islower() else name


def visible(text: object) -> str:
    r"""Spell out what has no glyph, such as a newline, NUL or a mark that reverses the text, as Python would: `\n`."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _JOINERS else c.encode("unicode_escape").decode("ascii") for c in text)


def short(text: str, length: int) -> str:
    """Cut a text to at most that many characters, with an ellipsis for its middle: ends often tell labels apart."""
    if len(text) <= length:
        return text
    end = (length - 1) // 2
    return text[: length - 1 - end].rstrip() + "…" + text[len(text) - end :].lstrip()


def label(value: object) -> str:
    """Name a class; the text "1" and the number 1 are two, and an empty text is seen."""
    if isinstance(value, str):
        looks_like_another = not value.strip() or value in {"True", "False"} or _is_number(value)
        return f'"{visible(value)}"' if looks_like_another else visible(value)
    return str(value)


def plot_labels(values: Sequence[tuple[int, object]], has_glyph: Callable[[str], bool], length: int) -> list[str]:
    """Name classes in a plot: by `#number` of the table of classes where the font, or the room, cannot spell a label.

    Args:
        values: Number in the table of classes, from 1, and label of each.
        has_glyph: Whether the plots' font has a glyph for a character.
        length: Characters at most.
    """
    names = [short(label(value), length) for _, value in values]
    return [
        name if names.count(name) == 1 and all(map(has_glyph, name)) else f"#{number}"
        for name, (number, _) in zip(names, values, strict=True)
    ]


def amount(number: float | None) -> str:
    """Write a number with four digits that matter, so that those of one metric stand with their points in a line."""
    if number is None:
        return NOTHING
    if not math.isfinite(number):
        return {"inf": "∞", "-inf": f"{MINUS}∞"}.get(str(float(number)), "not a number")
    if number == 0:
        return "0"
    size = abs(number)
    if size < 0.001 or size >= 1e9:
        text = f"{number:.3e}"
    elif size < 10:
        text = f"{number:.4f}"
    else:
        text = f"{number:,.{max(0, 4 - math.floor(math.log10(size)))}f}"
    return text.replace("-", MINUS)


def brief(number: float | None) -> str:
    """Write a number for a sentence: as `amount`, without the zeros at its end."""
    text = amount(number)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def whole(number: int | None) -> str:
    """Write a whole number with its thousands apart."""
    return NOTHING if number is None else f"{number:,}".replace("-", MINUS)


def percent(share: float, digits: int = 1) -> str:
    """Write a share as a percentage."""
    if not math.isfinite(share):
        return amount(share)
    return f"{100 * share:,.{digits}f}%".replace("-", MINUS)


def seconds(duration: float | None) -> str:
    """Write a duration in seconds."""
    return "not known" if duration is None else f"{brief(duration)} s"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
