"""The table: that it is whole, that it fits the model, and that its texts can be printed."""

from __future__ import annotations

import dataclasses

import pytest

from culvert.config import OPTIONS, Availability, GlobalOptions, Option, Scope, Service
from culvert.config.options import find, hides, named

GLOBAL = """
    chroot compression debug EGD RNDbytes RNDfile RNDoverwrite engine engineCtrl engineDefault engineId
    engineNum CAengine provider providerParameter fips foreground log output pid service setEnv setgid setuid
    syslog iconActive iconError iconIdle taskbar
"""

SERVICE = """
    accept connect exec execArgs client pty retry failover delay local transparent cert key CAfile CApath
    CRLfile CRLpath CAstore verify verifyChain verifyPeer requireCert checkHost checkIP checkEmail OCSP
    OCSPaia OCSPflag OCSPnonce OCSPrequire redirect ciphers ciphersuites curves curve securityLevel sslVersion
    sslVersionMin sslVersionMax options config renegotiation sni PSKsecrets PSKidentity sessionCacheSize
    sessionCacheTimeout sessionResume sessiond ticketKeySecret ticketMacSecret protocol protocolAuthentication
    protocolDomain protocolHeader protocolHost protocolPassword protocolUsername ident libwrap logId reset
    socket stack TIMEOUTbusy TIMEOUTclose TIMEOUTconnect TIMEOUTidle TIMEOUTocsp
"""

OWN = """
    include workers watch admin adminToken adminTokenFile trace
    alpn keylog healthCheck maxConnections maxConnectionsPerIP maxHandshakes acceptRate
    acceptProxy trustProxy proxyProtocol allowFrom denyFrom socksAllow drainTimeout reloadDrainTimeout
    logFormat
    allowCN allowOU allowDNS allowURI allowEmail allowIP allowSPKI allowPSK
    transport tun tunAccept tunAddress tunClient tunClientToClient tunKeepalive tunMTU tunOffload
    tunParity tunPeer
    tunPool tunRoute
"""
"""What is no row of the reference: `include` is syntax there, and the others are Culvert's."""

REPEATABLE = """
    connect checkHost checkIP checkEmail options config socket sni OCSPflag setEnv CAengine protocolHeader
    include provider providerParameter trustProxy allowFrom denyFrom socksAllow
    allowCN allowOU allowDNS allowURI allowEmail allowIP allowSPKI allowPSK
    tunAccept tunAddress tunClient tunPeer tunPool tunRoute
"""

DERIVED = {"name", "location", "locations"}


def test_every_option_of_the_reference_is_there_and_no_other() -> None:
    spelt = {name for option in OPTIONS for name in (option.name, *option.aliases)}
    # `session` is what stunnel 4 called sessionCacheTimeout.
    assert spelt == {*GLOBAL.split(), *SERVICE.split(), *OWN.split(), "session"}


def test_no_name_stands_twice() -> None:
    lower = [name.lower() for option in OPTIONS for name in (option.name, *option.aliases)]
    assert len(lower) == len(set(lower))


def test_repeatable_options() -> None:
    assert {option.name for option in OPTIONS if option.repeatable} == set(REPEATABLE.split())


def test_every_field_of_the_model_has_an_option() -> None:
    global_fields = {option.global_field for option in OPTIONS} - {None}
    assert global_fields | {"locations"} == {field.name for field in dataclasses.fields(GlobalOptions)}
    service_fields = {name for option in OPTIONS for name in option.service_fields}
    assert service_fields | DERIVED == {field.name for field in dataclasses.fields(Service)}


def test_fields_fit_the_scope() -> None:
    for option in OPTIONS:
        if option.name == "include":
            continue
        available = option.availability is Availability.AVAILABLE
        assert (option.global_field is not None) == (available and option.scope is not Scope.SERVICE), option
        assert bool(option.service_fields) == (available and option.scope is not Scope.GLOBAL), option


def test_what_is_refused_says_why() -> None:
    for option in OPTIONS:
        assert bool(option.reason) == (option.availability is not Availability.AVAILABLE), option


def test_defaults_of_repeatable_options_are_tuples() -> None:
    for option in OPTIONS:
        assert not option.repeatable or isinstance(option.default, tuple), option


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_help_is_one_short_line(option: Option) -> None:
    assert option.help.isprintable()
    assert option.help.isascii()
    assert 10 <= len(option.help) <= 85
    assert not option.help.endswith(".")
    assert len(option.name) <= 22


def test_find_is_without_case_and_knows_aliases() -> None:
    assert find("EXECARGS") is named("execArgs")
    assert find("curve") is named("curves")
    assert find("nothing") is None


def test_secrets() -> None:
    assert {option.name for option in OPTIONS if option.secret} == {
        "setEnv",
        "engineCtrl",
        "providerParameter",
        "protocolHeader",
        "protocolPassword",
        "ticketKeySecret",
        "ticketMacSecret",
        "adminToken",
    }
    assert hides("protocolPasswort")
    assert not hides("PSKsecrets")
    assert not hides("nothing like it")
