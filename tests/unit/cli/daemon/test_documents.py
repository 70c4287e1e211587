"""The endpoint's documents as values: read right or refused, and never a terminal's command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert.cli.daemon.documents import Connections, Status
from culvert.cli.daemon.errors import AdminError

from .samples import (
    connection_document,
    connections_document,
    failure_document,
    service_document,
    status_document,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def test_a_status_is_read() -> None:
    found = Status.of(status_document())
    assert (found.version, found.pid, found.state, found.open) == ("1.0", 4711, "ready", 2)
    service = found.services[0]
    assert (service.name, service.leads_to, service.handshakes, service.failed) == (
        "mail",
        "127.0.0.1:143",
        9,
        1,
    )
    assert service.certificates[0].days == 100


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"ready": False, "obstacles": ["no worker serves"]}, "not ready"),
        ({"ready": False, "draining": True}, "stopping"),
    ],
)
def test_a_state_has_a_word(changes: dict[str, Any], state: str) -> None:
    assert Status.of(status_document(**changes)).state == state


def test_a_daemon_may_tell_no_failures_and_no_number() -> None:
    document = status_document()
    del document["pid"]
    found = Status.of(document)
    assert (found.failures, found.pid) == (None, None)


def test_failures_are_read() -> None:
    failures = Status.of(status_document(failures=[failure_document()])).failures
    assert failures is not None
    assert (failures[0].count, failures[0].reason) == (3, "the peer does not speak TLS")


def test_a_program_and_clients_own_targets_are_where_a_service_leads() -> None:
    program = service_document(exec="/bin/cat", targets=[])
    asked = service_document("socks", targets=[])
    found = Status.of(status_document(services=[program, asked])).services
    assert [one.leads_to for one in found] == ["/bin/cat", "where clients ask for"]


def test_connections_are_read() -> None:
    young = connection_document("18", target=None, state="setup", sni=None, tls=None)
    found = Connections.of(connections_document(connection_document(), young, total=7))
    assert (found.total, found.complete) == (7, True)
    assert (found.listed[0].tls, found.listed[0].sni) == ("TLSv1.3 TLS_AES_256_GCM_SHA384", "mail.example")
    assert (found.listed[1].target, found.listed[1].tls, found.listed[1].sni) == ("", "", "")


def test_no_text_commands_a_terminal() -> None:
    evil = "\x1b[2J\x07\x9b31m\u202eend"
    found = Connections.of(connections_document(connection_document(evil, peer=evil, sni=evil, service=evil)))
    one = found.listed[0]
    assert all(text.isprintable() for text in (one.ident, one.peer, one.sni, one.service))


@pytest.mark.parametrize("read", [Status.of, Connections.of])
@pytest.mark.parametrize("document", [{}, {"format": 2}, {"format": "1"}, {"format": 1}])
def test_another_document_is_refused(read: Callable[[Any], object], document: dict[str, Any]) -> None:
    with pytest.raises(AdminError, match="is no culvert, or one of another version"):
        read(document)


@settings(deadline=None)
@given(data=st.data())
def test_any_field_may_be_anything(data: st.DataObject) -> None:
    document = status_document(failures=[failure_document()])
    name = data.draw(st.sampled_from(sorted(document)))
    document[name] = data.draw(JSON)
    listed = connection_document()
    listed[data.draw(st.sampled_from(sorted(listed)))] = data.draw(JSON)
    service = service_document()
    service[data.draw(st.sampled_from(sorted(service)))] = data.draw(JSON)
    for read, value in (
        (Status.of, document),
        (Status.of, status_document(services=[service])),
        (Connections.of, connections_document(listed)),
    ):
        try:
            read(value)
        except AdminError:
            continue


def test_a_vpn_has_its_peers_and_their_addresses() -> None:
    vpn = {"interface": "vpn0", "peers": {"tls": 0, "dtls": 2}, "dropped": {"spoofed": 3, "busy": 4}}
    document = status_document(services=[service_document(targets=[], vpn=vpn)])
    (service,) = Status.of(document).services
    assert service.leads_to == "VPN vpn0 (2 over DTLS)"
    assert service.vpn is not None
    assert service.vpn.dropped == 7
    peer = connection_document(target=None, vpn={"transport": "DTLS", "addresses": ["10.9.0.2", "fd09::2"]})
    (connection,) = Connections.of(connections_document(peer)).listed
    assert connection.leads_to == "VPN 10.9.0.2 fd09::2"
