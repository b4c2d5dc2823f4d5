"""Account and server facts: the methods of both clients, side by side."""

from tabpfn_operators import account
from tabpfn_operators._run import run as run_flow
from tabpfn_operators.client._base import AsyncBase, SyncBase, same_docstrings
from tabpfn_operators.server import ApiUsage, CostEstimate, Effort, Operation, ServerSettings


class AccountMethods(SyncBase):
    """Account and server facts."""

    def check_token(self) -> None:
        """Ask whether the token is valid; free, so use it to test a connection.

        Raises:
            AuthenticationError: It is not; set another.
            AccessDeniedError: The account may not use the API yet; see its page.
            ConnectionFailedError: The server cannot be reached; check base_url, proxy and network.
        """
        run_flow(account.check_token(self._session))

    def get_settings(self) -> ServerSettings:
        """Read the server's limits and settings (contract 1.6); an older server's limits where it has no settings.

        Returns:
            Limits by model version; what the server does not name is None.

        Raises:
            TabPFNError: The server refused or did not answer; the class says what to do.
        """
        return run_flow(account.get_settings(self._session))

    def get_model_limits(self) -> ServerSettings:
        """Read the server's limits by the older route (contract 1.6).

        Returns:
            Limits by model version; what the server does not name is None.

        Raises:
            TabPFNError: The server refused or did not answer; the class says what to do.
        """
        return run_flow(account.get_model_limits(self._session))

    def get_api_usage(self) -> ApiUsage:
        """Read tokens used and allowed (contract 1.10).

        Returns:
            Usage and pools; what the server does not name is None.

        Raises:
            TabPFNError: The server refused or did not answer; the class says what to do.
        """
        return run_flow(account.get_api_usage(self._session))

    def estimate_cost(
        self,
        train_rows: int,
        raw_columns: int,
        *,
        test_rows: int | None = None,
        model_version: str | None = None,
        operation: Operation | None = None,
        n_estimators: int | None = None,
        thinking_effort: Effort | None = None,
    ) -> CostEstimate:
        """Ask what an operation would cost; free, and only dimensions travel (contract 1.9).

        Args:
            train_rows: Rows of the train set.
            raw_columns: Feature columns.
            test_rows: Rows to predict.
            model_version: For instance `v3`; None takes the server's default.
            operation: What is priced; None takes the server's default.
            n_estimators: Estimators of the ensemble.
            thinking_effort: Effort of a thinking fit.

        Returns:
            Tokens, or credits under old pricing.

        Raises:
            TabPFNError: The server refused or did not answer; the class says what to do.
        """
        return run_flow(
            account.estimate_cost(
                self._session,
                {
                    "train_rows": train_rows,
                    "raw_columns": raw_columns,
                    "test_rows": test_rows,
                    "model_version": model_version,
                    "operation": operation,
                    "n_estimators": n_estimators,
                    "thinking_effort": thinking_effort,
                },
            )
        )

    def delete_dataset(self, dataset_uid: str) -> tuple[str, ...]:
        """Delete an upload and what hangs on it: its test sets, and the models fitted on it (contract 1.10).

        Args:
            dataset_uid: Upload id, for instance a model's `train_set_upload_id`.

        Returns:
            Ids that were deleted; none when it was gone already.

        Raises:
            TabPFNError: The server refused or did not answer; the class says what to do.
        """
        return run_flow(account.delete_dataset(self._session, dataset_uid))

    def delete_all_datasets(self) -> tuple[str, ...]:
        """Delete every upload of the account, with all models (contract 1.10).

        Returns:
            Ids that were deleted.

        Raises:
            TabPFNError: The server refused or did not answer; the class says what to do.
        """
        return run_flow(account.delete_all_datasets(self._session))


@same_docstrings(AccountMethods)
class AsyncAccountMethods(AsyncBase):
    """Account and server facts."""

    async def check_token(self) -> None:
        await account.check_token(self._session)

    async def get_settings(self) -> ServerSettings:
        return await account.get_settings(self._session)

    async def get_model_limits(self) -> ServerSettings:
        return await account.get_model_limits(self._session)

    async def get_api_usage(self) -> ApiUsage:
        return await account.get_api_usage(self._session)

    async def estimate_cost(
        self,
        train_rows: int,
        raw_columns: int,
        *,
        test_rows: int | None = None,
        model_version: str | None = None,
        operation: Operation | None = None,
        n_estimators: int | None = None,
        thinking_effort: Effort | None = None,
    ) -> CostEstimate:
        return await account.estimate_cost(
            self._session,
            {
                "train_rows": train_rows,
                "raw_columns": raw_columns,
                "test_rows": test_rows,
                "model_version": model_version,
                "operation": operation,
                "n_estimators": n_estimators,
                "thinking_effort": thinking_effort,
            },
        )

    async def delete_dataset(self, dataset_uid: str) -> tuple[str, ...]:
        return await account.delete_dataset(self._session, dataset_uid)

    async def delete_all_datasets(self) -> tuple[str, ...]:
        return await account.delete_all_datasets(self._session)
