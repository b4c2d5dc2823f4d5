"""HTML as a tree: text and attributes are escaped when it is written, so that no label can become markup."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias
from xml.etree import ElementTree as ET

from tabpfn_operators.evaluation._report_text import visible

Node: TypeAlias = ET.Element
Content: TypeAlias = "str | Node | Iterable[Content] | None"


def tag(name: str, *content: Content, **attributes: str) -> Node:
    """Make an element.

    Args:
        name: Its tag.
        content: Texts, elements, lists of them; None is left out.
        attributes: Attributes; `class_` is `class`, and `_` inside a name is `-`.
    """
    node = ET.Element(name, {key.rstrip("_").replace("_", "-"): visible(value) for key, value in attributes.items()})
    for part in content:
        _append(node, part)
    return node


def _append(node: Node, part: Content) -> None:
    if part is None:
        return
    if isinstance(part, str):
        text = visible(part)
        if len(node):
            node[-1].tail = (node[-1].tail or "") + text
        else:
            node.text = (node.text or "") + text
    elif isinstance(part, ET.Element):
        node.append(part)
    else:
        for each in part:
            _append(node, each)


def given(text: object) -> Node:
    """Show a text that comes from data: its direction of writing stays its own."""
    return tag("bdi", str(text))


def coded(text: object) -> Node:
    """Show an identifier, a path or JSON."""
    return tag("code", given(text))


def table(head: Sequence[Content], rows: Iterable[Node], *, numbers: int = 0) -> Node:
    """Make a table in a panel.

    Args:
        head: Heads of the columns.
        rows: Rows.
        numbers: How many columns, from the right, hold numbers.
    """
    first = len(head) - numbers
    cells = [tag("th", each, scope="col", class_="n" if i >= first else "w") for i, each in enumerate(head)]
    return tag("div", tag("table", tag("thead", tag("tr", cells)), tag("tbody", list(rows))), class_="panel")


def fact_table(facts: Iterable[tuple[str, Content]]) -> Node:
    """Make a table of names and values; what has no value is left out."""
    rows = [tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in facts if value is not None]
    return tag("div", tag("table", tag("tbody", rows), class_="facts"), class_="panel")


def section(heading: str, *content: Content) -> Node:
    """Make a section with its heading."""
    return tag("section", tag("h2", heading), *content)


def document(heading: str, style: str, body: Sequence[Node]) -> str:
    """Write a whole page that may load nothing and run nothing.

    Args:
        heading: Title of the window.
        style: Style sheet, which holds nothing from data.
        body: What is on the page.
    """
    sheet = ET.Element("style")
    sheet.text = style
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name_="referrer", content="no-referrer"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),
        tag("title", heading),
        sheet,
    )
    return "<!DOCTYPE html>\n" + ET.tostring(
        tag("html", head, tag("body", list(body)), lang="en"), encoding="unicode", method="html"
    )
