"""The texts of `--help`. A backspace alone on a line keeps the paragraph below it as it is written."""

PENSTOCK = "Stream documents into an index that can be searched, and search it."

EMBED = """
Index the files under PATH...; files that the index already has in their present version are skipped.

A PATTERN without / is about a name at any depth, one with / about the path below PATH, where ** stands for any
directories. Names that start with a dot are passed over and links to directories are not followed: name such a path to
have it. A file that is named is always taken.

An index remembers its embedder. With openai, the texts go to the server that you name, 64 to a request; what it refuses
for now is tried again, as late as it asks. Keep the key in OPENAI_API_KEY.

Files that are gone stay in the index and are listed; --prune removes them once all others are stored. Nothing is
removed of what cannot be read, nor of a PATH that is empty.

Ctrl-C finishes what is in flight and stops (a request to a server has three seconds for that); the same command then
goes on. A second Ctrl-C aborts; nothing that was stored is lost.

Exit codes: 0 done, 1 some files failed, 2 bad usage, 130 interrupted.

\b
Examples:
  penstock embed docs README.md --to index.db
  penstock embed src --to index.db --glob '*.py' --exclude tests
  penstock embed docs --to index.db --prune
  penstock embed docs --to openai.db --embedder openai:text-embedding-3-small
  penstock embed docs --to local.db --embedder openai:nomic-embed-text --base-url http://localhost:11434/v1
  penstock embed docs --to model.db --embedder sentence-transformers:models/all-MiniLM-L6-v2
"""

SEARCH = """
Find the chunks of INDEX that are nearest to QUESTION, by their vectors (with the embedder hash, that is likeness of
spelling) and by words. Writes nothing. The embedder has to be the one that the index was made with.

\b
Examples:
  penstock search index.db "compress bytes"
  penstock search index.db "C++" -k 10 --json
  penstock search openai.db "compress bytes" --embedder openai:text-embedding-3-small
"""
