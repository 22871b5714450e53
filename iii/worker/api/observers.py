"""What `worker.observe` returns, and the message that asks for it. Loaded by the first observer."""

from __future__ import annotations

from threading import Condition

from iii.errors import ObserveRejection
from iii.ids import mint_id
from iii.worker.codec.text import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Literal, Required, TypedDict

    from iii.worker.codec.codec import Message

    ObserverState = Literal["pending", "active", "suspended", "error", "disposed"]

    class ObserveSource(TypedDict, total=False):
        """What `observe` takes as its source; see docs/observe.md."""

        function_id: Required[str]
        namespace: str | None
        args: Mapping[str, Any] | None
        filters: Mapping[str, Any] | None
        capture: list[Literal["input", "output", "error", "caller", "metadata"]] | None
        on: Literal["success", "error", "complete"] | None
        deliver: Literal["envelope", "input", "output"] | None

    class ObserverOptions(TypedDict, total=False):
        """What `observe` takes as its options. `expires_in_ms` are milliseconds."""

        id: str | None
        metadata: Any
        max_fires: int | None
        expires_in_ms: float | None
        max_in_flight: int | None

    class ObserverReason(TypedDict):
        """Why an observer is in its state."""

        code: str
        message: str
else:
    ObserveSource = ObserverOptions = ObserverReason = dict
    ObserverState = str

STATES = ("pending", "active", "suspended", "error", "disposed")
FEATURE = "observe.v1"
UNSUPPORTED = {"code": "UNSUPPORTED", "message": f"the engine does not support observers: it does not know {FEATURE}"}


class ObserverHandle:
    """An observer of this worker. It survives lost connections, until it is disposed of.

    `state` is `pending`, `active`, `suspended`, `error` or `disposed`; `reason` says why, as `{"code", "message"}`.
    """

    state: ObserverState = "pending"
    reason: ObserverReason | None = None

    def __init__(
        self,
        id: str,
        *,
        watch: Callable[[], None],
        run: Callable[[Callable[[], None]], object],
        forget: Callable[[ObserverHandle], object],
        withdraw: Callable[[ObserverHandle], object],
    ) -> None:
        self.id = id
        self._watch = watch
        self._run = run
        self.forget = forget
        self._withdraw = withdraw
        self._changed = Condition()
        self._listeners: list[Callable[[ObserverState, ObserverReason | None], object]] = []

    def __repr__(self) -> str:
        return f"ObserverHandle(id={self.id!r}, state={self.state!r})"

    def ready(self, timeout: float | None = None) -> None:
        """Wait until the observer is active, at most `timeout` seconds (None: without end).

        Raises `ObserveRejection` with the engine's code if it comes to nothing, and TimeoutError.
        """
        self._watch()
        with self._changed:
            if not self._changed.wait_for(lambda: self.state in ("active", "error", "disposed"), timeout):
                raise TimeoutError(f"observer {self.id} is {self.state} after {timeout:g} s")
        if self.state != "active":
            reason = self.reason or {"code": "OBSERVE_FAILED", "message": f"observer {self.id} is {self.state}"}
            raise ObserveRejection(reason["code"], reason["message"])

    async def ready_async(self) -> None:
        """As `ready`, without blocking the running loop."""
        import asyncio  # loaded by the loop this runs on

        await asyncio.to_thread(self.ready)

    def on_state_change(self, listener: Callable[[ObserverState, ObserverReason | None], object]) -> Callable[[], None]:
        """Call `listener(state, reason)` at every change, in order, on a thread; return what removes the listener."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def dispose(self) -> None:
        """End the observer."""
        if self.state != "disposed":
            self._withdraw(self)
            self.change("disposed", {"code": "UNOBSERVED", "message": "disposed by the observing worker"})

    async def dispose_async(self) -> None:
        """As `dispose`, which waits for nothing either."""
        self.dispose()

    def meet(self, identity: Mapping[str, Any]) -> None:
        """The engine has said what it knows: without observers this one comes to nothing."""
        if FEATURE not in (identity.get("features") or ()):
            self.change("error", UNSUPPORTED)

    def change(self, state: str, reason: Mapping[str, Any] | None) -> None:
        """The SDK has heard of a new state. A state that it does not know counts as pending."""
        known: ObserverState = state if state in STATES else "pending"  # type: ignore[assignment]
        said: ObserverReason | None = None
        if isinstance(reason, dict):
            said = {"code": str(reason.get("code")), "message": str(reason.get("message"))}
        with self._changed:
            if self.state == "disposed" or (known, said) == (self.state, self.reason):
                return
            self.state, self.reason = known, said
            self._changed.notify_all()
        if self._listeners:
            self._run(lambda: self._tell(known, said))

    def _tell(self, state: ObserverState, reason: ObserverReason | None) -> None:
        for listener in list(self._listeners):
            try:
                listener(state, reason)
            except BaseException:  # noqa: BLE001 - the boundary to a user's listener
                report("a listener of an observer's state has raised")


def observe_message(
    source: ObserveSource,
    target: str | Mapping[str, Any],
    options: ObserverOptions | None,
    namespace: str | None,
) -> Message:
    """Return the `observe` of these arguments: only what is set. Functions are looked for in `namespace` by default."""
    target = {"function_id": target} if isinstance(target, str) else target
    ends: dict[str, Any] = {}
    for name, end in (("source", source), ("target", target)):
        function_id = end.get("function_id")
        if not isinstance(function_id, str) or not function_id.strip():
            raise ValueError(f"the {name} of an observer needs a function_id, not {function_id!r}")
        own = None if function_id.startswith("engine::") else namespace
        ends[name] = {key: value for key, value in {"namespace": own, **end}.items() if value is not None}
    options = options or {}
    id = options.get("id") or mint_id()
    return {**options, "type": "observe", "id": id, **ends}
