"""Write ``docs/metrics.rst`` from the code: ``python docs/make_metrics.py``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from popd.metrics import GAUGES
from popd.server.counts import COUNTED, Counter

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET: Final = Path(__file__).with_name("metrics.rst")

TEXT: Final = """\
.. Written by docs/make_metrics.py from the code; change that, not this.

Metrics
=======

With ``status = "tcp:9110:interface=127.0.0.1"`` popd tells Prometheus what follows, under
``http://127.0.0.1:9110/metrics``.  All processes are counted together; what a worker has counted
stays when it ends.  ``etc/prometheus`` has alert rules, ``etc/grafana`` a dashboard.

{metrics}
"""


def _all() -> Iterator[tuple[str, str, str, tuple[str, ...], list[str]]]:
    yield "popd_build_info", "gauge", "Which popd this is, and what it runs on.", (), []
    for gauge in GAUGES:
        kind = "counter" if gauge.grows else "gauge"
        yield gauge.name, kind, gauge.text, gauge.labels, []
    for counted in COUNTED:
        if isinstance(counted, Counter):
            values = [
                f"``{label}``: {', '.join(sorted({one[place] for one in counted.values}))}"
                for place, label in enumerate(counted.labels)
            ]
            yield counted.name, "counter", counted.text, counted.labels, values
        else:
            yield counted.name, "histogram", counted.text, (), []


def render() -> str:
    """Return the page."""
    blocks = []
    for name, kind, text, labels, values in _all():
        about = [f"    A {kind}.  {text}"]
        if values:
            about += [f"    {line}." for line in values]
        elif labels:
            about.append(f"    Labels: {', '.join(f'``{label}``' for label in labels)}.")
        blocks.append("\n".join([f"``{name}``", *about]))
    return TEXT.format(metrics="\n\n".join(blocks))


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
