"""Makes the calls that `storage/webhooks.py` has written down: in a thread of its own, with care.

A tenant chooses where to call, so an address may be chosen that only this machine reaches. The
name is looked up once, every address it has must be public, and the connection goes to the address
that was looked at: a name that changes its mind in between (DNS rebinding) gains nothing.
Redirections are not followed and no answer is read beyond its status.
"""

from __future__ import annotations

import http.client
import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from imagine.errors import UnsafeAddress
from imagine.service.webhook_signatures import signed_headers
from imagine.settings import VERSION
from imagine.storage.webhooks import KEPT, Call, Outcome, Webhooks

logger = logging.getLogger(__name__)

CALL_SECONDS = 15.0  # from the look-up of the name to the status
_STEP_SECONDS = 10.0  # to connect, to send, to receive
_AT_ONCE = 8
_LOOK_SECONDS = 2.0  # between two looks for what other processes wrote down, or what is due again
_TIDY_SECONDS = 3600.0

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# host, port -> addresses
LookUp = Callable[[str, int], Sequence[str]]


def look_up(host: str, port: int) -> list[str]:
    """Every address of a name, as the system knows it.

    Raises:
        OSError: it has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


@dataclass(frozen=True, slots=True)
class Target:
    """Where a call goes: an address that was looked at, and what to say there."""

    address: str
    port: int
    host: str
    path: str
    is_secure: bool


class AddressGuard:
    """Decides which urls may be called.

    Args:
        allowed: networks that are open though they are not public, e.g. "10.1.0.0/16".
        find: looks a name up.
    """

    def __init__(self, allowed: Sequence[str] = (), find: LookUp = look_up) -> None:
        self._allowed: list[Network] = [ipaddress.ip_network(one) for one in allowed]
        self._find = find

    def target(self, url: str) -> Target:
        """Where a url leads now.

        Raises:
            UnsafeAddress: not an https url, no such name, or an address that is not public.
        """
        host, port, path, is_secure = _parts(url)
        try:
            found = self._find(host, port)
        except OSError as error:
            raise UnsafeAddress(
                f"The name {host[:80]!r} has no address. Check how it is written."
            ) from error
        addresses = [_unwrapped(ipaddress.ip_address(one.partition("%")[0])) for one in found]
        if not addresses:
            raise UnsafeAddress(f"The name {host[:80]!r} has no address.")
        is_ours = all(any(one in network for network in self._allowed) for one in addresses)
        if not is_ours and not all(_is_public(one) for one in addresses):
            # Which address it is stays unsaid: a tenant must not map the inside by asking.
            raise UnsafeAddress(
                f"{host[:80]!r} leads to an address that is not public. Give a public one, or ask "
                "the operator to allow its network (IMAGINE_SERVICE_WEBHOOK_NETWORKS)."
            )
        if not is_secure and not is_ours:
            raise UnsafeAddress(f"{host[:80]!r} must be called by https.")
        return Target(str(addresses[0]), port, host, path, is_secure)


class Sender:
    """Makes calls until it is stopped; several may work on one table.

    Args:
        webhooks: what is to be called.
        guard: which addresses may be.
        context: of TLS; None verifies certificates against those this system trusts.
    """

    def __init__(
        self, webhooks: Webhooks, guard: AddressGuard, context: ssl.SSLContext | None = None
    ) -> None:
        self._webhooks = webhooks
        self._guard = guard
        self._context = context or ssl.create_default_context()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        webhooks.call_when_due(self._wake.set)

    def start(self) -> None:
        """Begin to send."""
        self._thread = threading.Thread(target=self._run, name="imagine-webhooks", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop when the calls that are being made are over; the others stay written down."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def send_due(self) -> int:
        """Make every call that is due now, one after the other; says how many."""
        made = 0
        while calls := self._webhooks.take(_AT_ONCE):
            for call in calls:
                self._make(call)
            made += len(calls)
        return made

    def _run(self) -> None:
        tidied = -_TIDY_SECONDS
        with ThreadPoolExecutor(_AT_ONCE, "imagine-webhook") as pool:
            while not self._stopping.is_set():
                self._wake.clear()
                try:
                    if time.monotonic() - tidied > _TIDY_SECONDS:
                        tidied = time.monotonic()
                        self._webhooks.forget_before(datetime.now(UTC) - KEPT)
                    calls = self._webhooks.take(_AT_ONCE)
                    list(pool.map(self._make, calls))
                except Exception as error:  # the database is away: the next look may go better
                    logger.warning("webhooks cannot be sent: %s", type(error).__name__)
                    calls = []
                if not calls:
                    self._wake.wait(_LOOK_SECONDS)

    def _make(self, call: Call) -> None:
        outcome = self._called(call)
        state = self._webhooks.ended(call, outcome)
        if outcome.error is not None:
            told = call.delivery
            logger.info("delivery %s: %s, now %s", told.id, outcome.error, state.value)

    def _called(self, call: Call) -> Outcome:
        body = call.delivery.body.encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"imagine-yourself/{VERSION}",
            **signed_headers(call.delivery.message_id, int(time.time()), body, call.secrets),
        }
        try:
            target = self._guard.target(call.url)
        except UnsafeAddress:
            return Outcome(None, "unsafe_address")
        connection = _Connection(target, self._context)
        # Each step may take a while; all of them together may not.
        watch = threading.Timer(CALL_SECONDS, connection.abort)
        watch.daemon = True
        watch.start()
        try:
            connection.request("POST", target.path, body, headers)
            status = connection.getresponse().status
        except TimeoutError:
            return Outcome(None, "timeout")
        except ssl.SSLError:
            return Outcome(None, "tls")
        except (OSError, http.client.HTTPException, ValueError):
            return Outcome(None, "no_answer")
        finally:
            watch.cancel()
            connection.close()
        return Outcome(status, None if 200 <= status < 300 else f"status_{status}")


class _Connection(http.client.HTTPConnection):
    """To one address, whatever its name may lead to by now."""

    def __init__(self, target: Target, context: ssl.SSLContext) -> None:
        super().__init__(target.host, target.port, timeout=_STEP_SECONDS)
        self._target = target
        self._tls = context if target.is_secure else None
        self.default_port = 443 if target.is_secure else 80

    def connect(self) -> None:
        place = (self._target.address, self._target.port)
        plain = socket.create_connection(place, timeout=_STEP_SECONDS)
        self.sock = plain
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(plain, server_hostname=self._target.host)

    def abort(self) -> None:
        """Break off, from another thread."""
        if self.sock is not None:
            try:
                self.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it is over already


def _parts(url: str) -> tuple[str, int, str, bool]:
    """Host, port, path with query, and whether it is https.

    Raises:
        UnsafeAddress: not such a url.
    """
    try:
        parsed = urlsplit(url)
        host, port = parsed.hostname, parsed.port
        name = "" if host is None else host.encode("idna").decode()
    except ValueError as error:
        raise UnsafeAddress("The url cannot be read. Write it like https://name/path.") from error
    is_plain = url.isascii() and url.isprintable() and " " not in url
    if parsed.scheme not in ("https", "http") or not name or not is_plain:
        raise UnsafeAddress("The url cannot be called. Write it like https://name/path.")
    if parsed.username is not None or parsed.password is not None:
        raise UnsafeAddress("The url holds a name or password. Deliveries are signed instead.")
    is_secure = parsed.scheme == "https"
    path = (parsed.path or "/") + (f"?{parsed.query}" if parsed.query else "")
    return name, port or (443 if is_secure else 80), path, is_secure


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, where it stands for one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def _is_public(address: Address) -> bool:
    return address.is_global and not address.is_multicast and not address.is_reserved
