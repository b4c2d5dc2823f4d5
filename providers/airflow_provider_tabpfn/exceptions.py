"""The core's errors as Airflow understands them: what a retry cannot help is not retried."""

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowFailException


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Turn terminal errors of the core into `AirflowFailException`; others stay, and Airflow retries them.

    Raises:
        AirflowFailException: Bad input, a refused token, a failed fit, an empty quota: correct what the text names,
            then clear the task. The cause is cut off: the text says everything, and logs show a cause's locals.
        TabPFNError: What may work next time; Airflow retries the task by its `retries`.
    """
    from pydantic import ValidationError

    from tabpfn_operators.errors import TabPFNError

    try:
        yield
    except TabPFNError as error:
        if error.terminal:
            raise AirflowFailException(f"{type(error).__name__}: {error}") from None
        raise
    except ValidationError as error:
        # Without the input: it may be a label or a URL.
        problems = [
            f"{'.'.join(map(str, problem['loc'])) or error.title}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        ]
        raise AirflowFailException(f"{error.title}: {'; '.join(problems)}") from None
