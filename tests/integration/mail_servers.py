"""Debian's mail and news servers on loopback, each from a configuration in a folder of its own.

They run in the foreground, below a process that the test started, and need root: each changes to users of
its own. Their folder is open to these users, which pytest's is not.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from .certificates import Leaf
from .daemon import answers
from .harness import PATIENCE, LogLines, descendants, eventually, require

USER = "user@example.com"
PASSWORD = "s3cret w0rd"
GROUP = "local.test"
"""A newsgroup."""

_NOBODY = 65534
_NNRPD = "/usr/lib/news/bin/nnrpd"


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that every user can look into."""
    folder = Path(tempfile.mkdtemp(prefix="culvert-mail-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def foreground(
    *command: str | Path, ports: tuple[int, ...], environment: Mapping[str, str] | None = None
) -> Iterator[LogLines]:
    """A server that stays; it answers at `ports` when this gives its log, and is gone when it ends."""
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    assert process.stdout is not None
    log = LogLines(process.stdout)
    try:
        eventually(
            lambda: process.poll() is not None or all(answers(port) for port in ports), f"{command[0]}"
        )
        assert process.poll() is None, "\n".join(log.lines)
        yield log
    finally:
        below = descendants(process.pid)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE)
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        log.wait_end()


def _copy(leaf: Leaf, folder: Path, owner: str | None = None) -> tuple[Path, Path]:
    """The leaf's certificate and key in a folder that the server can read."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(leaf.chain.read_bytes())
    key.touch(mode=0o600)
    key.write_bytes(leaf.key.read_bytes())
    if owner is not None:
        shutil.chown(key, owner)
    return cert, key


class Dovecot:
    """IMAP and POP3: at `imap` and `pop3` in clear, at the other two with TLS asked for by STARTTLS.

    `sasl` is the socket at which Postfix asks for logins.
    """

    def __init__(self, folder: Path, leaf: Leaf, ports: list[int]) -> None:
        self._folder = folder
        self._binary = require("dovecot")
        self.imap, self.pop3, self.imap_tls, self.pop3_tls = ports
        self.sasl = folder / "auth"
        (folder / "users").write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n")
        (folder / "mail").mkdir()
        os.chown(folder / "mail", _NOBODY, _NOBODY)
        self._cert, self._key = _copy(leaf, folder)

    @contextlib.contextmanager
    def running(self) -> Iterator[LogLines]:
        """The server, as long as it is used."""
        with contextlib.ExitStack() as stack:
            # Whether logins in clear are allowed is a matter of the whole server: two of them.
            logs = []
            for name, imap, pop3 in (
                ("clear", self.imap, self.pop3),
                ("tls", self.imap_tls, self.pop3_tls),
            ):
                path = self._folder / f"{name}.conf"
                path.write_text(self._configuration(name, imap, pop3))
                logs.append(
                    stack.enter_context(foreground(self._binary, "-F", "-c", path, ports=(imap, pop3)))
                )
            yield logs[0]

    def _configuration(self, name: str, imap: int, pop3: int) -> str:
        folder = self._folder
        tls = f"ssl = required\nssl_cert = <{self._cert}\nssl_key = <{self._key}\n"
        clear = "ssl = no\ndisable_plaintext_auth = no\n"
        listeners = "".join(
            f"service {protocol}-login {{\n  chroot =\n"
            f"  inet_listener {protocol} {{\n    port = {port}\n  }}\n"
            f"  inet_listener {protocol}s {{\n    port = 0\n  }}\n}}\n"
            for protocol, port in (("imap", imap), ("pop3", pop3))
        )
        sasl = f"service auth {{\n  unix_listener {self.sasl} {{\n    mode = 0666\n  }}\n}}\n"
        return (
            f"base_dir = {folder}/{name}.run\nstate_dir = {folder}/{name}.state\n"
            "log_path = /dev/stderr\nprotocols = imap pop3\nlisten = 127.0.0.1\n"
            f"mail_location = maildir:{folder}/mail/%u\nfirst_valid_uid = 1\n"
            "auth_mechanisms = plain login cram-md5\nauth_failure_delay = 0\n"
            # After a wrong password it would let everybody of this address wait.
            "service anvil {\n  unix_listener anvil-auth-penalty {\n    mode = 0\n  }\n}\n"
            f"passdb {{\n  driver = passwd-file\n  args = scheme=PLAIN {folder}/users\n}}\n"
            f"userdb {{\n  driver = static\n"
            f"  args = uid={_NOBODY} gid={_NOBODY} home={folder}/mail/%u\n}}\n"
            f"{listeners}{clear if name == 'clear' else tls}{sasl if name == 'clear' else ''}"
        )


class Postfix:
    """SMTP: at `clear` without TLS, at `tls` with STARTTLS, at `login` for those who have logged in, too.

    What it takes for anybody @example.test is in `mailbox`.
    """

    def __init__(self, folder: Path, leaf: Leaf, ports: list[int], sasl: Path) -> None:
        self._binary = require("postfix")
        self._folder = folder
        self.clear, self.tls, self.login = ports
        self.mailbox = folder / "mail" / "box"
        for name in ("conf", "queue", "data", "mail"):
            (folder / name).mkdir()
        shutil.chown(folder / "data", "postfix")
        os.chown(folder / "mail", _NOBODY, _NOBODY)
        cert, key = _copy(leaf, folder)
        login = (
            f"smtpd -o smtpd_sasl_auth_enable=yes -o smtpd_sasl_type=dovecot -o smtpd_sasl_path={sasl} "
            "-o mynetworks= -o smtpd_relay_restrictions=permit_sasl_authenticated,reject "
            "-o smtpd_tls_security_level=encrypt -o smtpd_tls_auth_only=yes"
        )
        (folder / "conf" / "main.cf").write_text(
            f"compatibility_level = 3.6\nqueue_directory = {folder}/queue\ndata_directory = {folder}/data\n"
            "maillog_file = /dev/stdout\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\n"
            "myhostname = mail.example.test\nmydestination =\nalias_maps =\nlocal_recipient_maps =\n"
            "mynetworks = 127.0.0.0/8\nvirtual_mailbox_domains = example.test\n"
            f"virtual_mailbox_base = {folder}/mail\nvirtual_mailbox_maps = static:box\n"
            f"virtual_uid_maps = static:{_NOBODY}\nvirtual_gid_maps = static:{_NOBODY}\n"
            f"virtual_transport = virtual\nsmtpd_error_sleep_time = 0\n"
            f"smtpd_tls_cert_file = {cert}\nsmtpd_tls_key_file = {key}\n"
        )
        services = [
            f"127.0.0.1:{self.clear} inet n - n - - smtpd",
            f"127.0.0.1:{self.tls} inet n - n - - smtpd -o smtpd_tls_security_level=encrypt",
            f"127.0.0.1:{self.login} inet n - n - - {login}",
            *("pickup unix n - n 60 1 pickup", "cleanup unix n - n - 0 cleanup"),
            *("qmgr unix n - n 300 1 qmgr", "rewrite unix - - n - - trivial-rewrite"),
            *(f"{name} unix - - n - 0 bounce" for name in ("bounce", "defer", "trace")),
            *("anvil unix - - n - 1 anvil", "virtual unix - n n - - virtual"),
            *("error unix - - n - - error", "proxymap unix - - n - - proxymap"),
            *("tlsmgr unix - - n 1000? 1 tlsmgr", "postlog unix-dgram n - n - 1 postlogd"),
        ]
        (folder / "conf" / "master.cf").write_text("".join(f"{line}\n" for line in services))

    @contextlib.contextmanager
    def running(self) -> Iterator[LogLines]:
        """The server, as long as it is used."""
        ports = (self.clear, self.tls, self.login)
        with foreground(self._binary, "-c", self._folder / "conf", "start-fg", ports=ports) as log:
            yield log

    def received(self, subject: str) -> str:
        """The mailbox, once a mail of this subject is in it."""

        def content() -> str:
            text = self.mailbox.read_text() if self.mailbox.exists() else ""
            return text if f"Subject: {subject}\n" in text else ""

        return eventually(content, f"a mail about {subject}")


class Nnrpd:
    """INN's server for readers, with STARTTLS; it has one group."""

    def __init__(self, folder: Path, leaf: Leaf, port: int) -> None:
        self._binary = require(_NNRPD)
        self._overchan = require("/usr/lib/news/bin/overchan")
        self.port = port
        self._folder = folder
        for name in ("etc", "db", "run", "log", "tmp", "spool/overview", "spool/articles"):
            (folder / name).mkdir(parents=True)
        etc, db = folder / "etc", folder / "db"
        cert, key = _copy(leaf, etc, "news")
        (etc / "inn.conf").write_text(
            'mta: "/bin/true"\nmailcmd: /bin/true\novmethod: tradindexed\nhismethod: hisv6\n'
            "pathhost: news.example.test\ndomain: example.test\npathnews: /usr/lib/news\n"
            "enableoverview: true\nreaderswhenstopped: true\n"
            f"pathetc: {etc}\npathdb: {db}\npathrun: {folder}/run\npathlog: {folder}/log\n"
            f"pathtmp: {folder}/tmp\npathspool: {folder}/spool\n"
            f"tlscertfile: {cert}\ntlskeyfile: {key}\ntlscapath: {etc}\n"
        )
        (etc / "readers.conf").write_text(
            'auth all {\n hosts: "*"\n default: "<reader>"\n}\n'
            'access all {\n users: "*"\n newsgroups: "*"\n access: "RPA"\n}\n'
        )
        (etc / "storage.conf").write_text("method tradspool {\n class: 0\n newsgroups: *\n}\n")
        (db / "active").write_text(f"{GROUP} 0000000000 0000000001 y\n")
        (db / "newsgroups").write_text(f"{GROUP}\tTests\n")
        for name in ("active.times", "history"):
            (db / name).touch()
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, "news", "news")

    @property
    def environment(self) -> dict[str, str]:
        """Where INN's programs find this server's configuration."""
        return {"INNCONF": str(self._folder / "etc" / "inn.conf")}

    @contextlib.contextmanager
    def running(self) -> Iterator[LogLines]:
        """The server, as long as it is used."""
        # With nothing to read this makes the index of the overview, and no more.
        subprocess.run(
            [self._overchan],
            stdin=subprocess.DEVNULL,
            env={**os.environ, **self.environment},
            user="news",
            group="news",
            timeout=PATIENCE,
            check=True,
        )
        command = (self._binary, "-D", "-f", "-b", "127.0.0.1", "-p", str(self.port))
        with foreground(*command, ports=(self.port,), environment=self.environment) as log:
            yield log
