"""Prints the public names of an `iii` package as JSON, run by the interpreter of its environment.

A name is `module.name`, a member of a class `module.Class.member`, an argument `module.name(argument)`. The names of a
module are those of its `__all__`, and without one what it defines. A part of a class that is named is named no more.
"""

import importlib
import inspect
import json
import typing

MODULES = ("channel", "engine", "errors", "helpers", "internal", "protocol", "runtime", "state", "stream", "trigger")
# What `register_worker` returns: the public SDK's class has no public name, ours has.
WORKERS = ("iii.iii", "III"), ("iii", "Worker")
ANY = inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL


def names_of(module_name):
    module = importlib.import_module(module_name)
    public = getattr(module, "__all__", None)
    if public is None:
        own = {name for name, value in vars(module).items() if getattr(value, "__module__", None) == module_name}
        public = {name for name in own if not name.startswith("_")}
    for name in sorted(public):
        value = getattr(module, name)
        if not isinstance(value, typing.TypeVar):
            yield f"{module_name}.{name}"
            yield from parts_of(f"{module_name}.{name}", value)


def parts_of(name, value):
    if not inspect.isfunction(value) and not inspect.isclass(value):
        return
    arguments = arguments_of(value)
    for argument in arguments:
        yield f"{name}({argument})"
    for member in dir(value) if inspect.isclass(value) else ():
        if not member.startswith("_") and member not in arguments and not is_of_others(value, member):
            yield f"{name}.{member}"
            part = inspect.getattr_static(value, member)
            if inspect.isfunction(part):
                yield from parts_of(f"{name}.{member}", part)


def arguments_of(value):
    try:
        parameters = inspect.signature(value).parameters.values()
    except ValueError:
        return []
    return [each.name for each in parameters if each.kind not in ANY and each.name[0] != "_" and each.name != "self"]


def is_of_others(cls, member):
    """Whether a class has a member of pydantic or of Python itself."""
    others = ("builtins", "pydantic", "enum", "typing", "abc")
    return any(member in vars(base) and base.__module__.partition(".")[0] in others for base in cls.__mro__)


def main():
    found = set(names_of("iii"))
    for name in MODULES:
        try:
            found.update(names_of(f"iii.{name}"))
        except ModuleNotFoundError:
            continue
    for module, name in WORKERS:
        try:
            worker = getattr(importlib.import_module(module), name)
        except (ModuleNotFoundError, AttributeError):
            continue
        found.update(each for each in parts_of("Worker", worker) if not each.startswith("Worker("))
    print(json.dumps(sorted(found)))


main()
