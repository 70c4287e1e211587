"""The configuration as the rest of Culvert sees it: a frozen tree of typed values.

Nothing behind this tree sees a string of the file, but for names and paths. Defaults stand in the table
of options (`culvert.config.options`) and nowhere else; every field here is set by it.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from culvert.address import Address, HostPort, HttpUrl
from culvert.config.vpn import Vpn
from culvert.errors import Diagnostic, Location


class Foreground(enum.Enum):
    """Whether the daemon stays with its terminal, and whether it logs there too."""

    YES = "yes"
    QUIET = "quiet"
    NO = "no"


class LogMode(enum.Enum):
    """What happens to a log file that exists at start."""

    APPEND = "append"
    OVERWRITE = "overwrite"


class LogFormat(enum.Enum):
    """What a log line looks like."""

    TEXT = "text"
    JSON = "json"


class Failover(enum.Enum):
    """In which order several targets are tried: in turn from one connection to the next, as written, or
    the one with the fewest open connections first."""

    RR = "rr"
    PRIO = "prio"
    LEASTCONN = "leastconn"


class Transparent(enum.Flag):
    """Whose place a service takes: connecting from its client's address, or to where its client was going."""

    NONE = 0
    SOURCE = 1
    DESTINATION = 2
    BOTH = 3


class LogId(enum.Enum):
    """What identifies a connection in the log."""

    SEQUENTIAL = "sequential"
    UNIQUE = "unique"
    THREAD = "thread"
    PROCESS = "process"


class TlsVersion(enum.IntEnum):
    """Protocol versions by their number on the wire."""

    SSL3 = 0x0300
    TLS1 = 0x0301
    TLS1_1 = 0x0302
    TLS1_2 = 0x0303
    TLS1_3 = 0x0304


@dataclass(frozen=True, slots=True)
class Debug:
    """A syslog level from 0 to 7, and a facility's number (RFC 5424, 6.2.1) unshifted."""

    level: int
    facility: int


@dataclass(frozen=True, slots=True)
class VerifyPolicy:
    """What is asked of the peer's certificate.

    `request`: a server asks for one (a client always gets one). `require`: none is a failure.
    `chain`: it must lead to a trusted CA. `peer`: the leaf itself must stand among the trusted ones.
    """

    request: bool
    require: bool
    chain: bool
    peer: bool


class AllowKind(enum.Enum):
    """What a rule on identity looks at; the value is the option's name."""

    CN = "allowCN"
    OU = "allowOU"
    DNS = "allowDNS"
    URI = "allowURI"
    EMAIL = "allowEmail"
    IP = "allowIP"
    SPKI = "allowSPKI"
    PSK = "allowPSK"


@dataclass(frozen=True, slots=True)
class AllowRule:
    """One rule on who may pass, as `config.identities` reads it.

    `value` is what is compared: a DNS name is in lower case and ASCII, an address or network as `ipaddress`
    writes it, a pin 64 hexadecimal digits. `written` is the file's own text, for the log.
    """

    kind: AllowKind
    value: str
    written: str

    def __str__(self) -> str:
        return f"{self.kind.value} = {self.written}"


@dataclass(frozen=True, slots=True)
class OcspPolicy:
    """How the revocation of certificates is looked into by OCSP (RFC 6960).

    `url` is asked about every peer, and with `aia` those responders that the peer's certificate names.
    `flags` are OpenSSL's names. Without `require`, no conclusive answer is no fault; `timeout` is in seconds
    for all responders of one certificate together.
    """

    url: HttpUrl | None
    aia: bool
    flags: tuple[str, ...]
    nonce: bool
    require: bool
    timeout: float

    @property
    def asks(self) -> bool:
        """Whether responders are asked about peers."""
        return self.url is not None or self.aia


class SocksKind(enum.Enum):
    """What a rule on the targets of SOCKS clients goes by."""

    ANY = "any"
    HOST = "host"
    SUFFIX = "suffix"
    NETWORK = "network"


@dataclass(frozen=True, slots=True)
class SocksRule:
    """One `socksAllow`: a target that a SOCKS client may have. `ports` is the first and the last.

    `value` is a name in lower case, a name that others end in, or a network as `ipaddress` writes it.
    """

    kind: SocksKind
    value: str
    ports: tuple[int, int]
    written: str

    def has_port(self, port: int) -> bool:
        """Whether the rule is about this port."""
        return self.ports[0] <= port <= self.ports[1]

    def __str__(self) -> str:
        return f"socksAllow = {self.written}"


@dataclass(frozen=True, slots=True)
class ProtocolOptions:
    """The protocol that is spoken around the handshake, and what it is to say.

    `host` is the target that a proxy is asked for, or the name to greet with; `target` is the former, read.
    `authentication` is one of `config.protocols.AUTHENTICATION`; None is the protocol's usual one. `headers`
    are whole header lines.
    """

    name: str
    authentication: str | None
    domain: str | None
    headers: tuple[str, ...]
    host: str | None
    username: str | None
    target: HostPort | None
    """Who speaks TLS behind a proxy; None where that is whom the service connects to."""
    password: str | None = field(repr=False)


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Sources:
    """Where connections may come from: networks, none of them of mapped IPv4 addresses, and Unix sockets."""

    networks: tuple[Network, ...] = ()
    unix: bool = False

    def __bool__(self) -> bool:
        return self.unix or bool(self.networks)


@dataclass(frozen=True, slots=True)
class AccessRules:
    """Who may come, by address: never from `deny`, and from `allow` alone where that names anything.

    `libwrap` asks hosts.allow and hosts.deny as well, `ident` is whom the client's own machine must name.
    """

    allow: Sources
    deny: Sources
    libwrap: bool
    ident: str | None


@dataclass(frozen=True, slots=True)
class ProxyHeaders:
    """PROXY protocol: the version of what is sent to the target, and whether clients bring a header.

    They then do so from the `trusted` addresses, or over a Unix socket, and nobody else may come.
    """

    send: int | None
    accept: bool
    trusted: Sources


@dataclass(frozen=True, slots=True)
class SocketOption:
    """One `socket = a|l|r:NAME=VALUE`.

    `target` is `a` (listening), `l` (the accepted side) or `r` (the connected side). `value` is a number
    (0 and 1 for no and yes), a pair (SO_LINGER: on, seconds; times: seconds, microseconds) or a name.
    """

    target: str
    name: str
    value: int | tuple[int, int] | str


@dataclass(frozen=True, slots=True)
class AcceptRate:
    """How fast new connections may come: so many a second, and `burst` at once after a rest."""

    per_second: int
    burst: int


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections there may be, in the whole daemon or in one service; None is no limit.

    `handshakes` are those of the `connections` that have not ended their handshake yet. `per_ip` counts an
    IPv4 address, or an IPv6 network of 64 bits.
    """

    connections: int | None = None
    per_ip: int | None = None
    handshakes: int | None = None
    rate: AcceptRate | None = None

    def __bool__(self) -> bool:
        """Whether there is a limit at all."""
        return self != _UNLIMITED


_UNLIMITED = ConnectionLimits()


@dataclass(frozen=True, slots=True)
class ServerName:
    """Clients of the service `primary` who ask for a name like `pattern` are another service's.

    `pattern` is a name in lower case, or `*.` and the rest of one, which stands for every name below it.
    """

    primary: str
    pattern: str


@dataclass(frozen=True, slots=True)
class AdminOptions:
    """Where the daemon tells how it fares. A request must bring the token, where there is one."""

    address: Address
    token_file: str | None
    token: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class GlobalOptions:
    """The options of the whole daemon. `locations` is as in `Service`."""

    chroot: str | None
    debug: Debug
    drain_timeout: float
    """Seconds that connections have to finish once the daemon is told to stop; 0 ends them at once."""
    fips: bool
    foreground: Foreground
    log: LogMode
    log_format: LogFormat
    output: str | None
    pid: str | None
    reload_drain_timeout: float | None
    """The same for the connections of before a reload; None waits for them without an end."""
    service: str
    set_env: tuple[tuple[str, str], ...]
    setgid: str | int | None
    setuid: str | int | None
    syslog: bool
    workers: int | None
    """How many workers; None is one for each processor that may be used, 0 is no fork at all."""
    watch: bool
    limits: ConnectionLimits
    """Of all services together."""
    locations: Mapping[str, Location]
    admin: AdminOptions | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """One configured service. Times are in seconds unless the name says otherwise.

    `locations` maps the name of each option that the file set, as the table spells it, to where it was
    set last, so that a later error (a file that cannot be read, a port that is busy) can name its line.
    """

    name: str
    location: Location
    locations: Mapping[str, Location]

    client: bool
    accept: Address | None
    connect: tuple[Address, ...]
    exec: str | None
    exec_args: tuple[str, ...]
    pty: bool
    retry: float | None
    failover: Failover
    delay: bool
    health_check: float | None
    """How often targets are connected to, to see whether they are there; None for not at all."""
    local: str | None
    transparent: Transparent

    cert: str | None
    key: str | None
    ca_file: str | None
    ca_path: str | None
    crl_file: str | None
    crl_path: str | None
    psk_secrets: str | None
    psk_identity: str | None
    redirect: Address | None
    """Server: where a client goes whose certificate fails."""
    key_log: str | None
    verify: VerifyPolicy
    check_host: tuple[str, ...]
    check_ip: tuple[str, ...]
    check_email: tuple[str, ...]
    allow: tuple[AllowRule, ...]
    """Who may pass, in the order of the file; without a rule, whoever passes verification."""
    ocsp: OcspPolicy
    protocol: ProtocolOptions | None
    """What is spoken in clear before TLS, or inside it first; None for nothing."""
    proxy: ProxyHeaders
    access: AccessRules
    socks_allow: tuple[SocksRule, ...]
    """To where the clients of a SOCKS server may go; without a rule, wherever that is not this machine."""
    ciphers: str
    ciphersuites: str
    curves: str
    signature_algorithms: str | None
    security_level: int
    options_set: int
    options_clear: int
    """SSL_OP bits that `options` sets and clears, after the file's order was followed."""
    version_min: TlsVersion
    version_max: TlsVersion
    renegotiation: bool
    alpn: tuple[str, ...]
    """Application protocols to offer (client) or to choose from (server), the preferred one first."""
    sni: str | None
    """Client: the server name to send; empty sends none; None sends the target's host name."""
    server_names: tuple[ServerName, ...]
    """Server: whose clients come here by the name that they ask for."""
    session_resume: bool
    session_cache_size: int
    session_cache_timeout: int

    vpn: Vpn | None
    """The tunnel interface that is the service's other end; None for a service that is no VPN."""

    debug: Debug
    log_id: LogId
    reset: bool
    socket_options: tuple[SocketOption, ...]
    limits: ConnectionLimits
    """Its own, beside those of the daemon."""
    setuid: str | int | None
    setgid: str | int | None
    """Owner of a Unix `accept` socket."""
    timeout_busy: float
    timeout_close: float
    timeout_connect: float
    timeout_idle: float
    trace: bool = False
    """Whether the admin endpoint may show what the service carries."""

    @property
    def resumes(self) -> bool:
        """Whether sessions are resumed. Not beside pre-shared keys: in TLS 1.3 the two look alike."""
        return self.session_resume and self.psk_secrets is None

    @property
    def program_is_client(self) -> bool:
        """Whether the service runs its program in a client's place, and connects it to the target."""
        return self.exec is not None and bool(self.connect)

    def where(self, *names: str) -> Location:
        """Where the first of these options that the file set stands; else where the service begins."""
        for name in names:
            if name in self.locations:
                return self.locations[name]
        return self.location


@dataclass(frozen=True, slots=True)
class Configuration:
    """A whole configuration without errors; `findings` holds its warnings and notes, in file order.

    `inetd` is true where the file has no section: then `services` holds the one service that runs on
    standard input and output, and its `accept` is None.
    """

    path: str
    options: GlobalOptions
    services: tuple[Service, ...]
    inetd: bool
    findings: tuple[Diagnostic, ...]
