"""Which workers a change concerns, and when a save is over."""

from __future__ import annotations

from iii.engine.reload.dependency_graph import MAX_DEBOUNCE, SAVE_DEBOUNCE, Debounce, ReloadGraph
from iii.engine.reload.globs import compile_glob
from iii.engine.supervision.restart_policy import LoopGuard


def graph() -> ReloadGraph:
    made = ReloadGraph("/p")
    made.set_files("a", frozenset({"/p/a.py", "/p/shared.py"}))
    made.set_files("b", frozenset({"/p/b.py", "/p/shared.py"}))
    made.set_globs("b", (compile_glob("templates/**"),))
    made.learn({"/p/a.py": "1", "/p/b.py": "1", "/p/shared.py": "1"})
    return made


def test_a_change_concerns_exactly_the_workers_that_import_the_file() -> None:
    assert graph().observe({"/p/a.py": "2"}) == {"a": ("/p/a.py",)}
    assert graph().observe({"/p/shared.py": "2", "/p/b.py": "2"}) == {
        "a": ("/p/shared.py",),
        "b": ("/p/shared.py", "/p/b.py"),
    }


def test_the_same_content_again_is_no_change() -> None:
    made = graph()
    assert made.observe({"/p/a.py": "1"}) == {}
    assert made.observe({"/p/a.py": "2"}) != {}
    assert made.observe({"/p/a.py": "2"}) == {}


def test_a_deleted_file_changes_nothing_until_it_comes_back_even_as_it_was() -> None:
    made = graph()
    assert made.observe({"/p/a.py": None}) == {}
    assert made.observe({"/p/a.py": "1"}) == {"a": ("/p/a.py",)}
    assert made.observe({"/p/a.py": "1"}) == {}


def test_a_new_file_of_a_glob_is_a_change() -> None:
    assert graph().observe({"/p/templates/x.html": "1"}) == {"b": ("/p/templates/x.html",)}
    assert graph().observe({"/p/other.html": "1"}) == {}


def test_a_removed_worker_is_never_concerned() -> None:
    made = graph()
    made.remove("a")
    assert made.workers_of("/p/shared.py") == {"b"}
    assert made.files == {"/p/b.py", "/p/shared.py"}


def reload_times(saves: list[float]) -> list[float]:
    """When a worker that is saved at these times (in order) is reloaded."""
    debounce, reloads = Debounce(), []
    for now in saves:
        while (due_at := debounce.next_at()) is not None and due_at <= now:
            assert debounce.due(due_at) == {"a": ("a.py",)}
            reloads.append(due_at)
        debounce.note("a", ("a.py",), now)
    while (due_at := debounce.next_at()) is not None:
        debounce.due(due_at)
        reloads.append(due_at)
    return reloads


def test_a_save_is_over_after_a_short_silence() -> None:
    assert reload_times([1.0]) == [1.0 + SAVE_DEBOUNCE]
    assert reload_times([1.0, 1.05]) == [1.05 + SAVE_DEBOUNCE]
    assert len(reload_times([1.0, 2.0])) == 2


def test_two_hundred_saves_in_two_seconds_are_at_most_three_reloads() -> None:
    saves = [number / 100 for number in range(200)]
    reloads = reload_times(saves)
    assert len(reloads) <= 3
    assert reloads[0] == MAX_DEBOUNCE
    assert reloads[-1] > saves[-1]


def test_the_longer_debounce_of_a_storm_is_forgotten_after_it() -> None:
    storm = [number / 100 for number in range(200)]
    later = [10 + number / 100 for number in range(100)]
    first_later = next(time for time in reload_times(storm + later) if time > 10)
    assert first_later == 10 + MAX_DEBOUNCE


def test_workers_are_debounced_one_by_one() -> None:
    debounce = Debounce()
    debounce.note("a", ("x",), 1.0)
    debounce.note("b", ("y",), 1.04)
    assert debounce.due(1.0 + SAVE_DEBOUNCE) == {"a": ("x",)}
    assert debounce.due(1.04 + SAVE_DEBOUNCE) == {"b": ("y",)}
    assert debounce.next_at() is None


def test_a_worker_that_changes_itself_is_reloaded_five_times_in_ten_seconds() -> None:
    guard = LoopGuard()
    assert [guard.allows("a", float(second)) for second in range(7)] == [True] * 5 + [False] * 2
    assert guard.allows("b", 6.0)
    assert guard.allows("a", 10.5)
