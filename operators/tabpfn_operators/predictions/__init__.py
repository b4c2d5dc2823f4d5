"""Predictions: what can be asked for, answers of any size in bounded memory, and the Parquet they become."""

from tabpfn_operators.predictions._kept import is_storable, movable_type
from tabpfn_operators.predictions._output import (
    DEFAULT_QUANTILES,
    OUTPUT_TYPES,
    check_output,
    column_names,
    default_output_type,
    numbers_of_row,
    probability_column,
    quantile_column,
)
from tabpfn_operators.predictions._parquet import ROW_GROUP_BYTES, RowsToWrite, parquet_writer, write_parquet
from tabpfn_operators.predictions._reader import AnswerReader
from tabpfn_operators.predictions._shelf import check_room
from tabpfn_operators.predictions._stored import AnswerIntake, Prediction, StoredPrediction

__all__ = [
    "DEFAULT_QUANTILES",
    "OUTPUT_TYPES",
    "ROW_GROUP_BYTES",
    "AnswerIntake",
    "AnswerReader",
    "Prediction",
    "RowsToWrite",
    "StoredPrediction",
    "check_output",
    "check_room",
    "column_names",
    "default_output_type",
    "is_storable",
    "movable_type",
    "numbers_of_row",
    "parquet_writer",
    "probability_column",
    "quantile_column",
    "write_parquet",
]
