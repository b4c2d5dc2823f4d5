"""What a fit is asked to do."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tabpfn_assets._record import Asked
from tabpfn_assets.names import Task


class Thinking(Asked):
    """Thinking mode of a fit: the server searches longer for a better model, and bills the fit.

    Args:
        effort: How hard to search.
        timeout_secs: Seconds the search may take; the server caps it at 2,400 (contract 4.4).
        metric: The metric to optimise, for instance `log_loss` or `rmse`.
        group_col: Column whose groups stay together in validation; excludes `time_col`.
        time_col: Column that orders rows in time.
        group_time_col: Time column within groups; needs `group_col`.
    """

    effort: Literal["medium", "high"] = "medium"
    timeout_secs: Annotated[float, Field(gt=0)] | None = None
    metric: str | None = None
    group_col: str | None = None
    time_col: str | None = None
    group_time_col: str | None = None

    @model_validator(mode="after")
    def _columns_agree(self) -> Self:
        if self.group_col and self.time_col:
            raise ValueError("thinking: group_col and time_col exclude each other; keep one of them")
        if self.group_time_col and not self.group_col:
            raise ValueError("thinking: group_time_col needs group_col; name the group column too")
        return self


class FitParameters(Asked):
    """Everything about a fit that is not data.

    Args:
        task: `classification` or `regression`.
        config: `tabpfn_config` keys (contract 1.8), for instance `{"n_estimators": 4, "random_state": 0}`.
            It is sent at fit and again at predict, so the record of a model keeps it.
        systems: Server-side preprocessing systems; empty means the paper's version.
        text_handling: Text preset of the nested wire form; None leaves the server's default.
        thinking: Thinking mode, or None for a standard fit, which is free (contract 4.2).
    """

    task: Task
    config: dict[str, Any] = {}
    systems: tuple[Literal["preprocessing", "text", "thinking"], ...] = ("preprocessing", "text")
    text_handling: Literal["advanced", "simple"] | None = None
    thinking: Thinking | None = None

    @model_validator(mode="after")
    def _checked(self) -> Self:
        estimators = self.config.get("n_estimators")
        if estimators is not None and (
            isinstance(estimators, bool) or not isinstance(estimators, int) or estimators < 1
        ):
            raise ValueError(f"config: n_estimators must be a whole number of at least 1, not {estimators!r}")
        if "thinking" in self.systems and self.thinking is None:
            raise ValueError("systems: 'thinking' needs thinking={'effort': ...}; leave it out for a standard fit")
        return self

    @property
    def billed(self) -> bool:
        """Whether the fit itself costs tokens (contract 4.2: thinking fits do, standard ones do not)."""
        return self.thinking is not None
