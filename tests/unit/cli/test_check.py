"""`culvert check`: both forms of its output, and that it judges the files as well as the configuration."""

from __future__ import annotations

import base64
import datetime
import json
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ..identities import Identity, issue, write
from .command import culvert


@pytest.fixture(scope="module")
def leaf() -> Identity:
    return issue("leaf")


@pytest.fixture
def cert(tmp_path: Path, leaf: Identity) -> Path:
    return write(tmp_path / "leaf.pem", leaf.cert_pem + leaf.key_pem())


def server(cert: Path, options: str = "") -> str:
    return f"[tunnel]\naccept = 127.0.0.1:0\nconnect = 1\ncert = {cert}\n{options}"


def check(path: Path, content: str) -> tuple[int, dict[str, Any]]:
    """The exit status and the object that `--format json` prints."""
    path.write_text(content)
    result = culvert("check", "--format", "json", str(path))
    assert result.stderr == ""
    return result.returncode, json.loads(result.stdout)


def test_a_good_configuration(tmp_path: Path, cert: Path, leaf: Identity) -> None:
    path = tmp_path / "good.conf"
    status, report = check(path, server(cert))
    end = leaf.certificate.not_valid_after_utc
    days = report["certificates"][0]["days"]
    assert days in (363, 364)  # what is left of 365 days, on a slow machine
    own = {
        "services": ["tunnel"],
        "path": str(cert),
        "subject": "CN=leaf",
        "expires": end.isoformat(),
        "days": days,
    }
    assert (status, report) == (0, {"file": str(path), "ok": True, "findings": [], "certificates": [own]})
    result = culvert("check", str(path))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        f"{cert}: the certificate CN=leaf expires in {days} days ({end:%Y-%m-%d %H:%M UTC})",
        f"{path} can be used: 0 error(s), 0 warning(s), 0 note(s)",
    ]


def test_all_errors_are_reported_together(tmp_path: Path) -> None:
    path = tmp_path / "bad.conf"
    path.write_text("[tunnel]\nclient = yes\naccpt = 1\naccept = 0\nconnect = 1\nverify = 9\n")
    result = culvert("check", str(path))
    assert result.returncode == 1
    errors = [line for line in result.stdout.splitlines() if line.startswith("error: ")]
    assert [line.partition(": ")[2].partition('": ')[0] for line in errors] == [
        f'{path}:3: "accpt = 1',
        f'{path}:6: "verify = 9',
    ]
    assert '"accept"?' in errors[0]
    assert result.stdout.splitlines()[-1].startswith(f"{path} cannot be used: 2 error(s), ")


def test_a_finding_as_an_object(tmp_path: Path) -> None:
    path = tmp_path / "bad.conf"
    status, report = check(path, "[tunnel]\nclient = yes\naccept = 0\nconnect = 1\naccpt = 1\n")
    assert (status, report["ok"]) == (1, False)
    (finding,) = (found for found in report["findings"] if found["severity"] == "error")
    assert set(finding) == {"severity", "path", "line", "text", "service", "message", "hint"}
    assert (finding["path"], finding["line"], finding["text"]) == (str(path), 5, "accpt = 1")


def test_a_warning_does_not_fail_the_check(tmp_path: Path) -> None:
    status, report = check(tmp_path / "open.conf", "[tunnel]\nclient = yes\naccept = 0\nconnect = 1\n")
    assert (status, report["ok"]) == (0, True)
    assert [found["severity"] for found in report["findings"]] == ["warning"]
    assert "needs authentication to prevent MITM attacks" in report["findings"][0]["message"]


def test_the_files_are_judged(tmp_path: Path) -> None:
    old, other = issue("old", ends_in=-1), issue("other")
    cert = write(tmp_path / "old.pem", old.cert_pem + other.key_pem(), 0o644)
    status, report = check(tmp_path / "old.conf", server(cert))
    assert (status, report["ok"]) == (1, False)
    assert {found["severity"] for found in report["findings"]} == {"warning", "error"}
    assert {(found["line"], found["service"]) for found in report["findings"]} == {(4, "tunnel")}


def test_a_file_that_services_share_is_reported_once(tmp_path: Path, leaf: Identity) -> None:
    cert = write(tmp_path / "shared.pem", leaf.cert_pem + leaf.key_pem(), 0o644)
    services = "".join(f"[{name}]\naccept = 127.0.0.1:0\nconnect = 1\n" for name in ("one", "two", "three"))
    status, report = check(tmp_path / "shared.conf", f"cert = {cert}\n{services}")
    assert status == 0
    (finding,) = report["findings"]
    assert (finding["line"], finding["service"]) == (1, None)
    (own,) = report["certificates"]
    assert own["services"] == ["one", "two", "three"]


@pytest.mark.parametrize(
    "option", ["ciphers = NO-SUCH-CIPHER", "ciphersuites = NO", "curves = NO-SUCH-GROUP"]
)
def test_what_openssl_refuses_is_found_without_a_start(tmp_path: Path, cert: Path, option: str) -> None:
    status, report = check(tmp_path / "refused.conf", server(cert, option))
    assert status == 1
    (finding,) = report["findings"]
    assert (finding["severity"], finding["text"]) == ("error", option)


def test_a_locked_key_is_not_asked_for(tmp_path: Path, leaf: Identity) -> None:
    cert = write(tmp_path / "locked.pem", leaf.cert_pem + leaf.key_pem("secret"))
    status, report = check(tmp_path / "locked.conf", server(cert))
    assert status == 0
    assert [found["severity"] for found in report["findings"]] == ["note"]


def test_trust_inside_a_jail_is_looked_for_there(tmp_path: Path) -> None:
    jail = tmp_path / "jail"
    (jail / "trusted").mkdir(parents=True)
    options = f"chroot = {jail}\n[tunnel]\nclient = yes\naccept = 0\nconnect = 1\nverify = 2\n"
    for folder, count in (("/trusted", 0), ("/missing", 1)):
        _, report = check(tmp_path / "jail.conf", f"{options}CApath = {folder}\n")
        assert sum("cannot be searched" in found["message"] for found in report["findings"]) == count


def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "escape.conf"
    path.write_text("[tunnel]\nclient = yes\naccept = 0\nconnect = 1\n\x1b[2Jaccpt = 1\n")
    result = culvert("check", str(path))
    assert result.returncode == 1
    assert "\x1b" not in result.stdout


def test_a_missing_file_is_a_finding(tmp_path: Path) -> None:
    result = culvert("check", "--format", "json", str(tmp_path / "missing.conf"))
    assert result.returncode == 1
    (finding,) = json.loads(result.stdout)["findings"]
    assert "No such file or directory" in finding["message"]
    assert finding["path"] is None


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("chroot = /nonexistent", "The chroot directory /nonexistent does not exist"),
        ("output = /nonexistent/log", "the folder /nonexistent does not exist"),
        ("pid = /nonexistent/pid", "the folder /nonexistent does not exist"),
        ("admin = /nonexistent/admin", "the folder /nonexistent does not exist"),
        ("setuid = 54321", "User 54321 is unknown to this system, so its group is unknown too"),
        ("setuid = no-such-user", "There is no user 'no-such-user' on this system"),
        ("setgid = no-such-group", "There is no group 'no-such-group' on this system"),
    ],
)
def test_what_a_start_would_miss_is_an_error(tmp_path: Path, cert: Path, option: str, wrong: str) -> None:
    status, report = check(tmp_path / "bad.conf", f"{option}\n{server(cert)}")
    (finding,) = report["findings"]
    assert (status, finding["severity"], finding["line"]) == (1, "error", 1)
    assert finding["message"] == wrong


@pytest.mark.parametrize(
    ("content", "wrong"),
    [(None, "Cannot read the token in"), (b"", "holds no token")],
    ids=["missing", "empty"],
)
def test_a_token_that_cannot_be_had_is_an_error(
    tmp_path: Path, cert: Path, content: bytes | None, wrong: str
) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content)
    status, report = check(tmp_path / "bad.conf", f"admin = 1\nadminTokenFile = {token}\n{server(cert)}")
    (finding,) = report["findings"]
    assert (status, finding["severity"], finding["line"]) == (1, "error", 2)
    assert wrong in finding["message"]


def test_a_socket_in_no_folder_is_an_error(tmp_path: Path, cert: Path) -> None:
    text = re.sub("accept = .*", "accept = /nonexistent/socket", server(cert))
    status, report = check(tmp_path / "bad.conf", text)
    (finding,) = report["findings"]
    assert (status, finding["severity"], finding["line"]) == (1, "error", 2)
    assert finding["message"] == "the folder /nonexistent does not exist"


def test_the_folder_of_a_log_is_meant_inside_the_jail(tmp_path: Path, cert: Path) -> None:
    status, report = check(tmp_path / "bad.conf", f"chroot = {tmp_path}\noutput = /log/a\n{server(cert)}")
    (finding,) = report["findings"]
    assert (status, finding["line"]) == (1, 2)
    assert finding["message"] == f"the folder {tmp_path}/log does not exist"
    assert "chroot" in finding["hint"]


@pytest.mark.parametrize(
    ("program", "wrong"), [("/nonexistent", "does not exist"), ("/etc/passwd", "is not executable")]
)
def test_a_program_that_cannot_run_is_a_warning(tmp_path: Path, cert: Path, program: str, wrong: str) -> None:
    path = tmp_path / "program.conf"
    status, report = check(path, server(cert).replace("connect = 1", f"exec = {program}"))
    (finding,) = report["findings"]
    assert (status, finding["severity"], finding["line"]) == (0, "warning", 3)
    assert finding["message"] == f"the program {program} {wrong}"


def test_a_folder_of_revocation_lists_that_is_not_there(tmp_path: Path, cert: Path) -> None:
    options = f"CAfile = {cert}\nverifyChain = yes\nCRLpath = /nonexistent\n"
    status, report = check(tmp_path / "lists.conf", server(cert, options))
    (finding,) = report["findings"]
    assert (status, finding["severity"], finding["line"]) == (0, "warning", 7)


def test_a_comment_behind_a_path_is_named_as_the_cause(tmp_path: Path, cert: Path) -> None:
    status, report = check(tmp_path / "comment.conf", server(cert, "CAfile = /etc/ca.pem ; mine\n"))
    (finding,) = report["findings"]
    assert (status, finding["line"]) == (1, 5)
    assert "comment" in finding["hint"]


def test_an_odd_root_in_a_bundle_is_the_librarys_concern(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    root = tmp_path / "root.pem"
    root.write_bytes(_with_serial_zero(key))
    client = f"[a]\nclient = yes\naccept = 0\nconnect = 1\nverifyPeer = yes\nCAfile = {root}\n"
    status, report = check(tmp_path / "odd.conf", client)
    assert (status, report["findings"]) == (0, [])


def _with_serial_zero(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A certificate as no builder makes one any more: the serial number is cut down to 0 after the signing,
    which nobody verifies in a root.
    """
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=400))
        .sign(key, hashes.SHA256())
    )
    der = made.public_bytes(Encoding.DER)
    assert der.count(b"\xa0\x03\x02\x01\x02\x02\x01\x01") == 1
    odd = der.replace(b"\xa0\x03\x02\x01\x02\x02\x01\x01", b"\xa0\x03\x02\x01\x02\x02\x01\x00")
    body = base64.encodebytes(odd).decode()
    return f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n".encode()
