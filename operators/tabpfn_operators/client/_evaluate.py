"""From a fitted model and a holdout to an evaluation: the method of both clients, side by side."""

from tabpfn_assets import EngineRun, Evaluation, FittedModel
from tabpfn_operators._run import run as run_flow
from tabpfn_operators.client._base import AsyncBase, SyncBase, same_docstrings
from tabpfn_operators.evaluation import _flow as evaluating
from tabpfn_operators.evaluation._holdout import MAX_ROWS, Limits
from tabpfn_operators.openlineage import reported_evaluation
from tabpfn_operators.progress import ProgressCallback, ignore
from tabpfn_operators.reading import Casts, Compression, Filters, Reading, Table
from tabpfn_operators.sources import Source
from tabpfn_operators.storage import StorageOptions


class EvaluateMethods(SyncBase):
    """How good a fitted model is."""

    def evaluate(
        self,
        model: FittedModel,
        holdout: Source | Table,
        target: str | None = None,
        *,
        champion: FittedModel | None = None,
        storage_options: StorageOptions | None = None,
        filters: Filters | None = None,
        casts: Casts | None = None,
        recompress: Compression | None = None,
        headline: str | None = None,
        max_rows: int = MAX_ROWS,
        seed: int = 0,
        resamples: int = 1000,
        scores: str | None = None,
        scores_options: StorageOptions | None = None,
        max_cost: int | None = None,
        run: EngineRun | None = None,
        checksum: bool | None = None,
        progress: ProgressCallback | None = None,
    ) -> Evaluation:
        """Predict a holdout and compare with its target. One billed call for each model.

        All rows that have a target are predicted, up to `max_rows`, and for classification up to 128 MiB of scores
        (rows x classes x 8 bytes); above it a seeded sample of them, which the record names. Columns, types, labels
        and the server's limits are checked for both models before anything is sent.

        Args:
            model: The fitted model, completed.
            holdout: As `source` in `upload_train_set`, with the model's features and the target.
            target: Target column; None takes the model's.
            champion: A model to compare with, on the same rows: it must have the same target and classes, and may have
                other features.
            storage_options: fsspec options of the holdout; used, never recorded.
            filters: As in `upload_train_set`.
            casts: As in `upload_train_set`.
            recompress: As in `upload_train_set`.
            headline: The metric that decides, with a bootstrap interval: for classification `accuracy`,
                `balanced_accuracy`, `log_loss` (default), `roc_auc_ovr`, `f1_macro`, `brier` or `ece`; for regression
                `rmse` (default), `mae`, `r2` or `pinball`.
            max_rows: Most rows that are predicted, at least 1.
            seed: Seed of sample and bootstrap, 0 or more.
            resamples: Resamples of the bootstrap, at least 1.
            scores: fsspec URL or path of a folder in which the predictions are kept, each model's in a folder named
                by its id, as `predict` writes them. An evaluation with the same model and rows takes them from there
                and pays nothing; what else it finds there is predicted again, over it. None keeps nothing.
            scores_options: fsspec options of `scores`; used, never recorded.
            max_cost: As in `predict`, for both models together.
            run: The engine run, for the lineage beside kept predictions.
            checksum: As in `upload_test_set`.
            progress: As in `predict`.

        Returns:
            The record: metrics, interval, baseline, comparison, curves. A label that the model has never seen counts
            as wrong, with a probability of 0 (log loss then takes 2.2e-16, as scikit-learn does).

        Raises:
            InvalidInputError: The holdout lacks the target or a feature, has another type or no label that the model
                knows; or the models cannot be compared. The message names each; nothing was sent.
            LimitExceededError: The holdout is larger than the server takes; evaluate a sample with `max_rows`.
            ConfigurationError: scikit-learn is not installed; the message names the `pip install`.
            CostExceededError: It would cost more than `max_cost`, or than the account has left; nothing was sent.
            DestinationError: The folder of `scores` cannot be written to; nothing was billed.
            OutcomeUnknownError: The answer was lost after a call was sent; it may have been billed.
        """
        return run_flow(
            reported_evaluation(
                self._session.wire,
                self._session.emitter,
                lambda: evaluating.evaluate(
                    self._session,
                    model,
                    Reading(holdout, storage_options, filters, casts, recompress),
                    target,
                    champion=champion,
                    headline=headline,
                    limits=Limits(max_rows, seed, resamples),
                    scores=scores,
                    scores_options=scores_options,
                    max_cost=max_cost,
                    run=run,
                    checksum=checksum,
                    progress=progress or ignore,
                ),
                holdout=holdout,
                model=model,
                run=run,
            )
        )


@same_docstrings(EvaluateMethods)
class AsyncEvaluateMethods(AsyncBase):
    """How good a fitted model is."""

    async def evaluate(
        self,
        model: FittedModel,
        holdout: Source | Table,
        target: str | None = None,
        *,
        champion: FittedModel | None = None,
        storage_options: StorageOptions | None = None,
        filters: Filters | None = None,
        casts: Casts | None = None,
        recompress: Compression | None = None,
        headline: str | None = None,
        max_rows: int = MAX_ROWS,
        seed: int = 0,
        resamples: int = 1000,
        scores: str | None = None,
        scores_options: StorageOptions | None = None,
        max_cost: int | None = None,
        run: EngineRun | None = None,
        checksum: bool | None = None,
        progress: ProgressCallback | None = None,
    ) -> Evaluation:
        return await reported_evaluation(
            self._session.wire,
            self._session.emitter,
            lambda: evaluating.evaluate(
                self._session,
                model,
                Reading(holdout, storage_options, filters, casts, recompress),
                target,
                champion=champion,
                headline=headline,
                limits=Limits(max_rows, seed, resamples),
                scores=scores,
                scores_options=scores_options,
                max_cost=max_cost,
                run=run,
                checksum=checksum,
                progress=progress or ignore,
            ),
            holdout=holdout,
            model=model,
            run=run,
        )
