"""The one module of the engine that speaks NATS: its connection to the servers of its cluster, through nats-py.

Publishing and receiving never wait for a server. While there is no connection, nothing is published, and the callers of
`publish` know it: what must arrive, the links send again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from iii.engine.cluster.requirements import unmet_requirements
from iii.engine.config.spec import ClusterSpec
from iii.errors import ProjectError
from iii.nats_options import connect_options

if TYPE_CHECKING:
    from nats.aio.msg import Msg

# Seconds between two tries to reach a server.
RECONNECT_INTERVAL = 0.05
# Bytes that a server must take in one message: a piece of a message with its head, and the head of a message with them.
LEAST_PAYLOAD = 4096

# Seconds of receiving after which the loop may do something else.
SLICE = 0.005

# subject, data, whether a server says that a message had no receiver
Receive = Callable[[str, bytes, bool], None]


class Connection:
    """A connection that is made anew whenever it is lost. `on_change(is_connected)` hears of it."""

    def __init__(self, spec: ClusterSpec, on_change: Callable[[bool], None]) -> None:
        try:
            from nats.aio.client import Client
            from nats.errors import Error
        except ImportError:
            hint = "pip install 'iii-engine[cluster]'"
            raise ProjectError("[cluster] needs nats-py, which is not installed", line=spec.line, hint=hint) from None
        self._spec = spec
        self._on_change = on_change
        self._client = Client()
        self._refusals = Error
        self.last_error = ""
        self._was_connected = False

    @property
    def is_connected(self) -> bool:
        return bool(self._client.is_connected)

    @property
    def server(self) -> str:
        """The server that this connection is to, with its version."""
        url, version = self._client.connected_url, self._client.connected_server_version
        return f"{url.hostname}:{url.port}, nats-server {version.major}.{version.minor}.{version.patch}" if url else ""

    @property
    def unmet(self) -> list[str]:
        """What of the servers is not as a cluster needs it: a sentence each, with the way out."""
        version = self._client.connected_server_version
        known = len(self._client.servers)
        return unmet_requirements((version.major, version.minor), max_payload=self.max_payload, servers=known)

    @property
    def max_payload(self) -> int:
        """Bytes that the server takes in one message."""
        return int(self._client.max_payload)

    async def open(self) -> None:
        """Connect; return when a server has answered, however long that takes. Raises `ProjectError` for bad files."""
        spec = self._spec
        if spec.credentials is not None:
            _check_credentials(spec.credentials, spec.line)
        try:
            options = connect_options(spec)
        except OSError as error:
            raise ProjectError(f"cluster: the TLS files cannot be used: {error}", line=spec.line) from None
        await self._client.connect(
            **options,
            name=f"iii {spec.name} {spec.engine}",
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            reconnect_time_wait=RECONNECT_INTERVAL,  # type: ignore[arg-type]  # seconds, fractions of them too
            no_echo=True,
        )
        self._was_connected = True
        self._on_change(True)

    async def subscribe(self, subject: str, receive: Receive) -> None:
        """Hear what is published to the subject: `receive` gets each message, in order."""

        began = perf_counter()

        async def take(message: Msg) -> None:
            nonlocal began
            receive(message.subject, message.data, (message.headers or {}).get("Status") == "503")
            # Without a pause, nats-py would hand over all that waits before the loop does anything else.
            if perf_counter() - began > SLICE:
                await asyncio.sleep(0)
                began = perf_counter()

        await self._client.subscribe(subject, cb=take)

    async def publish(self, subject: str, data: bytes, reply: str = "") -> bool:
        """Publish; return False where that cannot be. A server answers to `reply` if nobody receives it."""
        if not self._client.is_connected:
            return False
        try:
            await self._client.publish(subject, data, reply)
        except self._refusals as error:  # the connection was lost in between, or takes no more
            self.last_error = str(error)
            return False
        return True

    async def flush(self) -> None:
        """Wait until the server has what was published, a second at most."""
        if self._client.is_connected:
            await self._client.flush(1)

    async def close(self) -> None:
        if self._was_connected:
            await self._client.close()

    async def _on_disconnected(self) -> None:
        self._on_change(False)

    async def _on_reconnected(self) -> None:
        self._on_change(True)

    async def _on_error(self, error: Exception) -> None:
        self.last_error = str(error) or type(error).__name__


def _check_credentials(file: Path, line: int) -> None:
    """Raise `ProjectError` for a file that nats-py would read for ever: one without a user's token and seed."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ProjectError(f"cluster: credentials {file} cannot be read: {error.strerror}", line=line) from None
    if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
        hint = "make one with `nsc generate creds`"
        raise ProjectError(f"cluster: {file} is no NATS credentials file", line=line, hint=hint)
