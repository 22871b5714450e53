"""A mistake in the engine's own code costs one call or one connection, and nobody waits for ever."""

from __future__ import annotations

from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from iii.engine.builtins.client import EngineClient
from iii.engine.security.rbac import Filter, Rules
from iii.errors import ErrorCode
from tests.support.harness import Engine


class BrokenClient(EngineClient):
    async def call(self, *_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("not even wrong")


def test_a_function_of_the_engine_that_breaks_while_it_waits_answers() -> None:
    async def divide(*_: Any) -> float:
        return 1 / 0

    with Engine() as engine, engine.client() as client:
        engine.ask(lambda: engine.builtins.serve("engine::divide", divide, ""))
        error = client.invoke("engine::divide", {})["error"]
        assert error["code"] == ErrorCode.INVOCATION_ERROR
        assert "division by zero" in error["message"]
        client.sync()


@pytest.mark.parametrize("part", ["auth_function_id", "on_function_registration_function_id"])
def test_a_check_that_breaks_ends_the_connection(part: str) -> None:
    rules = Rules(**{part: "gate::check"}, expose_functions=(Filter(match="*"),))

    def register_and_call(engine: Engine) -> None:
        with engine.guarded_client() as client:
            client.register("own::f")
            client.invoke("a::b", {})

    with Engine(rules=rules, engine_client=BrokenClient) as engine, engine.client() as worker:
        worker.register("a::b")
        worker.sync()
        with pytest.raises(ConnectionClosed) as closed:
            register_and_call(engine)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011
        worker.sync()
