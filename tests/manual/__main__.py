"""Does what the manual says, on machines that have nothing yet: ``python -m tests.manual``.

Needs root, debootstrap and systemd-nspawn; says so, and does nothing, where they are missing.  Each
check is a line; the exit status is 0 if all is well.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.manual.machine import Machine, MachineError, bootstrap, missing
from tests.manual.steps import PASSWORD, plain_script, script, sections

if TYPE_CHECKING:
    from collections.abc import Callable

DOCS = Path(__file__).parent.parent.parent / "docs"

MAIL = """
install -d -o vmail -g vmail /srv/mail/example.org/ada/Maildir/{new,cur,tmp}
chown -R vmail: /srv/mail
"""

MESSAGE = r"printf 'Subject: hello\n\nthe text\n' >/srv/mail/example.org/ada/Maildir/new/1.a.b"

SEND = """
cat > /root/send.py <<'END'
import smtplib, time
for patience in range(50):
    try:
        server = smtplib.SMTP("127.0.0.1", 25)
        break
    except OSError:
        time.sleep(0.2)
server.sendmail("bob@example.net", ["ada@example.org"],
    "From: bob@example.net\\r\\nSubject: hello\\r\\n\\r\\n..\\r\\nthe text\\r\\n")
END
python3 /root/send.py
for patience in {1..100}; do
    [ -z "$(ls /srv/mail/example.org/ada/Maildir/new)" ] || break
    sleep 0.1
done
"""


def main() -> int:
    """Do all of it."""
    if os.getuid() or missing():
        print(f"skipped: this needs root, and {missing() or 'nothing else'}")
        return 0
    failures = 0
    with tempfile.TemporaryDirectory(prefix="popd-manual-") as place:
        base = Path(place, "base")
        bootstrap(base)
        page = sections((DOCS / "delivery.rst").read_text(encoding="utf-8"))
        wheels = Path(place, "wheels")
        collect(wheels)
        checks: list[tuple[str, Callable[[], None]]] = [
            (
                "popd is installed, watched, operated and upgraded",
                lambda: install(base, Path(place, "popd"), wheels),
            ),
            ("popd is set up", lambda: readme(base, Path(place, "readme"), wheels)),
            *(
                (
                    f"{title} delivers",
                    lambda title=title: deliver(base, Path(place, title), page[title]),
                )
                for title in ("Postfix", "Exim", "OpenSMTPD")
            ),
        ]
        for said, check in checks:
            try:
                check()
                print(f"ok       {said} as the manual says", flush=True)
            except MachineError as error:
                failures += 1
                print(f"FAILED   {said}: {error}", flush=True)
    return 1 if failures else 0


def readme(base: Path, tree: Path, wheels: Path) -> None:
    """Carry out the README's "Set it up", from its source, with a message in the Maildir."""
    machine = _offline(base, tree, wheels)
    copy_source(tree / "root" / "popd")
    text = (DOCS.parent / "README.rst").read_text(encoding="utf-8")
    first, last = sections(text)["Set it up"].split("**Configuration.**")
    tools = "apt-get install -y curl openssl\n"
    machine.prefetch(tools)
    with machine:
        machine.run(f"{tools}cd /root/popd\n{plain_script(first)}")
        machine.run(f"{MAIL}\n{MESSAGE}")
        said = machine.run(plain_script(last))
    if "\n1 28" not in said:
        raise MachineError(f"the message is not there:\n{said}")


def copy_source(tree: Path) -> None:
    """Copy popd's source, and nothing that was made of it."""
    ignore = shutil.ignore_patterns(".git", "build", ".venv*", "*.egg-info", "__pycache__")
    shutil.copytree(DOCS.parent, tree, ignore=ignore)


def _offline(base: Path, tree: Path, wheels: Path) -> Machine:
    """Return a machine whose pip takes what it needs from its disk."""
    machine = Machine(base, tree)
    shutil.copytree(wheels, tree / "wheels")
    (tree / "etc" / "pip.conf").write_text(
        "[global]\nno-index = true\nfind-links = /wheels\n", encoding="ascii"
    )
    return machine


def collect(wheels: Path) -> None:
    """Make a wheel of popd, and collect those that it needs, for the machine has no network."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as copy:
        tree = Path(copy, "tree")
        copy_source(tree)
        command = [*pip, "wheel", "--wheel-dir", str(wheels), str(tree), "setuptools", "wheel"]
        subprocess.run(command, check=True)


def install(base: Path, tree: Path, wheels: Path) -> None:
    """Carry out the pages about installing, operating and upgrading."""
    machine = _offline(base, tree, wheels)
    steps = [
        script((DOCS / page).read_text(encoding="utf-8"))
        for page in ("install.rst", "operating.rst", "upgrading.rst")
    ]
    for step in steps:
        machine.prefetch(step)
    with machine:
        said = machine.run(f"export PASSWORD={shlex.quote(PASSWORD)}\n{steps[0]}")
        for text in ("It works.", "active", "popd_logins_total", "ok"):
            if text not in said:
                raise MachineError(f"no {text!r}:\n{said}")
        for step in steps[1:]:
            machine.run(step)


def deliver(base: Path, tree: Path, section: str) -> None:
    """Set a mail server up, and have it deliver a message."""
    machine = Machine(base, tree)
    steps = script(section)
    machine.prefetch(steps)
    with machine:
        machine.run(f"useradd --system vmail\n{MAIL}")
        machine.run(steps)
        machine.run(SEND)
        content = machine.run("cat /srv/mail/example.org/ada/Maildir/new/*")
        owner = machine.run("stat -c %U /srv/mail/example.org/ada/Maildir/new/*").strip()
    if "Subject: hello" not in content or "\n..\nthe text\n" not in content or owner != "vmail":
        raise MachineError(f"delivered to {owner}:\n{content}")


if __name__ == "__main__":
    sys.exit(main())
