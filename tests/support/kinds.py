"""What each test needs (a build, a process, Triton, torch, a browser), read from its source before it is imported.

A test is of a kind when it, or a function or fixture that it uses here, in a conftest or in `tests/support`, names what
makes it so. Reading all sources takes a second or two, so what was found is kept until one of them changes.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
SUPPORT = Path(__file__).resolve().parent
CACHE = TESTS / ".cache"
SIGNS = {
    "triton": ("launcher.triton_server.TritonServer", "bench.servers.fleet"),
    "build": (
        "export.build.pipeline.build",
        "export.commands",
        "export.cli",
        "bench.checkpoints.builds",
        "bench.servers.stub_build",
    ),
    "process": (
        "bench.measure.export_cost",
        "bench.records.write",
        "subprocess",
        "multiprocessing",
        "launcher.children",
        "gateway.images.decoder_pool",
        "launcher.install",
        "launcher.settings.checked_settings",
        "launcher.gateway_server",
        "bench.servers",
        "bench.cli",
    ),
    "parity": ("torch", "transformers", "export.verify.reference", "demo.model", "bench.baselines.flask_transformers"),
    "browser": ("playwright",),
    "slow": (),
}
"""A kind of test, and the modules and functions that make a test one; `pytest.mark.KIND` does, too."""


SHARED_SERVERS = ("browser", "endless", "service", "triton")
"""Fixtures of conftests that live as long as the process they are in."""
LONGEST_GROUPS = (
    "torch of export",
    "test_service_faults.py",
    "torch of others",
    "service",
    "test_real_size.py",
    "browser",
    "test_openapi_fuzzing.py",
    "test_triton_supervisor.py",
)
"""They begin first: of two at a time one computes and the other mostly waits."""
Name = tuple[Path, str]
"""A name, and the file that uses it."""


def kinds_of_test(path: Path, name: str) -> frozenset[str]:
    """The kinds of a test function, or of a class of tests."""
    return frozenset(_of_test(path, name)[0])


def group_of_test(path: Path, name: str) -> str:
    """Tests of one group run in one process: those that share a server, those that need torch, whose import takes
    seconds (in two groups, since no other takes as long), or else those of one file. Tests that share a fixture of
    their file are never parted: each process would make it anew."""
    return _of_test(path, name)[1]


def tests_in(path: Path) -> list[str]:
    return list(read_all()[str(path.relative_to(TESTS))])


@cache
def _of_test(path: Path, name: str) -> tuple[list[str], str]:
    """As it was found for all tests, or else for this test alone: a run of one file reads few others."""
    return _kept().get(str(path.relative_to(TESTS)), {}).get(name) or _find(path, name)


@cache
def read_all() -> dict[str, dict[str, tuple[list[str], str]]]:
    """The kinds and the group of each test of each file, which are kept for later runs."""
    if _kept():
        return _kept()
    found = {
        str(path.relative_to(TESTS)): {name: _find(path, name) for name in _tests_in(path)}
        for path in _sources()
        if path.name.startswith("test_")
    }
    CACHE.mkdir(exist_ok=True)
    for other in set(CACHE.glob("kinds-*.json")) - {_file()}:
        other.unlink(missing_ok=True)
    partial = _file().with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(found), "utf-8")
    partial.replace(_file())
    return found


@cache
def _kept() -> dict[str, dict[str, tuple[list[str], str]]]:
    """What was found for the same sources; nothing where one has changed."""
    return dict(json.loads(_file().read_text("utf-8"))) if _file().is_file() else {}


@cache
def _file() -> Path:
    digest = hashlib.sha256(b"".join(str(path).encode() + path.read_bytes() for path in _sources())).hexdigest()[:16]
    return CACHE / f"kinds-{digest}.json"


@cache
def _sources() -> list[Path]:
    return sorted(path for path in TESTS.rglob("*.py") if CACHE not in path.parents)


def _find(path: Path, name: str) -> tuple[list[str], str]:
    group = _group(path, name)
    shared = _shared_in_file(path, name)
    if shared and any(
        _group(path, other) != group for other in _tests_in(path) if shared & _shared_in_file(path, other)
    ):
        group = str(path)
    return sorted(_kinds(path, name)), group


def _kinds(path: Path, name: str) -> set[str]:
    return {kind for one in _reached(path, name) for kind in _step(*one)[0]}


def _group(path: Path, name: str) -> str:
    """By what the test itself uses."""
    servers = [used for place, used in _reached(path, name) if used in SHARED_SERVERS and place.name == "conftest.py"]
    torch = f"torch of {'export' if path.parent.name == 'export' else 'others'}"
    return min(servers, default=torch if "parity" in _kinds(path, name) else str(path))


def _shared_in_file(path: Path, name: str) -> set[str]:
    """The fixtures of its own file that a test shares with others."""
    return {used for place, used in _reached(path, name) if place == path and used in _source(path).shared}


@cache
def _reached(path: Path, name: str) -> set[Name]:
    """All that a test uses, through functions and fixtures of ours."""
    seen: set[Name] = set()
    left: list[Name] = [(path, name), (path, _WHOLE_FILE)]
    while left:
        one = left.pop()
        if one not in seen:
            seen.add(one)
            left += _step(*one)[1]
    return seen


def _tests_in(path: Path) -> list[str]:
    return [name for name in _source(path).uses if name.startswith(("test_", "Test"))]


_WHOLE_FILE = "pytestmark"


@cache
def _step(path: Path, name: str) -> tuple[frozenset[str], tuple[Name, ...]]:
    """What a name in a file says by itself, and what it leads to."""
    source = _source(path)
    first, _, rest = name.partition(".")
    if first in source.uses:
        return frozenset(), tuple((path, used) for used in source.uses[first])
    if first in source.imports:
        name = ".".join(filter(None, (source.imports[first], rest)))
        module, _, inside = name.partition(".")
        ours = [folder / f"{module}.py" for folder in (path.parent, SUPPORT)]
        return _signs(name), tuple((helper, inside or _WHOLE_FILE) for helper in ours if helper.is_file())
    for conftest in _conftests(path):
        if first in _source(conftest).uses:
            return frozenset(), ((conftest, first),)
    return _signs(name), ()


def _signs(name: str) -> frozenset[str]:
    return frozenset(
        kind
        for kind, signs in SIGNS.items()
        if any(f"{name}.".startswith(f"{sign}.") for sign in (*signs, f"pytest.mark.{kind}"))
    )


@cache
def _conftests(path: Path) -> tuple[Path, ...]:
    folders = [folder for folder in path.parents if folder.is_relative_to(TESTS)]
    found = (folder / "conftest.py" for folder in folders)
    return tuple(conftest for conftest in found if conftest.is_file() and conftest != path)


class _Source:
    """What a file imports, and which names each name that it defines uses."""

    def __init__(self, path: Path) -> None:
        self.imports: dict[str, str] = {}
        self.uses: dict[str, set[str]] = {}
        self.shared: set[str] = set()
        """Fixtures that all tests of the file share."""
        for statement in ast.parse(path.read_text("utf-8")).body:
            nodes = list(_nodes(statement))
            used = set(_uses(nodes))
            if isinstance(statement, ast.FunctionDef) and any(map(_is_shared, statement.decorator_list)):
                self.shared.add(statement.name)
            for name in _defines(statement, nodes):
                self.uses.setdefault(name, set()).update(used)
            for node in nodes:
                if isinstance(node, ast.ImportFrom):
                    self.imports |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
                elif isinstance(node, ast.Import):
                    self.imports |= {alias.asname or alias.name.split(".")[0]: alias.name for alias in node.names}


def _is_shared(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and any(
        keyword.arg == "scope" and isinstance(keyword.value, ast.Constant) and keyword.value.value == "module"
        for keyword in decorator.keywords
    )


@cache
def _source(path: Path) -> _Source:
    return _Source(path)


_SAYING = (ast.Name, ast.Attribute, ast.arg, ast.Call, ast.ImportFrom, ast.Import)
_SILENT = (ast.Constant, ast.expr_context, ast.operator, ast.alias)


def _nodes(statement: ast.stmt) -> Iterator[ast.AST]:
    """The nodes of a statement that name something; `ast.walk` takes three times as long."""
    left: list[ast.AST] = [statement]
    while left:
        node = left.pop()
        if isinstance(node, _SAYING):
            yield node
        for value in vars(node).values():
            if isinstance(value, list):
                left += [one for one in value if isinstance(one, ast.AST) and not isinstance(one, _SILENT)]
            elif isinstance(value, ast.AST) and not isinstance(value, _SILENT):
                left.append(value)


def _defines(statement: ast.stmt, nodes: list[ast.AST]) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        yield statement.name
    elif not isinstance(statement, ast.Import | ast.ImportFrom):
        for node in nodes:
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
            elif isinstance(node, ast.Attribute) and node.attr == "importorskip":
                yield _WHOLE_FILE


_NAMING = ("importorskip", "usefixtures")
"""Calls whose arguments are names of modules and fixtures."""


def _uses(nodes: list[ast.AST]) -> Iterator[str]:
    """Names and parameters, which may be fixtures, and what `importorskip` and `usefixtures` are given."""
    for node in nodes:
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield _dotted(node)
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield from (
                text.value for text in node.args if isinstance(text, ast.Constant) and node.func.attr in _NAMING
            )


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""
