"""What popd tells Prometheus: all numbers about it, in the format that it likes best."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any, ClassVar

from OpenSSL import SSL
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder

from popd import __version__
from popd.metrics import GAUGES
from popd.server.counts import COUNTED, Counter
from twisted import __version__ as twisted_version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from popd.metrics import Gauge, Samples, Sources

__all__ = ["BUILD", "expose"]

BUILD = ("popd_build_info", "What popd runs on.", ("version", "python", "twisted", "openssl"))
"""A metric that is always 1: its name, text and labels."""


class _Collector:
    """All of it, as ``prometheus_client`` wants it."""

    build: ClassVar = {
        "version": __version__,
        "python": platform.python_version(),
        "twisted": twisted_version,
        "openssl": SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode("ascii", "replace"),
    }

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def describe(self) -> list[Metric]:
        """Say nothing yet: to register it must not read anything."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, as they are now."""
        name, text, _ = BUILD
        yield InfoMetricFamily(name.removesuffix("_info"), text, value=self.build)
        for gauge in GAUGES:
            kind = CounterMetricFamily if gauge.grows else GaugeMetricFamily
            yield _family(kind, gauge, gauge.look(self._sources))
        numbers = self._sources.meter.sums()
        for metric in COUNTED:
            if isinstance(metric, Counter):
                cells = numbers[metric.first : metric.first + len(metric.values)]
                samples = zip(metric.values, cells, strict=True)
                yield _family(CounterMetricFamily, metric, samples)
                continue
            bounds = [*map(str, metric.bounds), "+Inf"]
            count, buckets = 0, []
            for bound, number in zip(bounds, metric.buckets(numbers), strict=True):
                count += number
                buckets.append((bound, float(count)))
            yield HistogramMetricFamily(
                metric.name, metric.text, buckets=buckets, sum_value=metric.seconds(numbers)
            )


def _family(kind: Any, metric: Gauge | Counter, samples: Samples) -> Metric:
    family: Any = kind(metric.name, metric.text, labels=metric.labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family  # type: ignore[no-any-return]


def expose(sources: Sources, accept: str = "") -> tuple[bytes, str]:
    """Return everything, and its content type.

    :param accept: what the client likes best (RFC 9110 section 12.5.1): OpenMetrics, or the older
        text format.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(sources))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
