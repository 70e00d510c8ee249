"""Whether the system around popd is set up for it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from popd import __version__
from popd.ctl.doctor.finding import fine, output_of, problem, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from popd.ctl.doctor.finding import Finding, Patient

__all__ = ["check_clock", "check_fail2ban", "check_limits", "check_running", "check_unit"]

_UNIT: Final = "popd.service"
_FILTER: Final = "/etc/fail2ban/filter.d/popd.conf"
_LOG_LINE: Final = (
    "2026-01-02T03:04:05+0000 [popd.server.protocol#info]"
    " Log-in refused: user ada, from 192.0.2.1, mechanism USER"
)
"""What popd writes when somebody does not get in."""

_PER_SESSION: Final = 3
"""Descriptors that a session needs at most: connection, lock, and a message."""

_BESIDES: Final = 100
"""Descriptors that a process needs besides."""

_FEW: Final = 1000


def check_running(patient: Patient) -> Iterator[Finding]:
    """Popd runs, answers, and is the version that is installed."""
    if patient.running is None:
        yield warning(
            "popd", "it does not answer at its control socket", "start it, or see popctl who"
        )
    elif patient.running["version"] != __version__:
        text = f"{patient.running['version']} runs, {__version__} is installed"
        yield warning("popd", text, "restart popd")
    else:
        yield fine("popd", f"{__version__} runs, in {len(patient.running['processes'])} processes")


def check_clock(_patient: Patient) -> Iterator[Finding]:
    """The clock is kept right."""
    said = output_of("timedatectl", "show", "--property=NTPSynchronized", "--value")
    if said is None:
        yield fine("clock", "whether it is kept right cannot be told: there is no timedatectl here")
    elif said.strip() == "yes":
        yield fine("clock", "it is kept right (NTP)")
    else:
        yield warning("clock", "it is not synchronised", "apt install chrony, or another NTP")


def check_unit(_patient: Patient) -> Iterator[Finding]:
    """Systemd starts popd, and has not given up."""
    wanted = ("LoadState", "ActiveState", "UnitFileState", "NRestarts")
    said = output_of("systemctl", "show", _UNIT, *(f"--property={one}" for one in wanted))
    state = dict(line.partition("=")[::2] for line in (said or "").splitlines())
    if state.get("LoadState") != "loaded":
        yield fine("systemd", f"it knows no {_UNIT}")
        return
    if state.get("ActiveState") != "active":
        text = f"{_UNIT} is {state.get('ActiveState')}"
        yield problem("systemd", text, f"systemctl start {_UNIT}; journalctl -u {_UNIT} says more")
    elif state.get("NRestarts", "0") not in {"", "0"}:
        text = f"{_UNIT} was restarted {state['NRestarts']} times after a failure"
        yield warning("systemd", text, f"journalctl -u {_UNIT} says why")
    else:
        yield fine("systemd", f"{_UNIT} is active")
    if state.get("UnitFileState") not in {"enabled", "static", "alias", "indirect", "generated"}:
        text = f"{_UNIT} is not started at boot"
        yield warning("systemd", text, f"systemctl enable {_UNIT}")


def check_limits(patient: Patient) -> Iterator[Finding]:
    """The processes may open as many files as the sessions need that are let in."""
    processes = patient.running["processes"] if patient.running else []
    files = _open_files(processes[0]["pid"]) if processes else 0
    if not files:
        yield fine("limits", "popd does not run: how many files it may open is not known")
        return
    workers = len(processes)
    room = max(files - _BESIDES, 0) // _PER_SESSION * workers
    wanted = int(getattr(patient.settings, "max_sessions", 0)) or _FEW
    text = f"{files} open files in each of {workers} processes are enough for {room} sessions"
    if room < wanted:
        need = -(-wanted // workers) * _PER_SESSION + _BESIDES
        remedy = f"for {wanted}: LimitNOFILE={need} in the unit, or ulimit -n {need}"
        yield warning("limits", text, remedy)
    else:
        yield fine("limits", text)


def _open_files(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/limits").read_text(encoding="ascii")
    except OSError:
        return 0
    match = re.search(r"^Max open files\s+(\d+)", text, re.MULTILINE)
    return int(match[1]) if match else 0


def check_fail2ban(_patient: Patient) -> Iterator[Finding]:
    """If fail2ban is there, it looks after popd and understands what popd logs."""
    if shutil.which("fail2ban-client") is None:
        yield fine("fail2ban", "it is not here; popd slows guessing down itself")
        return
    said = output_of("fail2ban-client", "status")
    if said is None:
        yield warning("fail2ban", "it is here, but does not run", "systemctl start fail2ban")
        return
    jails = re.search(r"Jail list:\s*(.*)", said)
    if jails is None or "popd" not in re.split(r"[,\s]+", jails[1]):
        yield warning("fail2ban", "there is no jail popd", "see etc/fail2ban in popd's source")
        return
    if not Path(_FILTER).exists():
        yield warning("fail2ban", f"there is no {_FILTER}", "see etc/fail2ban in popd's source")
        return
    matched = output_of("fail2ban-regex", _LOG_LINE, _FILTER)
    if matched is None or not re.search(r"\b1 matched", matched):
        yield problem("fail2ban", "its filter does not know popd's log", f"renew {_FILTER}")
    else:
        yield fine("fail2ban", "the jail popd is active, and its filter knows popd's log")
