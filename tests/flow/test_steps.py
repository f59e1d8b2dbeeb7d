"""Steps and pipelines as values: immutable, and checked when they are built."""

import copy
import pickle
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from penstock import OptionError, Retry, flow
from penstock.flow import Cron, Event, Pipeline, PipelineEngine, StepContext, Usage, parallel, review, secret, step
from penstock.flow.function import FunctionStep


def double(x: int) -> int:
    return 2 * x


STEP = step("s", double)


def with_context(x: int, ctx: StepContext) -> int:
    return x


def three(x, ctx, more):
    return x


def by_name(x, *, more):
    return x


def none():
    return 1


def generator(x):
    yield x


async def async_generator(x):
    yield x


async def later(x):
    return x


@dataclass
class Draft:
    text: str
    feedback: str = ""


def test_no_module_has_the_name_of_what_is_exported():
    """Importing `flow/step.py` would put the module where the function `step` is to be."""
    modules = {path.stem for path in Path(flow.__file__).parent.glob("*.py")}
    assert modules.isdisjoint(flow.__all__)


LOCK = threading.Lock()

REFUSED = {
    "a name without characters": lambda: step("", double),
    "a name with a slash": lambda: step("a/b", double),
    "a name with a bracket": lambda: step("a[0]", double),
    "a name of dots": lambda: step("..", double),
    "a name with a newline": lambda: step("a\nb", double),
    "a long name": lambda: step("a" * 101, double),
    "a name that is no text": lambda: step(1, double),
    "no function": lambda: step("a", 3),
    "three parameters": lambda: step("a", three),
    "a keyword": lambda: step("a", by_name),
    "no parameter": lambda: step("a", none),
    "a generator": lambda: step("a", generator),
    "an async generator": lambda: step("a", async_generator),
    "an unknown option": lambda: step("a", double, retries=3),
    "a timeout": lambda: step("a", double, timeout=0),
    "a retry": lambda: step("a", double, retry=3),
    "memo": lambda: step("a", double, memo=1),
    "on_interrupted": lambda: step("a", double, on_interrupted="retry"),
    "an engine": lambda: step("a", double, engine="gpu"),
    "an engine for an async function": lambda: step("a", later, engine="thread"),
    "a limit": lambda: step("a", double, limit=3),
    "a step for a function": lambda: step("a", step("b", double)),
    "memo of a function that cannot say all of itself": lambda: step("a", lambda x: LOCK, memo=True, deps=LOCK),
    "deps without a digest": lambda: step("a", double, deps=LOCK),
    "memo of a closure over a lock": lambda: step("a", partial(three, more=LOCK, ctx=1), memo=True),
    "no steps": lambda: parallel("p", []),
    "no list": lambda: parallel("p", {step("a", double)}),
    "a function for a step": lambda: parallel("p", [double]),
    "a name twice": lambda: parallel("p", [step("a", double), step("a", double)]),
    "concurrency 0": lambda: parallel("p", [step("a", double)], concurrency=0),
    "concurrency True": lambda: parallel("p", [step("a", double)], concurrency=True),
    "an async check": lambda: review("r", check=later),
    "a name twice in a pipeline": lambda: Pipeline("p").step("a", double).step("a", double),
    "a name twice in a list": lambda: Pipeline("p", [step("a", double), step("a", double)]),
    "steps that are none": lambda: Pipeline("p", [double]),
    "a text of steps": lambda: Pipeline("p", "ab"),
    "takes": lambda: Pipeline("p", takes=3),
    "a trigger": lambda: Pipeline("p", trigger="daily"),
    "a map with an unknown option": lambda: Pipeline("p").map("m", double, buffer=3),
    "a map over a step with its options": lambda: Pipeline("p").map("m", step("a", double), timeout=3),
    "a map that skips": lambda: Pipeline("p").map("m", double, on_error="skip"),
    "no cases": lambda: Pipeline("p").branch("b", bool, {}),
    "cases that are none": lambda: Pipeline("p").branch("b", bool, {True: double}),
    "an async choose": lambda: Pipeline("p").branch("b", later, {True: step("a", double)}),
    "two cases of one name": lambda: Pipeline("p").branch("b", bool, {1: step("a", double), 2: step("a", double)}),
    "no rounds": lambda: Pipeline("p").loop("l", step("a", double), until=bool, max_rounds=0),
    "a loop of a function": lambda: Pipeline("p").loop("l", double, until=bool, max_rounds=1),
    "an empty cron": lambda: Cron(""),
    "an event that is no text": lambda: Event(3),
}


@pytest.mark.parametrize("build", REFUSED.values(), ids=REFUSED.keys())
def test_what_breaks_its_rule_is_refused_when_it_is_built(build):
    with pytest.raises(OptionError):
        build()


def test_a_message_names_option_rule_and_value():
    with pytest.raises(OptionError, match=r"^concurrency must be an int >= 1, got 0$"):
        parallel("p", [step("a", double)], concurrency=0)
    with pytest.raises(OptionError, match=r"'a' twice in pipeline 'p'"):
        Pipeline("p").step("a", double).step("a", double)
    with pytest.raises(OptionError, match=r"^step 'a' has no option 'retries': there are deps, engine"):
        step("a", double, retries=3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: parallel("m", [STEP], retry=3), "parallel 'm' has no option 'retry': there are concur"),
        (lambda: review("r", timeout=3), "review 'r' has no option 'timeout': there are check"),
        (lambda: Pipeline("p").review("r", timeout=3), "review 'r' has no option 'timeout': there are check"),
        (lambda: Pipeline("p").branch("b", len, {1: STEP}, memo=True), "branch 'b' has no option 'memo': .* otherwise"),
        (
            lambda: Pipeline("p").loop("l", STEP, until=bool, max_rounds=3, retry=None),
            "loop 'l' has no option 'retry': there are max_rounds, until",
        ),
        (lambda: Pipeline("p").loop("l", STEP, until=bool), "loop 'l' needs the option 'max_rounds'"),
        (
            lambda: Pipeline("p").map("m", double, ordered=True),
            "map 'm' has no option 'ordered': there are concurrency",
        ),
        (lambda: Pipeline("p").add(STEP, timeout=3), "add has no option 'timeout': there are none"),
        (lambda: Pipeline("p", retry=3), "Pipeline 'p' has no option 'retry': there are takes, trigger"),
        (lambda: PipelineEngine("w", workers=3), "PipelineEngine 'w' has no option 'workers': there are concur"),
        (lambda: PipelineEngine("w").approve("x", who="ann"), "approve 'x' has no option 'who': there are by, note"),
        (lambda: PipelineEngine("w").reject("x"), "reject 'x' needs the option 'reason'"),
        (lambda: Cron("* * * * *", zone="UTC"), r"Cron '\* \* \* \* \*' has no option 'zone': there are expression"),
        (lambda: secret("KEY", default=""), "secret 'KEY' has no option 'default': there are none"),
    ],
)
def test_an_option_that_is_not_there_is_refused_by_name(build, message):
    """A message names the step and the option, whatever makes the step."""
    with pytest.raises(OptionError, match=f"^{message}"):
        build()


def test_memo_of_a_step_is_refused_as_that_of_a_step():
    with pytest.raises(OptionError, match=r"^memo=True of step 'a' needs a function"):
        step("a", partial(three, more=LOCK, ctx=1), memo=True)


class CountedName(str):
    """Counts how often it is looked for."""

    __slots__ = ()
    hashed = 0

    def __hash__(self):
        CountedName.hashed += 1
        return super().__hash__()

    __eq__ = str.__eq__


def test_a_chain_looks_at_each_name_as_often_as_a_short_one_does():
    CountedName.hashed = 0
    pipeline = Pipeline("p")
    for number in range(200):
        pipeline = pipeline.step(CountedName(number), double)
    assert CountedName.hashed < 200 * 10


def test_pipelines_made_of_one_have_names_of_their_own():
    base = Pipeline("p").step("a", double)
    one, other = base.step("b", double), base.step("c", double)
    assert [each.name for each in one.step("c", double).steps] == ["a", "b", "c"]
    assert [each.name for each in other.step("b", double).steps] == ["a", "c", "b"]
    assert [each.name for each in base.step("c", double).steps] == ["a", "c"]
    for pipeline, name in ((one, "b"), (other, "c"), (base, "a"), (one, "a")):
        with pytest.raises(OptionError, match=f"'{name}' twice"):
            pipeline.step(name, double)


def test_a_step_never_changes():
    pipeline = Pipeline("p", takes=int).step("a", double)
    with pytest.raises(AttributeError, match="immutable"):
        pipeline.name = "q"
    with pytest.raises(AttributeError, match="immutable"):
        del pipeline.steps


def test_a_copy_is_the_step_itself_and_a_pickled_one_can_be_added_to():
    pipeline = Pipeline("p", takes=int).step("a", double)
    assert copy.copy(pipeline) is copy.deepcopy(pipeline) is pipeline
    read = pickle.loads(pickle.dumps(pipeline))
    assert (read.name, read.takes, read.steps[0].fn) == ("p", int, double)
    assert [each.name for each in read.step("b", double).steps] == ["a", "b"]


def test_each_method_gives_a_new_pipeline_as_the_list_form_does():
    first = Pipeline("p", takes=int, trigger=Cron("0 3 * * *"))
    second = first.step("a", double, retry=Retry(on=OSError)).review("r")
    assert first.steps == ()
    assert [each.name for each in second.steps] == ["a", "r"]
    assert second.takes is int
    assert second.trigger == Cron("0 3 * * *")
    assert Pipeline("p", second.steps).steps == second.steps


@pytest.mark.parametrize(
    ("fn", "takes_context"),
    [
        (double, False),
        (with_context, True),
        (Draft, False),
        (str.upper, False),
        (str.splitlines, False),
        (partial(three, more=1), True),
        (lambda *values: values, False),
        (int, False),
        (print, False),
    ],
)
def test_a_second_required_parameter_is_the_context(fn, takes_context):
    assert FunctionStep("a", fn, step("a", double).options).takes_context is takes_context


def test_usage_adds_what_is_known():
    known = Usage(1, 3, None, 0.5) + Usage(1, None, None, 0.25)
    assert known == Usage(2, 3, None, 0.75)
