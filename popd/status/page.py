"""The page: HTML that says everything by itself; the script only keeps it up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from popd.server.reasons import explained
from popd.status import units
from popd.status.markup import Markup, element, joined
from popd.status.plot import plot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from popd.status.history import History

__all__ = ["render"]

_COARSE: Final = 30
"""How many samples make one row of the table of the last hour: five minutes."""

_PLOTS: Final = (
    ("Sessions", units.count, {"sessions": "now"}),
    (
        "Log-ins a second",
        units.count,
        {"logins_per_second": "good", "refused_per_second": "refused"},
    ),
    (
        "Time to log in",
        units.seconds,
        {"login_seconds_median": "median", "login_seconds_95": "95\u202f%"},
    ),
    ("Messages a second", units.count, {"messages_per_second": "now"}),
    (
        "Time to send a message",
        units.seconds,
        {"retr_seconds_median": "median", "retr_seconds_95": "95\u202f%"},
    ),
    ("Mail sent a second", units.data, {"octets_per_second": "now"}),
    ("Processors in use", units.share, {"cpu": "now"}),
    (
        "Log-ins that could not be, a second",
        units.count,
        {"in_use_per_second": "maildrop in use", "failed_per_second": "popd\u2019s trouble"},
    ),
)
_FEW_DAYS: Final = 14

_IN_USE: Final = "in-use"

_NAMES: Final = 5
"""How many names of a certificate are shown."""

_FAILURES: Final = 12
"""How many failures are shown."""


def render(report: Mapping[str, Any], history: History) -> bytes:
    """Return the page.

    :param report: what `popd.status.report.Reporter.report` returned.
    :param history: the last hour.
    """
    title = f"popd on {report['host']}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("link", rel="icon", href="/icon.svg"),
        element("link", rel="stylesheet", href="/status.css"),
        element("script", src="/status.js", defer=True),
    )
    body = element(
        "body",
        _header(report),
        element(
            "main",
            _concerns(report["concerns"]),
            _plots(history, report["time"]),
            _failures(report["failures"], report["time"]),
            element(
                "div",
                _workers(report["workers"], report["time"]),
                _certificates(report["certificates"]),
                class_="pair",
            ),
            _sessions(report["sessions"], report["time"]),
        ),
        _footer(),
    )
    return joined(Markup("<!DOCTYPE html>"), element("html", head, body, lang="en")).encode()


def _header(report: Mapping[str, Any]) -> Markup:
    sessions = report["sessions"]
    facts = (
        ("Logged in", units.count(sessions["transaction"])),
        ("Not yet", units.count(sessions["authorization"])),
        ("Slowed down", units.count(report["penalties"])),
        ("Up for", units.duration(report["time"] - report["since"])),
        ("Version", report["version"]),
    )
    state = "serving" if report["ok"] else report["trouble"]
    return element(
        "header",
        element(
            "h1",
            "popd ",
            element("span", report["host"], class_="host"),
        ),
        element("p", state, class_="state good" if report["ok"] else "state bad"),
        element(
            "dl",
            *(element("div", element("dt", name), element("dd", text)) for name, text in facts),
        ),
        data_live="header",
    )


def _footer() -> Markup:
    links = (("/status.json", "status.json"), ("/metrics", "metrics"), ("/healthz", "healthz"))
    return element(
        "footer",
        element("p", "As of the last load.", class_="updated", role="status"),
        element("nav", *(element("a", text, href=href) for href, text in links)),
    )


def _section(name: str, title: str, *content: object, note: str = "") -> Markup:
    return element(
        "section",
        element("h2", title, element("small", note) if note else None, id=f"{name}-title"),
        *content,
        aria_labelledby=f"{name}-title",
        data_live=name,
    )


def _table(
    heads: Sequence[tuple[str, str]],
    rows: Iterable[Sequence[object]],
    empty: str,
    kind: str | None = None,
) -> Markup:
    """Return a table.

    :param heads: of each column, its title and its class.
    :param empty: what to say if there are no rows.
    :param kind: its own class.
    """
    body = [
        element(
            "tr",
            *(
                element("td", cell, class_=style or None)
                for cell, (_, style) in zip(row, heads, strict=True)
            ),
        )
        for row in rows
    ]
    if not body:
        return element("p", empty, class_="empty")
    head = element(
        "tr", *(element("th", title, scope="col", class_=style or None) for title, style in heads)
    )
    return element("table", element("thead", head), element("tbody", *body), class_=kind)


def _concerns(concerns: Sequence[str]) -> Markup:
    if not concerns:
        return element("div", data_live="concerns")
    items = [element("li", text) for text in concerns]
    return _section("concerns", "Look after", element("ul", *items))


def _plots(history: History, now: float) -> Markup:
    figures = [
        plot(
            title,
            [(name, label, history.series(name)) for name, label in lines.items()],
            history.times,
            now,
            history.span,
            show,
        )
        for title, show, lines in _PLOTS
    ]
    plots = element("div", *figures, class_="plots", data_span=round(history.span))
    minutes = round(history.span / 60)
    title = "The last hour" if minutes == 60 else f"The last {minutes} minutes"  # noqa: PLR2004
    return _section("hour", title, plots, _figures(history))


def _figures(history: History) -> Markup:
    """Return the plots once more, as a table."""
    columns: list[tuple[str, Callable[[float], str], str]] = [
        (title if len(lines) == 1 else f"{title}, {label}", show, name)
        for title, show, lines in _PLOTS
        for name, label in lines.items()
    ]
    series = [history.coarse(name, _COARSE) for _, _, name in columns]
    rows = [
        (
            units.moment(time)[11:16],
            *(
                "\u2013" if value is None else show(value)
                for (_, show, _), value in zip(columns, values, strict=True)
            ),
        )
        for time, *values in zip(history.coarse_times(_COARSE), *series, strict=True)
    ]
    heads = [("Until (UTC)", ""), *((title, "number") for title, _, _ in columns)]
    table = _table(heads, rows, "Nothing yet: this needs five minutes.")
    return element(
        "details",
        element("summary", "As a table"),
        element("div", table, class_="scroll", tabindex="0", role="region", aria_label="Figures"),
        id="figures",
    )


def _when(time: float, now: float) -> Markup:
    """Return how long ago something was."""
    shown = units.moment(time)
    text = units.duration(now - time)
    return element("time", text, datetime=shown.replace(" ", "T"), title=shown)


def _breaking(text: str, mark: str) -> Markup:
    """Return a text that may go on in a new line behind each *mark*."""
    first, *rest = units.plain(text).split(mark)
    return joined(first, *(piece for part in rest for piece in (mark, element("wbr"), part)))


def _stranger(text: str, otherwise: str) -> Markup:
    """Return a text that a stranger may have chosen, of any length."""
    if not text:
        return element("span", otherwise, class_="none")
    shown = units.plain(text)
    return element("bdi", shown, title=shown)


def _reason(failure: Mapping[str, Any]) -> Markup:
    """Return what went wrong, as people say it, how often, and what else is known."""
    said, more = map(units.plain, explained(failure["what"], failure["why"]))
    if failure["what"] == _IN_USE:
        more = ""  # where the lock is, which is nothing new
    times = f" {units.count(failure['times'])}\u202f\u00d7"
    return joined(
        said,
        element("b", times, class_="times") if failure["times"] > 1 else None,
        element("span", more, class_="more", title=more) if more else None,
    )


def _failures(failures: Sequence[Mapping[str, Any]], now: float) -> Markup:
    rows = [
        (
            _when(one["time"], now),
            _stranger(one["user"], "no name"),
            _breaking(one["peer"], ":") or "this machine",
            _reason(one),
            element("code", one["ident"]),
        )
        for one in failures[:_FAILURES]
    ]
    heads = (
        ("Ago", "when"),
        ("User", "name"),
        ("From", "peer"),
        ("Why", "why"),
        ("Session", "wide"),
    )
    table = _table(heads, rows, "None since popd was started.", "stack")
    return _section(
        "failures", "Recent failures", table, note=f"the last {len(rows)}" if rows else ""
    )


def _sessions(sessions: Mapping[str, Any], now: float) -> Markup:
    rows = [
        (
            element("code", one["ident"]),
            _stranger(one["user"], "not logged in"),
            _breaking(one["peer"], ":") or "this machine",
            element("span", one["tls"].partition(" ")[0] or "cleartext", title=one["tls"] or None),
            one["mechanism"] or "\u2013",
            _when(one["since"], now),
            units.duration(one["idle"]),
            units.count(one["messages"]),
            units.data(one["octets"]),
        )
        for one in sessions["rows"]
    ]
    heads = (
        ("Session", "wide"),
        ("User", "name"),
        ("From", "peer"),
        ("TLS", "wide"),
        ("Mechanism", "wide"),
        ("Age", "number age"),
        ("Idle", "number medium"),
        ("Messages", "number medium"),
        ("Sent", "number medium"),
    )
    links = [
        element("a", text, href=href)
        for text, href, there in (
            ("First", "/", sessions["after"]),
            ("Next", f"/?after={sessions['next']}", sessions["next"]),
        )
        if there
    ]
    total = max(len(rows), sessions["authorization"] + sessions["transaction"])  # some are closing
    return _section(
        "sessions",
        "Sessions",
        _table(heads, rows, "Nobody is connected.", "stack pairs"),
        element("nav", *links, class_="pages", aria_label="Pages of sessions") if links else None,
        note=f"{units.count(len(rows))} of {units.count(total)}" if total else "",
    )


def _workers(workers: Sequence[Mapping[str, Any]], now: float) -> Markup:
    rows = [
        (
            element("code", one["pid"]),
            one["state"],
            units.count(one["generation"]),
            _when(one["since"], now),
            units.count(one["sessions"]),
            units.duration(one["cpu_seconds"])
            if one["cpu_seconds"] >= 10  # noqa: PLR2004 - whole seconds tell enough
            else units.seconds(one["cpu_seconds"]),
            units.data(one["memory_octets"]),
        )
        for one in workers
    ]
    heads = (
        ("Process", ""),
        ("State", ""),
        ("Generation", "number wide"),
        ("Age", "number"),
        ("Sessions", "number"),
        ("CPU", "number medium"),
        ("Memory", "number"),
    )
    return _section("workers", "Workers", _table(heads, rows, "None: the log says why."))


def _names(names: Sequence[str]) -> Markup:
    """Return the names in a certificate, one a line; not all if there are many."""
    if not names:
        return element("span", "no name", class_="none")
    lines = [element("span", _breaking(name, "."), class_="one") for name in names[:_NAMES]]
    more = len(names) - _NAMES
    rest = element("span", f"and {more} more", class_="one none") if more > 0 else None
    return joined(*lines, rest)


def _certificates(certificates: Sequence[Mapping[str, Any]]) -> Markup:
    rows = [
        (
            _names(one["names"]),
            _breaking(one["path"], "/"),
            element(
                "span",
                f"{units.count(one['days_left'])}\u202fd" if one["days_left"] >= 0 else "expired",
                class_="bad" if one["days_left"] < _FEW_DAYS else "good",
                title=units.moment(one["not_after"]),
            ),
        )
        for one in certificates
    ]
    heads = (("Names", "name"), ("File", "path"), ("Expires in", "number age"))
    return _section(
        "certificates",
        "Certificates",
        _table(heads, rows, "None: clients cannot use TLS.", "stack pairs"),
    )
