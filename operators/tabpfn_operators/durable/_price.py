"""What a fit costs: asked for once, before any byte moves, and looked at again when it is done."""

from tabpfn_assets import FitParameters, FittedModel
from tabpfn_operators._call import Session
from tabpfn_operators.cost import charged, check_fit_cost, usage_before
from tabpfn_operators.server import ApiUsage


class Price:
    """The price of one fit.

    Args:
        session: Settings, wire and policy.
        parameters: Parameters of the fit; a standard one is free, and nobody is asked (contract 4.2).
        max_cost: Tokens that it may cost; None sets no limit beside the account's pools.
    """

    def __init__(self, session: Session, parameters: FitParameters, max_cost: int | None) -> None:
        self._session = session
        self._parameters = parameters
        self._max_cost = max_cost
        self._asked = False
        self.estimated: int | None = None

    async def check(self, *, rows: int, columns: int) -> None:
        """Refuse the fit where it is dearer than is allowed or left.

        Args:
            rows: Train rows.
            columns: Feature columns.

        Raises:
            CostExceededError: It is; nothing was sent.
        """
        if self._asked:
            return
        cost = await check_fit_cost(
            self._session, self._parameters, rows=rows, columns=columns, max_cost=self._max_cost
        )
        self._asked, self.estimated = True, cost.total

    async def usage(self) -> dict[str, object] | None:
        """Look at what the account has used before a billed fit is submitted."""
        if not self._parameters.billed or self.estimated is None:
            return None
        usage = await usage_before(self._session)
        return None if usage is None else usage.model_dump(exclude_none=True)


async def with_charge(session: Session, model: FittedModel, usage: dict[str, object] | None) -> FittedModel:
    """Add what a fit has cost, where that can be known.

    Args:
        session: Settings, wire and policy.
        model: The model, completed.
        usage: The account's usage right before it was submitted.
    """
    if model.charged is not None:
        return model
    before = None if usage is None else ApiUsage.model_validate(usage)
    tokens = await charged(session, before, model.estimated_cost, billed=model.parameters.billed)
    return model if tokens is None else model.model_copy(update={"charged": tokens})
