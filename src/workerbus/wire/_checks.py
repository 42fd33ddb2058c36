"""Which classes may be registered: those of which nothing is lost on the way (N5, X1).

msgspec takes an object apart and puts it together again field by field, and does not call its constructor. So a class
that does something in a constructor of its own is refused. So are private fields, which msgspec leaves out, and types
that it cannot make from JSON.
"""

from collections.abc import Iterator, Sequence
from typing import Any, get_type_hints

from msgspec import inspect

from workerbus._message_base import BusMessage
from workerbus._wire_table import FRAMES
from workerbus.errors import RegistrationError


def check_class(cls: Any) -> None:
    """Check all that can be seen without a look at the types of the fields.

    Raises:
        RegistrationError: Objects of the class cannot travel; a `TypeError`.
    """
    name = getattr(cls, "__name__", repr(cls))
    if not (isinstance(cls, type) and (is_message_class(cls) or is_frame_class(cls))):
        raise RegistrationError(name, "it is neither a class of messages, which has a lane, nor one of frames")
    if getattr(cls, "local", False) if is_message_class(cls) else getattr(cls, "is_local", False):
        raise RegistrationError(name, "it is local, and never leaves its process")
    if "__attrs_attrs__" not in cls.__dict__:
        decorator = "@bus_message" if is_message_class(cls) else "@frame_type"
        raise RegistrationError(name, f"put {decorator} over the class, below @register")
    check_fields(cls, name)


def is_message_class(cls: type[Any]) -> bool:
    """Whether a class is one of messages that have a lane."""
    return issubclass(cls, BusMessage) and cls.system is not None


def is_frame_class(cls: type[Any]) -> bool:
    """Whether a class is one of frames."""
    return FRAMES.base is not None and issubclass(cls, FRAMES.base) and cls is not FRAMES.base


def check_fields(cls: type[Any], name: str, field_name: str | None = None) -> None:
    """Check the names of an attrs class's fields, and that it has no constructor of its own.

    Args:
        cls: The class, or one that a field of it holds.
        name: The name of the class that is to be registered.
        field_name: Its field that holds the other class; None for the class itself.

    Raises:
        RegistrationError: Something of it would be lost; a `TypeError`.
    """
    whose = "" if field_name is None else f" of {cls.__name__}"
    if "__attrs_init__" in cls.__dict__:
        why = f"the constructor{whose} is its own, and would not be called where it arrives"
        raise RegistrationError(name, f"{why}: let attrs make it", field_name=field_name)
    names: list[str] = [each.name for each in getattr(cls, "__attrs_attrs__", ())]
    for each in names or list(getattr(cls, "__dataclass_fields__", ())):
        if each.startswith("_"):
            why = f"the field {each!r}{whose} begins with an underscore, and would be left out: give it a public name"
            raise RegistrationError(name, why, field_name=each if field_name is None else field_name)


def type_of_field(name: str, field_name: str, hint: Any) -> inspect.Type:
    """Return what msgspec knows of a field's type.

    Args:
        name: The name of the class that is to be registered.
        field_name: The name of the field.
        hint: The type.

    Raises:
        RegistrationError: JSON does not bring it back; a `TypeError`.
    """
    try:
        info = inspect.type_info(hint)
    except Exception as exc:  # there are types that it says not to have implemented
        raise RegistrationError(name, str(exc), field_name=field_name) from exc
    for part in _parts(info, set()):
        if isinstance(part, inspect.CustomType):
            kind = getattr(part.cls, "__name__", part.cls)
            raise RegistrationError(
                name, f"JSON has no form for {kind}: use plain values, or classes of them", field_name=field_name
            )
        cls = getattr(part, "cls", None)
        cls = getattr(cls, "__origin__", cls)
        if isinstance(cls, type) and isinstance(part, inspect.DataclassType):
            check_fields(cls, name, field_name)
    return info


def _parts(info: Any, seen: set[int]) -> Iterator[inspect.Type]:
    """Yield a type and all that it is made of."""
    if isinstance(info, tuple):
        for each in info:
            yield from _parts(each, seen)
    elif isinstance(info, inspect.Field):
        yield from _parts(info.type, seen)
    elif isinstance(info, inspect.Type) and id(info) not in seen:
        seen.add(id(info))
        yield info
        for name in info.__struct_fields__:
            if name != "cls":
                yield from _parts(getattr(info, name), seen)


def is_open(info: inspect.Type) -> bool:
    """Whether a type leaves open what is in it, so that all of it has to be what JSON has."""
    if isinstance(info, inspect.UnionType):
        return any(map(is_open, info.types))
    if isinstance(info, inspect.DictType):
        return isinstance(info.key_type, inspect.StrType | inspect.AnyType) and is_open(info.value_type)
    if isinstance(info, inspect.ListType):
        return is_open(info.item_type)
    return isinstance(info, inspect.AnyType)


def types_of(cls: type[Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the types of fields, by name.

    Raises:
        RegistrationError: One cannot be resolved; a `TypeError`.
    """
    try:
        hints = get_type_hints(cls, include_extras=True)
    except (NameError, TypeError) as exc:
        raise RegistrationError(cls.__name__, f"an annotation cannot be resolved: {exc}") from exc
    return {name: hints.get(name, Any) for name in names}


def open_fields(cls: type[Any], types: dict[str, Any]) -> dict[str, bool]:
    """Return for each field of a class whether its type leaves open what is in it.

    Raises:
        RegistrationError: A type is none that JSON can bring back; a `TypeError`.
    """
    return {name: is_open(type_of_field(cls.__name__, name, hint)) for name, hint in types.items()}
