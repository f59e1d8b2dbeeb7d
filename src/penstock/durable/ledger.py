"""The ledger of a run: which roots are under way, which are done, and which done ones were not seen again."""

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import count, islice
from operator import lt
from typing import TYPE_CHECKING, Any, NamedTuple

from penstock.core import validate
from penstock.core.errors import DuplicateKeyError, OptionError
from penstock.core.plan import DROPPED
from penstock.core.text import named
from penstock.durable.passing_over import PassingOver, Seen, none_passed
from penstock.durable.roots import DEAD, DONE, Bundle, Key, Root, Tracked
from penstock.durable.store_errors import DamageError

if TYPE_CHECKING:
    from penstock.durable.done import DoneRoots, Lookup
    from penstock.durable.memo import Memo
    from penstock.durable.store import Known, Opened, Reach

type Dispatch = Callable[[Root], Awaitable[None]]
"""Notes in the journal that a root is under way; the awaitable is done when that is committed."""

type Admit = Callable[[Any], Any]
"""Turns an item into a `Tracked` of a new root, or into DROPPED if the item is done."""

type Bundled = Callable[[list[Any]], Bundle | None]
"""Turns items into new roots, together; returns None, with nothing done, if each has to be looked at."""


class Admitting(NamedTuple):
    """What makes roots of the items of a source.

    Attributes:
        admit: of one.
        pass_over: of none: it passes over items that are done, as `PassingOver.upto` does.
        bundled: of many.
    """

    admit: Admit
    pass_over: Callable[[Iterator[Any]], tuple[int, Any]]
    bundled: Bundled


_PLACES = 1_000
"""Places that could not be read that are kept by name; with more, no root counts as missing."""

_LEAST, _MOST = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class Identity:
    """How a source and its items are known from run to run."""

    source: str
    key: Callable[[Any], Key]
    version: Callable[[Any], str]


def unchanged(_: object) -> str:
    """Return the version of items that do not change."""
    return ""


class Ledger:
    """The roots of one opening of a run.

    Attributes:
        passed: roots that were done before, in this version, by the opening that did them.
        dead_before: roots that were dead before, in this version.
        changed: roots that were settled before in another version, or are to be done again, and were begun again.
        taken: roots that were taken.
        unread: places that the source could not read.
        duplicates: items that were dropped because another one had their key.
        memo: results that stages keep.
        dispatch: notes a root before it is begun, if that is needed.
        only: the keys of the roots that may be taken; None for all.
        is_full: whether so much waits to be committed that no root may be taken.
        limit: roots that may be taken; None for all.
        waiting: who is told when something was committed.
    """

    def __init__(
        self,
        done: "DoneRoots",
        opened: "Opened",
        finished: Callable[[Root], None],
        *,
        memo: "Memo",
        dispatch: Dispatch | None,
        is_full: Callable[[], bool],
        enough: Callable[[], object],
        limit: int | None = None,
        only: frozenset[Key] | None = None,
        set_aside: AbstractSet[Key] = frozenset(),
        reach: "Reach | None" = None,
        drops_duplicates: bool = False,
        retries_dead: bool = False,
    ) -> None:
        """Begin with the roots that are `done`.

        `finished` is told of roots of which nothing is under way any more, `enough` when `limit` were taken, `reach`
        how far the sources were read. Roots that are dead are tried again if it `retries_dead`, but for those that were
        `set_aside` just now.
        """
        self._done = done
        self._opened = opened
        self._finished = finished
        self.memo: Memo = memo
        self.dispatch: Dispatch | None = dispatch
        self.is_full: Callable[[], bool] = is_full
        self._enough = enough
        self.limit: int | None = limit
        self.only: frozenset[Key] | None = only
        self._set_aside = set_aside
        self._reach = reach
        self._drops_duplicates = drops_duplicates
        self._retries_dead = retries_dead
        self._under_way: dict[Key, Root | Bundle] = {}
        self._seen = Seen()
        self.passed: Counter[int] = Counter()
        self.dead_before: int = 0
        self.changed: int = 0
        self.taken: int = 0
        self.unread: int = 0
        self.duplicates: int = 0
        self.waiting: list[Callable[[], None]] = []
        self._unread: list[str] = []  # the beginnings of the keys that may be there
        self._unread_from: list[tuple[str, int]] = []  # the same, and the least number that goes on from there
        self._sources: list[tuple[str, Iterator[int]]] = []  # what the keys of each begin with, and its positions
        self._reached: list[int] = []

    @property
    def has_enough(self) -> bool:
        """Whether as many roots were taken as allowed."""
        return self.limit is not None and self.taken >= self.limit

    def room(self, room: int) -> int:
        """Return how many of `room` items may be asked for."""
        return room if self.limit is None else min(room, self.limit - self.taken)

    @property
    def place(self) -> str:
        """The database of the journal."""
        return self._done.place

    def admitting(self, identity: Identity, prefix: str) -> Admitting:  # noqa: C901 -- of what it makes
        """Return what makes roots of items that are not done; it stands behind a source."""
        positions = count()
        source = len(self._sources)
        self._sources.append((prefix, positions))
        self._reached.append(0)
        lookup = self._done.lookup()
        key_of, version_of, page = identity.key, identity.version, lookup.page
        is_apart = bool(prefix) or self.only is not None
        seen, under_way, only = self._seen, self._under_way, self.only
        times, passed = self._opened.times, self.passed
        find, finished = lookup.find, self._finished

        def admit(item: Any) -> Any:  # noqa: C901 -- a call more is a tenth of what it costs to pass over an item
            position = next(positions)
            key = key_of(item)
            if not (key.isascii() if type(key) is str else type(key) is int and _LEAST <= key <= _MOST):
                key = _checked(key, position)
            if prefix:
                key = f"{prefix}{key}"
            if only is not None and key not in only:
                return DROPPED
            version = version_of(item)
            if version.__class__ is not str or not version.isascii():
                version = _text(version, position)
            place = page.get(key)
            if place is None:
                if key in under_way:
                    return self._dropped(duplicate(key, under_way[key].position_of(key), position))
                known = find(key, position)
                if known is None:
                    return self._begin(Root(key, version, position, finished, source, True), item)
            else:
                known = lookup.at(place)
            number, version_before, state, times_before, _ = known
            if version_before == version and state == DONE and 0 < times_before < times:
                block, bit = number >> 10, 1 << (number & 1023)
                if not (before := seen.get(block, 0)) & bit:
                    seen[block] = before | bit
                    passed[times_before] += 1
                    return DROPPED
            if key in under_way:
                return self._dropped(duplicate(key, under_way[key].position_of(key), position))
            return self._admit(Root(key, version, position, finished, source), item, known)

        passing = PassingOver(lookup, key_of, version_of, opening=times, seen=seen, passed=passed, positions=positions)
        return Admitting(
            admit,
            none_passed if is_apart else passing.upto,
            never_bundled if is_apart else self._bundling(identity, source, positions, lookup),
        )

    def _bundling(self, identity: Identity, source: int, positions: "count[int]", lookup: "Lookup") -> Bundled:
        """Return what makes roots of unknown items whose keys rise, many together: for a tenth of the price."""
        key_of, version_of, under_way = identity.key, identity.version, self._under_way

        def bundled(items: list[Any]) -> Bundle | None:
            if not lookup.is_at_the_end:
                return None
            try:
                keys = [key_of(item) for item in items]
                versions = [""] * len(items) if version_of is unchanged else [version_of(item) for item in items]
            except Exception:  # noqa: BLE001 -- it comes again, for its item
                return None
            if not (_rise(keys) and _are_plain(versions) and under_way.keys().isdisjoint(keys)):
                return None
            if not lookup.has_none_of(keys):
                return None
            first = next(positions)
            last = first + len(items) - 1
            deque(islice(positions, last - first), 0)
            bundle = Bundle(
                items,
                keys=keys,
                versions=versions,
                positions=range(first, last + 1),
                source=source,
                finished=self._finished,
            )
            under_way.update(dict.fromkeys(keys, bundle))
            self._count(len(items), source, last)
            return bundle

        return bundled

    def _admit(self, root: Root, item: Any, known: "Known") -> Any:
        """Take the root, of which something is known, unless it is done."""
        key, position = root.key, root.position
        number, version_before, state, times, before = known
        if state not in {DONE, DEAD} or not 0 <= times <= self._opened.times:
            raise DamageError(
                f"{self.place}: the database is damaged: the root {named(key)} is in state {state} "
                f"since opening {times} of {self._opened.times}"
            )
        if times == self._opened.times or not self._seen.add(number):
            return self._dropped(duplicate(key, before, position, is_of_now=times == self._opened.times))
        same = version_before == root.version and times > 0
        again = state == DEAD and self._retries_dead and key not in self._set_aside
        if same and not again:
            self.dead_before += state == DEAD
            self.passed[times] += state == DONE
            return DROPPED
        self.changed += 1
        return self._begin(root, item)

    def _begin(self, root: Root, item: Any) -> Tracked:
        self._under_way[root.key] = root
        self._count(1, root.source, root.position)
        return Tracked(root, item)

    def _count(self, number: int, source: int, position: int) -> None:
        """Count roots of a source that are taken, up to that position."""
        self.taken += number
        if self._reach is not None and position >= self._reached[source]:
            self._reached[source] = self._reach(source, position)
        if self.taken == self.limit:
            self._enough()

    def _dropped(self, error: DuplicateKeyError) -> Any:
        """Drop an item with the key of another one, or raise."""
        if not self._drops_duplicates:
            raise error
        self.duplicates += 1
        return DROPPED

    def note_unread(self, begin: str, least: int | None = None) -> None:
        """Let no root count as missing whose key begins like that; may be called from any thread.

        With `least`, the keys of the source are numbers, and only keys of at least that are spared.
        """
        self.unread += 1
        if least is None:
            self._unread = [*self._unread, begin] if self.unread <= _PLACES else [""]
        else:
            self._unread_from = [*self._unread_from, (begin, least)]

    def unbundled(self, bundle: Bundle) -> list[Tracked]:
        """Return the items of a bundle, each of a root of its own."""
        items = bundle.tracked()
        self._under_way.update((item.root.key, item.root) for item in items)
        return items

    def committed(self, root: Root | Bundle) -> None:
        """Forget a root, or several, that the journal knows now."""
        if isinstance(root, Bundle):
            deque(map(self._under_way.__delitem__, root.keys), 0)
        else:
            del self._under_way[root.key]

    def tell(self) -> None:
        """Call those who wait for a commit."""
        waiting, self.waiting = self.waiting, []
        for told in waiting:
            told()

    def unfinished(self) -> list[Root]:
        """Return the roots of which something is under way."""
        return [root for root in self._under_way.values() if isinstance(root, Root) and root.under_way]

    def silent(self) -> list[str]:
        """Return the key prefixes of sources that gave nothing at all, once all have ended.

        A source with a place that could not be read has given something: a line that is not complete yet, for example.
        """
        unread = [*self._unread, *(begin for begin, _ in self._unread_from)]
        return [
            prefix
            for prefix, positions in self._sources
            if next(positions) == 0 and not any(begin.startswith(prefix) for begin in unread)
        ]

    def missing(self) -> Iterator[list[tuple[int, Key]]]:
        """Give the roots that were settled before and not seen, once the source has ended; a page at a time.

        Roots of places that could not be read are left out. Pages are empty while it counts whether there can be any.
        """
        times = self._opened.times
        if times == 1:
            return
        left = self.changed - self._seen.count()  # of those that were seen, the changed ones are of this opening now
        for number in self._done.count_settled(but=times):
            left += number
            yield []
        for page in self._done.settled_before(times) if left else ():
            unread, numbers = tuple(self._unread), self._unread_from
            yield [
                (number, key)
                for number, key in self._seen.others(page)
                if not (unread and str(key).startswith(unread))
                and not any(_goes_on(str(key), begin, least) for begin, least in numbers)
            ]


def never_bundled(_: list[Any]) -> None:
    """Have each item looked at."""


def duplicate(key: Key, before: int, position: int, *, is_of_now: bool = True) -> DuplicateKeyError:
    """Make the error for a key that came twice; of a root that was passed over, only its earlier place is known."""
    first = f"at item {before}" if is_of_now else f"earlier (item {before} when its root was done)"
    return DuplicateKeyError(
        f"the key {named(key)} stands twice in the source: {first} and at item {position}; "
        'on_duplicate="first" drops the later one'
    )


def _rise(keys: list[Any]) -> bool:
    """Whether the keys can stand in a journal, are of one type, and rise."""
    kinds = {*map(type, keys)}
    if kinds == {int}:
        return all(map(lt, keys, islice(keys, 1, None))) and keys[0] >= _LEAST and keys[-1] <= _MOST
    return kinds == {str} and all(map(lt, keys, islice(keys, 1, None))) and validate.is_utf8("".join(keys))


def _are_plain(versions: list[Any]) -> bool:
    return {*map(type, versions)} == {str} and validate.is_utf8("".join(versions))


def _checked(key: object, position: int) -> Key:
    """Return `key` if it can stand in a journal."""
    if isinstance(key, str):
        if not validate.is_utf8(key):
            raise OptionError(f"key must give a str that can be written as UTF-8, got {named(key)} for item {position}")
        return str.__str__(key)
    number = validate.as_int(key)
    if number is None:
        raise OptionError(f"key must give a str or an int, got {named(key)} for item {position}")
    if not _LEAST <= number <= _MOST:
        raise OptionError(f"key must give an int of at most 64 bits, got {named(key)} for item {position}")
    return number


def _goes_on(key: str, begin: str, least: int) -> bool:
    return key.startswith(begin) and int(key.removeprefix(begin)) >= least


def _text(version: object, position: int) -> str:
    if not isinstance(version, str):
        raise OptionError(f"version must give a str, got {named(version)} for item {position}")
    if not validate.is_utf8(version):
        raise OptionError(
            f"version must give a str that can be written as UTF-8, got {named(version)} for item {position}"
        )
    return version
