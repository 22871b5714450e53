"""When the SDK takes the main thread for parked."""

from __future__ import annotations

import hashlib
import sys
import threading

import pytest

from iii.worker.runtime.readiness import is_asleep


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel does not say, and every thread counts")
def test_a_thread_that_has_work_is_not_asleep():
    # Works without the interpreter's lock, so that it can be watched at work.
    busy = threading.Thread(target=hashlib.pbkdf2_hmac, args=("sha256", b"secret", b"salt", 2_000_000))
    busy.start()
    seen = set()
    while busy.is_alive() and False not in seen:
        seen.add(is_asleep(busy.native_id))
    busy.join()
    assert False in seen


def test_a_thread_that_waits_is_asleep():
    waiting, end = threading.Event(), threading.Event()

    def wait():
        waiting.set()
        end.wait(30)

    thread = threading.Thread(target=wait)
    thread.start()
    waiting.wait(30)
    seen = set()
    while thread.is_alive() and True not in seen:
        seen.add(is_asleep(thread.native_id))
    end.set()
    thread.join()
    assert True in seen


def test_a_thread_that_has_ended_stands_for_good():
    assert is_asleep(None)
