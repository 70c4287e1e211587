"""Options that say who may pass: rules on the identity of a peer, which are Culvert's own."""

from __future__ import annotations

from culvert.config.identities import ALLOW_FORMS
from culvert.config.model import AllowKind
from culvert.config.options.option import Option, Scope

_HELP = {
    AllowKind.CN: "common name of a peer that may pass, as it is in the certificate's subject",
    AllowKind.OU: "organizational unit of peers that may pass",
    AllowKind.DNS: "[*.]NAME DNS name of a peer that may pass; * is any one label",
    AllowKind.URI: "URI of a peer that may pass, such as a SPIFFE ID; * is any one path segment",
    AllowKind.EMAIL: "e-mail address of a peer that may pass",
    AllowKind.IP: "ADDRESS[/LENGTH] that the certificate of a peer that may pass names",
    AllowKind.SPKI: "SHA-256 of the public key of a peer that may pass, in hex or base64",
    AllowKind.PSK: "identity of a pre-shared key whose holder may pass",
}

IDENTITY = tuple(
    Option(
        kind.value,
        Scope.SERVICE,
        ALLOW_FORMS[kind],
        what,
        repeatable=True,
        default=(),
        service_fields=("allow",),
    )
    for kind, what in _HELP.items()
)
