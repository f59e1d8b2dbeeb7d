"""Streams: immutable descriptions of work over items. A stream assembles operators and schedules nothing."""

from collections.abc import AsyncIterable, Awaitable, Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload, override

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.outcome import Result
from penstock.core.plan import OUT_OF_BAND, OnError, OutOfBand, Plan
from penstock.core.retry import Seconds
from penstock.core.scope import Scope
from penstock.core.stage import Stage
from penstock.core.text import call, line, name_of
from penstock.core.window import Window
from penstock.engines.local import on_loop
from penstock.ops.adding import Addable, AddableStep, AddOptions, Transform
from penstock.ops.checkpoint import UNSET, Kept, checkpoint
from penstock.ops.combine import CHAIN, MERGE, Combination, zipping
from penstock.ops.deciding import deciding, skip_while, take_while
from penstock.ops.description import Combined, Description, combined
from penstock.ops.flat_map import FLAT_MAP, FLATTEN
from penstock.ops.group import Batch, GroupBy, WeightLimit
from penstock.ops.map_batches import map_batches
from penstock.ops.metadata import Record, with_metadata
from penstock.ops.operator import Operator, passing
from penstock.ops.passing import Passing, PassingFunction, Take, distinct, enumerated, scanned, skipping
from penstock.ops.single import FILTER, FOR_EACH, MAP, MAP_KEEPING, TAP
from penstock.ops.tee import Inlet, teeing
from penstock.ops.work import Options, work
from penstock.readable import Readable, T_co

if TYPE_CHECKING:
    from typing_extensions import TypeIs

type Results[U] = Iterable[U] | Awaitable[Iterable[U]]
type Fan[U] = Iterable[U] | AsyncIterable[U] | Awaitable[Iterable[U]]


class Stream(Readable[T_co]):
    """A description of work over items: pull-based, bounded, immutable. Each `open()` is a fresh run of it.

    `penstock.stream` makes one; every operator returns a new stream. Operators that run a function take the options of
    `penstock.ops.work.Options` and `on_error`: "raise" (the first failure ends the run), "skip" (drop, count and log
    the item), "collect" (drop it, keep a `Failed` in the run's `failures`) or "return" (results are `Ok` or `Failed`).
    """

    __slots__ = ("_description",)

    def __init__(self, description: Description) -> None:
        self._description = description

    @property
    @override
    def description(self) -> Description:
        return self._description

    def _with(self, operator: Operator) -> "Stream[Any]":
        return Stream(self._description.followed_by(operator))

    @override
    def __repr__(self) -> str:
        return line(str(self._description))

    # Transform

    @overload
    def map[U](
        self,
        fn: Callable[[T_co], Awaitable[U]],
        /,
        *,
        keep: Literal[True],
        on_error: Literal["return"],
        **options: Unpack[Options],
    ) -> "Stream[Result[tuple[T_co, U]]]": ...
    @overload
    def map[U](
        self,
        fn: Callable[[T_co], U | Awaitable[U]],
        /,
        *,
        keep: Literal[True],
        on_error: Literal["return"],
        **options: Unpack[Options],
    ) -> "Stream[Result[tuple[T_co, U]]]": ...
    @overload
    def map[U](
        self,
        fn: Callable[[T_co], Awaitable[U]],
        /,
        *,
        keep: Literal[True],
        on_error: OutOfBand = "raise",
        **options: Unpack[Options],
    ) -> "Stream[tuple[T_co, U]]": ...
    @overload
    def map[U](
        self,
        fn: Callable[[T_co], U | Awaitable[U]],
        /,
        *,
        keep: Literal[True],
        on_error: OutOfBand = "raise",
        **options: Unpack[Options],
    ) -> "Stream[tuple[T_co, U]]": ...
    @overload
    def map[U](
        self,
        fn: Callable[[T_co], Awaitable[U]],
        /,
        *,
        keep: Literal[False] = False,
        on_error: Literal["return"],
        **options: Unpack[Options],
    ) -> "Stream[Result[U]]": ...
    @overload
    def map[U](
        self,
        fn: Callable[[T_co], U | Awaitable[U]],
        /,
        *,
        keep: Literal[False] = False,
        on_error: Literal["return"],
        **options: Unpack[Options],
    ) -> "Stream[Result[U]]": ...
    @overload
    def map[U](
        self,
        fn: Callable[[T_co], Awaitable[U]],
        /,
        *,
        keep: Literal[False] = False,
        on_error: OutOfBand = "raise",
        **options: Unpack[Options],
    ) -> "Stream[U]": ...
    @overload
    def map[U](
        self,
        fn: Callable[[T_co], U | Awaitable[U]],
        /,
        *,
        keep: Literal[False] = False,
        on_error: OutOfBand = "raise",
        **options: Unpack[Options],
    ) -> "Stream[U]": ...
    def map(
        self,
        fn: Callable[[T_co], Any],
        /,
        *,
        keep: bool = False,
        on_error: OnError = "raise",
        **options: Unpack[Options],
    ) -> "Stream[Any]":
        """Call `fn` on every item and hand on what it returns (P1-P9).

        Async functions run on the loop, plain `def` functions inline at concurrency 1 and in threads above, lambdas and
        other callables on the loop. An awaitable that a function returns is awaited. With `keep`, results are pairs of
        the item and what `fn` returned for it.

        Results come in order where that can be seen: see `ordered` of `penstock.ops.work.Options`. In order, they wait
        behind a slow head, and with `buffer=0` their places stand idle. Throughput in order, as a share of that with
        `ordered=False`, at concurrency c = 32, by how much latencies differ (lognormal):

            buffer        0      c     3c     8c
            sigma 0.5    49 %   81 %   99 %  100 %
            sigma 1      23 %   36 %   54 %   82 %
            sigma 1.5    13 %   18 %   26 %   41 %

        The statistic `blocked_by_head_s` shows it. `tools/bench curve` measures the table.

        Example:
            pages = penstock.stream(urls).map(fetch, concurrency=32, timeout=10)

        Raises:
            OptionError: an option breaks its rule.
        """
        kind = MAP_KEEPING if validate.flag("keep", keep) else MAP
        return self._with(work(kind, fn, on_error=on_error, **options))

    @overload
    def filter[S](
        self, predicate: "Callable[[T_co], TypeIs[S]]", /, *, on_error: Literal["return"], **options: Unpack[Options]
    ) -> "Stream[Result[S]]": ...
    @overload
    def filter[S](
        self, predicate: "Callable[[T_co], TypeIs[S]]", /, *, on_error: OutOfBand = "raise", **options: Unpack[Options]
    ) -> "Stream[S]": ...
    @overload
    def filter(
        self, predicate: Callable[[T_co], object], /, *, on_error: Literal["return"], **options: Unpack[Options]
    ) -> "Stream[Result[T_co]]": ...
    @overload
    def filter(
        self, predicate: Callable[[T_co], object], /, *, on_error: OutOfBand = "raise", **options: Unpack[Options]
    ) -> "Stream[T_co]": ...
    def filter(
        self, predicate: Callable[[T_co], Any], /, *, on_error: OnError = "raise", **options: Unpack[Options]
    ) -> "Stream[Any]":
        """Keep the items for which `predicate`, sync or async, is true (P1-P9); the others count as dropped.

        Raises:
            OptionError: an option breaks its rule.
        """
        return self._with(work(FILTER, predicate, on_error=on_error, **options))

    @overload
    def tap(
        self, fn: Callable[[T_co], object], /, *, on_error: Literal["return"], **options: Unpack[Options]
    ) -> "Stream[Result[T_co]]": ...
    @overload
    def tap(
        self, fn: Callable[[T_co], object], /, *, on_error: OutOfBand = "raise", **options: Unpack[Options]
    ) -> "Stream[T_co]": ...
    def tap(
        self, fn: Callable[[T_co], object], /, *, on_error: OnError = "raise", **options: Unpack[Options]
    ) -> "Stream[Any]":
        """Call `fn` on every item for its effect and hand on the item (P1-P9).

        Raises:
            OptionError: an option breaks its rule.
        """
        return self._with(work(TAP, fn, on_error=on_error, **options))

    @overload
    def flat_map[U](
        self, fn: Callable[[T_co], Fan[U]], /, *, on_error: Literal["return"], **options: Unpack[Options]
    ) -> "Stream[Result[U]]": ...
    @overload
    def flat_map[U](
        self, fn: Callable[[T_co], Fan[U]], /, *, on_error: OutOfBand = "raise", **options: Unpack[Options]
    ) -> "Stream[U]": ...
    def flat_map(
        self, fn: Callable[[T_co], Fan[Any]], /, *, on_error: OnError = "raise", **options: Unpack[Options]
    ) -> "Stream[Any]":
        """Call `fn` on every item and hand on each output of the iterable that it gives, sync or async (P1-P9).

        `concurrency` inputs are open at once. In order, inputs behind the first open one hold at most `buffer` finished
        outputs together, then pause: async generators run one at a time unless there is a `buffer`. An input is not
        tried again once one of its outputs was handed on.

        Raises:
            OptionError: an option breaks its rule.
        """
        return self._with(work(FLAT_MAP, fn, on_error=on_error, **options))

    @overload
    def flatten[U](self: "Stream[Iterable[U]]") -> "Stream[U]": ...
    @overload
    def flatten[U](self: "Stream[AsyncIterable[U]]") -> "Stream[U]": ...
    def flatten(self) -> "Stream[Any]":
        """Hand on the items of each item, which is an iterable or an async iterable."""
        return self._with(work(FLATTEN, lambda items: items, name="flatten"))

    def _step(self, name: str, make: Callable[[], PassingFunction], *given: object) -> "Stream[Any]":
        """Add an operator that looks at items as they pass; `make` gives a fresh function for each run."""
        title = name if name != "skip" else f"skip({', '.join(map(str, given))})"
        return self._with(passing(name, lambda scope, upstream: Passing(scope, upstream, title, make()), *given))

    # Select and group

    def take(self, count: int, /) -> "Stream[T_co]":
        """Hand on the first `count` items, an int >= 0: ask upstream for exactly that many.

        Upstream is stopped before the last one is handed over, and calls that still run there are cancelled. To bound
        paid calls, put `take` before `map`.

        Raises:
            OptionError: the number is no int >= 0.
        """
        count = validate.whole("count", count, least=0)
        return self._with(passing("take", lambda scope, upstream: Take(scope, upstream, count), count))

    def skip(self, count: int, /) -> "Stream[T_co]":
        """Drop the first `count` items, an int >= 0, and hand on the rest.

        Raises:
            OptionError: the number is no int >= 0.
        """
        count = validate.whole("count", count, least=0)
        return self._step("skip", lambda: skipping(count), count)

    def take_while(self, predicate: Callable[[T_co], object], /) -> "Stream[T_co]":
        """Hand on items up to the first that fails `predicate`; upstream is stopped there.

        Items are asked about one after the other, each when it is wanted; an awaitable that `predicate` returns is
        awaited.

        Raises:
            OptionError: the predicate cannot be called.
        """
        validate.function("predicate", predicate)
        return self._with(deciding("take_while", predicate, take_while))

    def skip_while(self, predicate: Callable[[T_co], object], /) -> "Stream[T_co]":
        """Hand on items from the first that fails `predicate`; an awaitable that it returns is awaited.

        Raises:
            OptionError: the predicate cannot be called.
        """
        validate.function("predicate", predicate)
        return self._with(deciding("skip_while", predicate, skip_while))

    def distinct(self, *, key: Callable[[T_co], Hashable] | None = None, last: int | None = None) -> "Stream[T_co]":
        """Hand on items whose key, by default the item itself, has not come before.

        It remembers every key (P7's exception); with `last`, an int >= 1, only that many of those seen most recently.

        Raises:
            OptionError: an argument breaks its rule.
        """
        if key is not None:
            validate.plain_function("key", key)
        if last is not None:
            last = validate.whole("last", last, least=1)
        return self._step("distinct", lambda: distinct(key, last), *(() if key is None else (key,)))

    def scan[A](self, fn: Callable[[A, T_co], A], initial: A, /) -> "Stream[A]":
        """Hand on `fn(so_far, item)` for every item: `reduce`, with each state on the way; `initial` is not handed on.

        `fn` is a plain function. All runs begin with the same `initial`, so it must not change.

        Raises:
            OptionError: `fn` is no plain function.
        """
        validate.plain_function("fn", fn)
        return self._step("scan", lambda: scanned(fn, initial), fn)

    @overload
    def map_batches[U](
        self,
        fn: Callable[[list[T_co]], Results[U]],
        /,
        size: int,
        *,
        within: Seconds | None = None,
        on_error: Literal["return"],
        **options: Unpack[Options],
    ) -> "Stream[Result[U]]": ...
    @overload
    def map_batches[U](
        self,
        fn: Callable[[list[T_co]], Results[U]],
        /,
        size: int,
        *,
        within: Seconds | None = None,
        on_error: OutOfBand = "raise",
        **options: Unpack[Options],
    ) -> "Stream[U]": ...
    def map_batches(
        self,
        fn: Callable[[list[T_co]], Results[Any]],
        /,
        size: int,
        *,
        within: Seconds | None = None,
        on_error: OnError = "raise",
        **options: Unpack[Options],
    ) -> "Stream[Any]":
        """Call `fn` on lists of `size` items, an int >= 1, and hand on its results item by item (P1-P9).

        `fn` gives one result per item, in their order; this is checked. The last list may be shorter. With `within`, a
        duration > 0, a list waits no longer than that after its first item came. `concurrency` and `buffer` count
        lists; order, `index` and errors are those of items.

        A call that fails is tried again as `retry` says. When its attempts are used up, the list is halved and each
        half tried once, and so on, until the bad items stand alone: one bad item of 64 costs 12 further calls.

        Example:
            vectors = penstock.stream(texts).map_batches(embed, 64, concurrency=4)

        Raises:
            OptionError: an option breaks its rule.
        """
        return self._with(work(map_batches(size, within), fn, on_error=on_error, **options))

    def enumerate(self, start: int = 0) -> "Stream[tuple[int, T_co]]":
        """Hand on pairs of a number, counted from `start`, and an item.

        Raises:
            OptionError: `start` is no int.
        """
        start = validate.integer("start", start)
        return self._step("enumerate", lambda: enumerated(start))

    def batch(
        self,
        size: int,
        *,
        within: Seconds | None = None,
        weight: Callable[[T_co], float] | None = None,
        max_weight: float | None = None,
    ) -> "Stream[list[T_co]]":
        """Hand on lists of `size` items, an int >= 1; the last one may be shorter, none is empty.

        With `within`, a duration > 0, a batch is handed on at most that long after its first item came. With `weight`,
        a plain function that gives a number >= 0 for an item, and `max_weight`, a number > 0, a batch ends before it
        would weigh more; an item that alone weighs more is a batch of its own.

        Raises:
            OptionError: an argument breaks its rule, or `weight` and `max_weight` are not given together.
        """
        size = validate.whole("size", size, least=1)
        seconds = None if within is None else validate.seconds("within", within)
        limit = None
        if weight is not None or max_weight is not None:
            if weight is None or max_weight is None:
                given = "weight" if max_weight is None else "max_weight"
                raise OptionError(f"weight and max_weight must be given together, got {given} alone")
            validate.plain_function("weight", weight)
            limit = WeightLimit(weight, validate.positive("max_weight", max_weight))
        return self._with(passing("batch", lambda scope, upstream: Batch(scope, upstream, size, seconds, limit), size))

    def group_by[K: Hashable](
        self, key: Callable[[T_co], K], /, *, size: int | None = None
    ) -> "Stream[tuple[K, list[T_co]]]":
        """Hand on `(key, items)` for each run of items that come one after the other with the same key.

        So items that are sorted by their key give a group for each key, as `itertools.groupby` does. It holds one group
        (P1); with `size`, an int >= 1, a longer one is handed on in parts. `key` is a plain function.

        Raises:
            OptionError: an argument breaks its rule.
        """
        validate.plain_function("key", key)
        most = None if size is None else validate.whole("size", size, least=1)
        title = f"group_by({name_of(key)})"

        def opened(scope: Scope, upstream: Stage[Any]) -> Stage[Any]:
            return GroupBy[Any, Any](scope, upstream, title, key, most)

        return self._with(passing("group_by", opened, key))

    def prefetch(self, count: int, /) -> "Stream[T_co]":
        """Read up to `count` items ahead, an int >= 1, while the stages below are busy; it holds that many (P1).

        Raises:
            OptionError: `count` is no int >= 1.
        """
        count = validate.whole("count", count, least=1)
        plan: Plan[Any, Any] = Plan(f"prefetch({count})", on_loop(itself), inline=itself, concurrency=count)
        return self._with(
            passing("prefetch", lambda scope, upstream: Window(scope, upstream, plan), count, item_by_item=True)
        )

    @overload
    def add[U](self, step: Transform[T_co, U], /) -> "Stream[U]": ...
    @overload
    def add[U](
        self, step: AddableStep[T_co, U], /, *, on_error: Literal["return"], **options: Unpack[AddOptions]
    ) -> "Stream[Result[U]]": ...
    @overload
    def add[U](
        self, step: AddableStep[T_co, U], /, *, on_error: OutOfBand = "raise", **options: Unpack[AddOptions]
    ) -> "Stream[U]": ...
    def add(self, step: Addable[Any, Any], /, **options: Any) -> "Stream[Any]":
        """Put a step, a pipeline or a transform of `penstock.flow` into the stream (P1-P9).

        A step is a stage of its name, with its own `retry`, `timeout`, `limit`, `engine`, `memo` and `deps`. A
        pipeline is one stage: within an item its steps run one after another, so `concurrency` counts calls (P1). A
        transform reads the items itself, and takes no options.

        Example:
            pages = penstock.stream(urls).add(step("fetch", fetch, retry=Retry(on=OSError)), concurrency=8)

        Raises:
            OptionError: an option breaks its rule; or a step in it is a review or has `on_interrupted="ask"`, as an
                item cannot wait for somebody.
        """
        validate.instance("step", step, Addable, "a step, a pipeline or a transform")
        return self._with(step.operator(options))

    @overload
    def checkpoint(self, name: str, /, *, keep: Kept = "last") -> "Stream[T_co]": ...
    @overload
    def checkpoint[A](self, name: str, /, *, fold: Callable[[A, T_co], A], initial: A) -> "Stream[T_co]": ...
    def checkpoint(
        self,
        name: str,
        /,
        *,
        keep: Kept = "last",
        fold: Callable[[Any, Any], Any] | None = None,
        initial: Any = UNSET,
    ) -> "Stream[T_co]":
        """Keep a snapshot in memory of what passes: `state[name]` of the `Run`, while it goes on and after.

        It is no place to resume from, and a durable run refuses it. It costs the memory of what it keeps (P7).

        Args:
            name: of the snapshot; unique in the stream.
            keep: "last", the default, is the last item; "all" a list of all items, an int >= 1 of the last so many.
                Lists are fresh copies, items are not copied.
            fold: a plain function; with it, the snapshot is `fold(so_far, item)` of all items, from `initial` on.
            initial: see `fold`.

        Raises:
            OptionError: an argument breaks its rule, or a checkpoint of that name is there.

        Example:
            async with stream(orders).checkpoint("sum", fold=lambda a, b: a + b, initial=0).open() as run:
                async for order in run:
                    print(run.state["sum"])
        """
        return self._with(checkpoint(name, keep, fold, initial))

    def with_metadata(self, *, sample: float = 1.0) -> "Stream[Record[T_co]]":
        """Hand on a `Record` for each item: its value, where it came from, the attempts it took, and how long.

        It stands behind what acts item by item: `map`, `filter`, `flat_map`, `flatten`, `tap`, `map_batches`,
        `prefetch`, `through`, `checkpoint`, `add` of a step. Aggregates are `stats()`.

        Args:
            sample: the share of the source's items that are followed, above 0 and at most 1; of the others only
                `value` is known.

        Raises:
            OptionError: `sample` breaks its rule, or it stands behind anything else.
        """
        share = validate.share_above_zero("sample", sample)
        origin, above = self._description.origin, self._description.operators
        combined_by = origin.kind.name if isinstance(origin, Combined) else ""
        return self._with(with_metadata(share, above, is_combined=combined_by))

    def through[U](self, fn: "Callable[[Stream[T_co]], Stream[U]]", /) -> "Stream[U]":
        """Return `fn(self)`: apply a function that adds operators, so that chains of operators can have names.

        Raises:
            OptionError: `fn` is no plain function, or gives no stream.
        """
        validate.plain_function("fn", fn)
        return validate.instance("fn(stream)", fn(self), Stream, "a Stream")

    @overload
    def tee[A, B](
        self,
        one: "Callable[[Stream[T_co]], Stream[A]]",
        other: "Callable[[Stream[T_co]], Stream[B]]",
        /,
        *,
        ahead: int = 1,
    ) -> "Stream[A | B]": ...
    @overload
    def tee[U](self, *branches: "Callable[[Stream[T_co]], Stream[U]]", ahead: int = 1) -> "Stream[U]": ...
    def tee(self, *branches: "Callable[[Stream[Any]], Stream[Any]]", ahead: int = 1) -> "Stream[Any]":
        """Give every item to each of several branches, and hand on what they make as it comes, as `merge` does (P3).

        A branch is a plain function from a stream to a stream, as for `through`. An item is read once, and only when no
        branch has `ahead` items waiting, an int >= 1: the slowest sets the pace (P1). A branch that ends early, by
        `take`, leaves the others going on.

        Example:
            both = orders.tee(lambda each: each.map(bill), lambda each: each.batch(100).map(archive))

        Raises:
            OptionError: an argument breaks its rule, or a branch gives no stream that uses the one it was given.
        """
        if not branches:
            raise OptionError("tee must have one branch at least, a function from a stream to a stream, got none")
        most = validate.whole("ahead", ahead, least=1)
        made: list[tuple[Inlet, Description]] = []
        for branch in branches:
            validate.plain_function("branch", branch)
            inlet = Inlet()
            stream = validate.instance("branch(stream)", branch(Stream(Description(inlet.origin))), Stream, "a Stream")
            if inlet.uses_in(stream.description) != 1:
                raise OptionError(f"branch {name_of(branch)} of tee must use the stream that it is given, once")
            made.append((inlet, stream.description))
        names = [name_of(branch) for branch in branches]
        return self._with(teeing(made, most, lambda number: f"tee({names[number]})", call("tee", *names)))

    @overload
    def chain[A, B](self, other: "Stream[A]", another: "Stream[B]", /) -> "Stream[T_co | A | B]": ...
    @overload
    def chain[U](self, *others: "Stream[U]") -> "Stream[T_co | U]": ...
    def chain(self, *others: "Stream[Any]") -> "Stream[Any]":
        """Hand on the items of this stream, then those of the others, each read only when it is its turn (P2, P3)."""
        return joined(CHAIN, self, *others)

    @overload
    def zip[A](self, other: "Stream[A]", /, *, strict: bool = False) -> "Stream[tuple[T_co, A]]": ...
    @overload
    def zip[A, B](
        self, other: "Stream[A]", another: "Stream[B]", /, *, strict: bool = False
    ) -> "Stream[tuple[T_co, A, B]]": ...
    @overload
    def zip[A, B, C](
        self, other: "Stream[A]", another: "Stream[B]", third: "Stream[C]", /, *, strict: bool = False
    ) -> "Stream[tuple[T_co, A, B, C]]": ...
    @overload
    def zip(self, *others: "Stream[Any]", strict: bool = False) -> "Stream[tuple[Any, ...]]": ...
    def zip(self, *others: "Stream[Any]", strict: bool = False) -> "Stream[tuple[Any, ...]]":
        """Hand on tuples of one item of each stream, until the first of them ends; then the others are stopped (P3).

        With `strict`, streams of unlike length are a failure: `ValueError`.

        Raises:
            OptionError: `strict` is no bool.
        """
        validate.flag("strict", strict)
        return joined(zipping(strict=strict), self, *others)

    @overload
    def merge[A, B](self, other: "Stream[A]", another: "Stream[B]", /) -> "Stream[T_co | A | B]": ...
    @overload
    def merge[U](self, *others: "Stream[U]") -> "Stream[T_co | U]": ...
    def merge(self, *others: "Stream[Any]") -> "Stream[Any]":
        """Hand on the items of this stream and others as they come; fair, with one item read ahead per source (P3)."""
        return joined(MERGE, self, *others)

    # Consume: see Readable

    async def for_each(
        self, fn: Callable[[T_co], object], /, *, on_error: OutOfBand = "raise", **options: Unpack[Options]
    ) -> None:
        """Call `fn` on every item for its effect, with the options of `map`, and wait for the end.

        Nobody sees an order here, so items come to `fn` as the stages above finish them, unless these have
        `ordered=True`.

        Raises:
            OptionError: an option breaks its rule; `on_error="return"` is none, as nobody would see the results.
        """
        validate.one_of("on_error", on_error, OUT_OF_BAND)  # nobody would see the results
        await self._with(work(FOR_EACH, fn, on_error=on_error, **options)).drain()


def joined(kind: Combination, *streams: Stream[Any]) -> Stream[Any]:
    """Make a stream whose first stage combines those of several streams."""
    for each in streams:
        validate.instance("others", each, Stream, "streams (see penstock.stream)")
    parts = tuple(each.description for each in streams)
    return Stream(Description(combined(kind, parts, call(kind.name, *map(repr, streams)))))


def itself[T](item: T) -> T:
    """Return the item."""
    return item
