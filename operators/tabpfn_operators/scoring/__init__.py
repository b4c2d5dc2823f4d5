"""Batch scoring: any number of rows in predictions that the server takes, each paid for once, restartable."""

from tabpfn_operators.scoring._earlier import Earlier, find_earlier
from tabpfn_operators.scoring._flow import score, score_shards
from tabpfn_operators.scoring._order import ScoringOrder, ordered
from tabpfn_operators.scoring._planning import plan_scoring
from tabpfn_operators.scoring._terms import CONCURRENCY, OnUnknown, Terms

__all__ = [
    "CONCURRENCY",
    "Earlier",
    "OnUnknown",
    "ScoringOrder",
    "Terms",
    "find_earlier",
    "ordered",
    "plan_scoring",
    "score",
    "score_shards",
]
