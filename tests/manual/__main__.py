"""Does what the manual says, on machines that have nothing yet: ``python -m tests.manual``.

Needs root, debootstrap and systemd-nspawn; says so, and does nothing, where they are missing.  Each
check is a line; the exit status is 0 if all is well.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.manual.machine import Machine, MachineError, bootstrap, missing
from tests.manual.steps import script, sections

DOCS = Path(__file__).parent.parent.parent / "docs"

MAILDIRS = """
useradd --system vmail
install -d -o vmail -g vmail /srv/mail/example.org/ada/Maildir/{new,cur,tmp}
chown -R vmail: /srv/mail
"""

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
        for title in ("Postfix", "Exim", "OpenSMTPD"):
            try:
                deliver(base, Path(place, title), page[title])
                print(f"ok       {title} delivers as the manual says")
            except MachineError as error:
                failures += 1
                print(f"FAILED   {title}: {error}")
    return 1 if failures else 0


def deliver(base: Path, tree: Path, section: str) -> None:
    """Set a mail server up, and have it deliver a message."""
    machine = Machine(base, tree)
    steps = script(section)
    machine.prefetch(steps)
    with machine:
        machine.run(MAILDIRS)
        machine.run(steps)
        machine.run(SEND)
        content = machine.run("cat /srv/mail/example.org/ada/Maildir/new/*")
        owner = machine.run("stat -c %U /srv/mail/example.org/ada/Maildir/new/*").strip()
    if "Subject: hello" not in content or "\n..\nthe text\n" not in content or owner != "vmail":
        raise MachineError(f"delivered to {owner}:\n{content}")


if __name__ == "__main__":
    sys.exit(main())
