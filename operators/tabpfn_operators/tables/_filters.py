"""Row filters: DNF lists, the same as JSON, or an Arrow expression; checked before any row is read."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from hashlib import sha256
from operator import and_, eq, ge, gt, le, lt, ne, or_
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat
from pyarrow import acero

from tabpfn_operators.errors import InvalidInputError

_EXAMPLE = 'write [["age", ">", 17]] for a condition, [[...], [...]] for all of several'
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": eq, "==": eq, "!=": ne, "<": lt, ">": gt, "<=": le, ">=": ge,
}  # fmt: skip
_MEMBERSHIPS = ("in", "not in")


@dataclass(frozen=True)
class RowFilter:
    """A condition that rows have to meet.

    Args:
        expression: The Arrow expression.
        columns: Columns it needs; they are read, and sent only if they are asked for.
    """

    expression: Any = field(repr=False)
    columns: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the condition in hex; of its text a long list of values would lack the middle."""
        _, (serialized,) = self.expression.__reduce__()
        return sha256(serialized).hexdigest()

    def keep(self, batch: Any) -> Any:
        """Return the rows of a record batch for which the condition is true, in order; null counts as false."""
        # Only the columns of the condition pass through the engine, and in one thread, which keeps the rows' order.
        table = pa.Table.from_batches([batch.select(self.columns or batch.schema.names[:1])])
        return batch.filter(_evaluated(table, self.expression).combine_chunks())


def parse_filters(value: Any, schema: Any) -> RowFilter | None:
    """Read a filter and check that it fits the columns.

    Args:
        value: `[(column, operator, value), ...]` (all of them), `[[...], [...]]` (all of one of them), the same as JSON
            text, or a `pyarrow.compute.Expression`; None, `[]` and blank text are no filter. Operators are those of
            `pyarrow.parquet.filters_to_expression`: =, ==, !=, <, >, <=, >=, in, not in. None with == or != asks for
            missing values (null or NaN). Text is read as the date, time or decimal that the column holds.
        schema: Arrow schema of the columns it may name.

    Returns:
        The filter, or None.

    Raises:
        InvalidInputError: It is no filter, names a column that is not there, or a value that cannot be compared.
    """
    if isinstance(value, str):
        value = _from_json(value)
    if isinstance(value, pc.Expression):
        return _of_expression(value, schema)
    if value is None or (isinstance(value, list | tuple) and not value):
        return None
    anyone = [[_Predicate.of(entry, schema) for entry in every] for every in _conjunctions(value)]
    expression = reduce(or_, (reduce(and_, (one.expression for one in every)) for every in anyone))
    return RowFilter(expression, tuple(dict.fromkeys(one.column for every in anyone for one in every)))


def _from_json(text: str) -> Any:
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInputError(f"The filter is no JSON ({error}); {_EXAMPLE}.") from None


def _conjunctions(value: Any) -> list[list[Any]]:
    malformed = InvalidInputError(f"The filter is no list of conditions; {_EXAMPLE}.")
    if not _is_list(value) or not all(_is_list(entry) and len(entry) for entry in value):
        raise malformed
    if isinstance(value[0][0], str):
        value = [value]
    if not all(_is_list(entry) for every in value for entry in every):
        raise malformed
    return [list(every) for every in value]


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


@dataclass(frozen=True)
class _Predicate:
    column: str
    expression: Any

    @classmethod
    def of(cls, entry: Sequence[Any], schema: Any) -> "_Predicate":
        if len(entry) != 3 or not isinstance(entry[0], str) or not isinstance(entry[1], str):
            raise InvalidInputError(f"A condition is [column, operator, value], not {list(entry)!r}; {_EXAMPLE}.")
        column, operator, value = entry
        kind = _type_of(column, schema)
        if operator in _COMPARISONS:
            expression = _compared(column, kind, operator, value)
        elif operator in _MEMBERSHIPS:
            expression = _member(column, kind, operator, value)
        else:
            known = ", ".join((*_COMPARISONS, *_MEMBERSHIPS))
            raise InvalidInputError(f"The filter on {column!r} has the operator {operator!r}; use one of {known}.")
        try:
            _evaluated(pa.schema([(column, kind)]).empty_table(), expression)
        except pa.ArrowException:
            raise _not_comparable(column, kind, value) from None
        return cls(column, expression)


def _type_of(column: str, schema: Any) -> Any:
    found = schema.get_all_field_indices(column)
    if not found:
        names = ", ".join(repr(name) for name in schema.names[:12]) + (", ..." if len(schema.names) > 12 else "")
        raise InvalidInputError(f"The filter names column {column!r}, which is not there ({names}).")
    if len(found) > 1:
        raise InvalidInputError(f"The filter names column {column!r}, which is there more than once; rename one.")
    return schema.field(found[0]).type


def _compared(column: str, kind: Any, operator: str, value: Any) -> Any:
    if value is not None:
        return _COMPARISONS[operator](pc.field(column), _scalar(column, kind, value))
    if operator not in {"=", "==", "!="}:
        raise InvalidInputError(f"The filter on {column!r} compares with null by {operator!r}; use == or !=.")
    missing = pc.field(column).is_null(nan_is_null=pat.is_floating(kind))
    return ~missing if operator == "!=" else missing


def _member(column: str, kind: Any, operator: str, values: Any) -> Any:
    if not isinstance(values, list | tuple | set | frozenset):
        raise InvalidInputError(f"The filter on {column!r} has {operator!r} and no list of values; write one.")
    # A set has another order in each process, and the fingerprint of the source knows the order.
    listed = sorted(values, key=repr) if isinstance(values, set | frozenset) else values
    scalars = [_scalar(column, kind, value) for value in listed]
    try:
        types = {one.type for one in scalars if one.is_valid}
        # Numbers of several types find one of their own; an empty list takes the column's.
        only = types.pop() if len(types) == 1 else None if types else _value_type(kind)
        choice = pa.array([one.as_py() for one in scalars], only)
        found = pc.field(column).isin(choice)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        raise _not_comparable(column, kind, values) from None
    return ~found if operator == "not in" else found


def _scalar(column: str, kind: Any, value: Any) -> Any:
    if isinstance(value, list | tuple | dict | set):
        raise _not_comparable(column, kind, value)
    kind = _value_type(kind)
    try:
        scalar = pa.scalar(value)
        if pat.is_string(scalar.type) and (pat.is_temporal(kind) or pat.is_decimal(kind)):
            return scalar.cast(kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        raise _not_comparable(column, kind, value) from None
    return scalar


def _value_type(kind: Any) -> Any:
    return kind.value_type if pat.is_dictionary(kind) else kind


def _not_comparable(column: str, kind: Any, value: Any) -> InvalidInputError:
    hint = ""
    if pat.is_timestamp(kind):
        example = "2026-11-21T00:00:00Z" if kind.tz else "2026-11-21T00:00:00"
        hint = f" (as {example!r}, {'with' if kind.tz else 'without'} a zone)"
    return InvalidInputError(f"The filter compares column {column!r} ({kind}) with {value!r}; give a {kind}{hint}.")


def _of_expression(expression: Any, schema: Any) -> RowFilter:
    problem = _problem(schema, expression)
    if problem is not None:
        raise InvalidInputError(f"The filter does not fit the columns: {problem}.")
    return RowFilter(expression, _needed(schema, expression))


def _problem(schema: Any, expression: Any) -> str | None:
    try:
        kind = _evaluated(schema.empty_table(), expression).type
    except pa.ArrowException as error:
        return str(error).partition(" in ")[0].splitlines()[0]
    return None if pat.is_boolean(kind) else f"it gives {kind} and no truth value"


def _needed(schema: Any, expression: Any) -> tuple[str, ...]:
    """Find the columns that an expression cannot do without; Arrow does not tell which it names."""
    needed: set[int] = set()
    every = range(len(schema))
    pending = [every]
    while pending:
        group = pending.pop()
        if _problem(pa.schema([schema.field(i) for i in every if i not in group]), expression) is None:
            continue
        if len(group) == 1:
            needed.add(group[0])
        else:
            middle = len(group) // 2
            pending += [group[:middle], group[middle:]]
    return tuple(schema.field(index).name for index in sorted(needed))


def _evaluated(table: Any, expression: Any) -> Any:
    steps = [
        acero.Declaration("table_source", acero.TableSourceNodeOptions(table)),
        acero.Declaration("project", acero.ProjectNodeOptions([expression], ["kept"])),
    ]
    return acero.Declaration.from_sequence(steps).to_table(use_threads=False).column(0)
