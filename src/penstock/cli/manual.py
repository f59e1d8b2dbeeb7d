"""The texts of `--help`. A backspace alone on a line keeps the paragraph below it as it is written."""

PENSTOCK = """
Stream documents into an index and search it; look at durable runs, and at what has failed in them.

\b
Examples:
  penstock embed docs --to index.db
  penstock search index.db "compress bytes"
  penstock status results.db
  penstock dead results.db list
  penstock redo results.db --run docs --all
"""

EMBED = """
Index the files under PATH...; files that the index already has in their present version are skipped.

A PATTERN without / is about a name at any depth, one with / about the path below PATH, where ** stands for any
directories. Names that start with a dot are passed over and links to directories are not followed: name such a path to
have it. A file that is named is always taken.

An index remembers its embedder. With openai, the texts go to the server that you name, 64 to a request; what it refuses
for now is tried again, as late as it asks. Keep the key in OPENAI_API_KEY.

A file that fails is listed, what the index has of it stays, and the next run tries it again; until it does better, it
is among the dead letters of the index (penstock dead INDEX list), unless it could not even be looked at, as a link that
leads nowhere. With --memo, a text whose vector is known from an
earlier run with --memo is not embedded again: of a run that ended early, or of a file that has changed elsewhere.

Files that are gone stay in the index and are listed; --prune removes them once all others are stored. Nothing is
removed of what cannot be read, nor of a PATH that is empty.

Ctrl-C or SIGTERM finishes what is in flight and stops (a request to a server has three seconds for that); the same
command then goes on. A second one aborts; nothing that was stored is lost.

Exit codes: 0 done, 1 some files failed or none matches, 2 bad usage, 3 it could not be done (the server, the disk, a
damaged INDEX, or another process that writes to it), 130 ended by Ctrl-C, 143 by SIGTERM.

\b
Examples:
  penstock embed docs README.md --to index.db
  penstock embed src --to index.db --glob '*.py' --exclude tests
  penstock embed docs --to index.db --prune
  penstock embed docs --to openai.db --embedder openai:text-embedding-3-small --memo
  penstock embed docs --to local.db --embedder openai:nomic-embed-text --base-url http://localhost:11434/v1
  penstock embed docs --to model.db --embedder sentence-transformers:models/all-MiniLM-L6-v2
"""

SEARCH = """
Find the chunks of INDEX that are nearest to QUESTION, by their vectors (with the embedder hash, that is likeness of
spelling) and by words. Those that have a rare word of it come first. Writes nothing.

The embedder is the one that the index was made with. For openai the key and the address of the server are taken from
the options or the environment, as by embed; a model in a directory has to be named.

Exit codes: 0 done, 2 bad usage, 3 it could not be done (the server, or a damaged INDEX).

\b
Examples:
  penstock search index.db how are retries spaced
  penstock search index.db "C++" -k 10 --json
  penstock search local.db compress bytes --base-url http://localhost:11434/v1
  penstock search model.db compress bytes --embedder sentence-transformers:models/all-MiniLM-L6-v2
"""

RUNS = """
List the durable runs of DB, the one begun last first. Writes nothing, and works while they run, too.

DB is the database that a run writes to, or the journal beside a Callback. A run is running, complete (its source came
to its end), stopped (before that, in order or by an error) or killed. What is not complete goes on when it is started
again.

\b
Examples:
  penstock runs results.db
  penstock runs results.db --json
"""

STATUS = """
Tell how RUN stands, or every run of DB: what it is over, who runs it or ran it last and since when, what is done and
what is dead. Writes nothing.

\b
Examples:
  penstock status results.db
  penstock status results.db docs --json
"""

DEAD = """
Look at the dead roots of DB: items of a source of which something has failed for good and was set aside, by
on_error="collect". A run passes them over until they change or are retried.

\b
  list     a line for each kind of error: how many roots have it, and the key
           of one; the default. With --each or --key, a line for each thing
           that failed
  show     the items that failed, with the whole traceback
  retry    have the next run do them again
  discard  give them up: they are done, without rows, until they change (in an
           index, with what it has of an earlier version)
  export   a JSON document for each root, one a line

A key is written as list shows it: for a file of an index it is the whole path.

Without --run and --key, all are meant. retry and discard write to DB, so no run may; the others write nothing.

Exit codes: 0 done, 2 bad usage (no such database, run or key), 3 it could not be done (a run is writing to DB, or it is
damaged).

\b
Examples:
  penstock dead results.db
  penstock dead results.db list --each
  penstock dead results.db show --run docs --key intro.md
  penstock dead results.db retry --run docs
  penstock dead results.db discard --key intro.md --key notes.md
  penstock dead results.db export > dead.jsonl
"""

REDO = """
Have the next run of DB do roots again that are done or dead: those of KEY..., or those that an option says. Until it
has, their rows stay as they are. The next run is the program that made DB, started again.

A KEY is written as it is. A number is the number; where a text of the same letters is a root, too, '"5"' is the text. A
key with control characters may be written as it is shown, \\n for example. With merged sources, prefixes are a part of
keys. If one of the keys is not there, nothing is changed.

With memo=True, results that are kept are recalled, and not paid for again; other deps make new ones.

Exit codes: 0 done, 2 bad usage (no such database, run or key), 3 it could not be done (a run is writing to DB, or it is
damaged).

\b
Examples:
  penstock redo results.db intro.md notes.md --run docs
  penstock redo results.db --run docs --all
  penstock redo results.db --run docs --made-by-other-code
  penstock redo results.db --dead
  penstock redo index.db "$PWD/docs/intro.md"
  penstock redo results.db --missing-rows --json
"""

FORGET = """
Forget a run of DB: what of it is done, and what is dead. The next run of that name begins anew.

Its rows stay, unless --rows remove says so. Rows that stay belong to no run any more: a new run does not replace them,
but adds its own. Those of an index cannot stay without their run, and those of a Callback are where it brought them.

On a terminal it asks before. Killed in the middle of --rows remove, the same command goes on.

Exit codes: 0 done, 2 bad usage (no such database or run), 3 it could not be done (a run is writing to DB, or it is
damaged).

\b
Examples:
  penstock forget results.db --run docs
  penstock forget results.db --run docs --rows remove --yes
"""
