"""What a CA may issue for: the name constraints in its own certificate (RFC 5280, 4.2.1.10).

The standard constrains each kind of name by itself, and leaves a kind that is not mentioned open. Whoever
permits one domain means nothing else, so every kind that was not mentioned is closed here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from cryptography import x509

from culvert.cli.ca import names
from culvert.errors import ConfigurationError

_NOWHERE = "invalid"
"""A host that never exists (RFC 2606): to permit it alone closes a kind of name."""

_EVERY_ADDRESS = tuple(x509.IPAddress(ipaddress.ip_network(network)) for network in ("0.0.0.0/0", "::/0"))


def parse_permit(text: str) -> x509.GeneralName:
    """A permitted subtree by its form. Raises ConfigurationError.

    `example.com`: that name and all below it; `10.0.0.0/8`: addresses; `@example.com`: the mailboxes of that
    host, `@.example.com` those of hosts below it, `a@example.com` this one; `//example.com`: URIs with that
    host, `//.example.com` with a host below it.
    """
    try:
        if text.startswith("//"):
            return x509.UniformResourceIdentifier(_host(text[2:]))
        if text.startswith("@"):
            return x509.RFC822Name(_host(text[1:]))
        if "@" in text:
            return x509.RFC822Name(names.mailbox(text))
        if (network := _network(text)) is not None:
            return x509.IPAddress(network)
        return x509.DNSName(names.dns_name(text))
    except ConfigurationError:
        raise ConfigurationError.single(
            f'"{text}" cannot be permitted: expected a domain as example.com, addresses as 10.0.0.0/8, '
            "mailboxes as @example.com, or the host of URIs as //example.com"
        ) from None


def constrain(permitted: Iterable[x509.GeneralName]) -> x509.NameConstraints:
    """The extension that permits these subtrees, and nothing else of any kind."""
    subtrees = list(permitted)
    kinds = {type(subtree) for subtree in subtrees}
    for kind in (x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier):
        if kind not in kinds:
            subtrees.append(kind(_NOWHERE))
    excluded = None if x509.IPAddress in kinds else _EVERY_ADDRESS
    return x509.NameConstraints(subtrees, excluded)


def constraints_of(certificate: x509.Certificate) -> x509.NameConstraints | None:
    """A CA's constraints; None where it may issue for any name."""
    try:
        return certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return None


def permitted_by(constraints: x509.NameConstraints) -> list[str]:
    """The permitted subtrees as `parse_permit` takes them."""
    return [_show(subtree) for subtree in constraints.permitted_subtrees or () if subtree.value != _NOWHERE]


def permits(constraints: x509.NameConstraints, name: x509.GeneralName) -> bool:
    """Whether a verifier accepts this name in a certificate of the CA that has these constraints."""
    if any(_covers(subtree, name) for subtree in constraints.excluded_subtrees or ()):
        return False
    of_its_kind = [s for s in constraints.permitted_subtrees or () if type(s) is type(name)]
    return not of_its_kind or any(_covers(subtree, name) for subtree in of_its_kind)


def _covers(subtree: x509.GeneralName, name: x509.GeneralName) -> bool:
    match subtree, name:
        case x509.DNSName(), x509.DNSName():
            return name.value == subtree.value or name.value.endswith(f".{subtree.value}")
        case x509.IPAddress(), x509.IPAddress():
            return _is_address_in(name.value, subtree.value)
        case x509.RFC822Name(), x509.RFC822Name():
            wanted = name.value if "@" in subtree.value else name.value.rpartition("@")[2]
            return _is_host_of(wanted, subtree.value)
        case x509.UniformResourceIdentifier(), x509.UniformResourceIdentifier():
            return _is_host_of(urlsplit(name.value).hostname or "", subtree.value)
        case _:
            return False


def _is_host_of(host: str, constraint: str) -> bool:
    """A constraint that begins with a dot is for what stands below it, any other for itself alone."""
    return host.endswith(constraint) if constraint.startswith(".") else host == constraint


def _is_address_in(address: object, network: object) -> bool:
    return (
        isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address)
        and isinstance(network, ipaddress.IPv4Network | ipaddress.IPv6Network)
        and address in network
    )


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None


def _host(text: str) -> str:
    below = text.startswith(".")
    return "." * below + names.dns_name(text.removeprefix("."))


def _show(subtree: x509.GeneralName) -> str:
    text = names.show(subtree)
    match subtree:
        case x509.RFC822Name() if "@" not in text:
            return f"@{text}"
        case x509.UniformResourceIdentifier():
            return f"//{text}"
        case _:
            return text
