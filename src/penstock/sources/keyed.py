"""Gives any source keys, by which a durable run knows its items from run to run."""

from collections.abc import Callable
from typing import Any

from penstock.core import validate
from penstock.core.source import Source, SourceSpec
from penstock.core.text import Verbatim, call, content_of, name_of
from penstock.durable.ledger import Identity, unchanged
from penstock.durable.root_source import Keyed, RootSource
from penstock.engines.local import SourceEngine
from penstock.functions import source_spec
from penstock.ops.description import Description
from penstock.streams import Stream


def keyed[T](
    source: Source[T],
    *,
    key: Callable[[T], str | int],
    version: Callable[[T], str] | None = None,
    name: str = "keyed",
    total: int | None = None,
    engine: SourceEngine | None = None,
) -> Stream[T]:
    """Make a stream over `source` whose items have keys, for `to`.

    Args:
        source: as for `stream`.
        key: a plain function that gives the key of an item, a str or an int of at most 64 bits. It is the same from run
            to run, and differs from all other items' keys. If keys come in order, passing over what is done is quicker.
        version: a plain function that gives a str which changes when the item does; default: items never change.
        name: the name of the source; a run keeps to the source of its name.
        total: as for `stream`.
        engine: as for `stream`.

    Example:
        report = await penstock.keyed(users, key=lambda user: user["id"]).map(enrich).to(table, run="users")

    Raises:
        OptionError: an argument breaks its rule.
    """
    validate.plain_function("key", key)
    if version is not None:
        validate.plain_function("version", version)
    spec = source_spec(source, total, engine)
    identity = Identity(validate.text("name", name), key, version or unchanged)
    return with_identity(spec, identity, call("keyed", content_of(source), key=Verbatim(name_of(key)), engine=engine))


def with_identity(
    spec: SourceSpec, identity: Identity, text: str, in_run: Callable[[RootSource], RootSource] | None = None
) -> Stream[Any]:
    """Make a stream over `spec` whose items are roots in a durable run, to which `in_run` tells what is known more."""
    return Stream(
        Description(
            Keyed(
                lambda scope, _: spec.open(scope),
                spec.refuse_consumed,
                text,
                identity=identity,
                open_items=lambda scope, _, __: spec.open(scope),
                one_shot=spec.is_one_shot,
                in_run=in_run,
            )
        )
    )
