"""Rate limits: how many calls an account may make in a window of time (contract section 4.3)."""

import math
from typing import Final, Literal

Group = Literal["predict", "fit", "thinking_fit", "upload"]
"""Calls that are counted together."""

RATES: Final[dict[str, dict[int, int]]] = {
    "predict": {60: 60, 3600: 1500},
    "fit": {60: 60, 3600: 1000},
    "thinking_fit": {60: 10, 3600: 30},
    "upload": {60: 120, 3600: 3000},
}
"""Calls per window of so many seconds, as published; a thinking fit counts as a fit too."""
_SWEEP_SECONDS: Final = 60.0


class RateLimiter:
    """Counts calls in fixed windows; a restart begins with empty ones."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, int], tuple[int, int]] = {}
        self._swept_at = 0.0

    def take(self, owner: str, group: Group, now: float) -> int | None:
        """Count a call, unless one of its windows is full.

        Args:
            owner: The account.
            group: What it calls.
            now: Epoch seconds.

        Returns:
            None, or the whole seconds to wait, 1 or more; a refused call is not counted.
        """
        self._forget_ended(now)
        taken: dict[tuple[str, str, int], tuple[int, int]] = {}
        wait = 0
        for name in ("fit", "thinking_fit") if group == "thinking_fit" else (group,):
            for seconds, allowed in RATES[name].items():
                window = int(now // seconds)
                begun, count = self._counts.get((owner, name, seconds), (window, 0))
                count = count + 1 if begun == window else 1
                if count > allowed:
                    wait = max(wait, 1, math.ceil((window + 1) * seconds - now))
                taken[owner, name, seconds] = (window, count)
        if wait:
            return wait
        self._counts.update(taken)
        return None

    def _forget_ended(self, now: float) -> None:
        if now - self._swept_at >= _SWEEP_SECONDS:
            self._swept_at = now
            self._counts = {key: value for key, value in self._counts.items() if value[0] == int(now // key[2])}
