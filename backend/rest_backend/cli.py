"""The command line: the group of commands, and how an error becomes an exit code.

With ``--json`` a command prints one compact line on stdout; everything for people
goes to stderr, unless it is what was asked for. Exit codes: 0 done, 2 bad input,
3 cancelled, 4 out of resources.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from rest_backend import __version__
from rest_backend.commands.doctor import doctor
from rest_backend.commands.models import models
from rest_backend.commands.plan import plan
from rest_backend.commands.printing import print_json
from rest_backend.commands.segment import segment
from rest_backend.commands.serve import serve
from rest_backend.commands.verify import verify
from rest_backend.errors import CancelledError, RestError
from rest_backend.threads import wait_passively


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rest-backend")
def commands() -> None:
    """Segment whole remote-sensing scenes."""


for _command in (segment, plan, models, verify, doctor, serve):
    commands.add_command(_command)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Entry point of ``rest-backend``."""
    arguments = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGTERM, _interrupt)
    wait_passively()
    try:
        commands.main(arguments, standalone_mode=False)
    except RestError as error:
        _fail(error, "--json" in arguments)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        _fail(CancelledError(), "--json" in arguments)
    sys.exit(0)


def _fail(error: RestError, as_json: bool) -> NoReturn:
    click.echo(f"error {error.code}: {error.message}", err=True)
    if as_json:
        print_json({"error": {"code": error.code, "message": error.message}})
    sys.exit(error.exit_code)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
