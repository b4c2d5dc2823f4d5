"""Parquet files cut out of others without decoding a value."""

from tabpfn_operators.splice._plan import splice, split
from tabpfn_operators.splice._virtual import VirtualParquet

__all__ = ["VirtualParquet", "splice", "split"]
