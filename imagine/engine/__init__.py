"""Step-level continuous batching: every request at its own step, many people in one forward."""

from imagine.engine.batcher import Entry, Priority
from imagine.engine.engine import Engine, EngineStats, Incident
from imagine.engine.limits import Limits
from imagine.engine.ticket import Phase, Status, Ticket, watch

__all__ = [
    "Engine",
    "EngineStats",
    "Entry",
    "Incident",
    "Limits",
    "Phase",
    "Priority",
    "Status",
    "Ticket",
    "watch",
]
