"""docs/deploy.md gives no command that the program it is for would not take."""

from __future__ import annotations

import re
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import typer
import yaml
from compose import BUILD, PROFILES, ROOT, services, tool

from export.cli import app as export_app
from gateway.cli import app as gateway_app

GUIDE = (ROOT / "docs" / "deploy.md").read_text("utf-8")
CHART = ROOT / "deploy" / "helm" / "glm-triton"
PROGRAMS = {"export": export_app, "gateway": gateway_app}
TOOLS = {name: service for name, service in services().items() if service.get("profiles") == ["tools"]}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", GUIDE, re.MULTILINE | re.DOTALL)


def commands(beginning: str) -> list[list[str]]:
    """The words of each command that begins so, in blocks and in sentences, without comment and without its pipe."""
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines() + re.findall(r"`([^`\n]+)`", GUIDE)
    found = [re.split(r" #| \| ", line)[0].strip() for line in lines]
    return [shlex.split(line.replace("<digest>", BUILD)) for line in found if line.startswith(beginning)]


def accept(service: str, arguments: list[str], checkpoint: Path) -> None:
    """Raises UsageError unless the program in that service takes these words, or its own where there are none."""
    _, _, program, *rest = TOOLS[service]["entrypoint"]
    words = [*rest, *(arguments or TOOLS[service]["command"])]
    words = [re.sub(r"(?<![^=])/(checkpoint|builds/.*)$", str(checkpoint), word) for word in words]
    command = typer.main.get_command(PROGRAMS[program])
    context = command.make_context(program, words)
    while isinstance(command, typer.core.TyperGroup):
        name, command, words = command.resolve_command(context, words)
        assert command is not None and name is not None
        context = command.make_context(name, words, parent=context)


RUNS = [words[4:] for words in commands("docker compose run --rm")]


def test_it_walks_through_every_tool() -> None:
    assert {name for name, *_ in RUNS} == set(TOOLS)


@pytest.mark.parametrize("words", [*RUNS, *([name] for name in TOOLS)], ids=" ".join)
def test_a_tool_takes_what_it_is_told(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service, *arguments = words
    for name, value in TOOLS[service].get("environment", {}).items():
        monkeypatch.setenv(name, value)
    accept(service, arguments, tmp_path)


def test_profiles_are_ones_that_exist() -> None:
    named = re.findall(r"--profile (\w+)", GUIDE)
    assert {"cpu", "gpu"} <= set(named) <= set(PROFILES)


def test_variables_are_ones_that_compose_knows() -> None:
    known = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text("utf-8")))
    table = set(re.findall(r"`([A-Z_]+)`", "".join(re.findall(r"^\| (`[A-Z].*?) \|", GUIDE, re.MULTILINE))))
    assert table == {name for name in known if not name.startswith("GLM_")} - {"HTTP_PORT", "GRAFANA_PORT"}


def test_what_it_sets_in_the_chart_is_there_and_a_digest_stays_a_string() -> None:
    helm = commands("helm ")
    assert {words[1] for words in helm} == {"install", "upgrade"}
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    for words in helm:
        for option, word in pairwise(words):
            if option in ("--set", "--set-string"):
                section, _, name = word.partition("=")[0].partition(".")
                assert name in values[section]
                assert (option == "--set-string") == (name == "digest")


def test_an_alertmanager_beside_compose_is_one_that_prometheus_reaches_by_the_name_it_is_given(tmp_path: Path) -> None:
    (added,) = (text for text in blocks("yaml") if "alertmanager:" in text)
    override = tmp_path / "docker-compose.override.yml"
    override.write_text(added, "utf-8")
    files = ["--file", "docker-compose.yml", "--file", str(override)]
    command = [tool("docker-compose"), *files, "--profile", "monitoring", "config", "--format", "json"]
    found = yaml.safe_load(subprocess.check_output(command, cwd=ROOT, text=True, timeout=60))["services"]
    assert set(found["alertmanager"]["networks"]) & set(found["prometheus"]["networks"])
    (target,) = re.findall(r'- targets: \["(\w+):9093"\]', GUIDE)
    assert target in found
    told = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text("utf-8"))["alerting"]
    (file,) = told["alertmanagers"][0]["file_sd_configs"][0]["files"]
    assert f"`deploy/prometheus/{file}`" in GUIDE
