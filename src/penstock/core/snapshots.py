"""The snapshots of a run: what its checkpoints keep of the items that pass them."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, override


class Snapshot(Protocol):
    """What one checkpoint keeps."""

    @property
    def is_there(self) -> bool:
        """Whether there is something to read."""
        ...

    def read(self) -> Any:
        """Return it: a list is a fresh copy, items are not copied."""
        ...


class Snapshots(Mapping[str, Any]):
    """The snapshots of a run by the names of its checkpoints; those that have nothing yet are not in it."""

    __slots__ = ("_named",)

    def __init__(self) -> None:
        self._named: dict[str, Snapshot] = {}

    def put(self, name: str, snapshot: Snapshot) -> None:
        """Have what a checkpoint keeps found under that name."""
        self._named[name] = snapshot

    @override
    def __getitem__(self, name: str) -> Any:
        found = self._named.get(name)
        if found is not None and found.is_there:
            return found.read()
        said = f"no checkpoint {name!r}" if found is None else f"nothing has passed checkpoint {name!r} yet"
        raise KeyError(f"{said}: there are {', '.join(map(repr, self._named)) or 'none'}")

    @override
    def __iter__(self) -> Iterator[str]:
        return iter([name for name, each in self._named.items() if each.is_there])

    @override
    def __len__(self) -> int:
        return sum(each.is_there for each in self._named.values())

    @override
    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (found := self._named.get(name)) is not None and found.is_there

    @override
    def __repr__(self) -> str:
        return f"<snapshots of {', '.join(map(repr, self._named)) or 'nothing'}>"
