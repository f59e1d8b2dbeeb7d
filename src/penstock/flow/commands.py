"""The step that runs a program."""

import logging
import os
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Unpack, cast, overload, override

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.retry import Seconds
from penstock.core.text import a
from penstock.flow.added import StepCall, StepCalls
from penstock.flow.context import StepContext
from penstock.flow.function import annotations_of
from penstock.flow.leaf import Leaf, StepOptions, leaf_options
from penstock.flow.programs import GRACE, MAX_OUTPUT, NoSuchProgram, environment, found, keep_programs, run_program
from penstock.flow.secrets import EnvSecret
from penstock.flow.steps import Step, checked_name
from penstock.flow.templates import Filled, Template, filled, source_of


class CommandOptions(StepOptions, total=False):
    """Options of `command`; those of all steps but `engine` beside them.

    Attributes:
        env: variables beside those of this process. The value of a secret is `***` in all that is captured.
        cwd: the directory that the program runs in; None, the default, is the directory of the step in the workspace.
        ok: exit codes of success; default `(0,)`.
        grace: seconds from SIGTERM to SIGKILL, >= 0; default 5.
        max_output: bytes of stdout, an int >= 1; more fail the step. Default 20,000,000.
    """

    env: Mapping[str, str | EnvSecret] | None
    cwd: str | os.PathLike[str] | None
    ok: Collection[int]
    grace: Seconds
    max_output: int


@overload
def command(
    name: str, argv: Sequence[str], /, *, stdin: None = None, **options: Unpack[CommandOptions]
) -> Step[object, str]: ...
@overload
def command[I](
    name: str,
    argv: Sequence[str] | Callable[[I], Sequence[str]],
    /,
    *,
    stdin: Callable[[I], str | bytes] | None = None,
    **options: Unpack[CommandOptions],
) -> Step[I, str]: ...
def command(
    name: str,
    argv: Sequence[str] | Callable[[Any], Sequence[str]],
    /,
    *,
    stdin: Callable[[Any], str | bytes] | None = None,
    **options: Unpack[CommandOptions],
) -> Step[Any, str]:
    """Make a step that runs a program without a shell; its output is what the program writes to stdout, as UTF-8.

    The program runs in a session of its own. When the step is stopped, its process group gets SIGTERM, after `grace`
    seconds SIGKILL, and is waited for. The group also ends when the program does, and when the engine is killed. Each
    line of stdout and stderr goes to the log of the step. Bytes that are no UTF-8 become U+FFFD.

    Args:
        name: as for `step`.
        argv: the program and its arguments, or a plain function that makes them of the value. A name without a slash is
            looked for in PATH.
        stdin: a plain function that makes of the value what the program reads; None: it reads nothing.
        **options: see `CommandOptions`.

    Raises:
        OptionError: the name or an option breaks its rule.

    A failed run of it has failed with a `CommandError`.
    """
    return Command(checked_name(name), argv, stdin, options)


class Command(Leaf[Any, str]):
    """Runs a program."""

    __slots__ = ("argv", "cwd", "env", "max_output", "ok", "own_grace", "stdin")
    kind: ClassVar[str] = "command"
    argv: tuple[str, ...] | Callable[[Any], Sequence[str]]
    stdin: Callable[[Any], str | bytes] | None
    env: Mapping[str, str | EnvSecret | Template]
    cwd: Path | None
    ok: tuple[int, ...]
    max_output: int

    def __init__(
        self,
        name: str,
        argv: Sequence[str] | Callable[[Any], Sequence[str]],
        stdin: Callable[[Any], str | bytes] | None,
        options: CommandOptions,
    ) -> None:
        super().__init__(name, leaf_options(f"command {name!r}", options, more=_own_options(), without=("engine",)))
        if stdin is not None:
            validate.plain_function("stdin", stdin)
        if callable(argv):
            validate.plain_function("argv", argv)
        self._set(
            argv=argv if callable(argv) else _words(argv),
            stdin=stdin,
            env=_variables(options.get("env")),
            cwd=_directory(options.get("cwd")),
            ok=_codes(options.get("ok", (0,))),
            own_grace=validate.seconds("grace", options.get("grace", GRACE), zero=True),
            max_output=validate.whole("max_output", options.get("max_output", MAX_OUTPUT), least=1),
        )

    @override
    def check(self, value: Any) -> None:
        variables, _ = environment({name: each for name, each in self.env.items() if not isinstance(each, Template)})
        if not callable(self.argv):
            _look_for(self.argv[0], self.cwd, variables.get("PATH"))

    @override
    async def call(self, value: Any, ctx: StepContext) -> str:
        argv = _words(filled(self.argv, value, ctx.state)) if callable(self.argv) else self.argv
        stdin = None if self.stdin is None else _input(filled(self.stdin, value, ctx.state))
        env = {
            name: each.fill(value, ctx.state) if isinstance(each, Template) else each for name, each in self.env.items()
        }
        with self._directories(ctx) as (cwd, own):
            return await run_program(
                argv,
                cwd=cwd,
                env=env,
                stdin=stdin,
                ok=self.ok,
                grace=self.own_grace,
                max_output=self.max_output,
                lock=own,
                on_line=partial(ctx.log.info, "%s") if ctx.log.isEnabledFor(logging.INFO) else None,
            )

    @override
    def made_when_called(self) -> Iterable[object]:
        return (self.argv, self.stdin, *self.env.values())

    @override
    def bind(self, calls: StepCalls) -> StepCall:
        keep_programs(calls.scope)
        return super().bind(calls)

    @override
    def code(self) -> tuple[Callable[..., Any], object]:
        words = source_of(self.argv) if callable(self.argv) else list(self.argv)
        env = {
            name: str(source_of(value)) if isinstance(value, Template) else repr(value)
            for name, value in self.env.items()
        }
        made_by = [
            each if callable(each) and not isinstance(each, Filled) else None for each in (self.argv, self.stdin)
        ]
        return partial(_made_by, *made_by), [
            words,
            source_of(self.stdin),
            env,
            None if self.cwd is None else str(self.cwd),
            sorted(self.ok),
            self.max_output,
        ]

    @override
    def annotations(self) -> Mapping[str, Any]:
        made_by = self.argv if callable(self.argv) else self.stdin
        declared = {} if made_by is None or isinstance(made_by, Filled) else dict(annotations_of(made_by))
        return {**declared, "return": str}

    @contextmanager
    def _directories(self, ctx: StepContext) -> Generator[tuple[Path, Path | None]]:
        """Where the program runs, and the directory of the step; in a stream that has none, and it runs elsewhere."""
        try:
            own = ctx.workspace.absolute()
        except LookupError:
            own = None
        with ExitStack() as stack:
            cwd = own if self.cwd is None else self.cwd.absolute()
            if cwd is None:
                cwd = Path(stack.enter_context(TemporaryDirectory(prefix="penstock-")))
            yield cwd, own


def _own_options() -> frozenset[str]:
    return frozenset(CommandOptions.__optional_keys__)


def _directory(cwd: object) -> Path | None:
    if cwd is None:
        return None
    if not isinstance(cwd, str | os.PathLike) or not cwd:
        raise OptionError(f"cwd must be a path or None, got {cwd!r}")
    return Path(cast("os.PathLike[str]", cwd))


def _made_by(argv: object, stdin: object) -> tuple[object, object]:
    """Hold the functions of a command, for its fingerprint."""
    return argv, stdin


def _words(argv: object) -> tuple[str, ...]:
    """Return `argv` as a tuple."""
    given = cast("Sequence[object]", argv)
    rule = "argv must be a program and its arguments, a sequence of str without NUL"
    if isinstance(argv, str | bytes) or not isinstance(argv, Sequence) or not given:
        raise OptionError(f"{rule}, got {argv!r}")
    for word in given:
        if not isinstance(word, str) or "\0" in word:
            raise OptionError(f"{rule}, got {word!r} in it")
    if not given[0]:
        raise OptionError("argv must begin with the name of a program, got ''")
    return cast("tuple[str, ...]", tuple(given))


def _input(made: object) -> str | bytes:
    if not isinstance(made, str | bytes):
        raise OptionError(f"stdin must give a str or bytes, got {made!r}")
    return made


def _variables(env: object) -> Mapping[str, str | EnvSecret | Template]:
    if env is None:
        return {}
    rule = "env must map names to str or secrets"
    if not isinstance(env, Mapping):
        raise OptionError(f"{rule}, got {env!r}")
    given = dict(cast("Mapping[object, object]", env))
    for name, value in given.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise OptionError(f"{rule}, and a name has no '=', got the name {name!r}")
        if not isinstance(value, str | EnvSecret | Template):
            raise OptionError(f"{rule}, got {a(type(value).__name__)} for {name!r}")
        if isinstance(value, str) and "\0" in value:
            raise OptionError(f"{rule}, got a NUL in the value for {name!r}")
    return cast("dict[str, str | EnvSecret | Template]", given)


def _codes(ok: object) -> tuple[int, ...]:
    given = cast("Collection[object]", ok)
    numbers = tuple(map(validate.as_int, given)) if isinstance(ok, Collection) and not isinstance(ok, str) else ()
    if not numbers or None in numbers:
        raise OptionError(f"ok must be a collection of exit codes, ints, got {ok!r}")
    return cast("tuple[int, ...]", numbers)


def _look_for(name: str, cwd: Path | None, path: str | None) -> None:
    """Raise `CannotBegin` if a program is not there, as far as that can be told before its directory is."""
    if cwd is None and "/" in name and not os.path.isabs(name):  # noqa: PTH117 -- a Path would lose './'
        return
    executable = found(name, (cwd or Path()).absolute(), path)
    place = (cwd or Path()).absolute() / executable
    if not place.exists():
        raise NoSuchProgram(f"there is no program {name!r}")
