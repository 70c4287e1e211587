"""A certificate of every kind that a verification must tell apart, with the CRLs and OCSP answers to them.

`Pki.kinds` are the peers that a row of the tables can name; `Pki.files` is what its options can name.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import (
    AuthorityInformationAccessOID,
    ExtendedKeyUsageOID,
    NameOID,
    ObjectIdentifier,
)

from .certificates import Authority, Leaf

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
DAY = datetime.timedelta(days=1)


def now() -> datetime.datetime:
    """The time, in whole seconds, as certificates have it."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def issue(
    authority: Authority,
    name: str,
    *,
    folder: Path,
    purposes: Sequence[ObjectIdentifier] = (CLIENT, SERVER),
    starts: int = -100,
    ends: int = 60,
    responder: str | None = None,
    serial: int | None = None,
    above: Sequence[x509.Certificate] = (),
) -> Leaf:
    """A leaf for localhost and NAME@example.com; `starts` and `ends` are days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives = [x509.DNSName("localhost"), x509.RFC822Name(f"{name}@example.com")]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number() if serial is None else serial)
        .not_valid_before(now() + starts * DAY)
        .not_valid_after(now() + ends * DAY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    )
    if responder is not None:
        where = x509.AccessDescription(
            AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(responder)
        )
        builder = builder.add_extension(x509.AuthorityInformationAccess([where]), critical=False)
    certificate = builder.sign(authority.private_key, hashes.SHA256())
    return Leaf(name, folder, certificate, key, tuple(above))


def revocation_list(
    authority: Authority,
    revoked: Sequence[Leaf | Authority] = (),
    *,
    signer: Authority | None = None,
    starts: int = -1,
    ends: int = 30,
) -> bytes:
    """A CRL in the name of `authority`, PEM; a `signer` that is another one makes it a forgery."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now() + starts * DAY)
        .next_update(now() + ends * DAY)
    )
    for leaf in revoked:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(leaf.certificate.serial_number)
            .revocation_date(now() - DAY)
            .build()
        )
    key = (signer or authority).private_key
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def status(
    issuer: Authority,
    leaf: Leaf,
    verdict: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
    *,
    signer: Authority | Leaf | None = None,
    starts: float = -0.05,
    ends: float | None = 1,
    nonce: bytes | None = None,
) -> bytes:
    """An OCSP answer about `leaf`, DER, signed by `signer` (else the issuer); times in days from now."""
    signer = signer or issuer
    revoked = verdict is ocsp.OCSPCertStatus.REVOKED
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            cert=leaf.certificate,
            issuer=issuer.certificate,
            algorithm=hashes.SHA1(),  # what names a certificate in an answer, by custom
            cert_status=verdict,
            this_update=now() + starts * DAY,
            next_update=None if ends is None else now() + ends * DAY,
            revocation_time=now() - DAY if revoked else None,
            revocation_reason=None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
    )
    if isinstance(signer, Leaf):
        builder = builder.certificates([signer.certificate])
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    answer = builder.sign(signer.private_key, hashes.SHA256())
    return answer.public_bytes(serialization.Encoding.DER)


def damaged(answer: bytes) -> bytes:
    """An OCSP answer whose signature is not right: its last byte is in the signature or a certificate."""
    parsed = ocsp.load_der_ocsp_response(answer)
    signature = parsed.signature
    at = answer.rindex(signature) + len(signature) - 1
    return answer[:at] + bytes([answer[at] ^ 1]) + answer[at + 1 :]


class Pki:
    """A root with an intermediate CA, another root, and a leaf of every kind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = Authority(folder, "Root CA")
        self.intermediate = Authority(folder, "Middle CA", self.root)
        self.other = Authority(folder, "Foreign CA")
        # The same name as the root's, and another key: what claims to be of the root and is not.
        (folder / "twin").mkdir()
        self.twin = Authority(folder / "twin", "Root CA")
        self.kinds: dict[str, Leaf] = {}
        self.files: dict[str, str | Path] = {}
        self._issue_leaves()
        self._write_trust()
        self._write_lists()

    def _leaf(self, name: str, authority: Authority | None = None, **details: object) -> Leaf:
        self.kinds[name] = issue(authority or self.root, name, folder=self.folder, **details)  # type: ignore[arg-type]
        return self.kinds[name]

    def _issue_leaves(self) -> None:
        middle = self.intermediate.certificate
        self._leaf("good")
        self._leaf("other")
        self._leaf("revoked")
        self._leaf("stranger", self.other)
        self._leaf("forged", self.twin)
        self._leaf("expired", ends=-1)
        self._leaf("future", starts=2)
        self._leaf("clientonly", purposes=(CLIENT,))
        self._leaf("serveronly", purposes=(SERVER,))
        self._leaf("chained", self.intermediate, above=(middle,))
        self._leaf("chainedrevoked", self.intermediate, above=(middle,))
        self._leaf("headless", self.intermediate)
        # A chain in the wrong order: what stands between the leaf and its issuer signed neither.
        self._leaf("shuffled", self.intermediate, above=(self.root.certificate, middle))
        own = issue(self.root, "unsigned", folder=self.folder)
        self.kinds["self"] = _self_signed(own, self.folder)

    def _write_trust(self) -> None:
        kinds, root = self.kinds, self.root
        self.trust("root", root)
        self.trust("other", self.other)
        self.trust("both", root, self.other)
        self.trust("pinned", root, kinds["good"], kinds["revoked"], kinds["self"])
        self.trust("leaves", kinds["good"], kinds["revoked"], kinds["expired"], kinds["self"])
        self.trust("middle", self.intermediate)

    def _write_lists(self) -> None:
        revoked = [self.kinds["revoked"]]
        root = revocation_list(self.root, revoked)
        middle = revocation_list(self.intermediate, [self.kinds["chainedrevoked"]])
        self.write("crl", root)
        self.write("crls", root + middle)
        self.write("crls_against_middle", revocation_list(self.root, [self.intermediate]) + middle)
        self.write("crl_both", root + revocation_list(self.other))
        self.write("crl_middle", middle)
        self.write("crl_empty", revocation_list(self.root))
        self.write("crl_expired", revocation_list(self.root, starts=-30, ends=-1))
        self.write("crl_future", revocation_list(self.root, starts=2, ends=30))
        self.write("crl_other", revocation_list(self.other))
        self.write("crl_forged", revocation_list(self.root, signer=self.twin))

    def trust(self, name: str, *certificates: Authority | Leaf) -> None:
        """Writes a file for CAfile, which options name `{NAME}`."""
        self.write(
            name, b"".join(c.certificate.public_bytes(serialization.Encoding.PEM) for c in certificates)
        )

    def write(self, name: str, content: bytes) -> Path:
        """Writes a file that options name `{NAME}`."""
        path = self.folder / f"{name}.file"
        path.write_bytes(content)
        self.files[name] = path
        return path

    def fill(self, options: str, more: Mapping[str, str | Path] | None = None) -> str:
        """The options of a row with its files' paths in them."""
        return options.format_map({**self.files, **(more or {})})


def _self_signed(model: Leaf, folder: Path) -> Leaf:
    """A leaf of the model's extensions that nobody but itself has signed."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(model.private_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(model.certificate.not_valid_before_utc)
        .not_valid_after(model.certificate.not_valid_after_utc)
    )
    for extension in model.certificate.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return Leaf("self", folder, builder.sign(model.private_key, hashes.SHA256()), model.private_key, ())
