"""Whole files: tests/corpus/valid with the tree that each gives, tests/corpus/invalid with what is wrong."""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest

from culvert import config
from culvert.address import HostPort, UnixPath
from culvert.config.vpn import Vpn, VpnClient
from culvert.errors import ConfigurationError, Diagnostic

CORPUS = Path(__file__).parents[2] / "corpus"
VALID = sorted((CORPUS / "valid").glob("*.conf"))
INVALID = sorted((CORPUS / "invalid").glob("*.conf"))


def simplified(value: Any) -> Any:
    """A value of the tree as JSON writes it."""
    plain = value
    match value:
        case HostPort() | UnixPath():
            plain = str(value)
        case config.Debug():
            plain = [value.facility, value.level]
        case config.VerifyPolicy():
            plain = [field.name for field in dataclasses.fields(value) if getattr(value, field.name)]
        case config.SocketOption():
            plain = [value.target, value.name, simplified(value.value)]
        case config.Sources():
            plain = [str(network) for network in value.networks] + ["unix"] * value.unix
        case config.AccessRules() | config.ProxyHeaders():
            plain = {
                field.name: simplified(getattr(value, field.name)) for field in dataclasses.fields(value)
            }
        case Vpn():
            fields = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
            plain = {name: simplified(one) for name, one in fields.items() if one not in ((), None)}
        case VpnClient():
            plain = [value.name, *map(str, (*value.addresses, *value.routes))]
        case ipaddress._IPAddressBase():
            plain = str(value)
        case config.TlsVersion():
            plain = value.name
        case enum.Enum():
            plain = value.value
        case tuple():
            plain = [simplified(item) for item in value]
    return plain


def finding(diagnostic: Diagnostic) -> str:
    """A diagnostic as the corpus writes it, without the path."""
    line = "-" if diagnostic.location is None else diagnostic.location.line
    hint = "" if diagnostic.hint is None else f" ({diagnostic.hint})"
    message = diagnostic.message.replace(f"{CORPUS}/", "")
    return f"{line}: {diagnostic.severity.value}: {message}{hint}"


def check_fields(found: Any, expected: dict[str, Any]) -> None:
    assert {name: simplified(getattr(found, name)) for name in expected} == expected


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_valid(path: Path) -> None:
    expected = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    configuration = config.load(str(path))
    assert [finding(d) for d in configuration.findings] == expected["findings"]
    assert configuration.inetd is expected["inetd"]
    check_fields(configuration.options, expected["options"])
    assert [service.name for service in configuration.services] == [s["name"] for s in expected["services"]]
    for service, fields in zip(configuration.services, expected["services"], strict=True):
        check_fields(service, fields)


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_invalid(path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        config.load(str(path))
    expected = path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    assert [finding(d) for d in caught.value.diagnostics] == expected


def test_each_file_has_its_expectation() -> None:
    assert {path.with_suffix(".json") for path in VALID} == set((CORPUS / "valid").glob("*.json"))
    assert {path.with_suffix(".txt") for path in INVALID} == set((CORPUS / "invalid").glob("*.txt"))
