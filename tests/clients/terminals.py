"""Programs for people at a terminal, who type what has to be done."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from tests.clients.contract import PopClient
from tests.clients.programs import private, unboxed

if TYPE_CHECKING:
    from tests.clients.contract import Errand

__all__ = ["TERMINALS"]


class Snail(PopClient):
    """The heir of Unix's mail."""

    name, language, packages, program = "s-nail", "C", ("s-nail",), "s-nail"
    remembers = False
    mechanisms = ("APOP", "USER")

    def fetch(self, errand: Errand) -> list[bytes]:
        """See `PopClient.fetch`."""
        settings = ["v15-compat", f"tls-ca-file={errand.ca}", "tls-ca-no-defaults"]
        settings += [] if errand.implicit else ["pop3-use-starttls"]
        settings += ["pop3-no-apop"] if errand.mechanism != "APOP" else []
        scheme = "pop3s" if errand.implicit else "pop3"
        box = self.home / "copies"
        box.unlink(missing_ok=True)
        end = "exit" if errand.keep else "delete *\nquit"
        self.run(
            *("-n", *(word for setting in settings for word in ("-S", setting))),
            *("-f", f"{scheme}://{errand.user}:{errand.password}@localhost:{errand.port}"),
            stdin=f"copy * {box}\n{end}\n".encode(),
            environment={"MAILRC": "/dev/null"},
        )
        return unboxed(box.read_bytes())


class Mutt(PopClient):
    """Fetches into its spool when it is told to."""

    name, language, packages, program = "mutt", "C", ("mutt", "libsasl2-modules"), "mutt"
    remembers = False
    mechanisms: tuple[str, ...] = ("SCRAM-SHA-256", "CRAM-MD5", "APOP", "PLAIN", "USER")

    def fetch(self, errand: Errand) -> list[bytes]:
        """See `PopClient.fetch`."""
        scheme = "pops" if errand.implicit else "pop"
        authenticators = errand.mechanism.lower() or "plain"
        rc = private(
            self.home / "rc",
            f'set pop_host="{scheme}://{errand.user}:{errand.password}@localhost:{errand.port}"\n'
            f"set pop_delete={'no' if errand.keep else 'yes'} pop_authenticators={authenticators}\n"
            f'set folder="{self.home}"\n'
            f"set ssl_force_tls=yes ssl_starttls=yes ssl_verify_host=yes\n"
            f'set certificate_file="{errand.ca}"\n'
            f'set mbox_type=Maildir spoolfile="{self.inbox}" quit=yes move=no beep=no wait_key=no\n'
            "push <fetch-mail><quit>\n",
        )
        command = shlex.join([self.program, "-n", "-F", str(rc), "-f", str(self.inbox)])
        self.at_terminal(command)
        return self.new_files(self.inbox / "new") + self.new_files(self.inbox / "cur")

    def at_terminal(self, command: str) -> bytes:
        """Run a command at a terminal of its own."""
        program, self.program = self.program, "script"
        try:
            return self.run(
                *("--quiet", "--return", "--command", command, "/dev/null"),
                environment={"TERM": "xterm"},
            )
        finally:
            self.program = program


class Neomutt(Mutt):
    """mutt's successor, with the same commands."""

    name, packages, program = "neomutt", ("neomutt", "libsasl2-modules"), "neomutt"
    mechanisms = ("SCRAM-SHA-256", "APOP", "USER")  # to be told others it does not mind


TERMINALS: Final[tuple[type[PopClient], ...]] = (Snail, Mutt, Neomutt)
