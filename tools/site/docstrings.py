"""How docstrings of this library become Markdown: an extension of griffe, for ``mkdocs.yml``.

- ``::`` before indented lines begins a block of Python.
- A public name in single backticks leads to its place in the reference.
- A class whose ``__init__`` a decorator makes, as those of messages, is shown with its parameters.
"""

import importlib
import inspect
import re
from typing import Any, Final

import griffe

BLOCK: Final = re.compile(r"::\n\n((?: {4}.*\n| *\n)+)")
NAME: Final = re.compile(r"(?<![`\[\w])`(\w+)(?:\(\))?`(?!`)")


class Docstrings(griffe.Extension):
    """Rewrites docstrings before they are parsed."""

    def __init__(self) -> None:
        self.public: dict[str, str] = {}

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Rewrite the docstrings of a package that has been loaded."""
        if pkg.path != "workerbus":
            return
        self.public = names_of(pkg)
        self.rewrite(pkg)
        for path in self.public.values():
            show_parameters(pkg, path)

    def rewrite(self, thing: griffe.Object) -> None:
        """Rewrite the docstrings of an object and of what is in it."""
        if thing.docstring is not None:
            thing.docstring.value = self.rewritten(thing.docstring.value)
        for member in thing.members.values():
            if isinstance(member, griffe.Object):
                self.rewrite(member)

    def rewritten(self, text: str) -> str:
        """Return a docstring as Markdown."""
        text = BLOCK.sub(block, f"{text}\n").removesuffix("\n")
        parts = re.split(r"(```.*?```)", text, flags=re.DOTALL)
        return "".join(part if part.startswith("```") else NAME.sub(self.reference, part) for part in parts)

    def reference(self, match: re.Match[str]) -> str:
        """Return a name as a link, if there is a place for it."""
        path = self.public.get(match[1])
        return match[0] if path is None else f"[{match[0]}][{path}]"


def block(match: re.Match[str]) -> str:
    """Return a block of code with fences."""
    lines = [line.removeprefix("    ") for line in match[1].rstrip().split("\n")]
    code = "\n".join(lines)
    return f":\n\n```python\n{code}\n```\n\n"


def names_of(pkg: griffe.Module) -> dict[str, str]:
    """Return the public names, to where they are in the reference: their own, and those of the packages."""
    found: dict[str, str] = {}
    packages = [member for name, member in pkg.members.items() if not name.startswith("_")]
    for module in [pkg, *(each for each in packages if isinstance(each, griffe.Module))]:
        for name in module.exports or ():
            found.setdefault(str(name), f"{module.path}.{name}")
    return found


def show_parameters(pkg: griffe.Module, path: str) -> None:
    """Give a class the ``__init__`` that it has when the program runs, where the source has none."""
    thing = pkg[path.removeprefix("workerbus.")]
    if not thing.is_class or "__init__" in thing.all_members or is_error(thing):
        return
    module, _, name = thing.canonical_path.rpartition(".")
    try:
        signature = inspect.signature(getattr(importlib.import_module(module), name))
    except ValueError:  # it is a class of the interpreter's, or an enumeration
        return
    kinds = {kind.name.lower(): kind for kind in inspect._ParameterKind}  # noqa: SLF001 - it has no public name
    shown = [
        griffe.Parameter(
            each.name,
            annotation=None if each.annotation is each.empty else short(inspect.formatannotation(each.annotation)),
            kind=griffe.ParameterKind[next(key for key, kind in kinds.items() if kind is each.kind)],
            default=None if each.default is each.empty else repr(each.default),
        )
        for each in signature.parameters.values()
    ]
    target = thing.final_target if isinstance(thing, griffe.Alias) else thing
    target.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(*shown)))


def short(annotation: str) -> str:
    """Return an annotation without the modules of its classes."""
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])", "", annotation)


def is_error(thing: Any) -> bool:
    """Whether a class is one of an exception, whose arguments are nobody's concern."""
    return str(thing.name).endswith("Error")
