"""The reader lock and its monitor by themselves: who may take the lock, and when the monitor does."""

from __future__ import annotations

import asyncio
import threading

import pytest

from iii.worker.runtime.reader_lock import Monitor, ReaderLock
from iii.worker.runtime.threads import ThreadPool
from tests.support.worker_support import BOUND, in_thread


@pytest.fixture
def lock(request):
    return getattr(request, "param", ReaderLock)(None)


@pytest.fixture
def watch(lock):
    """Return a function that makes a monitor for the lock, and an event that tells of its taking over."""
    thread_pool, ended, taken = ThreadPool(), threading.Event(), threading.Event()
    monitors = []

    def make():
        monitors.append(Monitor(lock, thread_pool, taken.set, ended))
        return monitors[-1], taken

    yield make
    ended.set()
    for monitor in monitors:
        monitor.wake()
    thread_pool.close()


def test_the_thread_that_makes_the_lock_takes_it_back_once(lock):
    assert lock.take_back()
    assert not lock.take_back()
    assert not lock.take()


def test_another_thread_may_take_the_lock_but_not_take_it_back(lock):
    assert not in_thread(lock.take_back)()
    assert in_thread(lock.take)()


def test_a_leader_that_lost_the_lock_does_not_get_it_back_when_it_is_free_again(lock):
    in_thread(lock.take)()
    lock.free.append(None)
    assert not lock.take_back()


def test_a_loop_becomes_a_candidate_only_where_a_descriptor_can_be_watched(lock):
    loop = asyncio.new_event_loop()
    lock.offer_loop(loop, 1)
    assert lock.candidate is None
    lock.input_fd = 0
    lock.offer_loop(loop, 1)
    assert lock.candidate == (loop, 1)
    loop.close()


class HeldPool(ThreadPool):
    """Keeps a task instead of running it."""

    def run(self, task):
        self.task = task
        return True


def test_a_monitor_takes_a_free_lock_whose_leader_makes_no_progress(lock):
    thread_pool, taken = HeldPool(), threading.Event()
    monitor = Monitor(lock, thread_pool, taken.set, threading.Event())
    assert monitor.call()
    assert not lock.needs_monitor
    in_thread(thread_pool.task)()
    assert taken.is_set()
    assert not lock.free
    assert lock.needs_monitor


def test_a_monitor_sleeps_while_the_leader_reads_and_wakes_with_the_next_release(lock, watch):
    monitor, taken = watch()
    assert lock.take_back()
    assert monitor.call()
    asleep = threading.Event()
    while not lock.needs_monitor:
        asleep.wait(0.001)
    assert not taken.is_set()
    lock.free.append(None)
    lock.releases += 1
    assert monitor.call()
    assert taken.wait(BOUND)


def test_behind_a_retired_monitor_another_takes_over(lock, watch):
    monitor, taken = watch()
    assert lock.take_back()
    assert monitor.call()
    monitor.retire()
    lock.free.append(None)
    assert lock.needs_monitor
    assert monitor.call()
    assert taken.wait(BOUND)


class HookedLock(ReaderLock):
    """Calls `on_sleep` once, at the moment in which the monitor is about to sleep."""

    def __init__(self, input_fd):
        self._needs_monitor, self.on_sleep = True, None
        super().__init__(input_fd)

    @property
    def needs_monitor(self):
        return self._needs_monitor

    @needs_monitor.setter
    def needs_monitor(self, value):
        self._needs_monitor = value
        if value and self.on_sleep is not None:
            on_sleep, self.on_sleep = self.on_sleep, None
            on_sleep()


@pytest.mark.parametrize("lock", [HookedLock], indirect=True)
def test_a_monitor_that_is_retired_on_its_way_to_sleep_takes_no_wake_up_from_its_successor(lock, watch):
    monitor, taken = watch()
    assert lock.take_back()
    retired = threading.Event()

    def retire():
        monitor.retire()
        retired.set()

    lock.on_sleep = retire
    assert monitor.call()
    assert retired.wait(BOUND)
    assert monitor.call()
    asleep = threading.Event()
    while not lock.needs_monitor:
        asleep.wait(0.001)
    lock.free.append(None)
    lock.releases += 1
    assert monitor.call()
    assert taken.wait(BOUND)


@pytest.mark.parametrize("lock", [HookedLock], indirect=True)
def test_a_release_that_a_retired_monitor_sees_on_its_way_to_sleep_starts_its_successor(lock, watch):
    monitor, taken = watch()
    assert lock.take_back()

    def retire_and_release():
        monitor.retire()
        lock.releases += 1
        lock.free.append(None)

    lock.on_sleep = retire_and_release
    assert monitor.call()
    assert taken.wait(BOUND)


def test_without_a_thread_there_is_no_monitor(lock):
    monitor = Monitor(lock, ThreadPool(limit=0), lambda: None, threading.Event())
    assert not monitor.call()
    assert lock.needs_monitor
