"""How long a thinking fit takes here: its time limit, scaled down."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tabpfn_emulator._bodies.requests import FitPlan

MAX_TIMEOUT_SECS = 2400.0
"""The server's cap on `timeout_secs` (contract section 4.4)."""
DEFAULT_TIMEOUT_SECS = 60.0
"""What a thinking fit without a limit takes; a stand-in, the API publishes none."""
DEFAULT_TIME_SCALE = 0.001
"""A second of thinking takes a millisecond: the longest fit is over in 2.4 s, one without a limit in 0.06 s."""


def thinking_duration(plan: "FitPlan", time_scale: float) -> float:
    """Return the shortest duration of a fit in seconds; 0 for one that does not think.

    Args:
        plan: What is asked; `timeout_secs` of its thinking is in seconds.
        time_scale: Seconds that a second of thinking takes here, 0 or more.
    """
    if plan.thinking is None:
        return 0.0
    timeout = plan.thinking.get("timeout_secs") or DEFAULT_TIMEOUT_SECS
    return min(float(timeout), MAX_TIMEOUT_SECS) * time_scale
