"""What NATS servers have to be before data is kept there; no server."""

from __future__ import annotations

from typing import Any

import pytest

from stdlib_workers.storage.jetstream_requirements import ClusterSettings, unmet_requirement

MONITORS = ("http://n1:8222", "http://n2:8222", "http://n3:8222")


def unmet(version: tuple[int, int], sync: list[bool | None], **fields: Any) -> str | None:
    return unmet_requirement(version, ClusterSettings(("nats://n1",), "shop", "a", 1, **fields), sync)


@pytest.mark.parametrize(
    ("version", "sync", "fields", "sentence"),
    [
        ((2, 15), [True, True, True], {"monitors": MONITORS}, None),
        ((2, 15), [True, True, None], {"monitors": MONITORS}, None),
        ((3, 0), [], {"sync_always": True}, None),
        ((2, 14), [], {"sync_always": True}, "version 2.14, and lasting data needs 2.15: upgrade"),
        ((2, 9), [True] * 3, {"monitors": MONITORS}, "version 2.9, and lasting data needs 2.15: upgrade"),
        ((2, 15), [True, False, True], {"monitors": MONITORS}, "of http://n2:8222 does not sync every write"),
        ((2, 15), [True, False, True], {"monitors": MONITORS, "sync_always": True}, "does not sync every write"),
        ((2, 15), [True, None, None], {"monitors": MONITORS}, "too few of [cluster] monitors answer"),
        ((2, 15), [None] * 3, {"monitors": MONITORS, "sync_always": True}, None),
        ((2, 15), [], {}, "nothing says that the NATS servers sync every write"),
    ],
)
def test_rows_13_and_19_servers_that_would_lose_data_are_refused_in_a_sentence(
    version: tuple[int, int], sync: list[bool | None], fields: dict[str, Any], sentence: str | None
) -> None:
    said = unmet(version, sync, **fields)
    assert said is None if sentence is None else said is not None and sentence in said
