"""Programs that a run starts: what they say, how they end, and that nothing of them stays."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.flow.added import CannotBegin
from penstock.flow.masking import Mask
from penstock.flow.programs import CommandError, NoSuchProgram, keeping_programs, run_program
from penstock.flow.secrets import EnvSecret

pytestmark = pytest.mark.real_time

SECRET = "s3cr3t-\N{SNOWMAN}-value"


@pytest.fixture(autouse=True, scope="module")
def one_keeper():
    """A keeper for all programs of these tests: to start one takes longer than most of them."""
    with keeping_programs() as keeper:
        keeper.start()
        yield


@pytest.fixture
def go(tmp_path):
    async def run(*argv, **options):
        return await run_program(argv, **{"cwd": tmp_path} | options)

    return run


@pytest.fixture
def fifo(tmp_path):
    """A FIFO that `end_of` reads to its end: until all who hold its other end are dead."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


async def end_of(reading):
    """All that is written to a descriptor, until nobody can write any more."""
    text = b""
    while part := await asyncio.to_thread(os.read, reading, 65_536):
        text += part
    os.close(reading)
    return text.decode()


class Gate:
    """Takes lines of a program; `await gate("word")` waits until one of them has come."""

    def __init__(self):
        self.lines, self._event = [], asyncio.Event()

    def __call__(self, line):
        self.lines.append(line)
        self._event.set()

    async def until(self, line):
        while line not in self.lines:
            self._event.clear()
            await self._event.wait()


# What they say


async def test_the_output_is_stdout_unstripped(go):
    assert await go("printf", "a\\n\\n  b") == "a\n\n  b"
    assert await go("true") == ""


async def test_no_shell_looks_at_words(go):
    words = ("$HOME", "*", "a b", "`id`", "", "; echo", "\N{SNOWMAN}")
    assert await go("printf", "%s|", *words) == "".join(f"{word}|" for word in words)


async def test_it_starts_with_default_signals_and_its_own_session(go):
    """Python ignores SIGPIPE: a program that inherits that does not end when its reader leaves."""
    code = "import os, signal; print(os.getsid(0) == os.getpid(), os.listdir('/proc/self/fd'))"
    session, fds = (await go(sys.executable, "-I", "-S", "-c", code)).split(" ", 1)
    assert session == "True"
    assert fds.strip() == "['0', '1', '2', '3']"  # the last one reads the directory
    assert await go("sh", "-c", "yes | head -n 1") == "y\n"


async def test_bytes_that_are_no_utf8_are_replaced(go):
    assert await go("printf", "a\\377b") == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
async def test_stdin_of_any_size_goes_through(go, size):
    """Who writes all before reading, and a program that writes before it reads on, would wait for each other."""
    assert await go("cat", stdin=b"x" * size) == "x" * size
    assert await go("true", stdin="x" * size) == ""


async def test_without_stdin_there_is_nothing_to_read(go):
    assert await go("cat") == ""


async def test_lines_are_told_as_they_come(go, fifo):
    gate = Gate()

    async def answer():
        await gate.until("ready")
        fifo.write_text("go\n")

    told, _ = await asyncio.gather(
        go("sh", "-c", f"echo ready; read word < {fifo}; echo got $word >&2; printf 'the end'", on_line=gate), answer()
    )
    assert gate.lines == ["ready", "got go", "the end"]
    assert told == "ready\nthe end"


async def test_a_line_without_end_is_told_in_pieces(go):
    lines = []
    await go("sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x", on_line=lines.append)
    assert sum(map(len, lines)) == 1_000_000
    assert max(map(len, lines)) == 8192


# Failures


async def test_a_wrong_exit_code_says_the_last_lines_of_stderr(go):
    with pytest.raises(CommandError) as caught:
        await go("sh", "-c", "seq 9 >&2; echo '' >&2; exit 3")
    assert (caught.value.returncode, caught.value.stderr) == (3, "".join(f"{n}\n" for n in range(1, 10)) + "\n")
    assert str(caught.value) == "sh exited with code 3: 5\n6\n7\n8\n9"


async def test_codes_of_success_are_those_of_ok(go):
    assert await go("sh", "-c", "echo x; exit 1", ok={0, 1}) == "x\n"
    with pytest.raises(CommandError, match="true exited with code 0"):
        await go("true", ok=[7])


async def test_a_signal_that_ends_it_is_named(go):
    with pytest.raises(CommandError, match="sh was ended by SIGSEGV") as caught:
        await go("sh", "-c", "kill -SEGV $$")
    assert caught.value.returncode == -signal.SIGSEGV


async def test_only_the_end_of_stderr_is_kept(go):
    with pytest.raises(CommandError) as caught:
        await go("sh", "-c", "seq 200000 >&2; exit 1")
    assert len(caught.value.stderr) == 1 << 14
    assert caught.value.stderr.endswith("199999\n200000\n")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["penstock-has-none"], "there is no program 'penstock-has-none' in PATH"),
        (["./none"], r"there is no program './none'"),
        (["./plain"], "'./plain' cannot be executed: Permission denied"),
        (["./lost"], r"there is no program './lost', or what its first line names"),
        (["./garbage"], "'./garbage' cannot be executed: Exec format error"),
    ],
)
async def test_a_program_that_is_not_there_is_named(go, tmp_path, argv, message):
    (tmp_path / "plain").write_text("x")
    for name, text in (("lost", "#!/nowhere/sh\n"), ("garbage", "echo no shell\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o700)
    with pytest.raises(NoSuchProgram, match=message):
        await go(*argv)


async def test_a_directory_that_is_not_there_is_said(go, tmp_path):
    with pytest.raises(NoSuchProgram, match="cwd is no directory that a program can run in: No such file"):
        await go("true", cwd=tmp_path / "none")


async def test_names_are_looked_for_in_the_path_that_it_gets(go, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tool").write_text("#!/bin/sh\necho $PWD\n")
    (tmp_path / "bin" / "tool").chmod(0o700)
    assert await go("tool", env={"PATH": f"bin:{os.environ['PATH']}"}) == f"{tmp_path}\n"
    assert await go("./tool", cwd=tmp_path / "bin") == f"{tmp_path / 'bin'}\n"


@pytest.mark.parametrize(("size", "fits"), [(1000, True), (1001, False)])
async def test_more_output_than_allowed_is_a_failure(go, size, fits):
    if fits:
        assert len(await go("head", "-c", str(size), "/dev/zero", max_output=1000)) == size
    else:
        with pytest.raises(CommandError, match="head wrote more than max_output=1000 bytes to stdout"):
            await go("head", "-c", str(size), "/dev/zero", max_output=1000)


async def test_one_that_writes_for_ever_is_ended(go):
    with pytest.raises(CommandError, match="max_output=100000 bytes"):
        await go("yes", max_output=100_000)


# Secrets


async def test_secrets_are_masked_everywhere(go, monkeypatch):
    monkeypatch.setenv("PENSTOCK_TEST_SECRET", SECRET)
    lines, env = [], {"TOKEN": EnvSecret("PENSTOCK_TEST_SECRET"), "PLAIN": "plain"}
    assert await go("sh", "-c", "echo $PLAIN ${#TOKEN} $TOKEN", env=env, on_line=lines.append) == "plain 16 ***\n"
    with pytest.raises(CommandError) as caught:
        await go("sh", "-c", 'echo "<$TOKEN>" >&2; exit 1', env=env, on_line=lines.append)
    said = [str(caught.value), repr(caught.value), caught.value.stderr, *lines]
    assert all("***" in each and SECRET not in each for each in said)


async def test_a_secret_in_two_pieces_is_masked(go, monkeypatch, fifo):
    """What comes first would else be shown before the rest of the secret is there."""
    monkeypatch.setenv("PENSTOCK_TEST_SECRET", SECRET)
    lines = Gate()

    async def answer():
        await lines.until("first")
        fifo.write_text("go\n")

    script = f"echo first; printf '%s' ${{TOKEN%value}}; read word < {fifo}; printf '%s\\n' ${{TOKEN#s3cr3t-*-}}"
    said, _ = await asyncio.gather(
        go("bash", "-c", script, env={"TOKEN": EnvSecret("PENSTOCK_TEST_SECRET")}, on_line=lines), answer()
    )
    assert said == "first\n***\n"
    assert lines.lines == ["first", "***"]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64])
def test_masking_does_not_depend_on_pieces(step):
    secrets = ["ab", "abcd", "aab", "\N{SNOWMAN}", 'q"uote', "x\n"]
    text = f'ab abc abcd aaab aabcd xa {SECRET} q\\"uote x\nx ab a'.encode()
    whole = Mask(secrets).stream()
    expected = whole.feed(text) + whole.end()
    assert b"ab" not in expected
    assert expected.endswith(b"*** a")
    pieces = Mask(secrets).stream()
    assert b"".join(pieces.feed(text[at : at + step]) for at in range(0, len(text), step)) + pieces.end() == expected


async def test_a_secret_that_is_not_there_is_named(go, monkeypatch):
    monkeypatch.delenv("PENSTOCK_TEST_SECRET", raising=False)
    with pytest.raises(CannotBegin, match="there is no secret 'PENSTOCK_TEST_SECRET'"):
        await go("true", env={"TOKEN": EnvSecret("PENSTOCK_TEST_SECRET")})


# How they end


async def test_its_group_ends_with_it(go, fifo):
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reading, True)
    assert await go("sh", "-c", f"sleep 1000 > {fifo} & echo done") == "done\n"
    assert await end_of(reading) == ""


async def stopped(go, fifo, script, *, grace, gate="ready"):
    """What a program has written to the FIFO when it was cancelled after its line `gate`."""
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reading, True)
    lines = Gate()
    running = asyncio.create_task(go("sh", "-c", f"exec 9> {fifo}; {script}", grace=grace, on_line=lines))
    await lines.until(gate)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    return await end_of(reading)


async def test_a_cancelled_one_may_clean_up(go, fifo):
    script = "trap 'echo cleaned >&9; exit' TERM; echo ready; while :; do sleep 0.01; done"
    assert await stopped(go, fifo, script, grace=1000) == "cleaned\n"


async def test_grandchildren_may_clean_up_as_long_as_the_grace_lasts(go, fifo):
    """The program itself is gone at once: its group is not killed with it when it is stopped."""
    child = "trap 'sleep 0.05; echo cleaned >&9; exit' TERM; echo ready; while :; do sleep 0.01; done"
    assert await stopped(go, fifo, f"( {child} ) & wait", grace=1000) == "cleaned\n"


async def test_what_ignores_sigterm_is_killed_after_the_grace(go, fifo):
    script = "trap '' TERM; ( while :; do sleep 0.01; done ) & echo ready; while :; do sleep 0.01; done"
    assert await stopped(go, fifo, script, grace=0.05) == ""


async def test_one_that_is_stopped_ends_all_the_same(go, fifo):
    """SIGTERM waits for a process that SIGSTOP has stopped."""
    assert await stopped(go, fifo, "echo ready; kill -STOP $$", grace=1000) == ""


async def test_cancelled_again_and_again_it_waits_for_the_end(go, fifo):
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reading, True)
    lines = Gate()
    script = (
        f"exec 9> {fifo}; trap 'echo asked; read word < {fifo}.2; exit' TERM; echo ready; while :; do sleep 0.01; done"
    )
    os.mkfifo(f"{fifo}.2")
    running = asyncio.create_task(go("sh", "-c", script, grace=1000, on_line=lines))
    await lines.until("ready")
    for _ in range(3):
        running.cancel()
        await asyncio.sleep(0)
    await lines.until("asked")
    assert not running.done()
    Path(f"{fifo}.2").write_text("go\n")  # noqa: ASYNC240 -- it is read at once
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await end_of(reading) == ""


async def test_cancelled_before_it_has_begun_it_leaves_nothing(go):
    for passes in range(4):
        running = asyncio.create_task(go("sleep", "1000", stdin=b"x" * 1_000_000))
        for _ in range(passes):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_a_hundred_at_once(go):
    texts = await asyncio.gather(*(go("echo", str(number)) for number in range(100)))
    assert texts == [f"{number}\n" for number in range(100)]


def test_without_a_shared_keeper_each_has_its_own():
    """Debug mode may say that a callback was slow: that is the machine's doing."""
    code = (
        "import asyncio, pathlib; from penstock.flow.programs import run_program;"
        "print(asyncio.run(run_program(['echo', 'x'], cwd=pathlib.Path('/'))))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", code], capture_output=True, text=True, check=True
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]
    assert (done.stdout, said) == ("x\n\n", [])


ENGINE = """
import asyncio, pathlib, sys
from penstock.flow.programs import keeping_programs, run_program
async def main():
    with keeping_programs():
        programs = (run_program(["sh", "-c", script], cwd=pathlib.Path.cwd(), on_line=tell) for script in sys.argv[1:])
        await asyncio.gather(*programs)
def tell(line):
    print(line, flush=True)
asyncio.run(main())
"""


@pytest.mark.parametrize("whole_group", [False, True])
async def test_killed_engines_leave_no_program(fifo, tmp_path, whole_group):
    """Also not one that has closed all descriptors, as ssh does, nor its children, nor one that ignores signals."""
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reading, True)
    scripts = [
        f"exec 9> {fifo}; sleep 1000 & echo ready; wait",
        f"exec 0<&- 2>&- 3>&- 4>&- 5>&- 9> {fifo}; trap '' TERM HUP INT; echo ready; sleep 1000; sleep 1000",
    ]
    engine = subprocess.Popen(  # noqa: ASYNC220 -- nothing else runs
        [sys.executable, "-c", ENGINE, *scripts], stdout=subprocess.PIPE, cwd=tmp_path, start_new_session=True
    )
    assert [engine.stdout.readline() for _ in scripts] == [b"ready\n"] * 2
    (os.killpg if whole_group else os.kill)(engine.pid, signal.SIGKILL)
    engine.wait()
    engine.stdout.close()
    assert await end_of(reading) == ""


async def test_a_killed_guard_is_a_failure_and_its_program_is_ended(go, fifo):
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reading, True)
    lines = Gate()
    running = asyncio.create_task(go("sh", "-c", f"exec 9> {fifo}; echo $PPID; echo ready; sleep 1000", on_line=lines))
    await lines.until("ready")
    os.kill(int(lines.lines[0]), signal.SIGKILL)
    with pytest.raises(CommandError, match="was lost: the process that kept it has ended"):
        await running
    assert await end_of(reading) == ""


async def test_lines_for_the_log_cost_nothing_when_nobody_listens(go):
    assert not logging.getLogger("penstock").isEnabledFor(logging.INFO)
    assert await go("echo", "x", on_line=None) == "x\n"
