"""Embedders from the command line, against a real server on a loopback socket."""

import signal

import pytest

from penstock.sinks import SqliteVectors
from penstock.workflows.documents.chunking import split

from ..embedding_server import KEY, Server, error, good, refused_without  # noqa: TID252 -- tests are no package to name
from ..http_server import HANG  # noqa: TID252 -- as above

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Only what a test sets; commands inherit it."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_EMBEDDING_MODEL"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch.setenv


OPENAI = ["--embedder", "openai:m", "--base-url"]


def assert_silent(place, *commands):
    """The key is in nothing that was printed and in no file."""
    for done in commands:
        assert KEY not in done.out + done.err
    for path in place.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()


def test_options_or_the_environment_say_which_server_model_and_key(penstock, docs, environment, tmp_path):
    with Server(otherwise=refused_without(KEY)) as server:
        given = [*OPENAI, server.url, "--api-key", KEY]
        one = penstock("embed", "docs", "--to", "index.db", *given)
        assert one.out.startswith("index.db: 3 files and 3 chunks stored in ")
        environment("OPENAI_API_KEY", KEY)
        environment("OPENAI_BASE_URL", server.url)
        environment("OPENAI_EMBEDDING_MODEL", "m")
        two = penstock("embed", "docs", "--to", "index.db", "--embedder", "openai", "--json")
        assert two.json["unchanged"] == 3
        found = penstock("search", "index.db", "compress bytes", "-k", "1", "--embedder", "openai", "--model", "m")
        assert found.out.startswith("1. docs/gzip.py:1")
    assert [done.code for done in (one, two, found)] == [0, 0, 0]
    assert {request["model"] for request in server.requests} == {"m"}
    assert server.texts[-1] == "compress bytes"
    assert_silent(tmp_path, one, two, found)


@pytest.mark.quick
def test_a_wrong_key_is_told_in_one_line_and_nothing_is_written(penstock, docs, environment, tmp_path):
    environment("OPENAI_API_KEY", KEY)
    with Server(otherwise=refused_without("another")) as server:
        done = penstock("embed", "docs", "--to", "index.db", *OPENAI, server.url)
        assert len(server.requests) == 1
    assert (done.code, done.out) == (3, "")
    message = "401 Unauthorized: Incorrect API key provided: Bearer ***"
    assert done.err == f"penstock: {server.url}/embeddings: {message}\n"
    assert_silent(tmp_path, done)
    assert list(tmp_path.iterdir()) == [docs]


def test_a_key_that_is_revoked_ends_the_run_which_goes_on_later(penstock, many, environment, tmp_path):
    environment("OPENAI_API_KEY", KEY)
    with Server(good, good, otherwise=error(401, f"{KEY} is revoked")) as server:
        done = penstock("embed", "many", "--to", "index.db", *OPENAI, server.url)
    assert done.code == 3
    assert f"penstock: {server.url}/embeddings: 401 Unauthorized: *** is revoked\n" in done.err
    assert "ended early; what was stored is in index.db, and the same command goes on from there\n" in done.err
    with Server() as server:
        again = penstock("embed", "many", "--to", "index.db", "--json", *OPENAI, server.url)
    assert (again.code, again.json["files"] + again.json["unchanged"]) == (0, 40)
    assert_silent(tmp_path, done, again)


def test_a_search_with_another_embedder_is_told_which_one_to_use(docs, indexed, penstock):
    indexed(docs)
    done = penstock("search", "index.db", "x", *OPENAI, "http://localhost:1/v1")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "penstock: index.db: made with the embedder hash-1 (1024 dimensions), not openai:m; use --embedder hash, "
        "or name another index\n"
    )


def test_a_search_takes_the_embedder_from_the_index(penstock, docs, environment, tmp_path):
    """The model, not the address: an index of others would have the key sent to a server of theirs."""
    with Server(otherwise=refused_without(KEY)) as server:
        given = ["--base-url", server.url, "--api-key", KEY]
        assert penstock("embed", "docs", "--to", "index.db", "--embedder", "openai:m", *given).code == 0
        options = penstock("search", "index.db", "compress", "bytes", "-k", "1", *given)
        environment("OPENAI_EMBEDDING_MODEL", "another")
        none = penstock("search", "index.db", "compress bytes")
        environment("OPENAI_BASE_URL", server.url)
        environment("OPENAI_API_KEY", KEY)
        found = penstock("search", "index.db", "compress", "bytes", "-k", "1")
        other = penstock("search", "index.db", "compress", "--model", "n")
    assert {request["model"] for request in server.requests} == {"m"}
    assert options.out == found.out
    assert found.out.startswith("1. docs/gzip.py:1")
    assert (none.code, other.code) == (2, 2)
    assert "needs a key (OPENAI_API_KEY), or the option --base-url" in none.err
    assert "--model must be 'm', as the embedder 'openai:m' says, got 'n'" in other.err
    assert_silent(tmp_path, options, none, found, other)


def test_a_model_in_a_directory_has_to_be_named(penstock, tmp_path):
    SqliteVectors(tmp_path / "i.db", embedder="sentence-transformers:0123", dimensions=3).open("process").close()
    done = penstock("search", "i.db", "x")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "penstock: --embedder must be 'sentence-transformers:PATH' for i.db, with the model of the digest 0123\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--embedder", "word2vec"], "embedder must be 'hash', 'openai', 'openai:MODEL' or"),
        (["--embedder", "openai"], "needs a model: 'openai:MODEL', the option --model or OPENAI_"),
        (["--embedder", "openai:m"], "needs a key (OPENAI_API_KEY), or the option --base-url for a server"),
        (["--embedder", "openai:m", "--base-url", "h"], "penstock: --base-url must be an http or https address"),
        (["--api-key", KEY], "penstock: --api-key goes with the embedder 'openai', got the embedder 'hash'"),
        (
            ["--embedder", "openai:m", "--api-key", f"{KEY} {KEY}"],
            "penstock: --api-key must be printable ASCII without spaces",
        ),
        (
            ["--embedder", "openai:m", "--api-key", KEY, "--base-url", f"http://me:{KEY}@h/v1"],
            "got one with them for h",
        ),
        (["--embedder", "openai:m", f"--api-keys={KEY}"], "No such option"),
    ],
)
def test_bad_usage_is_told_without_the_key(penstock, docs, tmp_path, options, message):
    for command in (["embed", "docs", "--to", "i.db"], ["search", "i.db", "x"]):
        done = penstock(*command, *options)
        assert (done.code, done.out) == (2, "")
        assert message in done.err
        assert KEY not in done.err
    assert list(tmp_path.iterdir()) == [docs]


def test_a_model_that_is_not_there_is_told(penstock, docs, tmp_path):
    done = penstock("embed", "docs", "--to", "i.db", "--embedder", "sentence-transformers:none")
    assert (done.code, done.out, done.err) == (3, "", "penstock: none: no directory with a model\n")
    assert list(tmp_path.iterdir()) == [docs]


def test_a_request_that_is_made_again_is_told(penstock, docs, environment):
    environment("OPENAI_API_KEY", KEY)
    with Server(error(500, f"{KEY} boom")) as server:
        done = penstock("embed", "docs", "--to", "index.db", *OPENAI, server.url)
        assert done.code == 0
        assert "penstock: attempt 1 failed, the next in 0." in done.err
        assert "500 Internal Server Error: *** boom" in done.err
        assert_silent(docs, done)
    with Server(error(500, "boom")) as server:
        done = penstock("search", "index.db", "x", *OPENAI, server.url)
    assert done.code == 0
    assert done.err.startswith("penstock: attempt 1 failed, the next in 0.")


# A server that hangs


@pytest.fixture
def many(tmp_path):
    root = tmp_path / "many"
    root.mkdir()
    for number in range(40):
        (root / f"{number:02}.txt").write_text("\n\n".join(f"{number} {part} " + "word " * 180 for part in range(12)))
    return root


def chunks_of(root, names=None):
    """How many chunks the documents have."""
    files = [path for path in root.iterdir() if names is None or path.name in names]
    return sum(len(split(path.name, path.read_text())) for path in files)


def names(rows):
    return {row.name for row in rows}


def hanging(server, running, after):
    """Wait until a document is stored and the server, which then hangs, has been asked once more."""
    running.wait_for("first document stored")
    server.wait_for(after + 1)


@pytest.mark.parametrize("ending", ["ctrl-c", "two ctrl-c", "kill"])
def test_a_run_is_left_while_the_server_hangs_and_the_next_one_goes_on(
    *, many, penstock, started_penstock, stored, environment, tmp_path, ending
):
    environment("OPENAI_API_KEY", KEY)
    with Server(*[good] * 6, otherwise=HANG) as server:
        running = started_penstock("embed", "many", "--to", "index.db", *OPENAI, server.url)
        hanging(server, running, after=6)
        if ending == "kill":
            running.process.kill()
            running.process.wait()
        else:
            running.process.send_signal(signal.SIGINT)
            running.wait_for("stopping:")
            if ending == "two ctrl-c":
                running.process.send_signal(signal.SIGINT)
            done = running.finish()
            assert done.code == 130
            assert "the same command goes on from there\n" in done.err
            assert_silent(tmp_path, done)
    done = names(stored())
    some = len(done)
    assert 0 < some < 40
    with Server() as server:
        again = penstock("embed", "many", "--to", "index.db", "--json", *OPENAI, server.url)
    assert (again.code, again.json["unchanged"], again.json["files"]) == (0, some, 40 - some)
    assert len(server.texts) == chunks_of(many) - chunks_of(many, done)


def test_ctrl_c_before_the_server_has_said_a_word_leaves_nothing(many, started_penstock, tmp_path):
    with Server(otherwise=HANG) as server:
        running = started_penstock("embed", "many", "--to", "index.db", *OPENAI, server.url)
        server.wait_for()
        running.process.send_signal(signal.SIGINT)
        done = running.finish()
    assert (done.code, done.err.splitlines()[-1]) == (130, "penstock: ended early, before anything was stored")
    assert list(tmp_path.iterdir()) == [many]


def test_ctrl_c_ends_a_search_while_the_server_hangs(many, penstock, started_penstock):
    with Server() as server:
        penstock("embed", "many", "--to", "index.db", *OPENAI, server.url)
    with Server(otherwise=HANG) as server:
        running = started_penstock("search", "index.db", "x", *OPENAI, server.url)
        server.wait_for()
        running.process.send_signal(signal.SIGINT)
        done = running.finish()
    assert (done.code, done.err) == (130, "penstock: interrupted\n")


# --prune


def test_prune_removes_what_is_gone_and_says_so(penstock, docs, indexed, stored):
    indexed(docs)
    (docs / "note.txt").unlink()
    done = penstock("embed", "docs", "--to", "index.db", "--prune")
    assert done.code == 0
    assert "  1 file gone since, 1 removed from the index:\n    docs/note.txt\n" in done.out
    assert names(stored()) == {"gzip.py", "shell.md"}
    assert penstock("embed", "docs", "--to", "index.db", "--prune", "--json").json["removed"] == 0


def test_prune_leaves_what_cannot_be_read(bound_penstock, docs, indexed, stored):
    (docs / "sub" / "deep").mkdir(parents=True)
    (docs / "sub" / "a.txt").write_text("text")
    (docs / "sub" / "deep" / "b.txt").write_text("text")
    indexed(docs)
    (docs / "sub").chmod(0)
    done = bound_penstock("embed", "docs", "--to", "index.db", "--prune")
    (docs / "sub").chmod(0o755)
    assert done.code == 1
    assert "    docs/sub: permission denied\n" in done.out
    assert "gone" not in done.out
    assert len(stored()) == 5


def test_prune_leaves_what_belongs_to_a_path_that_is_empty(penstock, docs, indexed, stored):
    indexed(docs)
    for path in docs.iterdir():
        path.unlink()
    done = penstock("embed", "docs", "--to", "index.db", "--prune")
    assert done.code == 1
    assert "    docs: empty, while the index has files of it: nothing of them is removed (is it mounted?)\n" in done.out
    assert len(stored()) == 3
