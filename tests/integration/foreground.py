"""Real servers as peers, each in the foreground with its log: PostgreSQL, slapd, tinyproxy."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from .certificates import Leaf
from .harness import PATIENCE, LogLines, require


def free_port() -> int:
    """A port that was free a moment ago, for a server that cannot say which one the kernel chose."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


class Foreground:
    """One run of a server, ended with the block; `folder` is its own, and is gone then as well."""

    ready: str
    stop_signal = signal.SIGTERM

    def __init__(self, user: str | None = None) -> None:
        self.user = user if os.geteuid() == 0 else None
        self.port = free_port()

    def command(self) -> Sequence[str]:
        """What to run; files that it needs are written before."""
        raise NotImplementedError

    def own(self, path: Path) -> Path:
        """Let the server's user have a file."""
        if self.user is not None:
            shutil.chown(path, self.user)
        return path

    def __enter__(self) -> Self:
        # Below pytest's folders nobody but their owner may go.
        self.folder = self.own(Path(tempfile.mkdtemp(prefix="culvert-peer-")))
        try:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                cwd=self.folder,
                user=self.user,
                extra_groups=None if self.user is None else [],
            )
        except BaseException:
            shutil.rmtree(self.folder)
            raise
        assert self._process.stdout is not None
        self.log = LogLines(self._process.stdout)
        try:
            self.log.wait(self.ready)
        except AssertionError:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE)
        self.log.wait_end()
        shutil.rmtree(self.folder)


class Postgres(Foreground):
    """A cluster of its own; TLS with `leaf`, and without it none. Everybody on loopback is let in."""

    ready = "database system is ready to accept connections"
    stop_signal = signal.SIGINT  # ends the sessions too

    def __init__(self, leaf: Leaf | None) -> None:
        super().__init__("postgres")
        self._leaf = leaf
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: path.parts[4])
        self._programs = found[-1].parent if found else Path(require("postgres")).parent

    def command(self) -> Sequence[str]:
        data = self.folder / "data"
        options = ["--auth=trust", "--no-sync", "--username=postgres", "--locale=C", "--encoding=UTF8"]
        subprocess.run(
            [self._programs / "initdb", "-D", data, *options],
            check=True,
            capture_output=True,
            timeout=PATIENCE,
            user=self.user,
            extra_groups=None if self.user is None else [],
        )
        settings = [
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self.folder}",
            "fsync=off",
            "log_connections=on",
        ]
        if self._leaf is not None:
            cert = self.own(Path(shutil.copy(self._leaf.chain, self.folder / "server.crt")))
            key = self.own(Path(shutil.copy(self._leaf.key, self.folder / "server.key")))
            settings += ["ssl=on", f"ssl_cert_file={cert}", f"ssl_key_file={key}"]
        return [
            str(self._programs / "postgres"),
            "-D",
            str(data),
            *(word for setting in settings for word in ("-c", setting)),
        ]


class Slapd(Foreground):
    """An LDAP server that answers inside TLS alone; without a leaf, it has none to offer."""

    ready = "slapd starting"

    def __init__(self, leaf: Leaf | None) -> None:
        require("slapd")
        super().__init__("openldap")
        self._leaf = leaf

    def command(self) -> Sequence[str]:
        lines = ["include /etc/ldap/schema/core.schema", f"pidfile {self.folder}/slapd.pid"]
        if self._leaf is not None:
            cert = self.own(Path(shutil.copy(self._leaf.chain, self.folder / "server.crt")))
            key = self.own(Path(shutil.copy(self._leaf.key, self.folder / "server.key")))
            lines += [f"TLSCertificateFile {cert}", f"TLSCertificateKeyFile {key}", "security tls=1"]
        data = self.folder / "data"
        data.mkdir()
        self.own(data)
        lines += ["database ldif", 'suffix "dc=test"', f"directory {data}"]
        configuration = self.folder / "slapd.conf"
        configuration.write_text("\n".join(lines) + "\n")
        self.own(configuration)
        # 256 logs connections and operations, and keeps slapd in the foreground.
        return [
            require("slapd"),
            "-h",
            f"ldap://127.0.0.1:{self.port}",
            "-f",
            str(configuration),
            "-d",
            "256",
        ]


class Tinyproxy(Foreground):
    """An HTTP proxy that asks for basic authentication."""

    ready = "Accepting connections"
    username = "someone"
    password = "s3cret-phrase"

    def __init__(self) -> None:
        require("tinyproxy")
        super().__init__("tinyproxy")

    def command(self) -> Sequence[str]:
        configuration = self.folder / "tinyproxy.conf"
        configuration.write_text(
            f"Port {self.port}\nListen 127.0.0.1\nTimeout 30\nAllow 127.0.0.1\nLogLevel Info\n"
            f"BasicAuth {self.username} {self.password}\n"
        )
        self.own(configuration)
        return [require("tinyproxy"), "-d", "-c", str(configuration)]
