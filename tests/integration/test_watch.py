"""`watch = yes`: certificates, keys and CAs that change are taken into use, and nothing else happens."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from .certificates import Certificates, Leaf
from .daemon import children, fixed_ports
from .echo import echo, finish, open_tls, refused_tls
from .harness import eventually
from .peers import TlsPeer, client_context, dial
from .watching import ACCEPTING, WATCHING, Files, Start, reloads, service, shown, start, watcher, write


@pytest.fixture
def files(tmp_path: Path, certificates: Certificates) -> Files:
    """The files of the service, as they are at the start."""
    folder = tmp_path / "live"
    folder.mkdir()
    files = Files(folder)
    files.install(certificates.server)
    return files


@pytest.fixture(scope="session")
def renewed(certificates: Certificates) -> Leaf:
    """The certificate that takes the place of the first one."""
    return certificates.ca.leaf("renewed", hosts=("localhost",))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_renamed_certificate_is_for_new_connections(
    culvert: Start, certificates: Certificates, files: Files, renewed: Leaf, workers: int
) -> None:
    with fixed_ports(1) as (port,):
        daemon = start(culvert, service(files, port), workers=workers)
        old = open_tls(port, certificates.ca.cert)
        assert shown(daemon, certificates) == certificates.server.certificate
        mark = daemon.log.mark()
        files.install(renewed)
        daemon.await_log(rf"LOG5\[main\]: Changed: .*{files.cert}", since=mark)
        daemon.await_log(ACCEPTING, since=mark)
        assert shown(daemon, certificates) == renewed.certificate
        echo(old)
        finish(old)
        assert reloads(daemon, mark) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_key_waits_for_its_certificate(
    culvert: Start, certificates: Certificates, files: Files, renewed: Leaf, workers: int
) -> None:
    with fixed_ports(1) as (port,):
        daemon = start(culvert, service(files, port), workers=workers)
        mark = daemon.log.mark()
        write(files.key, renewed.key)
        daemon.await_log(
            rf"LOG5\[main\]: Waiting for files that can be used: .*{files.key} does not belong", since=mark
        )
        assert shown(daemon, certificates) == certificates.server.certificate
        assert not daemon.log.find(r"LOG[0-4]\[main\]|Configuration failed", since=mark)
        write(files.cert, renewed.cert)
        daemon.await_log(ACCEPTING, since=mark)
        assert shown(daemon, certificates) == renewed.certificate
        assert len(daemon.log.find("Waiting for files", since=mark)) == 1


def test_a_link_to_a_folder_that_is_swapped(
    culvert: Start, certificates: Certificates, tmp_path: Path, renewed: Leaf
) -> None:
    """As Kubernetes renews a mounted secret."""
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    for version, leaf in (("..1", certificates.server), ("..2", renewed)):
        (mounted / version).mkdir()
        Files(mounted / version).install(leaf)
    files = Files(mounted)
    (mounted / "..data").symlink_to("..1")
    for path in (files.cert, files.key):
        path.symlink_to(f"..data/{path.name}")
    with fixed_ports(1) as (port,):
        daemon = start(culvert, service(files, port))
        mark = daemon.log.mark()
        (mounted / "..data_tmp").symlink_to("..2")
        (mounted / "..data_tmp").rename(mounted / "..data")
        daemon.await_log(ACCEPTING, since=mark)
        assert shown(daemon, certificates) == renewed.certificate
        daemon.await_log(WATCHING, since=mark)
        mark = daemon.log.mark()
        Files(mounted / "..2").install(certificates.server)
        daemon.await_log(ACCEPTING, since=mark)
        assert shown(daemon, certificates) == certificates.server.certificate


def test_links_to_an_archive_as_certbot_makes_them(
    culvert: Start, certificates: Certificates, tmp_path: Path, renewed: Leaf
) -> None:
    files = Files(tmp_path / "live")
    files.folder.mkdir()
    archive = tmp_path / "archive"
    archive.mkdir(mode=0o700)
    with fixed_ports(1) as (port,):
        for path, source in ((files.cert, certificates.server.cert), (files.key, certificates.server.key)):
            write(archive / f"1{path.name}", source)
            path.symlink_to(f"../archive/1{path.name}")
        daemon = start(culvert, service(files, port))
        mark = daemon.log.mark()
        for path, source in ((files.key, renewed.key), (files.cert, renewed.cert)):
            write(archive / f"2{path.name}", source)
            path.unlink()
            path.symlink_to(f"../archive/2{path.name}")
        daemon.await_log(ACCEPTING, since=mark)
        assert shown(daemon, certificates) == renewed.certificate


def test_a_folder_that_is_replaced(
    culvert: Start, certificates: Certificates, tmp_path: Path, files: Files, renewed: Leaf
) -> None:
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    Files(fresh).install(renewed)
    with fixed_ports(1) as (port,):
        daemon = start(culvert, service(files, port))
        mark = daemon.log.mark()
        files.folder.rename(tmp_path / "old")
        fresh.rename(files.folder)
        daemon.await_log(ACCEPTING, since=mark)
        assert shown(daemon, certificates) == renewed.certificate
        daemon.await_log(WATCHING, since=mark)
        mark = daemon.log.mark()
        files.install(certificates.server)
        daemon.await_log(ACCEPTING, since=mark)
        assert shown(daemon, certificates) == certificates.server.certificate


def test_a_changed_ca(culvert: Start, certificates: Certificates, files: Files, tmp_path: Path) -> None:
    trust = tmp_path / "trust.pem"
    write(trust, certificates.other_ca.cert)
    more = f"CAfile = {trust}\nverifyChain = yes\n"
    with fixed_ports(1) as (port,):
        daemon = start(culvert, service(files, port, more))
        client = client_context(trust=certificates.ca.cert, leaf=certificates.client)
        refused_tls(port, client)
        mark = daemon.log.mark()
        write(trust, certificates.ca.cert)
        daemon.await_log(ACCEPTING, since=mark)
        peer = TlsPeer(dial(port), client, server=False)
        peer.handshake()
        echo(peer)
        finish(peer)


def test_other_files_in_the_folder_cause_no_reload(
    culvert: Start, certificates: Certificates, files: Files, renewed: Leaf
) -> None:
    with fixed_ports(1) as (port,):
        daemon = start(culvert, service(files, port))
        mark = daemon.log.mark()
        write(files.folder / "other.crt", renewed.cert)
        (files.folder / "other.crt").unlink()
        (files.folder / b"\xff".decode(errors="surrogateescape")).touch()
        write(files.cert, certificates.server.cert)  # a change of the file, not of what it holds
        write(files.cert, renewed.cert)
        write(files.key, renewed.key)
        daemon.await_log(ACCEPTING, since=mark)
        assert shown(daemon, certificates) == renewed.certificate
        assert reloads(daemon, mark) == 1


def test_a_broken_configuration_changes_nothing(
    culvert: Start, certificates: Certificates, files: Files, renewed: Leaf
) -> None:
    with fixed_ports(1) as (port,):
        daemon = start(culvert, service(files, port))
        mark = daemon.log.mark()
        daemon.configure(f"watch = yes\n{service(files, port)}half = d")
        files.install(renewed)
        daemon.await_log(r'LOG3\[main\]: .*culvert\.conf:\d+: "half = d"', since=mark)
        daemon.await_log(r"LOG3\[main\]: Configuration failed", since=mark)
        assert shown(daemon, certificates) == certificates.server.certificate
        daemon.configure(f"watch = yes\n{service(files, port)}")
        daemon.await_log(ACCEPTING, since=mark)
        assert shown(daemon, certificates) == renewed.certificate


@pytest.mark.parametrize("workers", [0, 1])
def test_a_watcher_that_is_killed_is_replaced(
    culvert: Start, certificates: Certificates, files: Files, renewed: Leaf, workers: int
) -> None:
    with fixed_ports(1) as (port,):
        daemon = start(culvert, service(files, port), workers=workers)
        before = daemon.descriptors()
        first = watcher(daemon)
        mark = daemon.log.mark()
        os.kill(first, signal.SIGKILL)
        daemon.await_log(rf"LOG4\[main\]: Process {first}, .* was killed by signal 9", since=mark)
        daemon.await_log(WATCHING, since=mark)
        assert watcher(daemon) != first
        daemon.await_descriptors(before)
        files.install(renewed)
        daemon.await_log(ACCEPTING, since=mark)
        assert shown(daemon, certificates) == renewed.certificate


def test_it_ends_with_a_daemon_that_is_killed(culvert: Start, files: Files) -> None:
    daemon = start(culvert, service(files))
    os.kill(daemon.pid, signal.SIGKILL)
    eventually(lambda: not daemon.leftovers(), "the end of every process")
    daemon.stop(status=-signal.SIGKILL)


def test_it_can_be_switched_off_by_a_reload(culvert: Start, files: Files) -> None:
    with fixed_ports(1) as (port,):
        daemon = start(culvert, service(files, port))
        first = watcher(daemon)
        mark = daemon.reload(service(files, port))
        daemon.await_log(ACCEPTING, since=mark)
        assert first not in children(daemon.pid)


def test_signals_to_all_processes_leave_it_alone(culvert: Start, files: Files) -> None:
    with fixed_ports(1) as (port,):
        daemon = start(culvert, service(files, port))
        first = watcher(daemon)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            os.kill(first, number)
        mark = daemon.reload(f"watch = yes\n{service(files, port)}")
        daemon.await_log(ACCEPTING, since=mark)
        assert first in children(daemon.pid)
        assert not daemon.log.find("which watches", since=mark)
