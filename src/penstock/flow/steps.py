"""What a step is: a value, a name and what is to be done. It is checked when it is built, and never changes.

Steps that are called are leaves: see `penstock.flow.leaf`, which says how a kind of them is added. The other kinds
(`penstock.flow.shapes`, `Pipeline`) are structure.
"""

from collections.abc import Callable, Collection, Mapping
from functools import wraps
from types import FunctionType
from typing import Any, ClassVar, Final, Generic, Self, TypeVar, cast, override

from penstock.core.errors import OptionError

I_contra = TypeVar("I_contra", contravariant=True)
O_co = TypeVar("O_co", covariant=True)

LONGEST_NAME: Final = 100
"""Characters of the name of a step."""


class Step(Generic[I_contra, O_co]):  # noqa: UP046 -- the new form infers no variance from a class without members
    """One step of a pipeline, made by `step`, `parallel`, `review` and the like; a `Pipeline` is one, too.

    Attributes:
        name: 1 to 100 printable characters without `/`, `[`, `]`; unique among its siblings.
    """

    __slots__ = ("__weakref__", "name")
    kind: ClassVar[str] = "step"
    name: str

    def __init__(self, name: str) -> None:
        self._set(name=checked_name(name))

    def _set(self, **attributes: object) -> None:
        """Set what it consists of, while it is built."""
        for name, value in attributes.items():
            object.__setattr__(self, name, value)

    @override
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{self!r} is immutable: {name} cannot be set")

    @override
    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{self!r} is immutable: {name} cannot be deleted")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __setstate__(self, state: tuple[None, Mapping[str, object]]) -> None:
        self._set(**state[1])

    @override
    def __repr__(self) -> str:
        return f"<{self.kind} {self.name!r}>"

    def children(self) -> "Mapping[str, Step[Any, Any]]":
        """Return the steps in it, by their names; of a map or a loop its body, under its own name."""
        return {}


def as_step(given: object, what: str) -> Step[Any, Any]:
    """Return `given`, if it is a step."""
    if not isinstance(given, Step):
        raise OptionError(f"{what} must be a step, as step() and Pipeline() make them, got {given!r}")
    return cast("Step[Any, Any]", given)


def checked_name(name: object, whose: str = "name") -> str:
    """Return `name`, if a step can be called so."""
    text = name if isinstance(name, str) else ""
    if not 0 < len(text) <= LONGEST_NAME or not text.isprintable() or set(text) & set("/[]") or text in {".", ".."}:
        raise OptionError(
            f"{whose} must be a str of 1 to {LONGEST_NAME} printable characters without / [ ], and not '.' or '..', "
            f"got {name!r}"
        )
    return text


def refuse_unknown(whose: str, options: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise `OptionError` for an option that is not among those `known`."""
    for option in options:
        if option not in known:
            raise OptionError(f"{whose} has no option {option!r}: there are {', '.join(sorted(known)) or 'none'}")


def refuses_unknown[F: Callable[..., Any]](made: F) -> F:
    """Have a function, or the constructor of a class, refuse options that it has not, and tell those that it lacks.

    To type checkers it stays what it is. The `OptionError` names the step, or what else the first argument names.
    """
    if isinstance(made, type):
        made.__init__ = refuses_unknown(made.__init__)  # type: ignore[misc]
        return cast("F", made)
    function = cast("FunctionType", made)
    code, defaults = function.__code__, function.__kwdefaults__ or {}
    named = code.co_varnames[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount]
    known = tuple(name for name in named if name != "self")
    needed = tuple(name for name in named[len(named) - code.co_kwonlyargcount :] if name not in defaults)
    owner, _, kind = function.__qualname__.rpartition(".")

    @wraps(function)
    def checked(*arguments: Any, **options: Any) -> Any:
        name = next((f" {each!r}" for each in arguments if isinstance(each, str)), "")
        whose = f"{owner if kind == '__init__' else kind}{name}"
        refuse_unknown(whose, options, known)
        for option in needed:
            if option not in options:
                raise OptionError(f"{whose} needs the option {option!r}")
        return function(*arguments, **options)

    return cast("F", checked)
