"""Random pipelines for durable runs, and plain list code that says what each root comes to.

Values are texts; a text says from where it comes. Waiting is so many passes of the loop: nothing takes time.
"""

import asyncio
import random
from dataclasses import dataclass
from typing import Any

from penstock.core.retry import Retry
from penstock.sources.keyed import keyed

from .programs import Item, chance

RETRY = Retry(attempts=2, on=(ConnectionError, ValueError), initial=1e-6, jitter=0)


class Dead(Exception):
    """In list code: an item of the root was set aside."""


class Interrupted(ConnectionError):
    """What work makes of its cancellation that takes it ill, as drivers do."""


@dataclass(frozen=True, slots=True)
class StageOf:
    """One operator and its options."""

    operator: str
    name: str
    fails: float
    on_error: str
    options: tuple[tuple[str, Any], ...]
    size: int = 0
    within: float | None = None
    fan: str = "list"

    def is_bad(self, text):
        return chance(f"bad {self.name}", text) < self.fails

    def outputs(self, text):
        """What it makes of a text, and whether it fails after that."""
        bad = self.is_bad(text)
        if self.operator == "flat_map":
            made = [f"{text}.{n}" for n in range(int(4 * chance(f"fan {self.name}", text)))]
            if bad:
                return (made[: len(made) // 2] if self.fan != "list" else []), True
            return made, False
        if bad:
            return [], True
        if self.operator == "filter":
            return ([text] if chance(f"keep {self.name}", text) < 0.6 else []), False
        return [text if self.operator in {"tap", "prefetch"} else f"{text}{self.name}"], False


class Pipeline:
    """Some roots, some stages; `calls` says how often work was called for a root."""

    def __init__(self, seed):
        chances = self._chances = random.Random(seed)
        self.items = [Item(f"r{n}", 0) for n in range(chances.randrange(12))]
        self.sources = chances.choice((1, 1, 2))
        self.stages = [self._stage(chances, name) for name in "abcd"[: chances.randint(1, 4)]]
        self.heals = False
        self.takes_cancellations_ill = chances.random() < 0.5
        self._tried = set()

    def _stage(self, chances, name):
        operator = chances.choice(("map", "map", "filter", "flat_map", "flat_map", "map_batches", "tap", "prefetch"))
        if operator == "prefetch":
            return StageOf(operator, name, 0, "raise", (), size=chances.randint(1, 5))
        options = {
            "concurrency": chances.randint(1, 4),
            "ordered": chances.random() < 0.5,
            "buffer": chances.choice((0, 0, 1, 3)),
            "retry": chances.choice((None, None, RETRY)),
        }
        return StageOf(
            operator,
            name,
            fails=chances.choice((0, 0.1, 0.3)),
            on_error=chances.choice(("skip", "collect", "raise")),
            options=tuple(options.items()),
            size=chances.choice((1, 2, 3, 7, 64)),
            within=chances.choice((None, None, 0.001)),
            fan=chances.choice(("list", "generator", "async generator")),
        )

    def __repr__(self):
        return f"{len(self.items)} roots of {self.sources} sources through {self.stages}"

    @property
    def may_raise(self):
        """Whether a stage ends the run at a failure, until it is healed."""
        return not self.heals and any(stage.on_error == "raise" and stage.fails for stage in self.stages)

    @property
    def is_ordered(self):
        return self.sources == 1 and all(dict(stage.options).get("ordered", True) for stage in self.stages)

    # As list code

    def expected(self, key, version):
        """The texts that a root comes to, sorted, or None if it is dead."""
        texts = self.in_order(key, version)
        return None if texts is None else sorted(texts)

    def in_order(self, key, version):
        texts = [f"{key.partition(':')[2] or key}.{version}"]
        try:
            for stage in self.stages:
                texts = [output for text in texts for output in self._through(stage, text)]
        except Dead:
            return None
        return texts

    def _through(self, stage, text):
        outputs, failed = stage.outputs(text)
        if failed and stage.on_error == "collect":
            raise Dead
        if failed and stage.on_error == "raise":  # it is healed in the end
            return self._healed(stage, text)
        return outputs

    def _healed(self, stage, text):
        return StageOf(stage.operator, stage.name, 0, "raise", (), fan=stage.fan).outputs(text)[0]

    # As a stream

    def stream(self):
        def source(n):
            return keyed(
                self.items[n :: self.sources], key=lambda item: item.key, version=lambda item: str(item.version)
            )

        made, *others = (source(n) for n in range(self.sources))
        if others:
            made = made.merge(*others)
        made = made.map(lambda item: item.text, name="text")
        for stage in self.stages:
            made = self._with(made, stage)
        return made.map(lambda text: {"text": text}, name="row")

    def _with(self, made, stage):
        options = {"name": stage.name, "on_error": stage.on_error, **dict(stage.options)}
        if stage.operator == "prefetch":
            return made.prefetch(stage.size)
        if stage.operator == "map_batches":
            return made.map_batches(self._batch(stage), stage.size, within=stage.within, **options)
        if stage.operator == "flat_map":
            fan = {"list": self._list, "generator": self._generator, "async generator": self._async_generator}
            return made.flat_map(fan[stage.fan](stage), **options)
        return getattr(made, stage.operator)(self._single(stage), **options)

    async def _passes(self):
        try:
            for _ in range(self._chances.choice((0, 0, 1, 2, 5, 20))):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            if self.takes_cancellations_ill:
                raise Interrupted from None
            raise

    def _check(self, stage, *texts):
        """Raise if an item is bad, and at the first attempt where another is made."""
        untried = {(stage.name, text) for text in texts} - self._tried
        self._tried |= untried
        if dict(stage.options).get("retry") and any(chance("flaky", f"{name} {text}") < 0.3 for name, text in untried):
            raise ConnectionError(f"{texts} fails once in stage {stage.name}")
        for text in texts:
            self._check_end(stage, text)

    def _check_end(self, stage, text):
        if stage.is_bad(text) and not (stage.on_error == "raise" and self.heals):
            raise ValueError(f"{text} is bad in stage {stage.name}")

    def _made(self, stage, text):
        return self._healed(stage, text) if stage.on_error == "raise" else stage.outputs(text)[0]

    def _single(self, stage):
        async def single(text):
            try:
                await self._passes()
            except Interrupted:
                if stage.operator == "filter":
                    return False
                raise
            self._check(stage, text)
            made = self._made(stage, text)
            return bool(made) if stage.operator == "filter" else made[0]

        return single

    def _batch(self, stage):
        async def batch(texts):
            await self._passes()
            self._check(stage, *texts)
            return [self._made(stage, text)[0] for text in texts]

        return batch

    def _list(self, stage):
        async def fan(text):
            try:
                await self._passes()
            except Interrupted:
                return []
            self._check(stage, text)
            return self._made(stage, text)

        return fan

    def _generator(self, stage):
        def fan(text):
            yield from self._made(stage, text)
            self._check_end(stage, text)

        return fan

    def _async_generator(self, stage):
        async def fan(text):
            for output in self._made(stage, text):
                try:
                    await self._passes()
                except Interrupted:
                    return
                yield output
            self._check_end(stage, text)

        return fan
