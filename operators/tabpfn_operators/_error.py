"""The root of all errors: plain data that pickles; the others are in `errors`."""

from typing import Any, ClassVar, TypeVar


class TabPFNError(Exception):
    """Root of all errors of this package.

    Args:
        message: What happened and what to do, in one or two sentences.
        status: HTTP status, where there was an answer.
        code: The server's error code, which decides the class (contract 1.0).
        trace_id: The server's id of the request; quote it to support.
    """

    __module__ = "tabpfn_operators.errors"  # where everybody imports it from

    #: Whether repeating the same call is pointless.
    terminal: ClassVar[bool] = True

    def __init__(
        self, message: str, *, status: int | None = None, code: str | None = None, trace_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.trace_id = trace_id

    def __str__(self) -> str:
        facts = [
            f"HTTP {self.status}" if self.status else "",
            self.code or "",
            self.trace_id and f"trace {self.trace_id}",
        ]
        known = ", ".join(fact for fact in facts if fact)
        return f"{self.message} ({known})" if known else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.args, dict(self.__dict__)))


E = TypeVar("E", bound=TabPFNError)


def _rebuild(cls: type[E], args: tuple[Any, ...], state: dict[str, Any]) -> E:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error
