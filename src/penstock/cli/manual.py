"""The texts of `--help`. A backspace alone on a line keeps the paragraph below it as it is written."""

PENSTOCK = "Stream documents into an index that can be searched, and search it."

EMBED = """
Index the files under PATH...; files that the index already has in their present version are skipped.

A PATTERN without / is about a name at any depth, one with / about the path below PATH, where ** stands for any
directories. Names that start with a dot are passed over and links to directories are not followed: name such a path to
have it. A file that is named is always taken.

Ctrl-C finishes what is in flight and stops; the same command then goes on. A second Ctrl-C aborts; nothing that was
stored is lost.

Exit codes: 0 done, 1 some files failed, 2 bad usage, 130 interrupted.

\b
Examples:
  penstock embed docs README.md --to index.db
  penstock embed src --to index.db --glob '*.py' --exclude tests
"""

SEARCH = """
Find the chunks of INDEX that are nearest to QUESTION, by likeness of spelling and by words. Writes nothing.

\b
Examples:
  penstock search index.db "compress bytes"
  penstock search index.db "C++" -k 10 --json
"""
