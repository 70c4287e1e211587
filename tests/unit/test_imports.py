"""The shape of src/culvert: which part may import which, and how large a module may grow.

The rules are the data at the top; docs/architecture.md gives their reasons. Imports are read from the
source, so one inside a function or under TYPE_CHECKING counts as well: it couples the parts all the same.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import culvert.version

PACKAGE = Path(culvert.version.__file__).parent
ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"

# A part is a module or folder directly below the package; "culvert" is the package's own face. A part
# imports from lower rows only: parts of one row do not import each other.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"__main__"}),
    frozenset({"cli"}),
    frozenset({"culvert"}),
    frozenset({"face"}),
    frozenset({"supervisor", "single", "inetd", "server"}),
    frozenset({"succession"}),
    frozenset({"generation"}),
    frozenset({"source", "standing", "posts"}),
    frozenset({"watch", "drain", "attached"}),
    frozenset({"privileges"}),
    frozenset({"worker", "client"}),
    frozenset({"admin"}),
    frozenset({"control"}),
    frozenset({"service"}),
    frozenset({"listing"}),
    frozenset({"association"}),
    frozenset({"connection"}),
    frozenset({"summary"}),
    frozenset({"securing", "arrival", "program_variables"}),
    frozenset({"shared"}),
    frozenset({"requested"}),
    frozenset({"access"}),
    frozenset({"activation", "conversation", "handshake", "parting", "revocation", "staple_renewal"}),
    frozenset({"presence"}),
    frozenset({"relay", "transport", "listen", "targets", "spawn", "inherited", "vpn"}),
    frozenset({"responder", "ident_client", "libwrap"}),
    frozenset({"readiness", "stream", "own_addresses", "terminal"}),
    frozenset({"trace", "contexts"}),
    frozenset({"tls", "negotiate", "transparent"}),
    frozenset({"admission"}),
    frozenset({"sockopt", "latecomers", "resolve", "http_response", "refusals", "program_log"}),
    frozenset({"log"}),
    frozenset({"jail", "descriptors", "description"}),
    frozenset({"config"}),
    frozenset({"address"}),
    frozenset({"metrics", "idents", "notify", "turn", "ledger", "capabilities"}),
    frozenset({"tally", "failures", "errors"}),
    frozenset({"version"}),
)

NETWORK = frozenset({"asyncio", "uvloop", "socket", "selectors"})
CRYPTOGRAPHY = frozenset({"OpenSSL", "cryptography", "ssl"})

# What a part must not import, wherever it stands in the layers.
FORBIDDEN: dict[str, frozenset[str]] = {
    "config": NETWORK | CRYPTOGRAPHY,
    "tls": NETWORK,
    "negotiate": NETWORK,
    "trace": NETWORK,
    # Its control channels are sockets; a client's byte, an event loop and a key are not its business.
    "supervisor": CRYPTOGRAPHY | {"asyncio", "uvloop", "culvert.tls"},
    "watch": CRYPTOGRAPHY | {"asyncio", "uvloop", "culvert.tls"},
}

# What only one module, or the modules of one folder, may import.
CONFINED: dict[str, str] = {
    "typer": "culvert.cli",
    "click": "culvert.cli",
    "rich": "culvert.cli",
    # The libraries of an endpoint that most daemons do not have, and one process of the others.
    "h11": "culvert.admin.http",
    "prometheus_client": "culvert.admin.exposition",
    # It starts a thread, which does not go together with a fork.
    "watchfiles": "culvert.watch.process",
    "OpenSSL._util": "culvert.tls._openssl",
    "OpenSSL.SSL._lib": "culvert.tls._openssl",
    "OpenSSL.SSL._ffi": "culvert.tls._openssl",
    "cryptography.hazmat.bindings": "culvert.tls._openssl",
}

MODULE_LINES = 500
FUNCTION_LINES = 60


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name, its path and its syntax tree."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"


@dataclass(frozen=True)
class Import:
    """One imported name: `target` is dotted and absolute, down to the name in `from a import b`."""

    module: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.module}, line {self.line}, imports {self.target}"


def read_package(root: Path) -> list[Module]:
    """Every module below `root`, the folder of the package."""
    modules = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules.append(Module(name, path, ast.parse(path.read_text("utf-8"), str(path))))
    return modules


def imports_of(module: Module) -> Iterator[Import]:
    """Everything that a module imports, at its top or inside a function."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module.name, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            origin = imported_from(module, node)
            for alias in node.names:
                yield Import(module.name, f"{origin}.{alias.name}", node.lineno)


def imported_from(module: Module, node: ast.ImportFrom) -> str:
    """The absolute name behind `from`, with leading dots resolved."""
    if node.level == 0:
        return node.module or ""
    parts = module.name.split(".")
    above = parts[: len(parts) - node.level + module.is_package]
    return ".".join([*above, node.module] if node.module else above)


def is_within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def parts_in(modules: list[Module]) -> frozenset[str]:
    """The names of the modules and folders directly below the package."""
    return frozenset(module.name.split(".")[1] for module in modules if "." in module.name)


def part_of(target: str, parts: frozenset[str]) -> str:
    """The part that a name below `culvert` belongs to: a name that is no module is the face's own."""
    names = target.split(".")
    return names[1] if len(names) > 1 and names[1] in parts else names[0]


def row_of(part: str) -> int | None:
    return next((row for row, parts in enumerate(LAYERS) if part in parts), None)


def layer_violations(modules: list[Module]) -> list[str]:
    """Imports that do not point down, and parts that no row names."""
    parts = parts_in(modules)
    found = []
    for module in modules:
        part = part_of(module.name, parts)
        row = row_of(part)
        if row is None:
            found.append(f"{module.name}: give it a row in LAYERS and in docs/architecture.md")
            continue
        for imported in imports_of(module):
            if not is_within(imported.target, "culvert"):
                continue
            target_part = part_of(imported.target, parts)
            target_row = row_of(target_part)
            if target_part != part and target_row is not None and target_row <= row:
                direction = "beside" if target_row == row else "above"
                found.append(f"{imported}: {target_part} stands {direction} {part}, imports point down only")
    return found


def forbidden_violations(modules: list[Module]) -> list[str]:
    """Imports that a part's rule in FORBIDDEN excludes."""
    parts = parts_in(modules)
    found = []
    for module in modules:
        part = part_of(module.name, parts)
        for imported in imports_of(module):
            for prefix in sorted(FORBIDDEN.get(part, ())):
                if is_within(imported.target, prefix):
                    found.append(f"{imported}: {part} must not depend on {prefix}")
    return found


def confined_violations(modules: list[Module]) -> list[str]:
    """Imports of what CONFINED keeps to one place."""
    found = []
    for module in modules:
        for imported in imports_of(module):
            for prefix, owner in CONFINED.items():
                if is_within(imported.target, prefix) and not is_within(module.name, owner):
                    found.append(f"{imported}: only {owner} may")
    return found


def face_violations(modules: list[Module]) -> list[str]:
    """Statements in an `__init__.py` other than its docstring, imports and `__all__`.

    The package's own may put off its imports until a name is used: a daemon needs none of them.
    """
    found = []
    for module in modules:
        if not module.is_package:
            continue
        if ast.get_docstring(module.tree) is None:
            found.append(f"{module.name}: __init__.py has no docstring")
        for node in module.tree.body[1:]:
            if module.name == "culvert" and is_put_off(node):
                continue
            if not isinstance(node, ast.Import | ast.ImportFrom) and not is_all(node):
                found.append(
                    f"{module.name}, line {node.lineno}: __init__.py holds a docstring and exports only"
                )
    return found


def is_all(node: ast.stmt) -> bool:
    """Whether a statement is `__all__ = …`."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "__all__"
    )


def is_put_off(node: ast.stmt) -> bool:
    """Whether a statement is `if TYPE_CHECKING:` with imports alone, and else `__getattr__` alone."""
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
        and all(isinstance(one, ast.ImportFrom) for one in node.body)
        and [one.name for one in node.orelse if isinstance(one, ast.FunctionDef)] == ["__getattr__"]
        and len(node.orelse) == 1
    )


def size_violations(modules: list[Module]) -> list[str]:
    """Modules and functions that have outgrown what a reader holds in mind."""
    found = []
    for module in modules:
        lines = len(module.path.read_text("utf-8").splitlines())
        if lines > MODULE_LINES:
            found.append(f"{module.name}: {lines} lines, {MODULE_LINES} at most")
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES:
                    found.append(
                        f"{module.name}.{node.name}: {length} lines from line {node.lineno},"
                        f" {FUNCTION_LINES} at most"
                    )
    return found


CHECKS = {
    "layers": layer_violations,
    "forbidden": forbidden_violations,
    "confined": confined_violations,
    "face": face_violations,
    "size": size_violations,
}


@pytest.mark.parametrize("rule", CHECKS)
def test_the_package_keeps_the_rule(rule: str) -> None:
    violations = CHECKS[rule](read_package(PACKAGE))
    assert not violations, "\n" + "\n".join(violations)


def test_the_documented_layout_is_the_one_that_is_checked() -> None:
    documented = re.findall(r"^ {6}(\w+)(?:/|\.py)", ARCHITECTURE.read_text("utf-8"), re.MULTILINE)
    assert sorted(documented) == sorted(parts_in(read_package(PACKAGE)))
    rows = [row for part in documented if (row := row_of(part)) is not None]
    assert rows == sorted(rows), "the order of the layout is not that of LAYERS"


@pytest.mark.parametrize("part", ["culvert", "culvert.worker", "culvert.cli.running"])
def test_what_runs_tunnels_loads_no_terminal_library(part: str) -> None:
    terminal = sorted(name for name, owner in CONFINED.items() if owner == "culvert.cli")
    program = f"import sys, {part}; print(*[name for name in {terminal} if name in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=30
    )
    assert (loaded.stdout.split(), loaded.stderr) == ([], "")


@pytest.mark.parametrize("part", ["culvert", "culvert.worker", "culvert.cli.running"])
def test_what_runs_tunnels_loads_nothing_of_the_library_s_face(part: str) -> None:
    face = ["culvert.face", "culvert.server", "culvert.client", "culvert.transport"]
    program = f"import sys, {part}; print(*[name for name in {face} if name in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=30
    )
    assert (loaded.stdout.split(), loaded.stderr) == ([], "")


def test_the_package_itself_loads_neither_the_network_nor_cryptography() -> None:
    heavy = sorted({"asyncio", "socket", "OpenSSL", "cryptography", "culvert.config"})
    program = f"import sys, culvert; print(*[name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=30
    )
    assert (loaded.stdout.split(), loaded.stderr) == ([], "")


@dataclass(frozen=True)
class Breach:
    """A module that breaks one rule, and words that the complaint about it must have."""

    rule: str
    path: str
    source: str
    complaint: str


BREACHES = (
    Breach("layers", "relay.py", "import culvert.service", "service stands above relay"),
    Breach("layers", "relay.py", "from culvert import service", "service stands above relay"),
    Breach("layers", "relay.py", "from . import service", "service stands above relay"),
    Breach("layers", "tls/engine.py", "from ..negotiate import smtp", "negotiate stands beside tls"),
    Breach("layers", "tls/__init__.py", "from ..negotiate import smtp", "negotiate stands beside tls"),
    Breach("layers", "targets.py", "from culvert.listen import bind", "listen stands beside targets"),
    Breach("layers", "service.py", "from culvert import Server", "culvert stands above service"),
    Breach("layers", "utils.py", "", "culvert.utils: give it a row"),
    Breach(
        "layers",
        "errors.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from culvert.log import Log",
        "line 3, imports culvert.log.Log: log stands above errors",
    ),
    Breach("forbidden", "config/lexer.py", "import asyncio", "config must not depend on asyncio"),
    Breach("forbidden", "config/rules.py", "from OpenSSL import SSL", "config must not depend on OpenSSL"),
    Breach("forbidden", "tls/engine.py", "def f():\n    import socket", "tls must not depend on socket"),
    Breach("forbidden", "supervisor.py", "import asyncio.events", "supervisor must not depend on asyncio"),
    Breach("forbidden", "supervisor.py", "from culvert import tls", "must not depend on culvert.tls"),
    Breach("confined", "worker.py", "from rich.console import Console", "only culvert.cli may"),
    Breach("confined", "relay.py", "from OpenSSL._util import lib", "only culvert.tls._openssl may"),
    Breach("confined", "tls/context.py", "from OpenSSL import _util", "only culvert.tls._openssl may"),
    Breach("face", "tls/__init__.py", "'''TLS.'''\nCACHE = {}", "line 2: __init__.py holds"),
    Breach("face", "tls/__init__.py", "import culvert.errors", "has no docstring"),
    Breach("size", "relay.py", "pass\n" * 501, "501 lines, 500 at most"),
    Breach("size", "relay.py", "def f():\n" + "    pass\n" * 60, "culvert.relay.f: 61 lines"),
)


def write_package(root: Path, path: str, source: str) -> Path:
    """A package of empty parts with one module in it that is not empty."""
    package = root / "culvert"
    for part in frozenset[str]().union(*LAYERS) - {"culvert", "tls", "config", "negotiate", "cli"}:
        package.mkdir(exist_ok=True)
        (package / f"{part}.py").touch()
    for folder in ("", "tls", "config", "negotiate", "cli"):
        (package / folder).mkdir(exist_ok=True)
        (package / folder / "__init__.py").write_text('"""A part."""\n')
    (package / path).write_text(source)
    return package


@pytest.mark.parametrize("breach", BREACHES, ids=lambda breach: f"{breach.rule}-{breach.path}")
def test_a_breach_is_named(tmp_path: Path, breach: Breach) -> None:
    package = write_package(tmp_path, breach.path, breach.source)
    violations = CHECKS[breach.rule](read_package(package))
    assert len(violations) == 1, violations
    assert breach.complaint in violations[0]


@pytest.mark.parametrize("rule", CHECKS)
def test_imports_that_point_down_are_no_breach(tmp_path: Path, rule: str) -> None:
    source = "import asyncio\nfrom culvert import relay, tls\nfrom .errors import PeerError\n"
    package = write_package(tmp_path, "service.py", source)
    assert CHECKS[rule](read_package(package)) == []
