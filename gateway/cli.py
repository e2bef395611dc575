"""The gateway's commands: `settings` and `check` for settings, `keys` for API keys, `canary` to probe Triton."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway.errors import BadKeyFile
from gateway.limits.api_keys import Role, create_key, read_keys, revoke_key
from gateway.settings import PREFIX, GatewaySettings, settings_table
from glmserve.errors import BadSettings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
keys = typer.Typer(help="Create, list and revoke API keys; takes effect within a second, without a restart.")
app.add_typer(keys, name="keys")
Name = Annotated[str, typer.Argument(metavar="NAME", help="1 to 64 letters, digits and _.-; whose key it is.")]
File = Annotated[Path, typer.Option(envvar=f"{PREFIX}KEYS_FILE", help="The file that holds the keys' hashes.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Default: the gateway's own limit.")]


@app.command()
def settings() -> None:
    """Print every setting as the markdown table that docs/settings.md shows."""
    typer.echo(settings_table(), nl=False)


@app.command()
def check() -> None:
    """Validate this environment's settings: print those that differ from the defaults, or every fault (exit code 1)."""
    for name, value in GatewaySettings.read().shown().items():
        typer.echo(f"{PREFIX}{name.upper()}={value}")


@app.command()
def canary() -> None:
    """Send the canary question straight to Triton, without a web server; exit code 1 if it fails."""
    from gateway.wsgi import canary_fault

    fault = canary_fault()
    typer.echo(fault or "The canary was answered.")
    if fault:
        raise typer.Exit(1)


@keys.command()
def create(
    name: Name,
    file: File,
    role: Annotated[Role, typer.Option(help="user: requests; metrics: /metrics; admin: both.")] = "user",
    requests_per_minute: Limit = None,
    concurrent_requests: Limit = None,
    image_tokens_per_minute: Limit = None,
) -> None:
    """Create a key and print it. It is not stored and cannot be shown again."""
    limits = {
        "requests_per_minute": requests_per_minute,
        "concurrent_requests": concurrent_requests,
        "image_tokens_per_minute": image_tokens_per_minute,
    }
    typer.echo(create_key(file, name, role, **limits))


@keys.command(name="list")
def list_keys(file: File) -> None:
    """List names, roles and limits."""
    for key in read_keys(file):
        limits = key.model_dump(exclude_none=True, exclude={"name", "role", "sha256"})
        typer.echo("\t".join([key.name, key.role, *(f"{name}={value}" for name, value in limits.items())]))


@keys.command()
def revoke(name: Name, file: File) -> None:
    """Revoke a key."""
    revoke_key(file, name)


def main() -> None:
    """The entry point; a mistake of the user is one line and exit code 1."""
    try:
        app()
    except (BadKeyFile, BadSettings) as error:
        typer.echo(error.message, err=True)
        sys.exit(1)
