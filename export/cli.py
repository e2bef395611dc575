"""The export's command line: `python -m export COMMAND`."""

from __future__ import annotations

import typer

from export.commands.build import build
from export.commands.builds import list_builds, prune_builds
from export.commands.common import EXIT_CODES
from export.commands.plan import plan
from export.commands.publish import publish, rollback
from export.commands.tensorrt import tensorrt
from export.commands.verify import verify

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Turn a Hugging Face checkpoint into a build that Triton serves, and prove that both give the same answers.",
    epilog=EXIT_CODES,
)
for command in (plan, build, verify, publish, rollback, tensorrt):
    app.command(epilog=EXIT_CODES)(command)
app.command("list", epilog=EXIT_CODES)(list_builds)
app.command("prune", epilog=EXIT_CODES)(prune_builds)


def main() -> None:
    app()
