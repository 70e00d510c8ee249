"""``popctl``: manages the accounts that popd lets in, and a popd that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click
from click.exceptions import NoArgsIsHelpError

from popd import __version__
from popd.ctl.apps import apppass
from popd.ctl.authtest import auth
from popd.ctl.clients import client_config
from popd.ctl.configuration import config as config_
from popd.ctl.doctor.command import doctor
from popd.ctl.live import drain, kick, reload_, status, who
from popd.ctl.looking import explain, trace
from popd.ctl.mailbox import mailbox
from popd.ctl.penalties import penalties
from popd.ctl.site import CONFIG, STATE, Site
from popd.ctl.store import StoreError
from popd.ctl.users import user
from popd.operate.place import DEFAULT

if TYPE_CHECKING:
    from typing import IO

__all__ = ["main"]

_EPILOG: Final = """\b
Exit status:
  0  done; for "auth test", the user can log in
  1  refused
  2  the command line is wrong
  3  there is no such user, app password or session
  4  there is one already
  5  a file, a database or popd's control socket cannot be used
  6  for "auth test": who could tell cannot answer now
"""


class _Failure(click.ClickException):
    """An error in one line."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Write one line to stderr."""
        click.echo(f"popctl: {self.format_message()}", file=file, err=True)


class _Usage(_Failure):
    """A command line that is wrong."""

    exit_code = click.UsageError.exit_code


class _Main(click.Group):
    """The group of all commands."""

    def invoke(self, ctx: click.Context) -> Any:
        """Carry out the command."""
        try:
            return super().invoke(ctx)
        except NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else "popctl"
            raise _Usage(f"{error.format_message().rstrip('.')}; see {path} --help") from error
        except StoreError as error:
            failure = _Failure(str(error))
            failure.exit_code = error.exit_code  # type: ignore[misc]  # click means it to be set
            raise failure from error


@click.group(
    cls=_Main,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "POPCTL"},
)
@click.option("--config", default=CONFIG, show_default=True, help="popd's configuration file.")
@click.option(
    "--auth",
    metavar="TYPE:ARGUMENT",
    multiple=True,
    help="Where the accounts are, as for popd's --auth; wins over the configuration.",
)
@click.option(
    "--state-directory",
    default="",
    help=f"Where popd notes when app passwords were used.  [default: {STATE}]",
)
@click.option(
    "--control", metavar="PATH", default="", help=f"popd's control socket.  [default: {DEFAULT}]"
)
@click.version_option(__version__, message="popctl (popd) %(version)s")
@click.pass_context
def main(
    ctx: click.Context, config: str, auth: tuple[str, ...], state_directory: str, control: str
) -> None:
    """Manage the accounts that popd lets in, and a popd that runs.

    Accounts are where the first popd-passwd or popd-sql in popd's configuration says.  Passwords
    are asked for, or read from standard input, and never stand on a command line.
    """
    ctx.obj = Site(config, auth, state_directory, control)


for _command in (
    *(user, apppass, auth, penalties, mailbox),
    *(who, kick, trace, explain, status, reload_, drain),
    *(config_, doctor, client_config),
):
    main.add_command(_command)
