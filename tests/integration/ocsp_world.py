"""What the OCSP tests need together: a PKI, honest responders of openssl's, an odd one, and staples."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from .certificates import Leaf
from .http_responder import OddResponder
from .openssl import ocsp_responder, write_index
from .pki import Pki, damaged, issue, status

UNKNOWN = ocsp.OCSPCertStatus.UNKNOWN
REVOKED = ocsp.OCSPCertStatus.REVOKED


@dataclass(frozen=True)
class OcspWorld:
    """`urls` are the responders' by name, `odd` is the one that tests look into."""

    pki: Pki
    urls: Mapping[str, str]
    odd: OddResponder


def _signers(pki: Pki) -> dict[str, Leaf]:
    """Those who sign answers: with the root's word for it, without, and with another root's."""
    allowed = (ExtendedKeyUsageOID.OCSP_SIGNING,)
    return {
        "delegated": issue(pki.root, "delegated", folder=pki.folder, purposes=allowed),
        "undelegated": issue(pki.root, "undelegated", folder=pki.folder),
        "foreign": issue(pki.other, "foreign", folder=pki.folder, purposes=allowed),
        "lapsed": issue(pki.root, "lapsed", folder=pki.folder, purposes=allowed, ends=-1),
    }


def _answers(pki: Pki, signers: Mapping[str, Leaf]) -> dict[str, bytes]:
    """Answers about the leaf `good`, by what is wrong with them."""
    root, good = pki.root, pki.kinds["good"]
    later = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
    return {
        "good": status(root, good),
        "fleeting": status(root, good, ends=None),
        "revoked": status(root, good, REVOKED),
        "unknown": status(root, good, UNKNOWN),
        "stale": status(root, good, starts=-9, ends=-2),
        "early": status(root, good, starts=2, ends=9),
        "another": status(root, pki.kinds["other"]),
        "anothers_issuer": status(pki.twin, good),
        "delegated": status(root, good, signer=signers["delegated"]),
        "undelegated": status(root, good, signer=signers["undelegated"]),
        "by_itself": status(root, good, signer=good),
        "foreign": status(root, good, signer=signers["foreign"]),
        "foreign_ca": status(root, good, signer=pki.other),
        "lapsed": status(root, good, signer=signers["lapsed"]),
        "damaged": damaged(status(root, good)),
        "later": later.public_bytes(Encoding.DER),
    }


@contextmanager
def _closed_port() -> Iterator[int]:
    """A port of which nobody takes connections, and nobody else can."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@contextmanager
def ocsp_world(folder: Path) -> Iterator[OcspWorld]:
    """Starts the responders; they end with the context."""
    with ExitStack() as stack:
        pki = Pki(folder)
        signers = _signers(pki)
        answers = _answers(pki, signers)
        for name, answer in answers.items():
            pki.write(f"staple_{name}", answer)
        odd = stack.enter_context(OddResponder(answers))
        kinds = pki.kinds
        # A responder's port must be known before the certificates that name it, and their serials before it.
        serials = {name: x509.random_serial_number() for name in ("aiagood", "aiarevoked")}
        known = [kinds[name].certificate.serial_number for name in ("good", "self", "stranger")]
        revoked = [kinds["revoked"].certificate.serial_number, serials["aiarevoked"]]
        index = write_index(folder / "index", [*known, serials["aiagood"]], revoked)

        def honest(*arguments: str, signer: Leaf | None = None) -> str:
            running = ocsp_responder(pki.root, index, signer or pki.root, *arguments)
            return f"http://127.0.0.1:{stack.enter_context(running).port}"

        named = honest()
        _issue_with_responder(pki, named, odd, stack.enter_context(_closed_port()), serials)
        urls = {
            "responder": named,
            "by_delegated": honest(signer=signers["delegated"]),
            "by_undelegated": honest(signer=signers["undelegated"]),
            "by_foreign": honest(signer=signers["foreign"]),
            "badsig": honest("-badsig"),
            "middle_responder": _of_middle(stack, pki),
            "down": f"http://127.0.0.1:{stack.enter_context(_closed_port())}/",
            **{f"odd_{name}": odd.url(name) for name in answers},
            **{
                f"odd_{name}": odd.url(name)
                for name in ("slow", "error", "loop", "aside", "garbage", "empty", "endless")
            },
        }
        yield OcspWorld(pki, urls, odd)


def _of_middle(stack: ExitStack, pki: Pki) -> str:
    good, revoked = (pki.kinds[name].certificate.serial_number for name in ("chained", "chainedrevoked"))
    index = write_index(pki.folder / "middle-index", [good], [revoked])
    running = stack.enter_context(ocsp_responder(pki.intermediate, index, pki.intermediate))
    return f"http://127.0.0.1:{running.port}"


def _issue_with_responder(
    pki: Pki, url: str, odd: OddResponder, closed: int, serials: Mapping[str, int]
) -> None:
    """Leaves that name their responder."""
    responders = {
        "aiagood": url,
        "aiarevoked": url,
        "aiadown": f"http://127.0.0.1:{closed}/",
        "aialoop": odd.url("loop"),
        "aiastrange": "ldap://127.0.0.1/cn=responder",
        "aiabroken": "http://[:::/%zz",
    }
    for name, where in responders.items():
        pki.kinds[name] = issue(pki.root, name, folder=pki.folder, responder=where, serial=serials.get(name))
