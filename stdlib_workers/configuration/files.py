"""A folder with one file for each configuration, ID.yaml: `name`, `description`, `value`, `metadata`; no schema.

A file that is changed by hand is taken as `configuration::set` would, a new one registers, one that goes deletes. What
cannot be taken is told once and changes nothing. Paths and digests only: what files mean is `functions`'s.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from watchfiles import awatch

from iii import InvocationError, Logger
from stdlib_workers.configuration.entries import ID, MAX_BYTES, Configuration
from stdlib_workers.configuration.functions import MAX_CONFIGURATIONS, Configurations
from stdlib_workers.values import encode

DEBOUNCE_MS = 500
_KEYS = ("id", "name", "description", "value", "metadata")


class Folder:
    """The files of one project's configurations."""

    def __init__(self, path: Path, former: Path | None = None) -> None:
        """Open the folder. One that is not there yet takes over `former`, where the public worker had it before."""
        self._path = path
        self._log = Logger(service_name="configuration")
        self._told: dict[str, str] = {}  # file name -> digest of what was refused
        if former is not None and former.is_dir() and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            former.rename(path)
            self._log.info(f"the files of {former} are in {path} from now on")
        path.mkdir(parents=True, exist_ok=True)

    def write(self, configuration: Configuration) -> str:
        """Write a configuration's file in one step, unless it says that already; return its digest. OSError."""
        path = self._path_of(configuration.id)
        fields = dict(zip(_KEYS, (configuration.id, *configuration.content()), strict=True))
        shown = {key: value for key, value in fields.items() if value is not None or key == "value"}
        body: bytes = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True).encode()
        digest = _digest_of(body)
        if digest != self.digest(configuration.id):
            draft = path.with_name(f".{path.name}.new")
            with draft.open("wb") as stream:
                stream.write(body)
                stream.flush()
                os.fsync(stream.fileno())
            draft.replace(path)
        return digest

    def digest(self, id: str) -> str | None:
        """Return the digest of a configuration's file, None when there is no readable one."""
        try:
            return _digest_of(self._read(self._path_of(id)))
        except (OSError, ValueError):
            return None

    def remove(self, id: str) -> None:
        """Remove a configuration's file, if there is one. OSError."""
        self._path_of(id).unlink(missing_ok=True)

    def _path_of(self, id: str) -> Path:
        return self._path / f"{id}.yaml"

    def _read(self, path: Path) -> bytes:
        if not path.is_file():
            raise ValueError("it is no file")
        with path.open("rb") as stream:
            body = stream.read(MAX_BYTES + 1)
        if len(body) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        return body

    async def watch(self, configurations: Configurations) -> None:
        """Take what the files say, now and after every change."""
        await self.sync(configurations)
        async for _ in awatch(self._path, debounce=DEBOUNCE_MS, recursive=False):
            await self.sync(configurations)

    async def sync(self, configurations: Configurations) -> None:
        """Bring the store to what the files say."""
        known = {each.id: each for each in await configurations.every()}
        paths = sorted(self._path.glob("*.yaml"))
        if len(paths) > MAX_CONFIGURATIONS:
            self._log.warn(f"{self._path} has {len(paths)} files; only the first {MAX_CONFIGURATIONS} are read")
        for path in paths[:MAX_CONFIGURATIONS]:
            await self._take(path, known.get(path.stem), configurations)
        for id, configuration in known.items():
            if configuration.file is not None and not self._path_of(id).exists() and self._path.is_dir():
                await configurations.forget_file(id)

    async def _take(self, path: Path, known: Configuration | None, configurations: Configurations) -> None:
        digest = ""
        try:
            body = await asyncio.to_thread(self._read, path)
            digest = _digest_of(body)
            if (known is not None and known.file == digest) or self._told.get(path.name) == digest:
                return
            told = await asyncio.to_thread(configuration_from_text, path.stem, body, known, digest)
            await configurations.take_file(told)
        except (ValueError, OSError, InvocationError) as error:
            if self._told.get(path.name) != digest:
                reason = error.message if isinstance(error, InvocationError) else str(error)
                self._log.warn(f"{path.name}: {reason}; nothing has changed")
            self._told[path.name] = digest
        else:
            self._told.pop(path.name, None)


def configuration_from_text(id: str, body: bytes, known: Configuration | None, digest: str) -> Configuration:
    """Return what a file says; what it leaves out stays as it is `known`. ValueError for what it may not say."""
    if ID.fullmatch(id) is None:
        raise ValueError("the name of a file is an id, 1 to 64 of a-z, 0-9, `_` and `-`")
    try:
        # A few lines of aliases stand for gigabytes.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(body, Loader=yaml.SafeLoader)):
            raise ValueError("aliases (*NAME) are not taken")
        fields = yaml.safe_load(body)
        encode(fields)
    except (yaml.YAMLError, InvocationError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())[:300]) from None
    if not isinstance(fields, dict) or "value" not in fields:
        raise ValueError("it must be a table with a value")
    unknown = next((key for key in fields if key not in _KEYS), None)
    if unknown is not None:
        raise ValueError(f"unknown key `{str(unknown)[:60]}`; there are {', '.join(_KEYS)}")
    if fields.get("id", id) != id:
        raise ValueError(f"its id is {str(fields['id'])[:80]!r}, its name says {id!r}")
    texts: dict[str, Any] = {}
    for key, default in (("name", known.name if known else id), ("description", known.description if known else "")):
        texts[key] = fields.get(key, default)
        if not isinstance(texts[key], str):
            raise ValueError(f"{key} must be a string")
    metadata = fields.get("metadata", known.metadata if known else None)
    return Configuration(id, texts["name"], texts["description"], None, fields["value"], metadata, digest)


def _digest_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
