"""R14: a group of a FIFO queue is busy while the code that works on it is replaced."""

from __future__ import annotations

import itertools

from tests.support.ground import eventually
from tests.support.scene import HEAD, Scene

QUEUE = """
[workers.queue]
reload = "exclusive"
[workers.queue.config.queue_configs]
line = { type = "fifo", message_group_field = "group", concurrency = 4 }
"""
JOBS = """
@on("jobs::run")
def run(payload):
    begin = time.monotonic()
    time.sleep(0.02)
    row = f"{{payload['group']}} {{payload['number']}} {{begin}} {{time.monotonic()}} {version} {{os.getpid()}}\\n"
    with open("rows", "a") as rows:
        rows.write(row)
"""
JOBS_OF_ONE_GROUP = 40


def rows(scene: Scene) -> list[list[str]]:
    """What the jobs have written down so far: group, number, begin, end, version, pid."""
    file = scene.folder / "rows"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def test_r14_no_two_generations_hold_a_group_at_once_and_its_order_is_kept(scene: Scene) -> None:
    scene.head += QUEUE
    scene.worker("jobs", HEAD + JOBS.format(version=0))
    scene.open()
    enqueue = {"type": "enqueue", "queue": "line"}
    for number, group in itertools.product(range(JOBS_OF_ONE_GROUP), "ab"):
        outcome = scene.ask("jobs::run", {"group": group, "number": number}, action=enqueue)
        assert outcome.value["messageReceiptId"]
    for version in (1, 2, 3):
        eventually(lambda version=version: any(row[4] == str(version - 1) for row in rows(scene)))
        seen = len(scene.events)
        scene.script("jobs", JOBS.format(version=version))
        scene.wait("Reloaded", "jobs", after=seen)
    eventually(lambda: len(rows(scene)) >= 2 * JOBS_OF_ONE_GROUP)
    assert len({row[5] for row in rows(scene)}) >= 2
    for group in "ab":
        mine = [row for row in rows(scene) if row[0] == group]
        assert [int(row[1]) for row in mine] == list(range(JOBS_OF_ONE_GROUP))
        assert all(float(one[3]) <= float(next_one[2]) for one, next_one in itertools.pairwise(mine))
