"""The texts of `--help`. A backspace alone on a line keeps the paragraph below it as it is written."""

PENSTOCK = """
Call a function for every row of a file. Index documents and search them. Fetch many URLs into a table. Run pipelines
of steps. Look at durable runs: what is done, what has failed, what to do again.

\b
Examples:
  penstock map jobs:summarise --over reviews.csv --to out.db    call a function for every row
  penstock prompt "Classify: {text}" --over reviews.csv --to out.db --model openai:NAME    ask a model for every row
  penstock export out.db --to out.csv         write what it stored to a file
  penstock embed docs --to index.db           make or update an index
  penstock search index.db compress bytes     search it
  penstock fetch urls.csv --to out.db         fetch URLs, one record a key
  penstock thumbnails photos --to thumbs      make pictures small
  penstock run article.yaml -i '"rivers"'      run a pipeline of steps
  penstock resume .penstock RUN               go on with its run
  penstock runs results.db                    list the durable runs of a database, or the runs of a workspace
  penstock status results.db                  show how they stand
  penstock dead results.db                    show what has failed, and why
  penstock redo results.db --run docs --all   have the next run do it all again

"penstock COMMAND --help" explains a command and has examples.
"""

EMBED = """
Make or update a search index of the files under PATH. Files that have not changed since the last time are skipped, so
the same command goes on after it was stopped or killed.

Which files: those whose name matches a PATTERN. A PATTERN without / matches names at any depth; one with / matches the
path below PATH, where ** stands for any directories. Hidden names and links to directories are skipped, unless PATH
names them. A file that PATH names is always taken.

Engine: where files are read and chunked, and embedded if the embedder is hash. inline: one after the other, with the
least processor time; but Ctrl-C waits for the file that is in hand. thread: a file that takes long holds up nothing.
process: on all processors, each of which has to start. If none is named: with hash, a thread for the first half a
megabyte of new files and processes for the rest; with another embedder, which is what takes long, thread.

Embedder: the index remembers which one made it. With openai, 64 texts go to the server in one request. A request that
the server refuses for now is tried again, after the wait that it asks for. Put the key in OPENAI_API_KEY.

Failures: a file that fails is listed, and the index keeps what it has of it. The next run tries it again. Until then
"penstock dead INDEX list" shows why it failed.

Files that are gone stay in the index and are listed. --prune removes them at the end. It removes nothing below a
directory that cannot be read, or if PATH is empty.

Ctrl-C or SIGTERM finishes what is in flight and stops; a request has three seconds for that. A second one aborts.
What was stored stays in both cases.

Exit codes: 0 done; 1 some files failed, or none matches; 2 bad usage; 3 not done: the server or the disk refuses, INDEX
is damaged, or another process writes to it; 130 stopped by Ctrl-C; 143 stopped by SIGTERM.

\b
Examples:
  penstock embed docs README.md --to index.db
  penstock embed src --to index.db --glob '*.py' --exclude tests
  penstock embed docs --to index.db --prune
  penstock embed manuals --to index.db --engine process
  penstock embed docs --to openai.db --embedder openai:text-embedding-3-small --memo
  penstock embed docs --to local.db --embedder openai:nomic-embed-text --base-url http://localhost:11434/v1
  penstock embed docs --to model.db --embedder sentence-transformers:models/all-MiniLM-L6-v2
"""

FETCH = """
Fetch the URLs in URLS into the table "records" of DB, one record a key. The same command goes on after it was stopped
or killed. After it is complete, it asks again, and only for what is new (ETag, Last-Modified).

URLS is CSV with a header, or lines of JSON; - is stdin. The first column is the key, unless --key names another. Every
other column is an endpoint, in the rows where it holds a URL of http or https. With a single column, that is the key
and the URL.

\b
  id,profile,orders
  7,https://api.example.com/users/7,https://shop.example.com/orders?user=7
becomes a record with the columns
  id  profile_status  profile_body  profile_error  orders_status  orders_body  orders_error
and "validators", which is for the next run.

Bodies: JSON and other text are text, anything else is bytes. status is that of the last answer; error says why it is no
good, and then the body is the last good one of that URL. A key of which nothing can be fetched is set aside: see
"penstock dead DB"; its former record stays, and the next run tries it again.

Requests that may do better are tried again: no connection, too slow, 408, 425, 429, 5xx; after 0.5 s and more, or as
long as the server asks (Retry-After), 60 s at most.

Addresses: only those of the public Internet are connected to, also by redirects; others, as of this machine, its
network or its cloud, need --allow-private. Proxies of the environment are not used.

Headers go to every host that URLS names. Where a redirect leads to another host, only Accept, Accept-Language and
User-Agent go with it. Others on this machine can see the command line, so keep secrets in a file: --header @FILE.
Neither URLs nor headers are shown or stored; a URL that is the key is.

Ctrl-C or SIGTERM finishes what is in flight and stops; a request has three seconds for that. A second one aborts.
What was stored stays in both cases.

Exit codes: 0 done; 1 some keys failed or are incomplete, or there are no rows; 2 bad usage; 3 not done: URLS cannot be
read, the disk refuses, DB is damaged, or another process writes to it; 130 stopped by Ctrl-C; 143 stopped by SIGTERM.

\b
Examples:
  penstock fetch urls.csv --to out.db
  penstock fetch users.jsonl --to users.db --key id --per-host 2 --rate 5/s
  penstock fetch urls.csv --to out.db --header @secrets.txt --header 'Accept: application/json'
  cut -d, -f1,4 all.csv | penstock fetch - --key id --to out.db
  penstock fetch intranet.csv --to out.db --allow-private --timeout 5 --retry 1
  sqlite3 out.db "SELECT id, profile_body ->> 'name' FROM records WHERE profile_error IS NULL"
"""

THUMBNAILS = """
Make the pictures below DIR small, in three sizes, below OUT: DIR/a/b.jpg becomes OUT/64/a/b.jpg, OUT/256/a/b.jpg and
OUT/1024/a/b.jpg. Pictures that have not changed since the last time are skipped, so the same command goes on after it
was stopped or killed.

What is made: a thumbnail fits into a square of so many pixels, and is never larger than its picture. It is turned as
EXIF says, and has no other metadata. Of an animation, the first picture is taken. JPEG and WebP stay that; PNG, GIF and
BMP become PNG; others PNG if they are transparent, else JPEG. If a name has another suffix than that, it gets one more.

Failures: a picture that is broken or too large, that takes too long, or that kills the process that reads it, is
listed, and what OUT has of it stays. The next run tries it again.

OUT has files of this command and, in .penstock, its journal. A file there that this command has not made is never
overwritten. Thumbnails of pictures that are gone stay; --prune removes them.

Ctrl-C or SIGTERM finishes what is in flight and stops; a picture has three seconds for that. A second one aborts. What
was stored stays in both cases.

Exit codes: 0 done; 1 some pictures failed or could not be looked at, or there are none; 2 bad usage; 3 not done: the
disk refuses, the journal is damaged, or another process writes to OUT; 130 stopped by Ctrl-C; 143 stopped by SIGTERM.

\b
Examples:
  penstock thumbnails photos --to thumbs
  penstock thumbnails photos --to thumbs --size 200 --size 800
  penstock thumbnails photos --to thumbs --prune
  penstock thumbnails scans --to small --glob '*.tif' --max-pixels 150000000
  penstock dead thumbs
"""

SEARCH = """
Find the chunks of INDEX that answer QUESTION best. Words and vectors both count; a chunk with a rare word of QUESTION
comes first. Of the first five hits, at most two are from one file. Writes nothing.

The embedder is the one that made INDEX. If it is openai, the key and the address come from the options or the
environment, as for embed. If it is a model in a directory, name it with --embedder.

Exit codes: 0 done; 2 bad usage; 3 not done: the server does not answer, or INDEX is damaged.

\b
Examples:
  penstock search index.db how are retries spaced
  penstock search index.db "C++" -k 10 --json
  penstock search local.db compress bytes --base-url http://localhost:11434/v1
  penstock search model.db compress bytes --embedder sentence-transformers:models/all-MiniLM-L6-v2
"""

MAP = """
Call a function for every row of ROWS, and store what it returns in OUT. Goes on after a kill, Ctrl-C or an error: each
row is done once, and the same command does what is left.

MODULE:FUNCTION is a function of a module in the current directory or on the path, plain or async. It gets the row, a
dict; or, if its parameters are names of columns, these. What it returns is stored: a dict is one row, a list or a
generator several, None none, anything else one row with the column value. With --key, each has the key of its row.

\b
ROWS is one of:
  FILE.jsonl, .csv, .tsv, .parquet   the rows of a file
  DIRECTORY                          its files: a row has path and key, and
                                     text if the function asks for it
  FILE.db, postgresql://...          the rows of --query
  -                                  lines of JSON from standard input
OUT is an SQLite database (.db, .sqlite), postgresql://..., or FILE.jsonl. penstock export writes Parquet and CSV.

A row that fails is set aside, and the others go on: penstock dead OUT says why, and retry has it done again.

Exit codes: 0 done, also where --on-error skip has dropped rows; 1 some rows failed; 2 bad usage; 3 not done; 130 and
143 ended by Ctrl-C and SIGTERM.

\b
Examples:
  penstock map jobs:summarise --over reviews.csv --to out.db --key id
  penstock map jobs:fetch --over urls.jsonl --to pages.db --concurrency 32 --retry 4 --timeout 10
  penstock map jobs:ask --over reviews.csv --to out.db --rate 500/min --memo --limit 100
  penstock map jobs:thumbnail --over photos --glob "**/*.jpg" --to done.db --engine process
  penstock map jobs:score --over app.db --query "SELECT id, name FROM users" --key id --to scores.jsonl
  penstock map jobs:summarise --over reviews.csv --to out.db --dry-run
"""

PROMPT = """
Ask a model for every row of ROWS, and store its answers in OUT, one for each row. Goes on after a kill, Ctrl-C, an
error or a budget: the same command does what is left, and pays for no row twice, but for requests that a kill cut off.

PROMPT is a text with columns: {text} is the column "text" of a row. Other braces stay as they are; {{text}} is {text}.
ROWS and OUT are what they are for penstock map.

The key is read from OPENAI_API_KEY or ANTHROPIC_API_KEY, and shown nowhere. With --base-url, openai:NAME is any server
that speaks /chat/completions; it needs no key if that variable is not set.

Answers: text, in the column "answer". With --schema each is JSON that fits the schema, and the members of an object are
columns. An answer that does not fit is asked again with the error (--asks); a row that gets none that fits is set aside
with its last answer: penstock dead OUT show.

Speed: as many requests at once as the service takes, unless --concurrency says how many. --rate and --tokens bound what
begins in a time; both follow what the service says of its limits. When it has too much to do (429, 529), nobody starts
a request for as long as it asks. Such requests, and those that break, are made again (--retry).

Budgets: --max-cost (with --price) and --max-tokens count all requests of the run since it was begun, failed and killed
ones included; --deadline counts from now. At the line no request begins; those that are made end. The summary says how
many rows are left, and the command that goes on. Where the service does not say what a request has used, an estimate
counts.

A key or a credit that is refused ends the run at once; its rows are not done.

Exit codes: 0 done, also where --on-error skip has dropped rows; 1 some rows failed; 2 bad usage; 3 not done; 4 ended at
a budget; 130 and 143 ended by Ctrl-C and SIGTERM.

\b
Examples:
  penstock prompt "Classify: {text}" --over reviews.csv --to out.db --model openai:gpt-x --key id
  penstock prompt "Classify: {text}" --over reviews.csv --to out.db --model openai:gpt-x --schema schema.json --keep
  penstock prompt "Sum up: {text}" --over docs --glob "*.md" --to out.jsonl --model anthropic:claude-x --max-answer 500
  penstock prompt "On {title}" --over a.jsonl --to a.db --model openai:gpt-x --price 0.15/0.60 --max-cost 5.00
  penstock prompt "On {title}" --over a.jsonl --to a.db --model openai:gpt-x --rate 500/min --tokens 90000/min
  penstock prompt "On {title}" --over a.jsonl --model openai:gpt-x --price 0.15/0.60 --dry-run
  penstock prompt "On {title}" --over a.jsonl --to a.db --model openai:llama --base-url http://localhost:11434/v1
"""

EXPORT = """
Write the rows of a table that a run has filled to a file: Parquet, CSV or lines of JSON. The file is put in its place
when it is complete.

Exit codes: 0 done; 2 bad usage, or no such table; 3 not done.

\b
Examples:
  penstock export out.db --to out.parquet
  penstock export out.db --table pages --to pages.csv
  penstock export postgresql://me@db/shop --table pages --to pages.jsonl
"""

RUNS = """
List the durable runs of DB, the newest first. Writes nothing, and works while they run.

\b
The state of a run:
  running   a process works on it
  complete  it came to the end of its source
  stopped   it ended before that: by a signal, a limit or an error
  killed    its process died
Start the program again, and a run that is not complete goes on.

Exit codes: 0 done; 2 bad usage, or no such database; 3 not done: DB is damaged.

\b
Examples:
  penstock runs results.db
  penstock runs results.db --json
  penstock runs .penstock                      the runs of pipelines in a workspace, which is a directory
"""

STATUS = """
Show how RUN stands, or every run of DB. Says its source, which process runs it or ran it last, since when, how many
roots are done and how many are dead. A root is an item of the source: a file, a line, a row. Writes nothing.

Exit codes: 0 done; 2 bad usage, or no such database or run; 3 not done: DB is damaged.

\b
Examples:
  penstock status results.db
  penstock status results.db docs --json
  penstock status .penstock rivers-1           the steps of the run of a pipeline, and what waits
"""

DEAD = """
Show what has failed for good, or decide what becomes of it. A root is an item of the source: a file, a line, a row. It
is dead if something of it failed and on_error="collect" set it aside. Runs skip dead roots until they change or are
retried.

\b
ACTION is one of:
  list     the default: a line for each kind of error, with the number of
           roots and the key of one. With --each or --key: a line for each
           thing that failed
  show     the items that failed, with the whole traceback
  retry    the next run does the roots again
  discard  give the roots up: they count as done until they change, and keep
           the rows that they have of an earlier version, if any
  export   a JSON document for each root, one a line

Without --run and --key, an ACTION is about all dead roots. Write a KEY as list shows it; the key of a file in an index
is its whole path. retry and discard write to DB, so they are refused while a run does. The others write nothing.

Exit codes: 0 done; 2 bad usage, or no such database, run or key; 3 not done: a run is writing to DB, or DB is damaged.

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
Have the next run do roots again. Takes those with a KEY, or those that an option selects, done or dead. A root is an
item of the source: a file, a line, a row. Its rows stay until the next run replaces them. To do the work, start the
program that made DB again.

Write a KEY as it is. 5 is the number; if the text 5 is a root too, write '"5"' for the text. Write control characters
as they are shown, \\n for example. In a run over merged sources, a key has a prefix: see penstock dead. If one KEY is
not there, nothing is changed.

Results that memo=True has kept are used again, and not paid for twice. To have new ones, change deps= in the program.

Exit codes: 0 done; 2 bad usage, or no such database, run or key; 3 not done: a run is writing to DB, or DB is damaged.

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
Forget a run of DB. The next run of that name begins anew.

The rows of the run stay, unless you say --rows remove. Rows that stay belong to no run: a new run does not replace
them, it adds its own. The rows of an index cannot stay, so --rows remove is needed there. Rows of a Callback are where
it has put them.

On a terminal the command asks first. If it is killed while it removes rows, the same command goes on.

Exit codes: 0 done; 2 bad usage, or no such database or run; 3 not done: a run is writing to DB, or DB is damaged.

\b
Examples:
  penstock forget results.db --run docs
  penstock forget results.db --run docs --rows remove --yes
"""

RUN = """
Run a pipeline of steps, or go on with its run. What is finished is recorded in the workspace: killed at any instant and
called again with the same --run-id, it calls no finished step again.

Stdout has a line "PATH: STATUS" for each step, then "run ID: STATUS". Progress goes to stderr. JSON of --input is read
as the type that the pipeline takes.

Ctrl-C or SIGTERM cancels what runs, records it, and says how to go on. A second one ends at once.

Exit codes: 0 completed; 1 a step failed, or a review was rejected; 2 bad usage, a file with mistakes, or another
definition; 3 could not be done: another process runs it, or the workspace cannot be used; 4 paused: something waits for
an answer; 5 cancelled by somebody else; 130 stopped by Ctrl-C; 143 stopped by SIGTERM.

\b
Examples:
  penstock run article.yaml --input '"rivers"' --run-id rivers-1
  penstock run jobs:nightly -w /var/lib/jobs --run-id "$(date -I)"
  penstock run article.yaml --check
  penstock run article.yaml --input - --json < topic.json
"""

RESUME = """
Go on with a run: what is not finished is run, what waits goes on waiting. The run knows where its pipeline is, unless
it was begun in Python: then say --pipeline.

Exit codes: those of penstock run.

\b
Examples:
  penstock resume .penstock rivers-1
  penstock resume work rivers-1 --pipeline jobs:article --on-change refuse
"""

APPROVE = """
Let what waits go on, or another value for it. STEP can be left out if one waits. A step that was interrupted is called
again, or has the value as its output. JSON is read as the type of what it replaces.

Exit codes: 0 recorded; 1 the value cannot be stored; 2 bad usage, nothing waits, or the check refuses it; 3 the
workspace cannot be used.

\b
Examples:
  penstock approve .penstock rivers-1
  penstock approve .penstock rivers-1 refine[1]/editor --value '{"text": "..."}' --note shorter
"""

REJECT = """
Have a run fail at what waits when it goes on, now and later. penstock fork asks again.

Exit codes: 0 recorded; 2 bad usage, or nothing waits; 3 the workspace cannot be used.

\b
Examples:
  penstock reject .penstock rivers-1 --reason "not our topic"
"""

CANCEL = """
Ask whoever runs a run to stop, and return. A run that nobody runs is cancelled at once.

Exit codes: 0 recorded; 2 bad usage, or it has ended; 3 the workspace cannot be used.

\b
Examples:
  penstock cancel .penstock rivers-1
"""

FORK = """
Make a new run of what a run has finished that does not depend on STEP, and print its id. The old run is not touched.
Go on with the new one by penstock resume.

Exit codes: 0 made; 1 an output cannot be stored; 2 bad usage, or no such run or step; 3 the workspace cannot be used.

\b
Examples:
  penstock fork .penstock rivers-1 --at join
  penstock fork .penstock rivers-1 --at sections --output 'outline=["sources", "mouths"]'
"""
