"""What Prometheus scrapes: the meter and the gauges, put into the library's words at each scrape.

Nothing here is counted while jobs run: the library's own counters take a lock each, and would be one more
thing to keep right at a rollback.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from actors.store.meter import BUCKETS, Histogram, Series
from actors.system import System


class Jobs(Collector):
    """Collects all metrics of a system."""

    def __init__(self, system: System, connections: Callable[[], int]) -> None:
        self._system = system
        self._connections = connections

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering it does not collect."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield each metric as it is now."""
        series = self._system.meter.read()
        yield _events(series)
        yield _histogram(
            "gofer_job_waiting_seconds",
            "Seconds from when a job was due until it began; only where that is known.",
            [(label, of_label.waiting) for label, of_label in series],
        )
        yield _histogram(
            "gofer_job_running_seconds",
            "Seconds that an attempt took which its handler ended, well or not.",
            [(label, of_label.running) for label, of_label in series],
        )
        yield from self._gauges()

    def _gauges(self) -> Iterator[Metric]:
        gauges = self._system.gauges()
        jobs = GaugeMetricFamily(
            "gofer_jobs",
            "Jobs stored, by status; pending ones that are not due as delayed.",
            labels=["status"],
        )
        for status, number in gauges.jobs.items():
            jobs.add_metric([status], number)
        yield jobs
        for name, text, value in (
            (
                "oldest_due_seconds",
                "Seconds since the next job was due; 0 if none is.",
                gauges.oldest_due_seconds,
            ),
            ("channel_jobs", "Jobs sent to the Workers that none has taken.", gauges.channel_jobs),
            ("database_bytes", "Bytes of the database file.", gauges.database_bytes),
            ("wal_bytes", "Bytes of the database's write-ahead log.", gauges.wal_bytes),
            ("connections", "Open HTTP connections.", self._connections()),
            ("workers_alive", "Workers that are running.", gauges.workers_alive),
        ):
            yield GaugeMetricFamily(f"gofer_{name}", text, value=value)


def _events(series: list[tuple[str, Series]]) -> Metric:
    events = CounterMetricFamily(
        "gofer_job_events",
        "What happened to jobs since the process began, by type, named as in the log.",
        labels=["type", "event"],
    )
    for label, of_label in series:
        for event, number in of_label.events.copy().items():
            events.add_metric([label, event], number)
    return events


def _histogram(name: str, text: str, series: list[tuple[str, Histogram]]) -> Metric:
    metric = HistogramMetricFamily(name, text, labels=["type"])
    bounds = [*map(str, BUCKETS), "+Inf"]
    for label, histogram in series:
        total, counts = histogram.sum, accumulate(histogram.counts.copy())
        metric.add_metric([label], buckets=list(zip(bounds, counts, strict=True)), sum_value=total)
    return metric
