"""A fit that is created once: looked up in its place, submitted under a lease, and written down at every step.

docs/design/resume.md says why.
"""

from tabpfn_operators.durable._flow import finish_fit, fit, start_fit
from tabpfn_operators.durable._request import FitRequest, JournalHome, Memory, StoreHome, memory_of
from tabpfn_operators.durable._takeover import adopt_fit, resume_fit

__all__ = [
    "FitRequest",
    "JournalHome",
    "Memory",
    "StoreHome",
    "adopt_fit",
    "finish_fit",
    "fit",
    "memory_of",
    "resume_fit",
    "start_fit",
]
