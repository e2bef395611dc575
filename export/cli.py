"""The export's command line: `python -m export COMMAND`."""

from __future__ import annotations

import typer

from export.commands.build import build
from export.commands.common import EXIT_CODES
from export.commands.plan import plan
from export.commands.verify import verify
from export.tensorrt_command import tensorrt

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Turn a Hugging Face checkpoint into a build that Triton serves, and prove that it answers alike.",
    epilog=EXIT_CODES,
)
for command in (plan, build, verify, tensorrt):
    app.command(epilog=EXIT_CODES)(command)


def main() -> None:
    app()
