"""What a caller is told of a function that is not there."""

from __future__ import annotations

from typing import Any

import pytest

from cli.client.error_hints import Request, explained

NOT_FOUND = {"code": "function_not_found", "message": "Function {id} not found in namespace default"}
SYNTAX = {"text": "SyntaxError: invalid syntax", "file": "crash.py", "line": 3}


def engine(workers: dict[str, dict[str, Any]], functions: list[str]) -> Request:
    """Return what asks an engine with these workers and functions."""
    answers = {
        "engine::workers::list": {"workers": [{"name": name, **row} for name, row in workers.items()]},
        "engine::functions::list": {"functions": [{"function_id": id} for id in functions]},
    }
    return lambda function_id, *_: {"result": answers[function_id]}


FAILED = {"state": "failed", "last_error": SYNTAX, "last_exit": "exited with code 1"}


@pytest.mark.parametrize(
    ("workers", "function_id", "message"),
    [
        ({}, "iii::queue::list", "not found: it is the queue worker's; add it with `iii add queue`"),
        ({}, "state::get", "not found: it is the state worker's; add it with `iii add state`"),
        ({"iii-state": {"state": "ready"}}, "state::gett", "not found. Did you mean state::get?"),
        (
            {"state": {"state": "failed", "last_exit": "exited with code 4"}},
            "state::get",
            "not found: the worker state has failed: exited with code 4",
        ),
        (
            {"crash": FAILED},
            "crash::y",
            "not found: the worker crash has failed: SyntaxError: invalid syntax (crash.py:3)",
        ),
        ({"crash": FAILED}, "zzz", "not found; what has failed may have it: crash (see `iii ps`)"),
        ({"math": {"state": "ready"}}, "math::ad", "not found. Did you mean math::add?"),
        ({"math": {"state": "ready"}}, "zzz", "not found"),
    ],
)
def test_a_missing_function_leads_on(workers: dict[str, dict[str, Any]], function_id: str, message: str) -> None:
    body = {**NOT_FOUND, "message": NOT_FOUND["message"].format(id=function_id)}
    error = explained(engine(workers, ["math::add", "crash::x", "state::get"]), function_id, body)
    assert error.message == f"function {function_id} {message}"


def test_a_handler_that_met_a_missing_function_keeps_its_words() -> None:
    body = {"code": "function_not_found", "message": "Function b::c not found", "stacktrace": "Traceback"}
    assert explained(engine({}, []), "a::b", body).message == "a::b: Function b::c not found"


@pytest.mark.parametrize("suggestions", [[], ["w::twice"]])
def test_a_function_of_other_namespaces_is_said_to_be_there(suggestions: list[str]) -> None:
    rows = [{"function_id": "w::twice", "namespace": name} for name in ("stock", "orders")]
    answers = {"engine::workers::list": {"workers": []}, "engine::functions::list": {"functions": rows}}
    body = {"code": "function_not_found", "message": "Function w::twice not found in namespace default"}
    body |= {"details": {"suggestions": suggestions}}
    error = explained(lambda function_id, *_: {"result": answers[function_id]}, "w::twice", body)
    assert error.message == (
        "function w::twice not found in this namespace, but in 2 other namespaces: orders, stock; "
        "choose with `--namespace`"
    )
