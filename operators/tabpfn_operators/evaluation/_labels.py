"""Labels of a holdout as classes of a model: a label may come back from storage in another type than it was sent in."""

import json
import math
from collections.abc import Callable, Iterable, Sequence

from tabpfn_assets import ClassLabel

UNSEEN = -1


def match_labels(found: Sequence[ClassLabel], classes: Sequence[ClassLabel]) -> tuple[int, ...]:
    """Find each label's class.

    A label is a class of its own kind and value (1 and 1.0 are one value, True is not 1); else one that is written
    alike ("1" and 1, "true", "True" and True); else one of equal value ("1.0" and 1); else, where the classes are 0
    and 1 or False and True, one of equal truth. What would fit two classes fits none.

    Args:
        found: Different labels of one column.
        classes: The model's classes.

    Returns:
        Number of the class for each label; UNSEEN where the model has no such class.
    """
    ways = [(keys, _index(keys, classes)) for keys in (_same, _written, _valued, _truth(classes))]

    def match(label: ClassLabel) -> int:
        hits = (index[key] for keys, index in ways for key in keys(label) if key in index)
        return next(hits, UNSEEN)

    return tuple(match(label) for label in found)


def _index(keys: Callable[[ClassLabel], Iterable[str]], classes: Sequence[ClassLabel]) -> dict[str, int]:
    owners: dict[str, set[int]] = {}
    for number, label in enumerate(classes):
        for key in keys(label):
            owners.setdefault(key, set()).add(number)
    return {key: next(iter(numbers)) for key, numbers in owners.items() if len(numbers) == 1}


def _same(label: ClassLabel) -> Iterable[str]:
    kind = "truth" if isinstance(label, bool) else "text" if isinstance(label, str) else "number"
    return (f"{kind} {label if isinstance(label, str) else _plain(label)}",)


def _written(label: ClassLabel) -> Iterable[str]:
    if isinstance(label, str):
        return (label,)
    return dict.fromkeys((_plain(label), json.dumps(label), str(label)))


def _valued(label: ClassLabel) -> Iterable[str]:
    if isinstance(label, bool):
        return ()
    if isinstance(label, str):
        try:
            # Not every whole number is a float.
            label = int(label) if label.lstrip("-").isdecimal() else float(label)
        except ValueError:
            return ()
    return (_plain(label),) if isinstance(label, int) or math.isfinite(label) else ()


def _truth(classes: Sequence[ClassLabel]) -> Callable[[ClassLabel], Iterable[str]]:
    """Read 0 and 1 as False and True, where the classes are nothing else."""
    plain = all(not isinstance(label, str) and label in (0, 1) for label in classes)
    return lambda label: (str(bool(label)),) if plain and not isinstance(label, str) and label in (0, 1) else ()


def _plain(label: bool | float) -> str:
    """Write a number without a fraction that is 0."""
    return json.dumps(int(label) if isinstance(label, float) and label.is_integer() else label)
