"""Figures for Prometheus: requests, jobs, the engine. None of them is about a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from imagine.engine import EngineStats
from imagine.errors import ImagineError
from imagine.storage.jobs import JobState

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The figures of one service."""

    def __init__(
        self,
        count_jobs: Callable[[], dict[JobState, int]],
        engine_stats: Callable[[], EngineStats | None],
    ) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "imagine_http_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "imagine_http_request_seconds",
            "Time to the end of the answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(_Work(count_jobs, engine_stats))

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered; status 0 is a client that went away."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All figures in the text format of Prometheus."""
        return generate_latest(self._registry)


class _Work(Collector):
    """Figures that are looked up when somebody asks."""

    def __init__(
        self,
        count_jobs: Callable[[], dict[JobState, int]],
        engine_stats: Callable[[], EngineStats | None],
    ) -> None:
        self._count_jobs = count_jobs
        self._engine_stats = engine_stats

    def collect(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("imagine_jobs", "Jobs kept, by state.", labels=["state"])
        try:
            counts = self._count_jobs()
        except ImagineError:
            counts = {}  # the database is away: readiness says so, the other figures still come
        for state, number in counts.items():
            jobs.add_metric([state.value], number)
        yield jobs
        stats = self._engine_stats()
        if stats is None:
            return
        for name, text, value in (
            ("waiting", "Pictures that wait for their first step.", stats.waiting),
            ("active", "Pictures between two steps.", stats.active),
            ("seconds_per_pass", "Smoothed time of a forward pass.", stats.seconds_per_pass),
        ):
            yield GaugeMetricFamily(f"imagine_engine_{name}", text, value)
        for name, text, value in (
            ("passes", "Forward passes.", stats.passes),
            ("rows", "Forward rows; rows / passes is how full passes were.", stats.rows),
            ("pictures", "Pictures drawn.", stats.finished),
            ("out_of_memory", "Passes that had to be split.", stats.out_of_memory_events),
        ):
            yield CounterMetricFamily(f"imagine_engine_{name}", text, value)
