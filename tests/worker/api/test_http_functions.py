"""Functions that live behind a URL, as a worker registers them: our config, the public SDK's model, and their forms."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel

from iii.http import HttpAuthApiKey, HttpAuthBearer, HttpAuthHmac, HttpInvocationConfig

URL = "https://api.example/f"


@pytest.mark.parametrize(
    ("auth", "wire"),
    [
        (HttpAuthHmac("VAR"), {"type": "hmac", "secret_key": "VAR"}),
        (HttpAuthBearer(token_key="VAR"), {"type": "bearer", "token_key": "VAR"}),
        (HttpAuthApiKey("x-key", "VAR"), {"type": "api_key", "header": "x-key", "value_key": "VAR"}),
    ],
)
def test_a_config_goes_out_whole(joined, auth, wire):
    worker, engine = joined
    config = HttpInvocationConfig(URL, method="PUT", timeout_ms=5000, headers={"x-a": "b"}, auth=auth)
    worker.register_function("a::b", config, description="Far away", metadata={"tier": 1})
    told = engine.expect("registerfunction", id="a::b")
    assert told["invocation"] == {
        "url": URL,
        "method": "PUT",
        "timeout_ms": 5000,
        "headers": {"x-a": "b"},
        "auth": wire,
    }
    assert (told["description"], told["metadata"]) == ("Far away", {"tier": 1})


def test_what_is_not_said_is_left_out(joined):
    worker, engine = joined
    worker.register_function("a::b", HttpInvocationConfig(URL))
    assert engine.expect("registerfunction", id="a::b")["invocation"] == {"url": URL, "method": "POST"}


class PublicAuth(BaseModel):
    """As in the helpers of the public SDK."""

    type: Literal["bearer"] = "bearer"
    token_key: str


class PublicConfig(BaseModel):
    url: str
    method: str = "POST"
    timeout_ms: int | None = None
    headers: dict[str, str] | None = None
    auth: PublicAuth | None = None


def test_the_public_sdks_model_is_as_good(joined):
    worker, engine = joined
    worker.register_function("a::b", PublicConfig(url=URL, auth=PublicAuth(token_key="VAR")))
    told = engine.expect("registerfunction", id="a::b")["invocation"]
    assert told == {"url": URL, "method": "POST", "auth": {"type": "bearer", "token_key": "VAR"}}


def test_it_is_taken_and_withdrawn_like_any_function_and_run_by_nobody_here(joined):
    worker, engine = joined
    function = worker.register_function("a::b", HttpInvocationConfig(URL))
    with pytest.raises(ValueError, match="registered already"):
        worker.register_function("a::b", HttpInvocationConfig(URL))
    assert engine.call("a::b", {})["error"]["code"] == "function_not_invokable"
    function.unregister()
    assert engine.expect("unregisterfunction")["id"] == "a::b"
