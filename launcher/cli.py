"""The command line of `make serve`: check, find the build, start Triton and the gateway, watch, and end both."""

from __future__ import annotations

import json
import shlex
import signal
import time
from contextlib import ExitStack
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from glmserve.build.canary import CANARY_IMAGE, Canary
from glmserve.build.certificate import REQUIRE_VARIABLE
from glmserve.build.manifest import REPOSITORY_FOLDER
from launcher.builds import ExportFailed, NoBuild, UnclearChoice, Unverified, choose
from launcher.gateway_server import GatewayFailed, GatewayServer
from launcher.ports import Port, PortTaken, claim
from launcher.probe import START_TIMEOUT_VARIABLE
from launcher.settings import WrongSettings, checked_settings
from launcher.triton_server import TritonFailed, TritonServer

WATCH_S = 0.2
BUILDS = Path("builds")
LOOPBACK = "127.0.0.1"
_UNVERIFIED = """
!! NOBODY VOUCHES FOR THE ANSWERS OF THIS BUILD.
!! {}
!! It is served all the same, and /v1/models says "verified": false.
"""


class Exit(IntEnum):
    """Why the service ended; 0 is Ctrl-C or SIGTERM. Through make, whatever is not 0 is 2."""

    WRONG_COMMAND_LINE = 2
    PORT_TAKEN = 3
    NO_BUILD = 4
    EXPORT_FAILED = 5
    TRITON_FAILED = 6
    GATEWAY_FAILED = 7
    CHILD_DIED = 8
    UNVERIFIED = 9
    WRONG_SETTINGS = 10


_FAILURES: dict[type[Exception], Exit] = {
    PortTaken: Exit.PORT_TAKEN,
    WrongSettings: Exit.WRONG_SETTINGS,
    UnclearChoice: Exit.WRONG_COMMAND_LINE,
    NoBuild: Exit.NO_BUILD,
    ExportFailed: Exit.EXPORT_FAILED,
    Unverified: Exit.UNVERIFIED,
    TritonFailed: Exit.TRITON_FAILED,
    GatewayFailed: Exit.GATEWAY_FAILED,
}


class Ended(BaseException):
    """A signal asked us to end."""


class ChildDied(Exception):
    """Something that must run does not run any more."""


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=1, max=65535, envvar="PORT", help="Port of the web service.")] = 5000,
    host: Annotated[
        str, typer.Option(envvar="HOST", help="Address the web service listens on; others need API keys.")
    ] = LOOPBACK,
    triton_http_port: Annotated[
        int, typer.Option(min=1, max=65535, envvar="TRITON_HTTP_PORT", help="Triton's HTTP port, on loopback.")
    ] = 8000,
    triton_grpc_port: Annotated[
        int, typer.Option(min=1, max=65535, envvar="TRITON_GRPC_PORT", help="Triton's gRPC port, on loopback.")
    ] = 8001,
    triton_metrics_port: Annotated[
        int, typer.Option(min=1, max=65535, envvar="TRITON_METRICS_PORT", help="Triton's metrics port, on loopback.")
    ] = 8002,
    build: Annotated[
        str | None, typer.Option(envvar="BUILD", help="A build to serve, by its digest or its folder.")
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            envvar="CHECKPOINT",
            help="A checkpoint to serve, a folder or a name on the hub; its build is made if there is none yet.",
        ),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(envvar="PRECISION", help="What it is exported in: fp32, fp16, int8 or int4.")
    ] = None,
    require_certificate: Annotated[
        bool,
        typer.Option(envvar=REQUIRE_VARIABLE, help="Refuse a build that no valid certificate vouches for."),
    ] = True,
    start_timeout_s: Annotated[
        float, typer.Option(min=1, envvar=START_TIMEOUT_VARIABLE, help="Seconds that loading the models may take.")
    ] = 900.0,
) -> None:
    """Serve a build in the foreground: Triton with its models and the web gateway, until Ctrl-C.

    Without --build and --checkpoint it is the one that was published (builds/current), or else the demo's.

    Exit codes: 0 ended by Ctrl-C or SIGTERM, 2 wrong command line, 3 a port is in use, 4 no build or checkpoint,
    5 the export failed, 6 Triton failed to start, 7 the gateway failed to start, 8 one of them died,
    9 no valid certificate, 10 an unknown or invalid setting in the environment.
    """
    signal.signal(signal.SIGINT, _end)
    signal.signal(signal.SIGTERM, _end)
    try:
        claim(
            [
                Port(host, port, "PORT" if host == LOOPBACK else "HOST= or PORT"),
                Port(LOOPBACK, triton_http_port, "TRITON_HTTP_PORT"),
                Port(LOOPBACK, triton_grpc_port, "TRITON_GRPC_PORT"),
                Port(LOOPBACK, triton_metrics_port, "TRITON_METRICS_PORT"),
            ]
        )
        settings = checked_settings(f"{host}:{port}")
        _say("Looking for the build ...")
        choice = choose(build, checkpoint, precision, BUILDS, require_certificate)
        folder = choice.folder
        _say(f"Serving {choice.origin}.")
        if choice.warning:
            _say(_UNVERIFIED.format(choice.warning))
        triton = TritonServer(
            folder / REPOSITORY_FOLDER,
            triton_http_port,
            triton_grpc_port,
            triton_metrics_port,
            LOOPBACK,
            start_timeout_s,
            require_certificate=choice.warning is None,
        )
        gateway = GatewayServer(folder, triton.grpc_url, host, port)
        _run(folder, triton, gateway, start_timeout_s, "GLM_GATEWAY_KEYS_FILE" in settings)
    except Ended:
        _say("Ended.")
    except ChildDied as error:
        _say(str(error))
        raise typer.Exit(Exit.CHILD_DIED) from None
    except tuple(_FAILURES) as error:
        _say(str(error))
        raise typer.Exit(_FAILURES[type(error)]) from None


def _run(
    folder: Path, triton: TritonServer, gateway: GatewayServer, start_timeout_s: float, asks_for_key: bool
) -> None:
    """Starts both, watches both, and ends both, whatever happens; the gateway goes first so that its answers finish."""
    with ExitStack() as stack:
        stack.callback(triton.stop)
        stack.callback(gateway.stop)
        stack.callback(_ignore_signals)  # the first to run: an impatient second Ctrl-C must not leave a child behind
        _say(f"Starting Triton on {triton.grpc_url} with build {folder} ...")
        triton.start()
        _say(f"Triton writes its log to {triton.log_path}")
        gateway.start()
        triton.wait_ready(start_timeout_s)
        _say("Triton is ready. Asking the canary picture through the gateway ...")
        gateway.wait_ready(start_timeout_s, lambda reason: _say(f"Not ready yet: {reason}"))
        hint = " with one of its keys in KEY" if asks_for_key else ""
        line = curl_line(folder, gateway.url, asks_for_key)
        _say(f"\nReady: {gateway.url}\n\nTry it{hint}:\n\n{line}\n\nCtrl-C ends the service.")
        while True:
            for name, code in (("Triton", triton.exit_code()), ("The gateway", gateway.exit_code())):
                if code is not None:
                    tail = f"\n{triton.log_tail()}" if name == "Triton" else ""
                    raise ChildDied(f"{name} has died (code {code}); ending the rest.{tail}")
            time.sleep(WATCH_S)


def curl_line(build: Path, url: str, asks_for_key: bool) -> str:
    """A command to paste into a shell: asks the build's canary question about its picture."""
    image, prompt = shlex.quote(str(build / CANARY_IMAGE)), Canary.read(build).prompt
    body = shlex.quote('{"image": "%s", "prompt": %s}')
    key = ' -H "Authorization: Bearer $KEY"' if asks_for_key else ""
    return (
        f'printf {body} "$(base64 -w0 {image})" {shlex.quote(json.dumps(prompt, ensure_ascii=False))} '
        f"| curl -s{key} -H 'Content-Type: application/json' -d @- {url}/v1/chat/vision"
    )


def main() -> None:
    """The entry of `python -m launcher`."""
    app(prog_name="python -m launcher")


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise Ended


def _ignore_signals() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _say(text: str) -> None:
    typer.echo(text)
