"""The command line as text: every command with its arguments and options, and the exit codes.

python -m tests.cli.surface > tests/cli/surface.txt
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from typer.main import get_command

from ditr.cli.main import app
from ditr.errors import ExitCode


def surface_text() -> str:
    """One paragraph a command: names, then type, default, whether it is needed and may be given several times."""
    exits = [f"exits {code.value:<4}{code.name.lower()}" for code in ExitCode]
    return "\n\n".join(["\n".join(exits), *("\n".join(lines) for lines in _commands(get_command(app), "ditr"))]) + "\n"


def _commands(command: Any, name: str) -> Iterator[list[str]]:
    """Of a command and of all below it, in the order of their help."""
    own = get_type_hints(inspect.unwrap(command.callback)) if command.callback else {}
    parameters = [parameter for parameter in command.params if parameter.name in own]  # without those Typer adds
    yield [name, *(_parameter(parameter, command.callback) for parameter in parameters)]
    for below, child in getattr(command, "commands", {}).items():
        yield from _commands(child, f"{name} {below}")


def _parameter(parameter: Any, callback: Any) -> str:
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    if parameter.param_type_name == "argument":
        names = parameter.metavar or parameter.name.upper()
    facts = [_type(parameter.name, callback)]
    if parameter.nargs != 1:
        facts.append("several" if parameter.nargs == -1 else f"{parameter.nargs} values")
    facts += ["repeatable"] if parameter.multiple else []
    facts += ["required"] if parameter.required else [f"default {_default(parameter.default)}"]
    return f"  {names:<22}{', '.join(facts)}"


def _type(name: str, callback: Any) -> str:
    """As our own function declares it: Typer's inner types are of its version."""
    hint = get_type_hints(inspect.unwrap(callback), include_extras=True)[name]
    limits = ""
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        found = [(info.min, info.max) for info in extras]
        limits = "".join(
            f" {low if low is not None else ''}..{high if high is not None else ''}" for low, high in found
        )
        limits = limits if limits.strip(" .") else ""
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (one for one in get_args(hint) if one is not NoneType)
    if get_origin(hint) is list:
        (hint,) = get_args(hint)
    if issubclass(hint, Enum):
        return "|".join(str(one.value) for one in hint)
    return {"str": "text", "bool": "flag", "Path": "path"}.get(hint.__name__, hint.__name__) + limits


def _default(value: Any) -> str:
    return str(value.value if isinstance(value, Enum) else value).lower() or "''"


if __name__ == "__main__":
    print(surface_text(), end="")
