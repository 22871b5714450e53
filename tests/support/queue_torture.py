"""Jobs by the thousand while producers, workers, the queue and the engine are killed; then the oracle checks it all.

`python -m tests.support.queue_torture --jobs 200000 --kills 200` is the whole of it (the engine dies as often, all
others about half as often); the tests run a short one. With `--hard` the project runs under `iii dev`, its worker
starts slowly, processes are stopped (SIGSTOP), the script is saved in place while it is in use, and what dies is the
guard, the engine, or both at once. Ends with 1 when an invariant is broken.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from iii import EngineNotRunning, InvocationError
from tests.support.live_project import ROOT, Project, project
from tests.support.queue_history import History, Kill, QueueLimits, Run
from tests.support.queue_oracle import most_repeats, repeats, violations
from tests.support.queue_oracle_time import Quiet
from tests.support.queue_producer import PRODUCERS, Job

LIMITS = QueueLimits(limit=4, backoff=0.005, attempts=4)
QUEUES = ("any", "ordered")
# Jobs of the last phase: so many for each slot, of so many seconds. Slots that have leaked show then.
PROBES, PROBE_SECONDS = 40, 0.05
# A thread that wakes so much later than planned was not scheduled: the oracle leaves that time out.
LATE, INTERVAL = 0.05, 0.02
# Bytes of a producer's log for each job.
LOGGED = 90
SETTLE = 0.5
# How long a process stands still, in seconds; how long a script that is saved in place is empty; how slowly it starts.
STOPPED, HALF_SAVED, SLOW_START = 0.3, 0.03, 1.0

TOML = f"""
[engine]
listen = "off"
[workers.queue]
reload = "exclusive"
[workers.queue.config.queue_configs.any]
backoff_ms = {LIMITS.backoff * 1000:.0f}
max_retries = {LIMITS.attempts}
concurrency = {LIMITS.limit}
[workers.queue.config.queue_configs.ordered]
type = "fifo"
message_group_field = "group"
backoff_ms = {LIMITS.backoff * 1000:.0f}
max_retries = {LIMITS.attempts}
concurrency = {LIMITS.limit}
[workers.jobs]
run = "jobs.py"
instances = 2
"""

JOBS = """
import random, time
log = os.open(os.path.join(os.environ["III_PROJECT"], "history"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

def note(*words):
    os.write(log, (" ".join(map(str, (*words, time.monotonic()))) + "\\n").encode())

def run(payload, metadata):
    job = metadata["iii.job"]
    me = (payload["n"], job["attempt"], os.getpid(), job["id"])
    note("B", *me)
    time.sleep(payload.get("seconds") or random.random() * 0.002)
    if payload.get("doomed") or random.random() < 0.01:
        note("F", *me)
        raise ValueError("by chance")
    note("E", *me)

worker.register_function("jobs::run", run)
"""


class Producers:
    """The processes that send."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self._folder, self._jobs = folder, jobs
        self._processes = [self._start(number) for number in range(PRODUCERS)]
        self.killed = 0

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        script = Path(__file__).with_name("queue_producer.py")
        command = [sys.executable, str(script), str(self._folder), str(number), str(self._jobs)]
        return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})

    def kill_one(self, dice: random.Random) -> None:
        """Kill one and start it again."""
        number = dice.randrange(PRODUCERS)
        self._processes[number].kill()
        self._processes[number].wait()
        self._processes[number] = self._start(number)
        self.killed += 1

    def logged(self) -> int:
        """Return how many bytes they have logged: how far they have come."""
        return sum(path.stat().st_size for path in self._folder.glob("sent-*"))

    def end(self) -> None:
        """End those that are left, when the torture has failed."""
        for process in self._processes:
            process.kill()
            process.wait()

    def wait(self) -> None:
        """Wait until all of them have sent everything."""
        for process in self._processes:
            if process.wait():
                raise RuntimeError(f"a producer ended with {process.returncode}")


class Canary(Thread):
    """Notes when this machine did not schedule its processes."""

    def __init__(self, history: History) -> None:
        super().__init__(name="canary", daemon=True)
        self._history = history
        self.is_over = Event()

    def run(self) -> None:
        """Wake again and again, and see how late it is."""
        before = time.monotonic()
        while not self.is_over.wait(INTERVAL):
            now = time.monotonic()
            if now - before > INTERVAL + LATE:
                self._history.quiet.append((before, now))
            before = now


def torture(folder: Path, jobs: int, kills: int, seed: int, *, is_hard: bool = False) -> History:
    """Run it all and return the history. The kills are spread over the time that the producers take."""
    dice = random.Random(seed)
    history = History(limits=dict.fromkeys(QUEUES, LIMITS))
    canary = Canary(history)
    canary.start()
    with hard_project(folder) if is_hard else project(folder, TOML, {"jobs": JOBS}) as running:
        producers = Producers(folder, jobs)
        try:
            for _ in range(kills):
                if is_hard:
                    disturb(running, history, dice)
                kill_at_random(running, producers, history, dice)
                wait_for_progress(producers, LOGGED * dice.randint(1, max(2, 2 * jobs // (kills + 1))))
                kill_engine(running, history, dice.choice(["guard", "engine", "both"]) if is_hard else "guard")
            producers.wait()
        finally:
            producers.end()
        drain(running)
        probe(running, history, jobs)
        history.figures = {queue: stats(running, queue) for queue in QUEUES}
        history.dead = {letter["payload"]["n"] for queue in QUEUES for letter in dead(running, queue)}
        history.pending = {message["payload"]["n"] for queue in QUEUES for message in waiting(running, queue)}
    canary.is_over.set()
    canary.join()
    read_logs(folder, history)
    return history


@contextmanager
def hard_project(folder: Path) -> Iterator[Project]:
    """A project under `iii dev` whose worker takes its time to start."""
    begin = f"import time\ntime.sleep({SLOW_START})\n"
    made = Project(folder, TOML, {"jobs": begin + JOBS})
    made.start("dev")
    try:
        yield made
    finally:
        made.stop()


def disturb(running: Project, history: History, dice: random.Random) -> None:
    """Let a process stand still for a moment, or save the worker's script in place: first nothing of it, then all."""
    begin = time.monotonic()
    choice = dice.choice(["jobs", "queue", "engine", "save"])
    if choice == "save":
        script = running.folder / "jobs.py"
        text = script.read_text()
        script.write_text("")
        time.sleep(HALF_SAVED)  # as an editor or a slow disk would leave it
        script.write_text(f"{text}# saved\n")
    else:
        try:
            pid = engine_pid(running) if choice == "engine" else running.pid_of(choice)
            os.kill(pid, signal.SIGSTOP)
            time.sleep(STOPPED)  # it stands still
            os.kill(pid, signal.SIGCONT)
        except (InvocationError, EngineNotRunning, OSError, StopIteration, TypeError):
            return
    await_service(running)
    history.quiet.append((begin, time.monotonic() + SETTLE))


def engine_pid(running: Project) -> int:
    """Return the engine's process, which is not the one at the top: that is its guard."""
    return int((running.folder / ".iii" / "run" / "lock").read_text())


def wait_for_progress(producers: Producers, size: int) -> None:
    """Wait until they have logged so many more bytes, or nothing moves for a while."""
    goal = producers.logged() + size
    for _ in range(500):
        if producers.logged() >= goal:
            return
        time.sleep(0.01)  # between two looks


def kill_at_random(running: Project, producers: Producers, history: History, dice: random.Random) -> None:
    """Kill a producer, the queue, a worker that runs jobs, or none of them."""
    victim = dice.choice(["producer", "queue", "jobs", "none"])
    if victim == "producer":
        producers.kill_one(dice)
    elif victim != "none":
        kill_worker(running, history, victim)


def kill_worker(running: Project, history: History, worker: str) -> None:
    """Kill the process of a worker, and wait until there is another."""
    try:
        pid = running.pid_of(worker)
        begin = time.monotonic()
        os.kill(pid, signal.SIGKILL)
    except (InvocationError, EngineNotRunning, ProcessLookupError, StopIteration, TypeError):
        return
    history.kills.append(Kill(begin, time.monotonic(), pid if worker == "jobs" else None))
    await_service(running)
    history.quiet.append((begin, time.monotonic() + SETTLE))


def kill_engine(running: Project, history: History, victim: str = "guard") -> None:
    """Kill the engine's guard, and the engine with it, or the engine, which the guard starts again, or both at once."""
    begin = time.monotonic()
    if victim != "guard":
        os.kill(engine_pid(running), signal.SIGKILL)
    if victim != "engine":
        running.kill()
    history.kills.append(Kill(begin, time.monotonic()))
    if victim != "engine":
        running.start(running.command)
    await_service(running)
    history.quiet.append((begin, time.monotonic() + SETTLE))


def await_service(running: Project) -> None:
    """Wait until the queue answers."""
    while True:
        try:
            stats(running, "any")
            return
        except (InvocationError, EngineNotRunning, OSError, ValueError):
            time.sleep(0.02)  # between two looks


def stats(running: Project, queue: str) -> dict[str, int]:
    """Return the queue's own figures."""
    figures: dict[str, int] = running.call("engine::queue::topic_stats", {"topic": queue})
    return figures


def drain(running: Project) -> None:
    """Wait until nothing waits and nothing runs."""
    while any(stats(running, queue)["depth"] for queue in QUEUES):
        time.sleep(0.05)  # between two looks


def probe(running: Project, history: History, jobs: int) -> None:
    """Fill both queues while they are paused, then let them run: all slots have to be there."""
    begin = time.monotonic()
    for queue in QUEUES:
        running.call("iii::queue::pause", {"queue": queue})
    numbers = [
        n
        for n in range(jobs, jobs + len(QUEUES) * PROBES * LIMITS.limit)
        if not (Job(n).is_refused or Job(n).is_doomed)
    ]
    with running.connect() as connection:
        for n in numbers:
            job = Job(n)
            history.sent[n] = time.monotonic()
            payload = job.payload() | {"seconds": PROBE_SECONDS}
            answer = connection.request("jobs::run", payload, 20_000, action=job.action())
            history.acked[n] = time.monotonic()
            history.receipts[n].add(answer["result"]["messageReceiptId"])
    for queue in QUEUES:
        running.call("iii::queue::resume", {"queue": queue})
    history.quiet.append((begin, resumed := time.monotonic()))
    drain(running)
    history.full.append((resumed, time.monotonic()))


def dead(running: Project, queue: str) -> list[dict[str, Any]]:
    """Return all dead letters of a queue."""
    return pages(lambda page: running.call("engine::queue::dlq_messages", {"topic": queue, **page}))


def waiting(running: Project, queue: str) -> list[dict[str, Any]]:
    """Return all live jobs of a queue."""
    return pages(lambda page: running.call("iii::queue::peek", {"queue": queue, **page})["messages"])


def pages(ask: Callable[[dict[str, int]], list[dict[str, Any]]], size: int = 500) -> list[dict[str, Any]]:
    """Return the rows of all pages."""
    rows: list[dict[str, Any]] = []
    while True:
        page = ask({"offset": len(rows), "limit": size})
        rows += page
        if len(page) < size:
            return rows


def read_logs(folder: Path, history: History) -> None:
    """Add what producers and workers have written down."""
    for path in folder.glob("sent-*"):
        for line in path.read_text().splitlines():
            note_sent(history, *line.split())
    history.runs = runs_from((folder / "history").read_text())
    for n in history.sent:
        job = Job(n)
        history.queue_of[n] = job.queue
        if job.group is not None:
            history.group_of[n] = job.group


def note_sent(history: History, kind: str, number: str, *rest: str) -> None:
    """Take one line of a producer: S(ent), A(cknowledged, with the receipt), or X (refused)."""
    n, moment = int(number), float(rest[-1])
    if kind == "S":
        history.sent.setdefault(n, moment)
    elif kind == "X":
        history.refused.add(n)
    else:
        history.acked.setdefault(n, moment)
        history.receipts[n].add(rest[0])


def runs_from(text: str) -> list[Run]:
    """Return the executions that the workers' log tells of."""
    runs: dict[tuple[int, int, int], Run] = {}
    for line in text.splitlines():
        kind, n, attempt, pid, receipt, moment = line.split()
        me = (int(n), int(attempt), int(pid))
        if kind == "B":
            runs[me] = Run(*me, float(moment), id=receipt)
        else:
            runs[me] = Run(*me, runs[me].begin, float(moment), kind == "F", receipt)
    return list(runs.values())


def main() -> int:
    """Run from the command line; 1 when an invariant is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=200, help="how often the engine is killed")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--hard", action="store_true", help="slow starts, SIGSTOP, saves in place, kills of the guard")
    given = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        history = torture(Path(folder), given.jobs, given.kills, given.seed, is_hard=given.hard)
    print(report(history, given.seed, time.monotonic() - begin))
    found = violations(history)
    print(f"{len(found)} violations", *found[:50], sep="\n")
    return int(bool(found))


def report(history: History, seed: int, seconds: float) -> str:
    """Return what has happened, in figures."""
    workers = sum(kill.pid is not None for kill in history.kills)
    quiet = sum(until - since for since, until in Quiet(history).spans)
    return (
        f"seed {seed}, {seconds:.0f} s: {len(history.sent)} sent, {len(history.acked)} acknowledged, "
        f"{len(history.refused)} refused, {len(history.runs)} runs, {len(history.dead)} dead, "
        f"{len(history.pending)} pending\n"
        f"{len(history.kills) - workers} kills of engine or queue, {workers} of workers; {repeats(history.by_job())} "
        f"repeats, at most {most_repeats(history)} explained; nothing asked for {quiet:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
