"""How faults, settings and readers of the books name routes. Standard library only."""

import re
from functools import lru_cache


def covers(pattern: str, route: str) -> bool:
    """Return whether a pattern covers a route.

    Args:
        pattern: A path; a path with parameters in braces, as the OpenAPI document has it (`/v1/status/{job_id}`), each
            of which stands for one part of a path; or the beginning of either and `*`.
        route: The path of a request.
    """
    return pattern == route or (is_pattern(pattern) and _compiled(pattern).fullmatch(route) is not None)


def is_pattern(text: str) -> bool:
    """Return whether a text may cover more than the route that it spells."""
    return text.endswith("*") or "{" in text


@lru_cache
def _compiled(pattern: str) -> re.Pattern[str]:
    beginning, rest = (pattern[:-1], ".*") if pattern.endswith("*") else (pattern, "")
    return re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(beginning)) + rest, re.DOTALL)
