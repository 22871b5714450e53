"""A function with a queue of its own: `mail(...)` calls it here and now, `mail.enqueue(...)` makes a job of that."""

from __future__ import annotations

from typing import Any, Generic, ParamSpec, TypeVar, overload

from iii.durations import parse_duration
from iii.worker.api.requests import TriggerActionEnqueue
from iii.worker.functions.signature import read_signature
from iii.worker.handlers.bindings import register, undecorated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal, Protocol, TypedDict

    from iii.worker.api.requests import Caller, EnqueueResult, TriggerRequestInput
    from iii.worker.handlers.bindings import Registry

    class QueueOptions(TypedDict, total=False):
        """The keyword arguments of `worker.queue`: the keys of a queue's config, docs/queue.md.

        `retries` are all attempts of a job (`max_retries`); `backoff` and `timeout` are seconds, or texts like `"30s"`.
        """

        function_id: str
        retries: int
        backoff: float | str
        timeout: float | str
        concurrency: int
        type: Literal["standard", "fifo"]
        message_group_field: str
        priority_field: str
        max_priority: int
        on_dead_letter: Literal["skip", "block"]
        key_window_ms: int
        condition_function_id: str
        rate_limit: Mapping[str, Any]
        throttle: Mapping[str, Any]
        concurrency_key: Mapping[str, Any]
        debounce: Mapping[str, Any]
        batch: Mapping[str, Any]
        fair_field: str

    class JobOptions(TypedDict, total=False):
        """What an enqueue may say of its job; as in `QueuedFunction.using`."""

        delay: float | str | None
        key: str | None
        group: str | None
        priority: int | None

    class QueueWorker(Registry, Caller, Protocol):
        """A worker, of which a decorated queue needs both halves."""


P = ParamSpec("P")
R = TypeVar("R")

# What a decorated queue says in the words of Python, and the keys of a queue's config that they stand for.
_DURATIONS = {"backoff": "backoff_ms", "timeout": "timeout_ms"}
_JOB_OPTIONS = ("delay", "key", "group", "priority")


def declare(
    worker: QueueWorker, function: Callable[P, R], config: dict[str, Any], function_id: str | None
) -> QueuedFunction[P, R]:
    """Register the function if this worker has not yet, and declare its queue. Errors as of `register`."""
    function = undecorated(function)
    function_id, takes_arguments = register(worker, function, function_id)
    worker.register_trigger({"type": "queue", "function_id": function_id, "config": config})
    return QueuedFunction(worker, function, config["queue"], function_id, takes_arguments=takes_arguments)


def config_from(queue: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the trigger that declares a queue. ValueError for a duration that is none."""
    config: dict[str, Any] = {"queue": queue}
    for key, value in options.items():
        if key == "retries":
            config["max_retries"] = value
        elif key in _DURATIONS:
            config[_DURATIONS[key]] = milliseconds_from(value)
        elif key != "function_id":
            config[key] = value
    return config


def milliseconds_from(duration: float | str) -> int:
    """Return a duration, in seconds or as a text like `10s`, in whole milliseconds. ValueError for anything else."""
    seconds = parse_duration(duration) if isinstance(duration, str) else duration
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e10:
        raise ValueError(f"a duration is a number of seconds or a text like '10s', not {duration!r}")
    return round(seconds * 1000)


class QueuedFunction(Generic[P, R]):
    """A function that `worker.queue` has decorated. Calling it runs it here, as any function.

    `function` is the decorated function, `function_id` its id, `queue` the name of its queue.
    """

    def __init__(
        self,
        caller: Caller,
        function: Callable[P, R],
        queue: str,
        function_id: str,
        options: JobOptions | None = None,
        *,
        takes_arguments: bool,
    ) -> None:
        self.function = function
        self.queue = queue
        self.function_id = function_id
        self.__wrapped__ = function
        self.__name__: str = getattr(function, "__name__", function_id)
        self.__doc__ = function.__doc__
        self._caller = caller
        self._signature = read_signature(function)
        self._takes_arguments = takes_arguments
        self._options: JobOptions = options or {}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself."""
        return self.function(*args, **kwargs)

    def using(
        self,
        *,
        delay: float | str | None = None,
        key: str | None = None,
        group: str | None = None,
        priority: int | None = None,
    ) -> QueuedFunction[P, R]:
        """Return this function with options for its jobs: `mail.using(delay="10s").enqueue(to="ada@example.com")`.

        `delay` in seconds, or a text like `"10s"`; one job for each idempotency `key`; in order within a `group` of a
        fifo queue; of a higher `priority` (0 to 255) first.
        """
        options: JobOptions = {"delay": delay, "key": key, "group": group, "priority": priority}
        function = self.function, self.queue, self.function_id
        return QueuedFunction(self._caller, *function, options, takes_arguments=self._takes_arguments)

    @overload
    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> EnqueueResult: ...
    @overload
    def enqueue(self, *args: Any, delay: float | str, **kwargs: Any) -> EnqueueResult: ...
    @overload
    def enqueue(self, *args: Any, key: str, **kwargs: Any) -> EnqueueResult: ...
    @overload
    def enqueue(self, *args: Any, group: str, **kwargs: Any) -> EnqueueResult: ...
    @overload
    def enqueue(self, *args: Any, priority: int, **kwargs: Any) -> EnqueueResult: ...
    def enqueue(self, *args: Any, **kwargs: Any) -> EnqueueResult:
        """Make a job of a call with these arguments, and return its receipt when the queue has it on disk.

        Options of `using` may stand beside the arguments (`mail.enqueue(to="ada", delay="10s")`); type checkers then
        know the arguments less well, and a parameter of the function's own goes before an option of its name.
        TypeError for arguments that the function does not take; InvocationError `enqueue_error` when the queue does
        not take the job.
        """
        return self._caller.trigger(self._request(args, kwargs))  # type: ignore[no-any-return]

    @overload
    async def enqueue_async(self, *args: P.args, **kwargs: P.kwargs) -> EnqueueResult: ...
    @overload
    async def enqueue_async(self, *args: Any, delay: float | str, **kwargs: Any) -> EnqueueResult: ...
    @overload
    async def enqueue_async(self, *args: Any, key: str, **kwargs: Any) -> EnqueueResult: ...
    @overload
    async def enqueue_async(self, *args: Any, group: str, **kwargs: Any) -> EnqueueResult: ...
    @overload
    async def enqueue_async(self, *args: Any, priority: int, **kwargs: Any) -> EnqueueResult: ...
    async def enqueue_async(self, *args: Any, **kwargs: Any) -> EnqueueResult:
        """As `enqueue`, without blocking the event loop."""
        return await self._caller.trigger_async(self._request(args, kwargs))  # type: ignore[no-any-return]

    def _request(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TriggerRequestInput:
        signature = self._signature
        names = [name for name in signature.names if name != "metadata"]
        options: dict[str, Any] = {**self._options}
        options |= {name: kwargs.pop(name) for name in _JOB_OPTIONS if name in kwargs and name not in names}
        arguments = dict(zip((name for name in signature.positional if name in names), args, strict=False))
        wrong = [
            name for name in kwargs if name in arguments or (name not in names and not signature.takes_any_keyword)
        ]
        missing = [name for name in signature.required if name in names and name not in (*arguments, *kwargs)]
        if wrong or missing or len(args) > len(arguments):
            fault = (
                f"takes no argument {wrong[0]!r}" if wrong else f"needs {missing[0]!r}" if missing else "has too many"
            )
            raise TypeError(f"{self.__name__}.enqueue {fault}; its arguments are {', '.join(names) or 'none'}")
        arguments |= kwargs
        delay = options.pop("delay", None)
        delay_ms = None if delay is None else milliseconds_from(delay)
        return {
            "function_id": self.function_id,
            "payload": arguments if self._takes_arguments else next(iter(arguments.values()), None),
            "action": TriggerActionEnqueue(self.queue, delay_ms=delay_ms, **options),
        }

    def __repr__(self) -> str:
        return f"<QueuedFunction {self.function_id} in {self.queue}>"
