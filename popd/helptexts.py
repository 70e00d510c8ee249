"""What ``twistd popd --help`` says about options that take one value."""

from __future__ import annotations

from typing import Final

from popd.maildrop.snapshots import DEFAULT_CACHE_SIZE, DEFAULT_CLOCK_SKEW
from popd.serve import DRAIN_TIMEOUT
from popd.server.limits import IDLE_TIMEOUT, LOGIN_TIMEOUT, PER_ADDRESS, SESSIONS

__all__ = ["DEMO", "HELP"]

DEMO: Final = (
    "Show popd at work: makes ./popd-demo with a certificate, a user and some mail, listens on"
    " 127.0.0.1 ports 1110 and 1995, and says how to look at it.  Other options win over it."
)
HELP: Final = {
    "config": "A TOML file with the names of these options, which win over it.",
    "maildrop": "Where the mail is: maildir:/PATH with {user}, {local} or {domain} in it.",
    "mail-root": "The directory beneath which all maildrops must be, with no links in between."
    "  (default: --maildrop as far as its first {...})",
    "default-domain": "What stands behind the @ of a user name that has none.",
    "cleartext-login": "Who may log in without TLS: never, local or always.  (default: never)",
    "missing-maildrop": "What a Maildir not yet there is: empty or an error.  (default: empty)",
    "certificate-dir": "Certificates for other host names: NAME.pem, or NAME/fullchain.pem and"
    " NAME/privkey.pem.",
    "sasl": "The only mechanisms that are offered, as MECHANISM,...; USER is for USER and PASS."
    "  (default: all that --auth can verify, but for SCRAM-SHA-1 and CRAM-MD5)",
    "client-ca": "PEM file: the authorities that vouch for clients, who are then asked for"
    " certificates.",
    "guess-table": "A file that keeps what is known of password guessing.  (default: none, and a"
    " restart forgets it)",
    "state-directory": "Where things are kept that have to outlast popd.  (default: /var/lib/popd)",
    "control": "The socket where popctl is answered; none for none.  (default: /run/popd/control,"
    " if that can be had)",
    "workers": "How many processes serve; auto is one for each processor.  (default: auto)",
    "auth-cache-ttl": "Seconds that a verified password counts without being verified again; 0"
    " verifies every time.  (default: 300)",
    "cache-size": "Megabytes for maildrops that were opened lately, in each process; 0 keeps none."
    f"  (default: {DEFAULT_CACHE_SIZE:g})",
    "clock-skew": "Seconds that the clocks of machines that share the mail may differ.  (default:"
    f" {DEFAULT_CLOCK_SKEW:g})",
    "durability": "When QUIT is answered after deletions: full once they would survive a power cut,"
    " fast before that.  (default: full)",
    "drain-timeout": "Seconds that sessions may go on when popd is to stop.  (default:"
    f" {DRAIN_TIMEOUT:g})",
    "max-sessions": "How many connections there may be at the same time, in all processes together;"
    f" 0 is no limit, here and below.  (default: {SESSIONS})",
    "max-sessions-per-ip": "How many of them may come from one IPv4 address or IPv6 /64."
    f"  (default: {PER_ADDRESS})",
    "max-sessions-per-user": "How many of them one user may have.  (default: 0)",
    "login-timeout": "Seconds from the connection until a client must be logged in."
    f"  (default: {LOGIN_TIMEOUT:g})",
    "idle-timeout": "Seconds without a command until a client that is logged in is let go; less"
    f" than {IDLE_TIMEOUT:g} breaks RFC 1939.  (default: {IDLE_TIMEOUT:g})",
    "max-download-per-day": "Megabytes of messages after which a user gets no more on that day,"
    " UTC.  (default: 0)",
    "proxy-protocol": "Networks, with commas between them, whose connections all begin with a PROXY"
    " header, which is believed.  (default: nobody's; none says so for sure)",
    "xclient": "Networks of proxies that are believed when they say with XCLIENT for whom they"
    " speak.  (default: nobody's; none says so for sure)",
    "log-format": "What lines of the log are: text, or json for programs.  (default: text)",
    "status": "An endpoint of this machine, such as tcp:9110:interface=127.0.0.1, that says over"
    " HTTP how popd is: a page, /metrics and /healthz.  (default: none)",
    "sandbox": "Whether Landlock keeps what serves from all that it does not need: auto (if the"
    " kernel has it), off or required.  (default: auto)",
}
"""By option: what it is for, and what it is by default."""
