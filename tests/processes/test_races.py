"""Groups that are looked at, taken back, stopped and killed at random: nothing runs twice, no answer is wrong."""

import asyncio
import random
from collections import Counter

import pytest

from penstock.engines import WorkerLost

from .work import calling, mark

pytestmark = pytest.mark.real_time

GROUPS = 400


class Disturber:
    """Submits groups and disturbs them; keeps which calls were answered, and which were never to begin."""

    def __init__(self, seed, path, engine, submit):
        self.chance = random.Random(seed)
        self.path = str(path)
        self.engine, self.submit = engine, submit
        self.numbers = iter(range(10**9))
        self.answered, self.never = set(), set()

    async def groups(self, count):
        for _ in range(count):
            wanted = [next(self.numbers) for _ in range(self.chance.choice((1, 1, 3, 20, 64)))]
            size = self.chance.choice((0, 0, 0, 5_000, 100_000))
            answers = self.submit(*((mark, (self.path, number, self.takes(), size)) for number in wanted))
            kept, stopped = await self.disturb(answers, wanted)
            self.check(wanted, answers.result(), kept, stopped, size)

    def takes(self):
        return self.chance.choice((10, 100, 1_000, 20_000)) if self.chance.random() < 0.1 else 5

    async def disturb(self, answers, wanted):
        """Until the group is over; how many of its calls were to stay, and whether it was stopped."""
        kept, stopped = len(wanted), False
        while not answers.done():
            await asyncio.sleep(self.chance.choice((0, 0, 0.001, 0.005)))
            what = self.chance.random()
            if answers.done():
                break
            if what < 0.3:
                known = self.engine.peek(answers).answers
                assert [answer.value[0] for answer in known] == wanted[: len(known)]
            elif what < 0.32:
                stays = self.engine.recall(answers)
                assert stays <= kept
                kept = stays
            elif what < 0.33:
                self.engine.stop(answers)
                stopped = True
            elif what < 0.332 and (ready := [each for each in self.engine._children if each.usable]):
                ready[0].kill()
        return kept, stopped

    def check(self, wanted, found, kept, stopped, size):
        assert len(found) <= kept
        for number, answer in zip(wanted, found, strict=False):
            if answer.error is None:
                assert (answer.value[0], len(answer.value[1])) == (number, size)
                self.answered.add(number)
            else:
                assert answer is found[-1]
                assert isinstance(answer.error, asyncio.CancelledError if stopped else WorkerLost)
        self.never.update(wanted[len(found) :])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
async def test_whatever_is_done_to_groups_each_call_runs_once_or_not_at_all(seed, tmp_path):
    """What was taken back never begins; an answer is that of its call; at most the last one of a group is an error."""
    path = tmp_path / "begun"
    async with calling(2) as (engine, submit):
        await asyncio.gather(submit((mark, (str(path), -1, 5, 0))), submit((mark, (str(path), -2, 5, 0))))
        disturber = Disturber(seed, path, engine, submit)
        await asyncio.gather(*(disturber.groups(GROUPS // 5) for _ in range(5)))
    begun = Counter(map(int, path.read_text().split()))
    assert [number for number, times in begun.items() if times > 1] == []
    assert begun.keys() & disturber.never == set()
    assert disturber.answered <= begun.keys()
    assert disturber.answered
    assert disturber.never  # how many were left in peace is a matter of how busy the machine is
