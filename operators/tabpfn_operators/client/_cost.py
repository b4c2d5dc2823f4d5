"""What fits and predictions cost: the methods of both clients, side by side."""

from tabpfn_assets import FitParameters
from tabpfn_operators import cost
from tabpfn_operators._run import run as run_flow
from tabpfn_operators.client._base import AsyncBase, SyncBase, same_docstrings
from tabpfn_operators.plan import TrainPlan
from tabpfn_operators.pricing import CostPlan
from tabpfn_operators.reading import Casts, Filters, Reading, Table
from tabpfn_operators.sources import Source
from tabpfn_operators.storage import StorageOptions


class CostMethods(SyncBase):
    """What fits and predictions cost."""

    def plan_cost(
        self,
        planned: TrainPlan,
        parameters: FitParameters,
        *,
        predict_rows: int | None = None,
        predict_source: Source | Table | None = None,
        storage_options: StorageOptions | None = None,
        filters: Filters | None = None,
        casts: Casts | None = None,
        output_type: str | None = None,
        model_version: str | None = None,
    ) -> CostPlan:
        """Tell what a planned fit would cost, with the predictions after it, and what the account has left.

        Free, and only dimensions travel. A standard fit costs nothing; predictions are counted as the calls that the
        server's limits split them into, each of which has a minimum charge (contract 4.2).

        Args:
            planned: What `plan_train_set` returned.
            parameters: Parameters of the fit.
            predict_rows: Rows to predict with the model; None for none, or where `predict_source` tells them.
            predict_source: Source of the rows to predict, as in `upload_train_set`; only its footers are read.
            storage_options: fsspec options of `predict_source`; used, never recorded.
            filters: Rows of `predict_source` to keep, as in `upload_train_set`.
            casts: Columns of `predict_source` to convert, as in `upload_train_set`.
            output_type: What will be predicted; `full` has a row limit of its own.
            model_version: For instance `v3`; None takes the one that the parameters name, else the server's default.

        Returns:
            Costs and pools; `raise_exceeded` holds them against a limit.

        Raises:
            ConfigurationError: The rows to predict are no such number, or are given twice.
            InvalidInputError: `predict_source` cannot be used, or does not tell its rows; give `predict_rows`.
            LimitExceededError: The server cannot predict even one row after such a fit; fit on fewer.
            TabPFNError: The server refused or did not answer; the class says what to do.
        """
        reading = None if predict_source is None else Reading(predict_source, storage_options, filters, casts)
        return run_flow(
            cost.plan_cost(
                self._session,
                planned,
                parameters,
                predict_rows=predict_rows,
                predict=reading,
                output_type=output_type,
                model_version=model_version,
            )
        )


@same_docstrings(CostMethods)
class AsyncCostMethods(AsyncBase):
    """What fits and predictions cost."""

    async def plan_cost(
        self,
        planned: TrainPlan,
        parameters: FitParameters,
        *,
        predict_rows: int | None = None,
        predict_source: Source | Table | None = None,
        storage_options: StorageOptions | None = None,
        filters: Filters | None = None,
        casts: Casts | None = None,
        output_type: str | None = None,
        model_version: str | None = None,
    ) -> CostPlan:
        reading = None if predict_source is None else Reading(predict_source, storage_options, filters, casts)
        return await cost.plan_cost(
            self._session,
            planned,
            parameters,
            predict_rows=predict_rows,
            predict=reading,
            output_type=output_type,
            model_version=model_version,
        )
