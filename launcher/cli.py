"""The command line of `glm-serve`: finds the build, starts Triton and the gateway, keeps both running, ends both."""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Mapping
from contextlib import ExitStack
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from glmserve.build.canary import CANARY_IMAGE, Canary
from glmserve.build.certificate import REQUIRE_VARIABLE
from glmserve.build.manifest import REPOSITORY_FOLDER
from glmserve.limits import CANARY_TIMEOUT_S, DEADLINE_S, GRACEFUL_TIMEOUT_S
from launcher.builds import PRECISIONS, ExportFailed, NoBuild, UnclearChoice, Unverified, check_precision, choose
from launcher.builds import start_timeout_s as default_start_timeout_s
from launcher.devices import LOOPBACK, MOST_DEVICES, PORTS_APART, Engine, engines
from launcher.gateway_server import GatewayFailed, GatewayServer
from launcher.logs import EventLog, event_log
from launcher.notify import notify
from launcher.ports import Port, UnusablePort, claim
from launcher.predecessor import say_that_we_end
from launcher.probe import START_TIMEOUT_VARIABLE
from launcher.settings import WrongSettings, checked_settings
from launcher.supervision.gateway_supervisor import GatewaySupervisor
from launcher.supervision.measured_speed import MeasuredSpeed
from launcher.supervision.service import ChildDied, Service
from launcher.supervision.triton_group import TritonGroup
from launcher.supervision.triton_supervisor import TritonSupervisor
from launcher.supervision.vital_signs import metrics_page
from launcher.triton_server import TritonFailed, TritonServer

BUILDS = Path("builds")
_DEADLINE = "GLM_GATEWAY_DEADLINE_S"
_UNVERIFIED = """
!! NOBODY VOUCHES FOR THE ANSWERS OF THIS BUILD.
!! {}
!! It is served all the same, and /v1/models says "verified": false.
"""


class Exit(IntEnum):
    """Why the service ended; 0 is Ctrl-C or SIGTERM."""

    WRONG_COMMAND_LINE = 2
    UNUSABLE_PORT = 3
    NO_BUILD = 4
    EXPORT_FAILED = 5
    TRITON_FAILED = 6
    GATEWAY_FAILED = 7
    CHILD_DIED = 8
    UNVERIFIED = 9
    WRONG_SETTINGS = 10


_FAILURES: dict[type[Exception], Exit] = {
    UnusablePort: Exit.UNUSABLE_PORT,
    WrongSettings: Exit.WRONG_SETTINGS,
    UnclearChoice: Exit.WRONG_COMMAND_LINE,
    NoBuild: Exit.NO_BUILD,
    ExportFailed: Exit.EXPORT_FAILED,
    Unverified: Exit.UNVERIFIED,
    TritonFailed: Exit.TRITON_FAILED,
    GatewayFailed: Exit.GATEWAY_FAILED,
    ChildDied: Exit.CHILD_DIED,
}


class Ended(BaseException):
    """A signal asked us to end."""


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=1, max=65535, envvar="PORT", help="Port of the web service.")] = 5000,
    host: Annotated[
        str, typer.Option(envvar="HOST", help="Address of the web service; one that others can reach needs API keys.")
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
            help="A checkpoint to serve: a folder, a name on the hub, or demo; exported unless it was before.",
        ),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(envvar="PRECISION", help=f"What a checkpoint is exported in: {', '.join(PRECISIONS)}.")
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            envvar="DEVICES",
            help=f"Numbers of the GPUs to serve on, as in 0,1: one Triton each (at most {MOST_DEVICES}) behind one "
            f"gateway, each with ports {PORTS_APART} higher. Default: one Triton, on GLM_ENGINE_DEVICE_NUMBER.",
        ),
    ] = None,
    require_certificate: Annotated[
        bool,
        typer.Option(envvar=REQUIRE_VARIABLE, help="Refuse a build without a valid certificate."),
    ] = True,
    start_timeout_s: Annotated[
        float | None,
        typer.Option(
            min=1,
            envvar=START_TIMEOUT_VARIABLE,
            help="Seconds that loading the models, and then the first answer, may take. Default: 900, and more for a "
            "build above 9 GB.",
        ),
    ] = None,
) -> None:
    """Serve a build until Ctrl-C: start Triton with its models and the web gateway, and start again what fails.

    Without --build and --checkpoint, serve the published build (builds/current), or else the demo's.

    Exit codes: 0 ended by Ctrl-C or SIGTERM, 2 wrong command line, 3 a port cannot be used, 4 no build or checkpoint,
    5 the export failed, 6 Triton failed to start, 7 the gateway failed to start, 8 one of them failed too often,
    9 no valid certificate, 10 unknown or invalid setting in the environment.
    """
    signal.signal(signal.SIGINT, _end)
    signal.signal(signal.SIGTERM, _end)
    try:
        check_precision(precision)
        chosen = engines(devices, triton_http_port, triton_grpc_port, triton_metrics_port, os.environ)
        claim([Port(host, port, "PORT"), *(port for engine in chosen for port in engine.ports)], _say)
        _say("Checking the settings ...")
        settings = checked_settings(f"{host}:{port}")
        _say("Looking for the build ...")
        choice = choose(build, checkpoint, precision, BUILDS, require_certificate)
        _say(f"Serving {choice.origin}.")
        patience_s = start_timeout_s or default_start_timeout_s(choice.folder)
        if choice.warning:
            _say(_UNVERIFIED.format(choice.warning))

        def make_triton(engine: Engine) -> TritonServer:
            return TritonServer(
                choice.folder / REPOSITORY_FOLDER,
                engine.http_port,
                engine.grpc_port,
                engine.metrics_port,
                LOOPBACK,
                patience_s,
                require_certificate=choice.warning is None,
                environment=engine.environment,
            )

        def supervisor(engine: Engine) -> TritonSupervisor:
            setting = START_TIMEOUT_VARIABLE
            return TritonSupervisor(lambda: make_triton(engine), _say, patience_s, setting, name=engine.name)

        with event_log("gateway") as log:
            graceful_s = float(settings.get("GLM_GATEWAY_GRACEFUL_TIMEOUT_S", GRACEFUL_TIMEOUT_S))
            url = ",".join(engine.grpc_url for engine in chosen)
            canary_s = float(settings.get("GLM_GATEWAY_CANARY_TIMEOUT_S", CANARY_TIMEOUT_S))
            gateway = GatewayServer(choice.folder, url, host, port, log.stream, graceful_s, canary_s)
            try:
                tritons = TritonGroup([supervisor(engine) for engine in chosen], _say)
                _run(choice.folder, tritons, gateway, log, patience_s, settings)
            except GatewayFailed as error:
                raise GatewayFailed(f"{error}{log.tail}") from None
    except Ended:
        _say("Ended.")
    except tuple(_FAILURES) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(_FAILURES[type(error)]) from None


def _run(
    folder: Path,
    tritons: TritonGroup,
    gateway: GatewayServer,
    log: EventLog,
    start_timeout_s: float,
    settings: Mapping[str, str],
) -> None:
    """Keeps both running until the end, whatever happens; the gateway ends first, so that its answers finish."""
    needs_key = "GLM_GATEWAY_KEYS_FILE" in settings

    def say_ready() -> None:
        server = tritons.servers[0]
        speed = MeasuredSpeed.read(metrics_page(server.host, server.metrics_port) or "")
        if warning := speed and speed.warning(float(settings.get(_DEADLINE, DEADLINE_S)), _DEADLINE):
            _say(f"\n{warning}")
        hint = " with one of its keys in KEY" if needs_key else ""
        line = curl_line(folder, gateway.url, needs_key)
        _say(f"\nReady: {gateway.url}\n\nTry it{hint}:\n\n{line}\n\nCtrl-C ends the service.")

    gateway_supervisor = GatewaySupervisor(gateway, _say)
    with ExitStack() as stack:
        stack.callback(tritons.stop)
        stack.callback(gateway_supervisor.stop)
        stack.callback(_begin_to_end)  # runs first
        tritons.start()
        for server in tritons.servers:
            _say(f"Triton is starting on {server.grpc_url} and writes its log to {server.log_path}")
        gateway_supervisor.start()
        _say(f"The gateway is starting on {gateway.url} and writes its log to {log.path or 'stderr'}")
        _say("Triton is loading the models ...")
        Service(tritons, gateway_supervisor, start_timeout_s, say_ready, _say).run()


def curl_line(build: Path, url: str, needs_key: bool) -> str:
    """A command to paste into a shell: asks the build's canary question about its image."""
    image, prompt = shlex.quote(str(build / CANARY_IMAGE)), Canary.read(build).prompt
    body = shlex.quote('{"image": "%s", "prompt": %s}')
    key = ' -H "Authorization: Bearer $KEY"' if needs_key else ""
    return (
        f'printf {body} "$(base64 -w0 {image})" {shlex.quote(json.dumps(prompt, ensure_ascii=False))} '
        f"| curl -s{key} -H 'Content-Type: application/json' -d @- {url}/v1/chat/vision"
    )


def main() -> None:
    """The entry of `glm-serve` and of `python -m launcher`."""
    app()


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise Ended


def _begin_to_end() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave a child behind
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say_that_we_end()
    notify("STOPPING=1")
    _say("Ending: the gateway finishes the requests it has, then Triton stops.")


def _say(text: str) -> None:
    typer.echo(text)
