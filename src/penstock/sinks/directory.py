"""A directory of files as a sink."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from hashlib import blake2b
from typing import Any, Final, cast, override

from penstock.core import validate
from penstock.durable.roots import RootId
from penstock.durable.sink import Delivery, Durability
from penstock.durable.sqlite.connection import connect_reader
from penstock.durable.sqlite.schema import refuse_other_tables
from penstock.durable.sqlite.tables import require
from penstock.durable.store_errors import KeyTakenError, RowError, StoreError
from penstock.sinks.cells import shown
from penstock.sinks.outside import OutsideStore, named_by_system
from penstock.sinks.sqlite_store import LONGEST, check_name, counted, lost_of
from penstock.sinks.target_tree import OWN, TargetTree, prefixes

_TABLES: Final = """
CREATE TABLE files (
    claim TEXT PRIMARY KEY, name TEXT NOT NULL, root INTEGER NOT NULL, size INTEGER NOT NULL, digest BLOB NOT NULL);
CREATE INDEX files_root ON files (root);
CREATE TABLE due (claim TEXT PRIMARY KEY, name TEXT NOT NULL, part INTEGER);
"""

LONGEST_NAME: Final = 2_000
"""Bytes of a name from the directory, at most: systems stop at 4,096 for the whole path."""

_TAKEN: Final = """
SELECT of.root, of.name, owner.key, coalesce(owner.run = own.run AND owner.times < own.times, 0) FROM files AS of
LEFT JOIN penstock_roots AS owner ON owner.id = of.root LEFT JOIN penstock_roots AS own ON own.id = ?
WHERE (claim IN ({}) OR claim > ? AND claim < ?) AND of.root <> ? LIMIT 1
"""
_OF_RUN: Final = """
SELECT files.root, name, size FROM files JOIN penstock_roots AS roots ON roots.id = files.root
WHERE +run = ? AND times > 0
"""

type NamedContent = tuple[str, bytes]
"""The name of a file, from the root, and its content."""


class Files:
    """Writes files below a directory, exactly once: they are there if their root is noted as done.

    A row is a pair of a name and a content: a path from the directory, with `/`, and `bytes`, or a `str`, which is
    written in UTF-8. A file gets a temporary name first. Once the note that its root is done is committed, it takes its
    place at a stroke, so readers see the old content or the new one. A run that was killed in between is completed by
    the next one. A file that is there already with that content stays untouched. A changed root loses the files that it
    does not give any more; so does one that is gone (`on_missing="delete"`). Directories that become empty are removed.

    These are failures of their root, see `on_error` of `to`: a name that leads out of the directory, or through a link;
    one that another root has; a file that is there and that no run has written.

    Args:
        root: the directory, made if there is none. `.penstock` in it has the journal.

    Attributes:
        root: the directory.
        path: the journal.

    Example:
        async def page(source):
            return f"{source.key}.html", render(source.read_text())

        report = await penstock.files("docs", "*.md").map(page).to(penstock.Files("site"), run="site")

    Raises:
        OptionError: `root` is no path.
    """

    delivery: Delivery = "exactly once"
    identity: str = "files"

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root: str = validate.path("root", root)
        check_name("root", self.root)
        self.path: str = os.path.join(self.root, OWN, "journal.db")  # noqa: PTH118 -- strings

    def open(self, durability: Durability) -> "FileStore":
        """Open it for writing; see `penstock.durable.sink`."""
        return FileStore(self, durability)

    def rows(self) -> Iterator[NamedContent]:
        """Give the name and the content of each file that runs have written, by name.

        Raises:
            StoreError: no run has been there, or a file is gone.
        """
        with closing(connect_reader(self.path)) as connection:
            connection.bound(LONGEST)
            require(self.path, connection)
            refuse_other_tables(connection, _TABLES)
            for (name,) in connection.select("SELECT name FROM files ORDER BY name", (), str):
                place = f"{self.root}/{name}"
                with named_by_system(place), open(place, "rb") as file:  # noqa: PTH123 -- strings
                    yield name, file.read()


class FileStore(OutsideStore):
    """The directory, opened for writing by one run."""

    tables: str = _TABLES

    def __init__(self, sink: Files, durability: Durability) -> None:
        self._root = sink.root
        self._tree = TargetTree(sink.root, syncs=durability == "power")
        self._part = 0  # the last temporary name: none comes twice, as a note of a name may outlive its file
        self._held = set[str]()  # directories with files that are noted: no file can be named like that
        try:
            super().__init__(sink.path, durability)
            try:
                (self._part,) = self.connection.one("SELECT coalesce(max(part), 0) FROM due", (), int)
                self.catch_up()
                self._tree.remove_parts()
            except BaseException:
                super().close()
                raise
        except BaseException:
            self._tree.close()
            raise

    @override
    def accept(self, row: Any) -> NamedContent:
        """Return the name and the content of the file; raise `RowError` if they cannot be that."""
        pair: Any = row
        if not isinstance(row, tuple | list) or len(pair) != 2:  # noqa: PLR2004 -- a pair
            raise RowError(f"a row must be a pair of a name and a content, got {shown(pair)}")
        name, content = pair
        return _name(name), _content(content)

    @override
    def replace(self, root: RootId, rows: Iterable[NamedContent]) -> None:
        """Write the files of the root under temporary names, and note which take their place and which go."""
        before = dict(self._files_of(root.number))
        given = set[str]()
        for name, content in rows:
            claim = self._tree.claim(name)
            if claim in given:
                raise RowError(f"two files of one root are named {name!r}")
            given.add(claim)
            self._put(root.number, claim, (name, content), before)
        if both := next((above for claim in given for above in prefixes(claim) if above in given), None):
            raise RowError(f"{both!r} cannot be a file and a directory")
        for claim in before.keys() - given:
            self.connection.execute("DELETE FROM files WHERE claim = ?", (claim,))
            self.connection.execute("INSERT OR REPLACE INTO due VALUES (?, ?, NULL)", (claim, before[claim]))
            self._held.clear()

    def _files_of(self, root: int) -> Iterator[tuple[str, str]]:
        """Give the claims and the names of the files of a root."""
        known = self.connection.select("SELECT claim, name FROM files WHERE root = ?", (root,), str, str)
        return cast("Iterator[tuple[str, str]]", known)

    def _put(self, root: int, claim: str, file: NamedContent, before: Mapping[str, str]) -> None:
        def may_go(place: str) -> bool:
            return place in before or (place.endswith("/") and any(each.startswith(place) for each in before))

        name, content = file
        self._refuse_taken(root, claim, name)
        due = [part for (part,) in self.connection.execute("SELECT part FROM due WHERE claim = ?", (claim,))]
        digest = blake2b(content, digest_size=16).digest()
        there = self._tree.digest(name, may_go)
        if there == digest and due in ([], [None]):
            self.connection.execute("DELETE FROM due WHERE claim = ?", (claim,))
        elif there is None or claim in before or due:
            self._part += 1
            self._tree.write_part(self._part, content)
            self.connection.execute("INSERT OR REPLACE INTO due VALUES (?, ?, ?)", (claim, name, self._part))
        else:
            raise RowError(f"{name!r} is there with another content, and no run has written it")
        values = (claim, name, root, len(content), digest)
        self.connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", values)

    def _refuse_taken(self, root: int, claim: str, name: str) -> None:
        """Raise if a file of another root has that name, or is where its directories have to be, or below it."""
        above = [each for each in prefixes(claim) if each not in self._held]
        same = [claim, *above]
        places = ", ".join("?" * len(same))
        taken = _TAKEN.format(places)
        for owner, of, key, may_go in self.connection.execute(taken, (root, *same, f"{claim}/", f"{claim}0", root)):
            kind = KeyTakenError if may_go else RowError
            whose = f"root {key!r}" if key is not None else f"a root that was forgotten (number {owner})"
            raise kind(f"{name!r} cannot be a file of this root: {whose} has {'it' if of == name else repr(of)}")
        self._held.update(above)

    @override
    def note_due(self) -> bool:
        """Have the temporary files outlive a power failure, as their names are in the transaction."""
        is_due = bool(list(self.connection.execute("SELECT 1 FROM due LIMIT 1")))
        if is_due:
            self._tree.sync_parts()
        return is_due

    @override
    def keep(self) -> None:
        """Keep nothing: all is in the tables."""

    @override
    def take_back(self) -> None:
        self._held.clear()

    @override
    def carry_out(self) -> None:
        """Remove files that go, then put new ones in place: where a file was there may be a directory now."""
        for (name,) in self.connection.select("SELECT name FROM due WHERE part IS NULL", (), str):
            self._tree.remove(name)
        for name, part in self.connection.select("SELECT name, part FROM due WHERE part NOTNULL", (), str, int):
            self._tree.put_in_place(part, name)
        self._tree.sync()

    @override
    def lost(self, run: int) -> Sequence[tuple[int, int]]:
        """Return the roots of which files are gone, or have another size."""
        gone = Counter[int]()
        for root, name, size in self.connection.select(_OF_RUN, (run,), int, str, int):
            gone[root] += not self._tree.has(name, size)
        there = self.connection.one("SELECT count(*), total(root) FROM files", (), int, float)
        lost = dict[int, int]()
        if there != counted(self.connection, Files.identity):
            lost.update(lost_of(self.connection, run, "SELECT root, count(*) AS number FROM files GROUP BY root"))
        for root, number in gone.items():
            if number:
                (noted,) = self.connection.one("SELECT count(*) FROM files WHERE root = ?", (root,), int)
                lost[root] = noted - number
        return list(lost.items())

    @override
    def close(self) -> None:
        """Remove temporary files of transactions that have failed; let others write."""
        try:
            if not self._is_due:
                with suppress(StoreError):
                    self._tree.remove_parts()
        finally:
            super().close()
            self._tree.close()


def _name(given: Any) -> str:
    """Return the name of a file as text; raise `RowError` if it leads out of the directory, or cannot be one."""
    name = cast("Any", os.fspath(given) if hasattr(given, "__fspath__") else given)
    if not isinstance(name, str) or not name or "\0" in name or not validate.is_utf8(name):
        raise RowError(f"the name of a file must be text that UTF-8 can hold, without NUL, got {shown(given)}")
    parts = name.split("/")
    if len(name.encode()) > LONGEST_NAME:
        raise RowError(f"the name of a file must be at most {LONGEST_NAME:,} bytes long, got {shown(name)}")
    if not {"", ".", ".."}.isdisjoint(parts):
        raise RowError(f"the name of a file must be a path from the directory, without . and .., got {name!r}")
    if parts[0].casefold() == OWN:
        raise RowError(f"the name of a file must not begin with {OWN}, where the journal is, got {name!r}")
    return name


def _content(given: Any) -> bytes:
    if isinstance(given, bytes):
        return given
    if given.__class__ in {bytearray, memoryview}:
        return bytes(given)
    if isinstance(given, str) and validate.is_utf8(given):
        return given.encode()
    raise RowError(f"the content of a file must be bytes, or text that UTF-8 can hold, got {shown(given)}")
