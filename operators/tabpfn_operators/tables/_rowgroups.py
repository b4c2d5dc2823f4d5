"""Rows of Parquet row groups in bounded memory, however large the row groups and however many the columns.

A column that is being read holds a page, its dictionary and a read buffer: about 1 MiB, whatever the batch. Hundreds of
columns side by side are hundreds of MiB, so columns are read in turns, a slice of them at a time; what a slice gave
waits in memory, and beyond a bound in a nameless temporary file, until the other slices have the same rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow.parquet as pq

from tabpfn_operators.tables._shelf import Shelf

#: Estimated bytes that the columns read side by side may hold.
OPEN_BYTES = 24 << 20
#: Decoded bytes that wait in memory for the other columns of their rows; what is beyond waits on disk.
HELD_BYTES = 16 << 20
#: Read-ahead of a column chunk that is too large to be fetched at once.
_READ_BUFFER = 1 << 20
#: Writers that end a page at 1 MiB; others may write a whole column chunk as one page.
_SMALL_PAGES = ("parquet-cpp", "parquet-mr", "Polars")
_PAGE_BYTES = 1 << 20


def read_row_groups(
    file: Any, columns: Sequence[str], batch_rows: int, groups: Sequence[int] | None = None
) -> Iterator[Any]:
    """Read columns of row groups batch by batch.

    Args:
        file: The open Parquet file; not one with encrypted columns, whose description ends the process in pyarrow.
        columns: Columns in the order wanted, each once.
        batch_rows: Most rows of a batch.
        groups: Row groups to read, in order; None for all.

    Yields:
        Arrow record batches with the columns in that order.

    Raises:
        InvalidInputError: The temporary folder is full; set TMPDIR to a larger disk.
    """
    metadata = pq.ParquetFile(file, pre_buffer=False).metadata
    wanted = range(metadata.num_row_groups) if groups is None else groups
    for run, costs in _runs(metadata, wanted, columns):
        parts = _slices(columns, costs)
        if len(parts) == 1:
            yield from _decoded(file, metadata, run, parts[0], batch_rows, costs)
        else:
            yield from _in_turns(file, metadata, run, parts, batch_rows, costs)


def _runs(
    metadata: Any, groups: Sequence[int], columns: Sequence[str]
) -> Iterator[tuple[list[int], Mapping[str, int]]]:
    """Join small row groups, so that many of them cost no more than one."""
    run: list[int] = []
    costs: dict[str, int] = dict.fromkeys(columns, 0)
    for group in groups:
        if not metadata.row_group(group).num_rows:
            continue
        more = _costs(metadata, group, columns)
        if run and sum(costs.values()) + sum(more.values()) > OPEN_BYTES:
            yield run, costs
            run, costs = [], dict.fromkeys(columns, 0)
        run.append(group)
        costs = {name: costs[name] + more[name] for name in columns}
    if run:
        yield run, costs


def _costs(metadata: Any, group: int, columns: Sequence[str]) -> dict[str, int]:
    """Estimate the bytes that reading each column holds: its fetched chunk, its page and its dictionary."""
    page = _PAGE_BYTES if (metadata.created_by or "").startswith(_SMALL_PAGES) else None
    costs = dict.fromkeys(columns, 0)
    row_group = metadata.row_group(group)
    for number in range(metadata.num_columns):
        chunk = row_group.column(number)
        path = chunk.path_in_schema
        while path not in costs and "." in path:
            path = path.rpartition(".")[0]
        if path in costs:
            encoded = max(chunk.total_uncompressed_size, 0)
            pages = encoded if page is None else min(encoded, page)
            dictionary = min(encoded, _PAGE_BYTES) if chunk.has_dictionary_page else 0
            costs[path] += max(chunk.total_compressed_size, 0) + pages + dictionary
    return costs


def _slices(columns: Sequence[str], costs: Mapping[str, int]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    held = 0
    for name in columns:
        if parts[-1] and held + costs[name] > OPEN_BYTES:
            parts.append([])
            held = 0
        parts[-1].append(name)
        held += costs[name]
    return parts


def _decoded(
    file: Any, metadata: Any, groups: list[int], columns: list[str], rows: int, costs: Mapping[str, int]
) -> Iterator[Any]:
    # Fetching a slice at once spares remote storage a request for each page; a chunk beyond the bound comes in pieces.
    at_once = sum(costs[name] for name in columns) <= OPEN_BYTES
    opened = pq.ParquetFile(file, metadata=metadata, pre_buffer=at_once, buffer_size=0 if at_once else _READ_BUFFER)
    for batch in opened.iter_batches(batch_size=rows, row_groups=groups, columns=columns, use_threads=False):
        yield batch.select(columns)


def _in_turns(
    file: Any, metadata: Any, groups: list[int], parts: list[list[str]], rows: int, costs: Mapping[str, int]
) -> Iterator[Any]:
    with Shelf(HELD_BYTES) as shelf:
        waiting = [
            [shelf.put(batch) for batch in _decoded(file, metadata, groups, part, rows, costs)] for part in parts
        ]
        yield from shelf.joined(waiting)
