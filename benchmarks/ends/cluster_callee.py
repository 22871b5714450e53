"""One async function, named by the worker's config."""

from __future__ import annotations

import json
import os
from typing import Any

from iii import register_worker

worker = register_worker()


async def echo(payload: dict[str, Any]) -> dict[str, Any]:
    """Return what came."""
    return payload


worker.register_function(json.loads(os.environ["III_CONFIG"])["function"], echo)
