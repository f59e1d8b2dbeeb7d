"""What each step makes of the items that came in: plain list code, which shares nothing with the library."""

from collections import Counter
from itertools import dropwhile, takewhile

from penstock import Failed, Ok


def number_of(item):
    """The number by which an item chooses what is done with it, however deep it is wrapped."""
    while not isinstance(item, int):
        if isinstance(item, Ok):
            item = item.value
        elif isinstance(item, Failed):
            item = item.item
        else:
            item = item[0]
    return item


def plain(item):
    """An item as a value that can be compared and counted."""
    if isinstance(item, Ok):
        return "ok", plain(item.value), item.index
    if isinstance(item, Failed):
        return "failed", plain(item.item), item.index
    if isinstance(item, list | tuple):
        return tuple(map(plain, item))
    return item


def kept(item):
    return number_of(item) % 3 != 0


def copies(item):
    return [item] * (number_of(item) % 3)


def weight(item):
    return number_of(item) % 4


HEAVIEST = 5


def is_low(item):
    return number_of(item) < 8


def is_even(item):
    return number_of(item) % 2 == 0


def rest(item):
    return number_of(item) % 5


def outputs_of(step, item):
    """The outputs of work on one plain item, and whether it fails after them."""
    number = number_of_plain(item)
    failed = step.fails(number)
    if step.kind in {"flat_list", "flat_iterator", "flat_async", "flat_inline", "flat_thread"}:
        several = [item] * (number % 3)
        return several if not failed or yields_then_fails(step) else [], failed
    if failed or (step.kind == "filter" and number % 3 == 0):
        return [], failed
    return [(item, "mapped") if step.kind == "map" else item], False


def yields_then_fails(step):
    """Whether work that fails gives its outputs first."""
    return step.kind in {"flat_async", "flat_iterator", "flat_thread"} and step.attempts == 1


def number_of_plain(item):
    """`number_of` for what `plain` gives."""
    while not isinstance(item, int):
        item = item[1] if item[0] in {"ok", "failed"} else item[0]
    return item


def worked(step, items):
    """The outputs of a step that runs a function; `raise` ends at the first that fails."""
    made = []
    for index, item in enumerate(items):
        outputs, failed = outputs_of(step, item)
        if step.on_error == "return":
            outputs = [("ok", output, index) for output in outputs]
            if failed:
                outputs.append(("failed", item, index))
        made += outputs
        if failed and step.on_error == "raise" and step.ordered:
            break
    return made


def batched(items, size, most=None):
    """Batches of `size` items that weigh at most `most`, or of one that is too heavy."""
    made, batch, total = [], [], 0
    for item in items:
        more = 0 if most is None else number_of_plain(item) % 4
        if batch and most is not None and total + more > most:
            made.append(tuple(batch))
            batch, total = [], 0
        batch.append(item)
        total += more
        if len(batch) == size or (most is not None and total >= most):
            made.append(tuple(batch))
            batch, total = [], 0
    return made + [tuple(batch)] * bool(batch)


def first_seen(items):
    seen = set()
    return [item for item in items if number_of_plain(item) % 5 not in seen and not seen.add(number_of_plain(item) % 5)]


SIMPLE = {
    "batch": lambda step, items: batched(items, step.size),
    "batch_weight": lambda step, items: batched(items, step.size, HEAVIEST),
    "take": lambda step, items: items[: step.size * 2 - 2],
    "skip": lambda step, items: items[step.size :],
    "take_while": lambda step, items: list(takewhile(lambda item: number_of_plain(item) < 8, items)),
    "skip_while": lambda step, items: list(dropwhile(lambda item: number_of_plain(item) % 2 == 0, items)),
    "distinct": lambda step, items: first_seen(items),
    "enumerate": lambda step, items: list(enumerate(items)),
    "prefetch": lambda step, items: items,
    "flatten": lambda step, items: items,
    "through": lambda step, items: [item for item in items if number_of_plain(item) % 3 != 0],
    "chain": lambda step, items, others: items + others,
    "zip": lambda step, items, others: list(zip(items, others, strict=False)),
}


def expected(step, items, *others):
    """What the step makes of its inputs, in order."""
    if step.kind in SIMPLE:
        return SIMPLE[step.kind](step, items, *others)
    return worked(step, items)


def is_part(given, wanted):
    """Whether `given` can be the beginning of `wanted` in any order."""
    return not Counter(given) - Counter(wanted)


def follows(step, given, inputs, *, complete):
    """Say how the outputs of a step contradict its inputs, or None.

    Incomplete outputs are the first of them; where order is free, any of them.
    """
    if step.kind == "merge":
        first, second = ([item for item in given if item in part] for part in map(set, inputs))
        right = first == inputs[0][: len(first)] and second == inputs[1][: len(second)]
        right = right and len(given) == len(first) + len(second)
        return None if right and (not complete or len(given) == sum(map(len, inputs))) else inputs
    if step.kind == "batch_within":
        right = all(1 <= len(batch) <= step.size for batch in given)
        given, wanted = [item for batch in given for item in batch], inputs[0]
        right = right and given == (wanted if complete else wanted[: len(given)])
        return None if right else wanted
    wanted = expected(step, *inputs)
    if step.exact:
        right = given == (wanted if complete else wanted[: len(given)])
    else:
        right = is_part(given, wanted) and (not complete or len(given) == len(wanted))
    return None if right else wanted


def numbers(script, place=-1):
    """The items of a source: those of each step's own begin at another hundred."""
    first = 100 * (place + 1)
    return range(first, first + script.count)


def whole(schedule):
    """What the pipeline gives, or None where order is free."""
    items = list(range(schedule.source.count))
    for place, step in enumerate(schedule.steps):
        if not step.exact:
            return None
        others = [] if step.other is None else [list(numbers(step.other, place))]
        items = expected(step, items, *others)
    return items
