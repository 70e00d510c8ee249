"""What is looked at inside of the container, see ``run.py``: one line for each, and an exit status.

It runs with popd's own Python, as root, and uses nothing but the standard library.
"""

from __future__ import annotations

import os
import poplib
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MAIL: Final = Path("/srv/mail/example.org/ada/Maildir")
PASSWORD: Final = "a secret"
MESSAGE: Final = b"Subject: hello\n\n.dotted\n"
LIMIT: Final = 20.0
WATCHDOG: Final = 6

CONFIG: Final = """
certificate = "/etc/popd/certificate.pem"
private-key = "/etc/popd/private-key.pem"
auth = "popd-passwd:/etc/popd/passwd"
maildrop = "maildir:/srv/mail/{domain}/{local}/Maildir"
workers = WORKERS
"""
DROP_IN: Final = f"""
[Unit]
StartLimitIntervalSec=0
[Service]
ReadWritePaths=/srv/mail
WatchdogSec={WATCHDOG}s
"""
SETUP: Final = """
set -eu
printf '127.0.0.1 localhost\n::1 localhost\n' >/etc/hosts
systemd-sysusers
mkdir -p /etc/popd /etc/systemd/system/popd.service.d
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost \
    -keyout /etc/popd/private-key.pem -out /etc/popd/certificate.pem 2>/dev/null
echo 'ada@example.org:{PLAIN}a secret' >/etc/popd/passwd
systemd-tmpfiles --create popd.conf
mkdir -p /srv/mail/example.org/ada/Maildir/tmp /srv/mail/example.org/ada/Maildir/new
mkdir -p /srv/mail/example.org/ada/Maildir/cur
chown -R popd:popd /srv/mail
"""


class Check(Exception):  # noqa: N818 - it is what a failed check is called
    """Something is not as it should be."""


def run(*command: str) -> str:
    """Run a command; return what it says."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Check(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def until(condition: Callable[[], object], what: str, limit: float = LIMIT) -> float:
    """Wait for something; return how many seconds that took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > limit:
            raise Check(f"no {what} within {limit:g} s")
        time.sleep(0.05)
    return time.monotonic() - began


def want(condition: object, what: str) -> None:
    """Make sure of something."""
    if not condition:
        raise Check(what)


def show(name: str, unit: str = "popd.service") -> str:
    """Return a property of a unit."""
    return run("systemctl", "show", "--value", "--property", name, unit).strip()


def journal() -> str:
    """Return what popd and systemd wrote about popd."""
    run("journalctl", "--sync")
    return run("journalctl", "--no-pager", "--output=cat", "--unit=popd.service")


def main_pid() -> int:
    """Return popd's process id, 0 if there is none."""
    return int(show("MainPID"))


def running() -> int:
    """Return popd's process id."""
    pid = main_pid()
    want(pid, "popd does not run")  # a signal to 0 would go to whoever looks
    return pid


def children(pid: int) -> list[int]:
    """Return the process ids of its workers."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def context() -> ssl.SSLContext:
    """Return how to speak TLS, with popd and nobody else."""
    return ssl.create_default_context(cafile="/etc/popd/certificate.pem")


def log_in(*, tls: bool = True) -> poplib.POP3:
    """Return a client that has logged in."""
    if tls:
        client: poplib.POP3 = poplib.POP3_SSL("localhost", timeout=LIMIT, context=context())
    else:
        client = poplib.POP3("localhost", timeout=LIMIT)
        client.stls(context())
    client.user("ada@example.org")
    client.pass_(PASSWORD)
    return client


def deliver() -> None:
    """Deliver a message."""
    name = f"{time.time_ns()}.M1P1.localhost"
    (MAIL / "tmp" / name).write_bytes(MESSAGE)
    os.chown(MAIL / "tmp" / name, MAIL.stat().st_uid, MAIL.stat().st_gid)
    (MAIL / "tmp" / name).rename(MAIL / "new" / name)


def works() -> bool:
    """Return whether somebody can log in."""
    with suppress(OSError, poplib.error_proto):
        log_in().quit()
        return True
    return False


def workers(count: int) -> None:
    """Let popd run with so many workers."""
    Path("/etc/popd/popd.toml").write_text(CONFIG.replace("WORKERS", str(count)))
    run("systemctl", "restart", "popd.service")
    run("systemctl", "reset-failed")


# The checks.


def units_are_right() -> str:
    """Systemd finds nothing wrong with the units."""
    said = subprocess.run(
        ["systemd-analyze", "verify", "popd.service", "popd.socket"],
        capture_output=True,
        text=True,
        check=False,
    ).stderr
    want("popd" not in said, said)
    return run("systemd-analyze", "security", "--no-pager", "popd.service").splitlines()[-1][2:]


def start() -> str:
    """``systemctl start`` comes back when log-ins work."""
    run("systemctl", "stop", "popd.socket", "popd.service")
    began = time.monotonic()
    run("systemctl", "enable", "--now", "popd.socket", "popd.service")
    took = time.monotonic() - began
    want(show("ActiveState") == "active", "not active")
    log_in().quit()
    until(lambda: "sessions in" in show("StatusText"), "status")
    return f"{took:.1f} s, {show('StatusText')}"


def no_privileges() -> str:
    """It is an ordinary user with no capability at all."""
    for pid in (running(), *children(running())):
        status = Path(f"/proc/{pid}/status").read_text()
        for name in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
            want(re.search(rf"Cap{name}:\s0+\n", status), f"Cap{name}")
        want(re.search(r"NoNewPrivs:\s1\n", status), "NoNewPrivs")
        want(re.search(r"Seccomp:\s2\n", status), "Seccomp")
        want(Path(f"/proc/{pid}").stat().st_uid == MAIL.stat().st_uid, "user")
    confined = re.search(
        r"confined by Landlock, version \d+|This kernel has no Landlock", journal()
    )
    want(confined, "a word about Landlock")
    return f"{show('User')}, {confined[0] if confined else ''}"


def fetch() -> str:
    """Mail is fetched, and removed, by way of both ports, IPv6 and IPv4."""
    deliver()
    for host in ("127.0.0.1", "[::1]"):
        for options in (("--ssl-reqd", f"pop3://{host}/1"), (f"pop3s://{host}/1",)):
            said = run("curl", "-sSk", "--user", f"ada@example.org:{PASSWORD}", *options)
            want("dotted" in said, said)
    for tls in (False, True):
        client = log_in(tls=tls)
        want(client.retr(1)[1] == [b"Subject: hello", b"", b".dotted"], "another message")
        client.quit()
    client = log_in()
    client.dele(1)
    client.quit()
    want(not list((MAIL / "new").iterdir()) + list((MAIL / "cur").iterdir()), "not removed")
    return "poplib, curl"


def activation() -> str:
    """Whoever connects while popd does not run starts it."""
    run("systemctl", "stop", "popd.service")
    want(show("ActiveState") == "inactive", "not inactive")
    want(show("Result") == "success", show("Result"))
    began = time.monotonic()
    log_in().quit()
    want(show("ActiveState") in {"active", "activating"}, "not active")
    until(lambda: show("ActiveState") == "active", "start")
    return f"logged in {time.monotonic() - began:.1f} s later"


def reload() -> str:
    """A reload comes back, popd stays the same process, and sessions go on."""
    pid = running()
    client = log_in()
    run("systemctl", "reload", "popd.service")
    until(lambda: show("ActiveState") == "active", "end of the reload")
    client.stat()
    client.quit()
    want(works(), "no log-in")
    want(main_pid() == pid, "another process")
    want("Reloaded" in journal(), "nothing in the journal")
    return "same process"


def reload_of_nonsense() -> str:
    """A reload of what popd cannot use fails, and popd goes on as it was."""
    pid = running()
    config = Path("/etc/popd/popd.toml")
    good = config.read_text()
    try:
        config.write_text(good.replace("certificate.pem", "nothing.pem"))
        done = subprocess.run(
            ["systemctl", "reload", "popd.service"], capture_output=True, check=False
        )
    finally:
        config.write_text(good)
    want(done.returncode, "the reload did not fail")
    want("nothing.pem: cannot be read" in journal(), "nothing in the journal")
    want(show("ActiveState") == "active", show("ActiveState"))
    want(main_pid() == pid, "another process")
    want(works(), "no log-in")
    return "refused"


def reload_of_code() -> str:
    """Another popd becomes systemd's main process, and sessions go on in the one before."""
    pid = running()
    client = log_in()
    began = time.monotonic()
    run("/opt/popd/bin/popctl", "reload", "--code")
    took = time.monotonic() - began
    until(lambda: main_pid() not in {0, pid}, "new main process")
    new = main_pid()
    until(lambda: show("ActiveState") == "active", "end of the reload")
    client.stat()
    client.quit()
    until(lambda: not Path(f"/proc/{pid}").exists(), "end of the old popd")
    want(works(), "no log-in")
    want(main_pid() == new, "another process")
    want("not our child" not in journal(), "systemd would not notice its end")
    return f"{took:.1f} s"


def watchdog() -> str:
    """A popd that hangs is ended and started anew."""
    pid = running()
    until(lambda: "sessions in" in show("StatusText"), "look")
    os.kill(pid, signal.SIGSTOP)
    took = until(lambda: main_pid() not in {0, pid}, "new popd", WATCHDOG + LIMIT)
    want(works(), "no log-in")
    want("Watchdog timeout" in journal(), "nothing in the journal")
    until(lambda: show("ActiveState") == "active", "start")
    return f"{took:.1f} s"


def where_it_hung() -> str:
    """The journal has the place where it hung."""
    want("Fatal Python error: Aborted" in journal(), "nothing in the journal")
    return "traceback in the journal"


def crash() -> str:
    """A popd that dies is started anew."""
    pid = running()
    os.kill(pid, signal.SIGKILL)
    took = until(lambda: main_pid() not in {0, pid}, "new popd")
    want(works(), "no log-in")
    until(lambda: show("ActiveState") == "active", "start")
    return f"{took:.1f} s"


def hung_worker() -> str:
    """A worker that hangs is replaced, while the other serves and popd goes on."""
    pid = running()
    until(lambda: len(children(pid)) == 2, "workers")
    victim, other = children(pid)
    client = log_in()
    os.kill(victim, signal.SIGSTOP)
    took = until(lambda: victim not in children(pid), "end of the worker", 40)
    until(lambda: len(children(pid)) == 2, "new worker")
    want(other in children(pid), "the other worker is gone as well")
    want(main_pid() == pid, "all of popd was started anew")
    want(f"Worker {victim} hangs" in journal(), "nothing in the journal")
    client.close()
    want(works(), "no log-in")
    return f"{took:.1f} s"


def all_hang() -> str:
    """If no log-in works any more, all is started anew, though the supervisor is well."""
    pid = running()
    for worker in children(pid):
        os.kill(worker, signal.SIGSTOP)
    took = until(lambda: main_pid() not in {0, pid}, "new popd", WATCHDOG + LIMIT)
    want("No log-in works at " in journal(), "nothing in the journal")
    want(works(), "no log-in")
    until(lambda: show("ActiveState") == "active", "start")
    return f"{took:.1f} s"


def restarts() -> str:
    """While popd is started anew, again and again, nobody is refused."""
    over = threading.Event()
    counts = dict.fromkeys(("logged in", "refused", "cut"), 0)
    guard = threading.Lock()

    def client() -> None:
        while not over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", 110), LIMIT) as end:
                    end.settimeout(LIMIT)
                    said = end.recv(100)
                    end.sendall(b"QUIT\r\n")
                    result = "logged in" if said and end.recv(100) else "cut"
            except ConnectionRefusedError:
                result = "refused"
            except ConnectionError:
                result = "cut"
            with guard:
                counts[result] += 1

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            time.sleep(0.5)
            run("systemctl", "restart", "popd.service")
        time.sleep(0.5)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    want(not counts["refused"], f"{counts}")
    want(counts["logged in"] > 100, f"{counts}")
    return f"3 restarts, {counts['logged in']} sessions, {counts['cut']} cut, 0 refused"


def quiet() -> str:
    """The log has the users' log-ins, and not popd's own."""
    text = journal()
    want("ada@example.org" in text, "no log-in")
    want("popd/insider" not in text, "its own log-ins")
    want("Traceback" not in text, "a traceback")
    want("plugin cache" not in text, "a start that takes longer than it has to")
    return f"{len(text.splitlines())} lines"


def stop() -> str:
    """It stops, and its ports with it."""
    began = time.monotonic()
    run("systemctl", "stop", "popd.service", "popd.socket")
    took = time.monotonic() - began
    want(show("Result") == "success", show("Result"))
    for port in (110, 995):
        with suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            raise Check(f"somebody listens on {port}")
    return f"{took:.1f} s"


CHECKS: Final = (
    *((1, units_are_right), (0, start), (0, no_privileges), (0, fetch), (0, activation)),
    *((0, reload), (0, reload_of_nonsense), (0, reload_of_code)),
    *((0, watchdog), (0, where_it_hung), (0, crash)),
    *(
        (2, start),
        (0, no_privileges),
        (0, fetch),
        (0, reload),
        (0, reload_of_nonsense),
        (0, reload_of_code),
        (0, hung_worker),
        (0, all_hang),
    ),
    *((0, restarts), (0, quiet), (0, stop)),
)
"""What is looked at, in this order, and with how many workers from there on."""


def main() -> int:
    """Look, at what is named or at everything; return the exit status."""
    names = sys.argv[1:]
    Path("/etc/popd").mkdir(exist_ok=True)
    run("sh", "-c", SETUP)
    Path("/etc/systemd/system/popd.service.d/site.conf").write_text(DROP_IN)
    run("systemctl", "daemon-reload")
    failed = 0
    for count, check in CHECKS:
        began = time.monotonic()
        try:
            if count:
                workers(count)
            if names and check.__name__ not in names:
                continue
            line = f"ok      {check.__name__.replace('_', ' ')}: {check()}"
        except (Check, OSError, poplib.error_proto, subprocess.SubprocessError) as error:
            failed += 1
            line = f"FAILED  {check.__name__.replace('_', ' ')}: {error}"
        print(f"{line}  [{time.monotonic() - began:.1f} s]", flush=True)  # noqa: T201
    if failed:
        sys.stderr.write(journal()[-8000:])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
