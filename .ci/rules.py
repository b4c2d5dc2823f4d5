"""The house rules that no linter knows: sizes, reasons for ignored types, no index host.

Run by ``nox -s lint`` in the root of the checkout; prints each breach as ``path:line: what`` and exits with 1.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

SOURCE_ROOTS = ("assets/", "operators/", "providers/", "emulator/")
MODULE_LINES = 400
FUNCTION_LINES = 60
REASONED_IGNORE = re.compile(r"# type: ignore\[[a-z, -]+\]  # \w")
# An index belongs to the machine that installs, never to the repository.
INDEX_HOST = re.compile(
    r"pythonhosted\.org|https?://[\w.-]*(?:pypi|artifactory|nexus|devpi)|https?://\S+/simple\b"
    r"|--(?:(?:extra-|default-)?index-url|find-links)"
)


def files() -> list[str]:
    """Return the paths of all files that are in git, or are about to be."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return sorted(path for path in listed.split("\0") if path and Path(path).is_file())


def long_parts(path: str, text: str) -> Iterator[str]:
    """Yield a line for a module, or a function's body without its docstring, that is too long."""
    lines = text.count("\n")
    if lines > MODULE_LINES:
        yield f"{path}:{lines}: a module has at most {MODULE_LINES} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            start = node.body[1].lineno if ast.get_docstring(node) and len(node.body) > 1 else node.body[0].lineno
            length = (node.end_lineno or start) - start + 1
            if length > FUNCTION_LINES:
                yield f"{path}:{node.lineno}: {node.name} has {length} lines, at most {FUNCTION_LINES} are allowed"


def ignored_types(path: str, text: str) -> Iterator[str]:
    """Yield a line for each ignored type error that does not name its code and its reason."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        comment = token.string
        if token.type == tokenize.COMMENT and re.match(r"#\s*type:\s*ignore", comment):
            if not REASONED_IGNORE.match(comment):
                yield f"{path}:{token.start[0]}: write # type: ignore[code]  # reason"
        elif token.type == tokenize.COMMENT and re.match(r"#\s*mypy:", comment):
            yield f"{path}:{token.start[0]}: mypy's settings are in pyproject.toml, for all modules alike"


def breaches() -> Iterator[str]:
    """Yield one line for each breach of a rule."""
    for path in files():
        try:
            text = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if INDEX_HOST.search(line):
                yield f"{path}:{number}: names a package index"
        if path.endswith(".py"):
            yield from ignored_types(path, text)
            if path.startswith(SOURCE_ROOTS):
                yield from long_parts(path, text)


if __name__ == "__main__":
    found = list(breaches())
    print("\n".join(found) or "House rules kept.")
    sys.exit(bool(found))
