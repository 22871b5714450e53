"""A process that sends its share of the torture's jobs, and is killed now and then: arguments folder, number, jobs.

It logs what it has sent and the answers, line by line, before it goes on. Started again, it goes on behind the last
answer, with the same key for a job whose answer it has not seen.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from cli.client.connection import Connection, connect, new_id
from iii import EngineNotRunning

PRODUCERS = 8
# Every second producer sends to the ordered queue, to so many groups by turns.
GROUPS = 4
# Jobs on their way at a time. In the ordered queue one of each group: what comes after a lost one must not pass it.
WINDOWS = {"any": 16, "ordered": GROUPS}
# One job in so many cannot be accepted; is sent once more after its answer; always fails.
REFUSED, AGAIN, DOOMED = 500, 50, 400
RETRY_INTERVAL = 0.02
ANSWER_TIMEOUT_MS = 5_000


@dataclass(frozen=True)
class Job:
    """What a number stands for."""

    n: int

    @property
    def queue(self) -> str:
        """The queue it goes to."""
        return "ordered" if self.n % PRODUCERS < PRODUCERS // 2 else "any"

    @property
    def group(self) -> str | None:
        """Its group, in the ordered queue."""
        return f"g{self.n % PRODUCERS}.{self.n // PRODUCERS % GROUPS}" if self.queue == "ordered" else None

    @property
    def is_refused(self) -> bool:
        """Whether the queue must not take it."""
        return self._is_one_in(REFUSED)

    @property
    def is_doomed(self) -> bool:
        """Whether its handler always raises."""
        return self._is_one_in(DOOMED)

    @property
    def is_sent_again(self) -> bool:
        """Whether its producer does not believe the answer."""
        return self._is_one_in(AGAIN)

    def _is_one_in(self, count: int) -> bool:
        return (self.n // PRODUCERS + self.n * 7) % count == count - 1

    def call(self) -> dict[str, Any]:
        """The message that enqueues it, but for its id."""
        call = {"type": "invokefunction", "function_id": "jobs::run", "deadline_ms": ANSWER_TIMEOUT_MS}
        return call | {"data": self.payload(), "action": self.action()}

    def payload(self) -> dict[str, Any]:
        """What its handler gets."""
        return {"n": self.n, "group": self.group, "doomed": self.is_doomed}

    def action(self) -> dict[str, Any]:
        """The enqueue, with a priority that is none where it must be refused."""
        action = {"type": "enqueue", "queue": self.queue, "key": f"job-{self.n}"}
        return action | {"priority": "high"} if self.is_refused else action


class Log:
    """What this producer has done, in a file that outlives it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, *words: object) -> None:
        """Write one line. It is there even if this process is killed."""
        os.write(self._file, (" ".join(map(str, (*words, time.monotonic()))) + "\n").encode())


def left(path: Path, share: range) -> list[int]:
    """Return the numbers of a share that have no answer yet."""
    answered = set()
    if path.exists():
        answered = {int(line.split()[1]) for line in path.read_text().splitlines() if line[0] in "AX"}
    return [n for n in share if n not in answered]


def send(connection: Connection, log: Log, jobs: list[Job]) -> list[Job]:
    """Send jobs together and await all answers; return those that have to be sent again."""
    waiting = {new_id(): job for job in jobs}
    again = []
    for invocation_id, job in waiting.items():
        log.note("S", job.n)
        connection.send(job.call() | {"invocation_id": invocation_id})
    while waiting:
        message = connection.receive(ANSWER_TIMEOUT_MS / 1000)
        answered: Job | None = waiting.pop(message.get("invocation_id", ""), None)
        if answered is not None and not note_answer(log, answered, message):
            again.append(answered)
    return again


def note_answer(log: Log, job: Job, message: dict[str, Any]) -> bool:
    """Write an answer down; return whether it is one."""
    error = message.get("error")
    if error is None:
        log.note("A", job.n, message["result"]["messageReceiptId"])
        return True
    if (error.get("details") or {}).get("reason") == "invalid_options":
        log.note("X", job.n)
        return True
    return False


def produce(folder: Path, number: int, jobs: int) -> None:
    """Send until everything has its answer, with a new connection after each loss of one."""
    path = folder / f"sent-{number}"
    window = WINDOWS[Job(number).queue]
    log = Log(path)
    torturer = os.getppid()
    # Without the process that has started it, a producer must end.
    while os.getppid() == torturer:
        try:
            run = json.loads((folder / ".iii" / "run" / "engine.json").read_text())
            with connect(run["socket"]) as connection:
                numbers = left(path, range(number, jobs, PRODUCERS))
                # The same windows every time: what is left of one never goes together with the next.
                for _, block in groupby(numbers, lambda n: n // PRODUCERS // window):
                    send_all(connection, log, [Job(n) for n in block])
            return
        except (EngineNotRunning, TimeoutError, OSError, ValueError, KeyError):
            time.sleep(RETRY_INTERVAL)  # the queue is away


def send_all(connection: Connection, log: Log, jobs: list[Job]) -> None:
    """Send jobs until each has its answer, and some once more."""
    left_over = jobs
    while left_over:
        left_over = send(connection, log, left_over)
    send(connection, log, [job for job in jobs if job.is_sent_again])


if __name__ == "__main__":
    produce(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
