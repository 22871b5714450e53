"""The project's own files that this process has imported: what the engine watches to reload it.

Pure over a table of modules; the worker calls it at `ready` and again when more modules have appeared.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# Folders of installed or generated code inside a project.
FOREIGN = (".venv", "site-packages", ".iii")


def find_project_files(modules: Mapping[str, Any], project: str) -> list[str]:
    """Return the real paths of all module files under `project`, sorted, installed packages left out."""
    if not project:
        return []
    root = os.path.realpath(project).rstrip(os.sep) + os.sep
    found = set()
    for module in list(modules.values()):
        file = getattr(module, "__file__", None)
        # Most modules are the interpreter's: a cheap look first, resolving links costs system calls.
        if isinstance(file, str) and (file.startswith((root, project)) or not os.path.isabs(file)):
            found.add(os.path.realpath(file))
    return sorted(path for path in found if path.startswith(root) and not _is_foreign(path[len(root) :]))


def _is_foreign(relative: str) -> bool:
    return any(part in FOREIGN for part in relative.split(os.sep))
