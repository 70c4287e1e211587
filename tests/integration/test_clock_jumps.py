"""The wall clock jumps by days, for a daemon whose C library is told so: nothing ends sooner, or later."""

from __future__ import annotations

import mmap
import re
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import fixed_ports
from .echo import echo, echo_service, finish, open_tls, say_tls, trusting
from .harness import HEADER, PATIENCE, Culvert
from .peers import TlsPeer, dial

Start = Callable[..., Culvert]

DAY = 86400

SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile long *offset;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    int fd = open(getenv("CLOCK_OFFSET"), O_RDONLY);
    real = dlsym(RTLD_NEXT, "clock_gettime");
    offset = mmap(0, 8, PROT_READ, MAP_SHARED, fd, 0);
}

int clock_gettime(clockid_t id, struct timespec *found) {
    int result = real(id, found);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) found->tv_sec += *offset;
    return result;
}

int gettimeofday(struct timeval *found, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    found->tv_sec = now.tv_sec;
    found->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *found) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (found) *found = now.tv_sec;
    return now.tv_sec;
}
"""


class Clock:
    """The wall clock of the processes that run in `environment`."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("there is no C compiler")
        source, library, offset = folder / "shim.c", folder / "shim.so", folder / "offset"
        source.write_text(SHIM)
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
        subprocess.run(command, check=True, timeout=PATIENCE)
        offset.write_bytes(bytes(8))
        self._file = offset.open("r+b")
        self._memory = mmap.mmap(self._file.fileno(), 8)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(offset)}

    def jump(self, seconds: int) -> None:
        """Be wrong by so much from now on."""
        self._memory[:] = struct.pack("q", seconds)

    def close(self) -> None:
        self._memory.close()
        self._file.close()


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[Clock]:
    clock = Clock(tmp_path)
    yield clock
    clock.close()


def days(daemon: Culvert) -> int:
    """How far the date of the newest line is from today."""
    written = time.strptime(daemon.log.lines[-1][:19], "%Y.%m.%d %H:%M:%S")
    return round((time.mktime(written) - time.time()) / DAY)


@pytest.mark.parametrize("workers", [0, 1], ids=["one-process", "worker"])
@pytest.mark.parametrize("first", [2 * DAY, -2 * DAY], ids=["forward", "backward"])
def test_nothing_ends_before_its_time(
    culvert: Start, certificates: Certificates, clock: Clock, workers: int, first: int
) -> None:
    with fixed_ports(1) as (port,):
        services = echo_service(certificates, port, "TIMEOUTidle = 100\nTIMEOUTbusy = 100")
        header = HEADER + "drainTimeout = 100\nreloadDrainTimeout = 100\n"
        daemon = culvert(services, header=header, workers=workers, environment=clock.environment)
        peer = open_tls(port, certificates.ca.cert)
        echo(peer)
        handshaking = dial(port)
        daemon.await_log("accepted connection from .*" + str(handshaking.getsockname()[1]))
        clock.jump(first)
        say_tls(port, certificates.ca.cert)
        assert days(daemon) == first // DAY
        mark = daemon.reload(services)
        daemon.await_log("Accepting new connections", since=mark)
        clock.jump(-first)
        echo(peer)
        late = TlsPeer(handshaking, trusting(certificates.ca.cert), server=False)
        late.handshake()
        echo(late)
        daemon.send_signal(signal.SIGTERM)
        daemon.await_log("Stopping: waiting for 2")
        clock.jump(first)
        for one in (late, peer):
            echo(one)
            finish(one)
        assert daemon.wait() == 0
        daemon.stop()
        assert not re.search("exceeded|TIMEOUT", "\n".join(daemon.log.lines))


@pytest.mark.parametrize("jump", [2 * DAY, -2 * DAY], ids=["forward", "backward"])
def test_what_is_to_end_ends_in_its_time(
    culvert: Start, certificates: Certificates, clock: Clock, jump: int
) -> None:
    services = echo_service(certificates, more="TIMEOUTidle = 1")
    daemon = culvert(services, environment=clock.environment)
    peer = open_tls(daemon.port("echo"), certificates.ca.cert)
    echo(peer)
    began = time.monotonic()
    clock.jump(jump)
    with pytest.raises(ConnectionResetError):
        peer.recv()
        raise ConnectionResetError
    assert 0.8 < time.monotonic() - began < 10
    peer.close()
