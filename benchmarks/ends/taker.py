"""A worker that takes the feed and only counts what it gets; with no `feed` in its config it takes nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from iii import register_worker

config = json.loads(os.environ["III_CONFIG"])
counts = {"spans": 0, "dropped": 0, "total": 0}
worker = register_worker()


def take(batch: dict[str, Any]) -> None:
    """Add a batch up, for whoever reads the file when all is over."""
    counts["spans"] += len(batch["spans"])
    counts["dropped"] += batch["dropped"]["spans"]
    counts["total"] = batch["calls"]["total"]
    Path(config["counts"]).write_text(json.dumps(counts), encoding="utf-8")


worker.register_function("bench::take", take)
if config["feed"]:
    worker.register_trigger({"type": "telemetry", "function_id": "bench::take", "config": json.loads(config["feed"])})
