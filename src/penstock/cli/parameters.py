"""Options and arguments of commands: written in the signature of a function, made into those of click.

The form is that of Typer. Typer checks values by pydantic, which takes longer to load than most commands run: 0.1 s of
0.3 s before a search began.
"""

import inspect
from collections.abc import Callable, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Final, get_args, get_origin, override

import click

NAMES_OF_HELP: Final = {"help_option_names": ["-h", "--help"]}


class OfSignature:
    """What `Annotated` says of a parameter beside its type.

    Args:
        flags: what is written on the command line; default `--name`. An argument has none.
        metavar: what stands for the value in the help.
        help: one sentence.
        parser: makes the value of the text.
        show_default: whether the help names the default.
    """

    def __init__(
        self,
        *flags: str,
        metavar: str | None = None,
        help: str = "",  # noqa: A002 -- as click calls it
        parser: Callable[[str], Any] | None = None,
        show_default: bool = True,
    ) -> None:
        self.flags = flags
        self.metavar = metavar
        self.help = help
        self.parser = parser
        self.show_default = show_default

    def made(self, name: str, kind: Any, default: Any) -> click.Parameter:
        """Return the parameter of click: `kind` is a type, a list of one, or either or None."""
        raise NotImplementedError

    def _value(self, kind: Any, default: Any) -> dict[str, Any]:
        """Return what options and arguments have in common."""
        if isinstance(kind, UnionType):
            (kind,) = (each for each in get_args(kind) if each is not NoneType)
        several = get_origin(kind) is list
        item = get_args(kind)[0] if several else kind
        common = {"type": item if self.parser is None else str, "metavar": self.metavar}
        if default is inspect.Parameter.empty:
            common["required"] = True
        elif default is not None:
            common["default"] = default

        def called(_context: click.Context, _param: click.Parameter, value: Any) -> Any:
            if several:
                return [self._made_of(each) for each in value] or default
            return value if value is None else self._made_of(value)

        return {**common, "callback": called, "several": several}

    def _made_of(self, value: Any) -> Any:
        return value if self.parser is None else self.parser(value)


class Option(OfSignature):
    """An option; that of a `bool` is a flag."""

    @override
    def made(self, name: str, kind: Any, default: Any) -> click.Option:
        common = self._value(kind, default)
        several = common.pop("several")
        flags = self.flags or (f"--{name.replace('_', '-')}",)
        return click.Option(
            [*flags, name],
            **common,
            multiple=several,
            is_flag=True if kind is bool else None,
            help=self.help,
            show_default=self.show_default and kind is not bool,
        )


class Argument(OfSignature):
    """An argument, which the help explains as it does an option; a list takes all that follow."""

    @override
    def made(self, name: str, kind: Any, default: Any) -> click.Argument:
        common = self._value(kind, default)
        if default is not inspect.Parameter.empty:
            common["required"] = False
        if several := common.pop("several"):
            common["metavar"] = f"{self.metavar}..."
        return _Explained([name], **common, nargs=-1 if several else 1, explained=self.help)


class _Explained(click.Argument):
    def __init__(self, names: Sequence[str], *, explained: str, **options: Any) -> None:
        super().__init__(names, **options)
        self.explained = f"{explained}  [required]" if self.required else explained

    @override
    def make_metavar(self, ctx: click.Context) -> str:
        return str(self.metavar) if self.required else f"[{self.metavar}]"


class ExplainedCommand(click.Command):
    """A command whose help has its arguments, too."""

    @override
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        arguments = [(str(each.metavar), each.explained) for each in self.params if isinstance(each, _Explained)]
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl(arguments)
        super().format_options(ctx, formatter)


def command(name: str, body: Callable[..., None], told: str) -> ExplainedCommand:
    """Make a command that calls `body` with the values of its parameters; `told` is its help."""
    params = list[click.Parameter]()
    for each in inspect.signature(body).parameters.values():
        assert get_origin(each.annotation) is Annotated, each
        kind, spec = get_args(each.annotation)
        params.append(spec.made(each.name, kind, each.default))
    return ExplainedCommand(name, callback=body, params=params, help=told, context_settings=NAMES_OF_HELP)
