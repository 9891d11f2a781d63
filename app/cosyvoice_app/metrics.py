"""What Prometheus reads at /metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from . import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)


class Metrics:
    """Made once per process. Units are in the names."""

    def __init__(self, node: str, engine: str) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.queue_size = Gauge("tts_queue_size", "Requests that wait for their turn", registry=registry)
        self.running = Gauge("tts_running", "Syntheses that run", registry=registry)
        self.ready = Gauge("tts_ready", "1 when /readyz answers 200", registry=registry)
        self.outputs_up = Gauge(
            "tts_outputs_up", "1 when results can be kept in the shared directory", registry=registry
        )
        self.outputs_bytes = Gauge(
            "tts_outputs_bytes", "Size of all results, when they are limited", registry=registry
        )
        self.outputs_removed = Counter(
            "tts_outputs_removed", "Results that this node removed to keep to the limits", registry=registry
        )
        self.requests = Counter(
            "tts_requests", "Requests for speech by how they ended", ["outcome"], registry=registry
        )
        self.wait = Histogram(
            "tts_wait_seconds", "Time a request waited for its turn", buckets=_SECONDS, registry=registry
        )
        self.synthesis = Histogram(
            "tts_synthesis_seconds", "Time a synthesis ran", buckets=_SECONDS, registry=registry
        )
        self.audio = Counter("tts_audio_seconds", "Audio made", registry=registry)
        self.cache_hits = Counter("tts_cache_hits", "Results that were there already", registry=registry)
        self.joined = Counter(
            "tts_joined", "Requests that waited for a result which was being made already", registry=registry
        )
        self.log_lines_dropped = Counter(
            "tts_log_lines_dropped", "Log lines that could not be written", ["log"], registry=registry
        )
        for kind in ("jobs", "access"):
            self.log_lines_dropped.labels(kind)
        self.forwarded = Counter(
            "tts_forwarded",
            "Requests that another node answered through this one",
            ["kind"],
            registry=registry,
        )
        self.handed_over = Counter(
            "tts_handed_over",
            "Jobs of this node sent to another one, by how that ended",
            ["outcome"],
            registry=registry,
        )
        self.peers_up = Gauge("tts_peers_up", "Other nodes that answer this one", registry=registry)
        for outcome in ("ok", "cached"):
            self.requests.labels(outcome)
        info = Gauge("tts_build_info", "1", ["node", "engine", "version"], registry=registry)
        info.labels(node, engine, __version__).set(1)

    def follow_queue(self, size: Callable[[], int]) -> None:
        """Reads tts_queue_size from `size` at each scrape."""
        self.queue_size.set_function(size)

    def follow_engine(self, measurements: Callable[[], Mapping[str, float]]) -> None:
        """Reads the engine's own figures at each scrape; those whose name ends in _total only grow."""
        self.registry.register(_EngineCollector(measurements))

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _EngineCollector(Collector):
    def __init__(self, measurements: Callable[[], Mapping[str, float]]) -> None:
        self._measurements = measurements

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        for name, value in self._measurements().items():
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            yield kind(f"tts_{name.removesuffix('_total')}", f"The engine's {name}", value=value)
