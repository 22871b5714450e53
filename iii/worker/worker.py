"""`Worker`: what a script holds after `register_worker()` of `connect.py`.

What it offers is `registering.py`, how it calls others `calling.py`; what comes in is the receiver's, threads are
the dispatcher's. This file joins them, and owns the connection's life.
"""

from __future__ import annotations

import os
import sys

from iii.errors import ErrorCode, InvocationError
from iii.worker.api.options import InitOptions, headers_from
from iii.worker.calling import Calling
from iii.worker.calls.call_table import CallTable
from iii.worker.codec.codec import Codec
from iii.worker.context.invocation import InvocationContext, current_invocation
from iii.worker.context.tracing import Tracing
from iii.worker.process_exit import ProcessExit
from iii.worker.registering import Registering, announcement_from
from iii.worker.runtime.dispatcher import Dispatcher
from iii.worker.runtime.event_loop import LoopThread
from iii.worker.runtime.line_reader import Intake
from iii.worker.runtime.line_writer import Outbox
from iii.worker.runtime.readiness import Readiness
from iii.worker.runtime.receiver import WorkerReceiver
from iii.worker.runtime.runner import Runner
from iii.worker.runtime.thread_pool import ThreadPool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from iii.errors import RegistrationRejectedError
    from iii.worker.channels.channels import Door
    from iii.worker.codec.codec import Message
    from iii.worker.transport.base import Transport

# A worker with this many invocations behind it is in use: a fast JSON library is worth its loading time.
CALLS_BEFORE_UPGRADE = 50
# As many bytes in longer messages make the same difference.
BYTES_BEFORE_UPGRADE = 256 * 1024
IDENTITY_SECONDS = 10.0


class Worker(Registering, Calling, Tracing):
    """A connection to the engine, and what this process offers through it. Methods are safe on any thread."""

    def __init__(
        self,
        transport: Transport,
        options: InitOptions | None = None,
        *,
        address: str = "",
        thread_pool: ThreadPool | None = None,
        state: str = "connected",
    ) -> None:
        self.options = options or InitOptions()
        # The default namespace is never named: absent means the same, and older engines know only that.
        namespace = self.options.namespace or os.environ.get("III_NAMESPACE")
        self._namespace = None if namespace == "default" else namespace or None
        self._transport = transport
        self._address = address
        self._codec = Codec()
        self._outbox = Outbox(transport.write)
        self._calls = CallTable()
        self._loop = LoopThread()
        self._runner = Runner(self._codec, self._outbox, self._loop)
        self._receiver = WorkerReceiver(self._runner, self._calls, self._loop, self._send)
        self._readiness = Readiness(self._send, os.environ.get("III_PROJECT", ""))
        self._thread_pool = thread_pool or ThreadPool()
        self._dispatcher = Dispatcher(
            transport, Intake(self._codec, revive=self._revive), self._outbox, self._thread_pool, self._receiver
        )
        self._loop.on_call = self._dispatcher.wish_for
        self._process_exit = ProcessExit()
        self._listeners: list[Callable[[str], None]] = []
        self._before_stop: list[Callable[[float], None]] = []
        self._state = state
        self._countdown = CALLS_BEFORE_UPGRADE
        self._registrations: dict[tuple[str, str], Message] = {}
        self._join_receiver()
        self._send(announcement_from(self.options, self._namespace))

    def _join_receiver(self) -> None:
        receiver = self._receiver
        receiver.on_end = self._on_end
        receiver.on_stop = self._on_stop
        receiver.run_elsewhere = self._dispatcher.call_elsewhere
        self._runner.after_run = self._after_run
        receiver.warn = _warn

    # Connection and life

    @property
    def worker_id(self) -> str | None:
        """The id that the engine gave this worker. Waits up to 10 s for it; None without an answer."""
        self._dispatcher.watch()
        self._receiver.identified.wait(IDENTITY_SECONDS)
        return self._receiver.identity.get("worker_id")

    @property
    def door(self) -> Door:
        """What opens this worker's ends of channels."""
        from iii.worker.channels.channels import Door  # most workers have none

        return Door(self._address, headers_from(self.options))

    def _revive(self, data: Any) -> Any:
        from iii.worker.channels.channels import revive

        return revive(data, self.door)

    @property
    def config(self) -> dict[str, Any]:
        """The worker's `config` table of iii.toml as a dict, empty without one."""
        line = (os.environ.get("III_CONFIG") or "{}").encode()
        (config,) = self._codec.decode_block(line)
        return config if isinstance(config, dict) else {}

    @property
    def rejection(self) -> RegistrationRejectedError | None:
        """The error with which the engine has refused this worker for good, None if it has not."""
        return self._receiver.rejection

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
        self._listeners.append(listener)
        listener(self.get_connection_state())
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def before_stop(self, listener: Callable[[float], None]) -> None:
        """Call `listener(seconds)` on a thread when the engine asks this worker to stop.

        For a worker that serves clients of its own, such as a web server; to be called before the worker is ready. The
        process stays until the listener has returned, for `seconds` at most (0: no limit), and can call functions
        meanwhile.
        """
        self._readiness.lingers = True
        self._before_stop.append(listener)

    def current_invocation(self) -> InvocationContext | None:
        """Return the invocation that the calling code runs in, None outside a handler."""
        return current_invocation()

    def greeting(self) -> list[bytes]:
        """Return the lines that open a new connection of this worker: who it is and was, and all it has registered."""
        identity = self._receiver.identity
        messages = [announcement_from(self.options, self._namespace), *self._registrations.values()]
        if identity:
            fields = {"previous_worker_id": identity["worker_id"], "reattach_token": identity.get("reattach_token")}
            messages.insert(0, {"type": "reattach", **fields})
        if self._readiness.announced.is_set():
            messages.append({"type": "ready"})
        return [self._codec.encode(message) for message in messages]

    def on_state(self, state: str) -> None:
        """Note a change of the connection, for transports that have more than one."""
        self._set_state(state)

    def on_lost(self) -> None:
        """Fail what the lost connection carried."""
        text = "Invocation stopped: the connection to the engine was lost"
        self._calls.interrupt(InvocationError(ErrorCode.INVOCATION_STOPPED, text))
        self._runner.end_streams()

    def ready(self) -> None:
        """Tell the engine that all registrations are made. Happens by itself at the end of the script."""
        self._readiness.announce()

    async def connect_async(self) -> None:
        """Do nothing: a worker connects by itself. Kept for code of the public SDK."""

    def serve(self) -> None:
        """Serve on this thread until the engine closes the wire. The launcher calls it after the script."""
        self._process_exit.serving.set()
        self._readiness.announce()
        self._dispatcher.lead()
        # Another thread leads by now, or has to begin.
        self._dispatcher.watch()
        self._dispatcher.ended.wait()

    def watch(self, *, at_once: bool = False) -> None:
        """Serve on threads of the SDK; `ready` follows when the script registers nothing more.

        `at_once`: do not leave reading to the main thread, which may have other things to do.
        """
        self._dispatcher.call_elsewhere(self._watch)
        if at_once:
            self._dispatcher.watch()

    def close_when_rejected(self) -> None:
        """Let a refusal for good end the connection: trying again would change nothing."""
        self._receiver.on_rejected = self._transport.close

    def _watch(self) -> None:
        self._readiness.announce_when_quiet()
        if not self._process_exit.serving.is_set():
            self._dispatcher.watch()

    def shutdown(self) -> None:
        """End the connection; outstanding and later calls fail with InvocationError `SHUTDOWN`."""
        self._calls.end(InvocationError(ErrorCode.SHUTDOWN, "the worker has been shut down"))
        self._outbox.flush()
        self._loop.stop()
        self._transport.close()
        self._thread_pool.close()
        self._set_state("disconnected")

    async def shutdown_async(self) -> None:
        """As `shutdown`, without blocking the running loop."""
        import asyncio  # loaded by whoever awaits this

        await asyncio.to_thread(self.shutdown)

    # What the receiver tells

    def _on_end(self) -> None:
        if self._state != "failed":
            self._set_state("disconnected")
        if self._transport.owns_process:
            self._process_exit.leave(main_returns=self._process_exit.serving.is_set())

    def _on_stop(self, seconds: float) -> None:
        self._dispatcher.call_elsewhere(lambda: self._finish(seconds))

    def _finish(self, seconds: float) -> None:
        for listener in self._before_stop:
            listener(seconds)
        self._runner.drain().wait(seconds or None)
        self._outbox.flush()
        if self._transport.owns_process:
            # The main thread may be blocked in reading: it cannot be the one that leaves.
            self._process_exit.leave(main_returns=False)
        else:
            self._dispatcher.end()

    def _after_run(self) -> None:
        self._readiness.refresh()
        if self._countdown > 0:
            self._note_use()
        else:
            self._runner.after_run = self._readiness.refresh

    def _note_use(self) -> None:
        """Count a call, one way or the other, and load a fast JSON library once they are many, or large."""
        self._countdown -= 1
        codec = self._codec
        if (self._countdown <= 0 or codec.slow_bytes > BYTES_BEFORE_UPGRADE) and codec.package == "json":
            self._countdown = min(self._countdown, 0)
            self._dispatcher.call_elsewhere(self._codec.upgrade)

    def _set_state(self, state: str) -> None:
        if state != self._state:
            self._state = state
            for listener in list(self._listeners):
                listener(state)

    def _send(self, message: Message) -> None:
        self._outbox.add(self._codec.encode(message))
        self._outbox.flush()

    def __repr__(self) -> str:
        name = self.options.worker_name or "unnamed"
        return f"<Worker {name} {self._state}, {len(self._receiver.functions)} functions, {len(self._runner)} running>"


def _warn(text: str) -> None:
    sys.stderr.write(f"iii: {text}\n")
