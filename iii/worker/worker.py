"""`Worker`: what a script holds after `register_worker()` of `connect.py`.

Joins the parts of the SDK, and owns the life of the connection: its state, its end, what opens a new one. Offering
functions is `registering.py`, decorators and handles `handling.py`, calling others `calling.py`, spans
`context/tracing.py`; incoming messages are the receiver's, threads the dispatcher's. A name without an underscore is
public.
"""

from __future__ import annotations

import os
import sys
from threading import Event, Thread

from iii.errors import ErrorCode, InvocationError, RegistrationRejectedError
from iii.worker.api.options import InitOptions, headers_from
from iii.worker.calling import Calling
from iii.worker.calls.call_table import CallTable
from iii.worker.codec.codec import Codec
from iii.worker.codec.text import report
from iii.worker.context.invocation import InvocationContext, current_invocation
from iii.worker.context.tracing import Tracing
from iii.worker.handling import Handling
from iii.worker.registering import Registering, announcement_from
from iii.worker.runtime.dispatcher import Dispatcher
from iii.worker.runtime.forked_child import end_child
from iii.worker.runtime.lines import LineReader, LineWriter
from iii.worker.runtime.reader_lock import ReaderLock
from iii.worker.runtime.readiness import Readiness
from iii.worker.runtime.receiver import Receiver
from iii.worker.runtime.runner import Runner
from iii.worker.runtime.threads import LoopThread, ThreadPool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from iii.worker.channels import Channel, ChannelConnector
    from iii.worker.codec.codec import Message
    from iii.worker.transport.base import Transport

# A worker with this many invocations and calls behind it is in use: a fast JSON library is worth its loading time.
CALLS_BEFORE_UPGRADE = 50
# As many bytes in longer messages make the same difference.
BYTES_BEFORE_UPGRADE = 256 * 1024
# The engine answers the first line of a worker at once; after this, `worker_id` is None.
IDENTITY_TIMEOUT = 10.0
# For `atexit` handlers and threads that are about to end; no caller waits for their results any more.
EXIT_TIMEOUT = 0.5
CREATE_CHANNEL = "engine::channels::create"


class Worker(Registering, Calling, Tracing, Handling):
    """A connection to the engine, and what this process offers through it. Methods are safe on any thread."""

    def __init__(
        self,
        transport: Transport,
        options: InitOptions | None = None,
        *,
        address: str = "",
        thread_pool: ThreadPool | None = None,
        loop: LoopThread | None = None,
        state: str = "connected",
        closes_when_rejected: bool = False,
    ) -> None:
        self._options = options or InitOptions()
        # The default namespace is never named: absent means the same, and older engines know only that.
        namespace = self._options.namespace or os.environ.get("III_NAMESPACE")
        self._namespace = None if namespace == "default" else namespace or None
        self._transport = transport
        self._address = address
        self._state = state
        self._main_serves = False
        self._state_listeners: list[Callable[[str], None]] = []
        self._stop_listeners: list[Callable[[float], object]] = []
        self._registrations: dict[tuple[str, str], Message] = {}
        self._defined_queues: set[str] = set()
        self._typed_functions: dict[Callable[..., Any], tuple[str, bool]] = {}
        self._countdown = CALLS_BEFORE_UPGRADE
        self._codec = Codec()
        self._writer = LineWriter(transport.write)
        self._lost_spans = 0
        self._calls = CallTable()
        self._thread_pool = thread_pool = thread_pool or ThreadPool()
        self._reader_lock = lock = ReaderLock(transport.input_fd)
        self._loop = loop or LoopThread(self._reader_lock.offer_loop)
        self._runner = Runner(self._codec, self._writer, self._loop, self._after_run)
        on_rejected = transport.close if closes_when_rejected else lambda: None
        self._receiver = Receiver(
            self._runner, self._calls, self._loop, self._thread_pool, self._send, self._on_stop, on_rejected
        )
        self._readiness = Readiness(self._send, getattr(sys.modules.get("iii_launcher"), "imports", None))
        reader = LineReader(self._codec, revive=self._revive)
        self._dispatcher = Dispatcher(
            transport,
            lock,
            reader,
            self._writer,
            thread_pool,
            self._receiver,
            self._runner,
            self._on_end,
        )
        self._send(announcement_from(self._options, self._namespace))

    @property
    def worker_id(self) -> str | None:
        """The id that the engine gave this worker. Waits up to 10 s for it; None without an answer."""
        self._dispatcher.watch()
        self._receiver.identified.wait(IDENTITY_TIMEOUT)
        return self._receiver.identity.get("worker_id")

    @property
    def config(self) -> dict[str, Any]:
        """The worker's `config` table of iii.toml as a dict, empty without one."""
        (config,) = self._codec.decode_block((os.environ.get("III_CONFIG") or "{}").encode())
        return config if isinstance(config, dict) else {}

    @property
    def rejection(self) -> RegistrationRejectedError | None:
        """The error with which the engine has refused this worker for good, None if it has not."""
        rejection = self._receiver.rejection
        return rejection if isinstance(rejection, RegistrationRejectedError) else None

    def get_address(self) -> str:
        """Return the address of the engine, `stdio:` for a supervised worker."""
        return self._address

    def get_connection_state(self) -> str:
        """Return `connecting`, `connected`, `reconnecting`, `disconnected` or `failed`."""
        return "failed" if self._receiver.rejection is not None else self._state

    def add_connection_state_listener(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call `listener(state)` now and at every change; return a function that removes the listener.

        The states are those of `get_connection_state`.
        """
        self._state_listeners.append(listener)
        listener(self.get_connection_state())
        return lambda: self._state_listeners.remove(listener) if listener in self._state_listeners else None

    def before_stop(self, listener: Callable[[float], object]) -> None:
        """Call `listener(seconds)` on a thread when the engine asks this worker to stop.

        For a worker that serves clients of its own, such as a web server; to be called before the worker is ready. The
        process stays until the listener has returned, for `seconds` at most (0: no limit), and can call functions
        meanwhile. If the listener returns a function, that is called last, when no handler runs any more: the place to
        close a file that handlers write to.
        """
        self._readiness.lingers = True
        self._stop_listeners.append(listener)

    def create_channel(self, buffer_size: int | None = None) -> Channel:
        """Make a channel whose writer blocks once `buffer_size` messages (64 by default) wait for the reader.

        `channel.writer` and `channel.reader` are used here; `writer_ref` or `reader_ref` travels in a payload.
        The channel ends when one of its ends is not opened within five minutes. InvocationError as of any call.

            channel = worker.create_channel()
            worker.trigger({"function_id": "files::read", "payload": {"into": channel.writer_ref}})
        """
        return self._channel_from(self.trigger(CREATE_CHANNEL, {"buffer_size": buffer_size}))

    async def create_channel_async(self, buffer_size: int | None = None) -> Channel:
        """As `create_channel`, without blocking the event loop."""
        return self._channel_from(await self.trigger_async(CREATE_CHANNEL, {"buffer_size": buffer_size}))

    def current_invocation(self) -> InvocationContext | None:
        """Return the invocation that the calling code runs in, None outside a handler."""
        return current_invocation()

    def record_spans(self, spans: Sequence[Mapping[str, Any]]) -> None:
        """Send spans that have ended, many in one message: for a server that times its requests itself.

        Keys of a span: `name`, `trace_id`, `span_id` and `parent_span_id` (hexadecimal, None for a root), `flags` (of
        its trace context: 1 recorded, 2 undecided), `start_time_unix_nano`, `end_time_unix_nano`, `status` (`ok`,
        `error` or `unset`), `status_description`, `attributes`.
        """
        # By the library alone: the texts and numbers of a span need no look for what JSON has not.
        self._writer.add(b'{"type":"telemetry","spans":' + self._codec.encode_text(spans) + b"}")
        self._writer.flush()

    def ready(self) -> None:
        """Tell the engine that all registrations are made. Happens by itself at the end of the script."""
        self._readiness.announce()

    async def connect_async(self) -> None:
        """Do nothing: a worker connects by itself. Kept for code of the public SDK."""

    def shutdown(self) -> None:
        """End the connection; outstanding and later calls fail with InvocationError `SHUTDOWN`."""
        self._calls.end(InvocationError(ErrorCode.SHUTDOWN, "the worker has been shut down"))
        self._writer.flush()
        self._loop.stop()
        self._transport.close()
        self._thread_pool.close()
        self._set_state("disconnected")

    async def shutdown_async(self) -> None:
        """As `shutdown`, without blocking the running loop."""
        import asyncio  # loaded by the loop this runs on

        await asyncio.to_thread(self.shutdown)

    def _serve(self) -> None:
        """Stay on the main thread, once the script has ended, until the engine closes the wire.

        Another thread reads: Python runs signal handlers on the main thread, and what they raise there must end neither
        the reading nor a call. SystemExit and KeyboardInterrupt of such a handler end the process, as anywhere.
        """
        if self._runner.is_forked:
            return  # the script forked, and this is the child
        self._main_serves = True
        self._readiness.announce()
        self._dispatcher.watch()
        while not self._dispatcher.ended.is_set():
            try:
                self._dispatcher.ended.wait()
            except Exception:  # noqa: BLE001 - the boundary to a user's signal handlers
                report("a signal handler has raised")

    def _serve_on_threads(self, *, at_once: bool = False) -> None:
        """Serve on threads of the SDK; `ready` follows when the script's body is parked or has ended.

        `at_once`: begin to read now, even if the main thread will serve as soon as the body has ended.
        """

        def begin_when_parked() -> None:
            self._readiness.announce_when_parked()
            if not self._main_serves:
                self._dispatcher.watch()

        self._thread_pool.run(begin_when_parked)
        if at_once:
            self._dispatcher.watch()

    def _greeting(self) -> list[bytes]:
        """Return the lines that open a new connection of this worker: who it is and was, and all it has registered."""
        identity = self._receiver.identity
        messages = [announcement_from(self._options, self._namespace), *self._registrations.values()]
        if identity:
            fields = {"previous_worker_id": identity["worker_id"], "reattach_token": identity.get("reattach_token")}
            messages.insert(0, {"type": "reattach", **fields})
        if self._readiness.announced.is_set():
            messages.append({"type": "ready"})
        return [self._codec.encode(message) for message in messages]

    def _on_lost(self) -> None:
        """Fail the calls, and cancel the streams, that the lost connection carried."""
        text = "Invocation stopped: the connection to the engine was lost"
        self._calls.interrupt(InvocationError(ErrorCode.INVOCATION_STOPPED, text))
        self._runner.end_streams()

    def _on_end(self) -> None:
        """Fail all outstanding and later calls: the wire has ended. A supervised process leaves."""
        if self._dispatcher.has_failed and self._transport.owns_process:
            os._exit(1)  # another generation shall take over
        self._calls.end(InvocationError(ErrorCode.SHUTDOWN, "the connection to the engine has ended"))
        self._receiver.identified.set()
        if self._state != "failed":
            self._set_state("disconnected")
        if self._transport.owns_process:
            leave_process(main_returns=self._main_serves)

    def _on_stop(self, seconds: float) -> None:
        """Let listeners and running handlers end within `seconds` (0: no limit), then leave: the engine asks for it.

        Only the engine that supervises this process can end it; the stop of another one ends the connection, and the
        worker connects again as after any loss.
        """

        def stop() -> None:
            closing = []
            for listener in self._stop_listeners:
                try:
                    closing.append(listener(seconds))
                except BaseException:  # noqa: BLE001 - the boundary to a user's listener
                    report("a listener of before_stop has raised")
            self._runner.drain().wait(seconds or None)
            for close in filter(callable, closing):
                try:
                    close()
                except BaseException:  # noqa: BLE001 - as above
                    report("what a listener of before_stop has returned has raised")
            self._writer.flush()
            if self._transport.owns_process:
                # The main thread may be blocked in a read: it cannot be the one that leaves.
                leave_process(main_returns=False)
            elif self._is_supervised_here() or not self._transport.reconnect():
                self._dispatcher.end()

        self._thread_pool.run(stop)

    def _is_supervised_here(self) -> bool:
        """Whether the engine of this connection is the one that has started this process."""
        own = os.environ.get("III_WS_URL"), os.environ.get("III_URL")
        return "III_RUN_ID" in os.environ and self._address in own

    def _set_state(self, state: str) -> None:
        if state != self._state:
            self._state = state
            for listener in list(self._state_listeners):
                try:
                    listener(state)
                except BaseException:  # noqa: BLE001 - the boundary to a user's listener
                    report("a listener of the connection state has raised")

    @property
    def _channel_connector(self) -> ChannelConnector:
        from iii.worker.channels import ChannelConnector  # most workers have none

        return ChannelConnector(self._address, headers_from(self._options))

    def _channel_from(self, refs: dict[str, dict[str, str]]) -> Channel:
        from iii.worker.channels import Channel  # most workers have none

        return Channel(self._channel_connector, refs)

    def _revive(self, payload: Any) -> Any:
        from iii.worker.channels import revive  # most workers have no channels

        return revive(payload, self._channel_connector)

    def _disconnect_child(self, why: str) -> None:
        """Take the connection away from this process, which was forked from the worker's; calls fail from then on."""
        self._transport.abandon()
        self._reader_lock.abandon()
        self._loop.abandon()
        self._runner.is_forked = True
        self._readiness.module_count = -1  # for `_after_run`
        self._receiver.rejection = InvocationError(ErrorCode.NOT_CONNECTED, why)

    def _after_run(self) -> None:
        readiness = self._readiness
        if len(sys.modules) != readiness.module_count:
            if self._runner.is_forked:
                end_child("a handler")
            readiness.refresh()
        if self._countdown > 0:
            self._note_use()

    def _note_use(self) -> None:
        """Count an invocation or a call, and load a fast JSON library once they are many, or large."""
        self._countdown -= 1
        codec = self._codec
        if (self._countdown <= 0 or codec.slow_bytes > BYTES_BEFORE_UPGRADE) and codec.package == "json":
            self._countdown = min(self._countdown, 0)
            self._thread_pool.run(codec.upgrade)

    def _send(self, message: Message) -> None:
        self._writer.add(self._codec.encode(message))
        self._writer.flush()

    def _send_span(self, span: Message) -> None:
        """Send a span, unless the engine has not read for so long that much waits already."""
        if self._writer.is_behind:
            self._lost_spans += 1
            return
        lost, self._lost_spans = self._lost_spans, 0
        self._send({"type": "telemetry", "spans": [span], **({"dropped": lost} if lost else {})})

    def __repr__(self) -> str:
        name = self._options.worker_name or "unnamed"
        return f"<Worker {name} {self._state}, {len(self._receiver.functions)} functions, {len(self._runner)} running>"


# What the public SDK's type hints call a worker.
IIIClient = Worker

_is_leaving = Event()  # set by the first call of `leave_process`


def leave_process(*, main_returns: bool) -> None:
    """End the process with code 0 within `EXIT_TIMEOUT`, whatever user threads do. Returns at once; safe to call twice.

    `main_returns`: the main thread is about to end the interpreter the usual way, unless a user thread keeps it.
    """

    def leave() -> None:
        if main_returns:
            Event().wait(EXIT_TIMEOUT)
        else:
            finisher = Thread(target=_run_exit_handlers, name="iii-atexit", daemon=True)
            finisher.start()
            finisher.join(EXIT_TIMEOUT)
        os._exit(0)

    if not _is_leaving.is_set():
        _is_leaving.set()
        Thread(target=leave, name="iii-exit", daemon=True).start()


def _run_exit_handlers() -> None:
    import atexit  # only at the very end

    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
