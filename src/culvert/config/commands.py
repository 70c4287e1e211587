"""`config = COMMAND:VALUE`: OpenSSL's configuration commands (SSL_CONF_cmd(3)), by what the binding can set.

A command is another way to write an option of Culvert's own, so it becomes one: the later line counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from culvert.config.model import TlsVersion
from culvert.config.tls_options import TlsOption, tls_option
from culvert.config.values import VERSIONS, BadValue, Form, listed, meant

COMMANDS = {
    "CipherString": "ciphers",
    "Ciphersuites": "ciphersuites",
    "Curves": "curves",
    "Groups": "curves",
    "MaxProtocol": "sslVersionMax",
    "MinProtocol": "sslVersionMin",
    "Options": "options",
    "SignatureAlgorithms": "signatureAlgorithms",
}
"""The commands that can be carried out, with the setting that each stands for."""

_SWITCHES = {
    "AllowNoDHEKEX": "ALLOW_NO_DHE_KEX",
    "AntiReplay": "-NO_ANTI_REPLAY",
    "CANames": "-DISABLE_TLSEXT_CA_NAMES",
    "EmptyFragments": "-DONT_INSERT_EMPTY_FRAGMENTS",
    "EncryptThenMac": "-NO_ENCRYPT_THEN_MAC",
    "ExtendedMasterSecret": "-NO_EXTENDED_MASTER_SECRET",
    "MiddleboxCompat": "ENABLE_MIDDLEBOX_COMPAT",
    "NoRenegotiation": "NO_RENEGOTIATION",
    "NoResumptionOnRenegotiation": "NO_SESSION_RESUMPTION_ON_RENEGOTIATION",
    "PrioritizeChaCha": "PRIORITIZE_CHACHA",
    "ServerPreference": "CIPHER_SERVER_PREFERENCE",
    "SessionTicket": "-NO_TICKET",
    "UnsafeLegacyRenegotiation": "ALLOW_UNSAFE_LEGACY_RENEGOTIATION",
    "UnsafeLegacyServerConnect": "LEGACY_SERVER_CONNECT",
}
"""The values of the command Options by OpenSSL's option; `-` where the switch is the absence of one."""

_BY_LOWER = {name.lower(): name for name in COMMANDS}
_SWITCH_BY_LOWER = {name.lower(): option for name, option in _SWITCHES.items()}


@dataclass(frozen=True, slots=True)
class Command:
    """What one line sets: the setting's name (a value of COMMANDS) and its typed value."""

    setting: str
    value: str | TlsVersion | tuple[TlsOption, ...] | None


def _command(text: str) -> Command:
    name, _, value = text.partition(":")
    known = _BY_LOWER.get(name.strip().lower())
    if known is None:
        raise BadValue(
            f"a command that the OpenSSL binding in use can carry out ({listed(COMMANDS)}), then a colon and "
            "its value",
            meant(name, COMMANDS),
        )
    value = value.strip()
    if not value:
        raise BadValue(f'"{known}:VALUE"')
    return Command(COMMANDS[known], _value(known, value))


def _value(command: str, text: str) -> str | TlsVersion | tuple[TlsOption, ...] | None:
    if command in ("MinProtocol", "MaxProtocol"):
        return _protocol(command, text)
    if command == "Options":
        return tuple(_switch(word.strip()) for word in text.split(","))
    return text


def _protocol(command: str, text: str) -> TlsVersion | None:
    if text.lower() == "none":
        return None
    for name, version in VERSIONS.items():
        if version is not None and text.lower() == name.lower():
            return version
    names = [name for name, version in VERSIONS.items() if version is not None and name != "SSLv3"]
    raise BadValue(f'after "{command}:" one of {listed([*names, "None"])}', meant(text, names))


def _switch(word: str) -> TlsOption:
    off = word.startswith("-")
    option = _SWITCH_BY_LOWER.get((word[1:] if word.startswith(("+", "-")) else word).lower())
    if option is None:
        raise BadValue(
            f'after "Options:" names such as {listed(_SWITCHES)}, with "-" in front to switch one off',
            meant(word.lstrip("+-"), _SWITCHES),
        )
    if off:
        option = option[1:] if option.startswith("-") else f"-{option}"
    return tls_option(option)


COMMAND = Form("COMMAND:VALUE of OpenSSL's configuration", _command, spaces=True)
