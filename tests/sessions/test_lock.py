"""One writer: who is refused, when a dead session's lock expires, and what a session does that has lost its own."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from refusal import refused

from ssnas_colab.core.basics import UserError
from ssnas_colab.sessions import lock as module
from ssnas_colab.sessions.lock import LOCK_NAME, Lock, new_record, read_record, write_record

QUICK = {"beat": 0.1, "expires": 1.0, "settle": 0.02}
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    assert not module._HELD, "a test has left a lock"


def child(action, wait=True):
    "Run `action` in a forked process; what it returned, as JSON has it, or the text of its error."
    reader, writer = os.pipe()
    number = os.fork()
    if not number:
        try:
            said = action()
        except BaseException as error:
            said = str(error)
        os.write(writer, json.dumps(said).encode())
        os._exit(0)
    os.close(writer)
    if not wait:
        return number, reader
    os.waitpid(number, 0)
    with os.fdopen(reader) as file:
        return json.loads(file.read() or "null")


def lock_holder(folder):
    return read_record(folder / LOCK_NAME)


class Locks:
    "The locks of a run's folder and of its copy on Drive, taken together as a session takes them."

    def __init__(self, folder, *drive, **options):
        self.folder, self.drive, self.locks, self.options = folder, drive, [], options

    def acquire(self):
        self.locks = [Lock(self.folder, **self.options)]
        self.locks += [Lock(folder, drive_of=self.locks[0], **self.options) for folder in self.drive]
        try:
            for lock in self.locks:
                lock.acquire()
        except BaseException:
            self.release()
            raise
        return self

    def release(self):
        for lock in self.locks:
            lock.release()

    def holds(self, folder=None):
        asked = [lock for lock in self.locks if folder in (None, lock.folder)]
        return bool(asked) and all(lock.holds(directly=folder is not None) for lock in asked)

    def check(self):
        for lock in self.locks:
            lock.check()

    __enter__ = acquire

    def __exit__(self, *error):
        self.release()


def quick(folder, *drive, **options):
    return Locks(folder, *drive, **{"name": "a test", "say": lambda text: None, **QUICK, **options})


def elsewhere(folder, **changes):
    "A lock that another machine has left in the folder."
    folder.mkdir(parents=True, exist_ok=True)
    record = {**new_record("another machine", 0.1), "machine": "elsewhere", "pid": 7, **changes}
    write_record(folder / LOCK_NAME, record)
    return record


def until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this did not happen in time"
        time.sleep(0.005)


@forks
def test_a_second_writer_is_refused_and_a_reader_is_not(tmp_path):
    run, drive = tmp_path / "run", tmp_path / "drive"
    drive.mkdir()
    with quick(run, drive, name="Ada's notebook"):
        said = child(lambda: quick(run).acquire())
        assert "Ada's notebook" in said and f"process {os.getpid()}" in said and "last heard of" in said, said
        assert "\n" not in said and "try again" in said
        assert "Ada's notebook" in child(lambda: quick(tmp_path / "other machine", drive).acquire())
        assert child(lambda: lock_holder(run)["name"]) == "Ada's notebook"
        assert time.time() - lock_holder(drive)["beat"] < 5
    assert child(lambda: bool(quick(run, drive).acquire())) is True
    assert lock_holder(tmp_path) is None and lock_holder(tmp_path / "nowhere") is None


@forks
def test_a_killed_writer_is_no_obstacle(tmp_path):
    def killed():
        quick(tmp_path, name="killed").acquire()
        os.kill(os.getpid(), signal.SIGKILL)

    child(killed)
    assert lock_holder(tmp_path)["name"] == "killed"
    begin = time.monotonic()
    with quick(tmp_path, expires=100.0):
        assert time.monotonic() - begin < 2 and lock_holder(tmp_path)["name"] == "a test"
    number, reader = child(lambda: [quick(tmp_path).acquire(), time.sleep(60)], wait=False)
    until(lambda: lock_holder(tmp_path))
    os.kill(number, signal.SIGKILL)  # and nobody has waited for it: a zombie is dead, too
    with quick(tmp_path, expires=100.0):
        pass
    os.waitpid(number, 0)
    os.close(reader)


@forks
def test_a_killed_writer_is_no_obstacle_on_drive_either(tmp_path):
    "What this machine knows of the session that held the run's folder holds of the same session on Drive."
    run, drive, heard = tmp_path / "run", tmp_path / "drive", []
    drive.mkdir()

    def killed():
        quick(run, drive, name="killed").acquire()
        os.kill(os.getpid(), signal.SIGKILL)

    child(killed)
    refused("killed", act=quick(tmp_path / "other machine", drive, expires=100.0).acquire)
    with quick(run, drive, expires=100.0, say=heard.append) as lock:
        assert lock.holds(drive) and lock_holder(drive)["name"] == "a test" and not heard


@forks
def test_the_worker_of_a_killed_writer_holds_nothing(tmp_path):
    def killed():
        quick(tmp_path).acquire()
        worker, _ = child(lambda: time.sleep(60), wait=False)
        (tmp_path / "worker").write_text(str(worker))
        os.kill(os.getpid(), signal.SIGKILL)

    number, reader = child(killed, wait=False)
    os.waitpid(number, 0)
    os.close(reader)
    worker = int((tmp_path / "worker").read_text())
    os.kill(worker, 0)  # it lives
    with quick(tmp_path, expires=100.0):
        pass
    os.kill(worker, signal.SIGKILL)


def test_a_lock_of_version_0_1(tmp_path):
    "It asks the system for nothing: it is judged by its beat, and finds what it asks for in what we write."
    old = {"name": "Ada", "host": "laptop", "pid": os.getpid(), "machine": "0123456789abcdef", "process_start": "77"}
    old |= {"id": "its own", "started": time.time(), "beat": time.time(), "every": 0.1, "count": 3}
    (tmp_path / LOCK_NAME).write_bytes(json.dumps(old).encode() + b" " * 100 + b"\n")
    refused("Ada (process", act=quick(tmp_path).acquire)
    write_record(tmp_path / LOCK_NAME, {**old, "beat": time.time() - 10})
    with quick(tmp_path):
        assert set(old) <= set(lock_holder(tmp_path)) and (tmp_path / LOCK_NAME).stat().st_size % 512 == 0


def watched(folder, beats=(), **changes):
    "What happens to one who wants the lock that another machine has left, whose beat changes at `beats` (seconds)."
    record, heard = elsewhere(folder, **changes), []

    def beating():
        begin = time.monotonic()
        for at in beats:
            time.sleep(max(0.0, begin + at - time.monotonic()))
            write_record(folder / LOCK_NAME, {**record, "count": at})

    thread = threading.Thread(target=beating)
    thread.start()
    begin = time.monotonic()
    try:
        with quick(folder, say=heard.append, expires=0.4):
            taken = True
    except UserError:
        taken = False
    thread.join()
    (folder / LOCK_NAME).unlink(missing_ok=True)
    return taken, time.monotonic() - begin, heard


def test_another_machine_is_judged_by_what_it_does_not_by_its_clock(tmp_path):
    now = time.time()
    taken, seconds, heard = watched(tmp_path / "fresh")
    assert not taken and not heard  # heard of a moment ago: refused at once
    taken, seconds, heard = watched(tmp_path / "dead", beat=now - 100)
    assert taken and seconds >= 0.2 and "another machine" in heard[0]
    taken, seconds, heard = watched(tmp_path / "slow clock, or just woken", beats=[0.1], beat=now - 100)
    assert not taken and heard
    taken, seconds, heard = watched(tmp_path / "dead, fast clock", beat=now + 9000, started=now + 9000)
    assert taken and seconds >= 0.4 and heard
    taken, seconds, heard = watched(tmp_path / "alive, fast clock", beats=[0.2], beat=now + 9000, started=now + 9000)
    assert not taken


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"\0" * 512, b'{"beat": "x"}'])
def test_a_damaged_lock_is_watched_and_taken(tmp_path, content):
    (tmp_path / LOCK_NAME).write_bytes(content)
    with quick(tmp_path, beat=0.02) as lock:
        assert lock.holds() and read_record(tmp_path / LOCK_NAME)["name"] == "a test"


@pytest.mark.parametrize("content", [b"", b"{"])
def test_what_a_kill_has_left_of_a_lock_holds_up_nobody(tmp_path, content):
    "With the beat that sessions have: it was watched for 40 s."
    (tmp_path / LOCK_NAME).write_bytes(content)
    begin = time.monotonic()
    with quick(tmp_path, beat=20.0, expires=120.0) as lock:
        assert lock.holds() and time.monotonic() - begin < 3


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("which", [".lock", "lock.json", "the folder"])
@pytest.mark.parametrize("left", [False, True])
def test_a_disk_that_takes_no_lock(tmp_path, monkeypatch, fault, which, left):
    "One sentence at once, and nothing is left that the next session would wait for."
    folder, opened, made = tmp_path / "runs" / "digits", os.open, os.mkdir
    if left:  # by a session of another machine, long ago
        elsewhere(folder, beat=time.time() - 999)

    def fails(path, *more, **options):
        if which != "the folder" and str(path).endswith(f"/{which}"):
            if fault == errno.ENOSPC and which == "lock.json":  # the name fits on the disk, the bytes do not
                os.close(opened(path, os.O_WRONLY | os.O_CREAT))
            raise OSError(fault, os.strerror(fault), str(path))
        return opened(path, *more, **options)

    def no_folder(path, *more, **options):
        if which == "the folder":
            raise OSError(fault, os.strerror(fault), str(path))
        return made(path, *more, **options)

    begin, before = time.monotonic(), (folder / LOCK_NAME).read_bytes() if left else None
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fails)
        patch.setattr(os, "mkdir", no_folder)
        if which != "the folder" or not left:
            refused("cannot be written", os.strerror(fault), act=quick(folder).acquire)
    assert time.monotonic() - begin < 2 and (not left or (folder / LOCK_NAME).read_bytes() == before)
    assert left or not folder.exists() or not list(folder.iterdir())
    with quick(folder) as lock:
        assert lock.holds()


@forks
@pytest.mark.parametrize("guarded", [True, False])
def test_of_many_who_take_over_at_once_one_wins(tmp_path, monkeypatch, guarded):
    "A dead lock, eight processes, the same instant. Without the system's help there are rounds with several."
    if not guarded:
        for name in ("acquire", "release"):
            monkeypatch.setattr(module.FileLock, name, lambda lock, **options: None)
        read = module.read_record
        monkeypatch.setattr(module, "read_record", lambda path: [read(path), time.sleep(0.02)][0])
    won = []
    for turn in range(2 if guarded else 8):  # a busy machine may let them act one after the other
        folder, start = tmp_path / str(turn), time.time() + 0.15
        elsewhere(folder, beat=time.time() - 999, every=0.02)

        def one(folder=folder, start=start):
            time.sleep(max(0.0, start - time.time()))
            try:
                quick(folder, beat=0.05, expires=60.0).acquire()
                won = 1
            except UserError:
                won = 0
            (folder / f"decided {os.getpid()}").touch()
            until(lambda: len(list(folder.glob("decided*"))) == 8, 20)  # who dies sooner may be followed
            return won

        children = [child(one, wait=False) for _ in range(8)]
        for number, _ in children:
            os.waitpid(number, 0)
        won.append(sum(json.loads(os.fdopen(reader).read()) for _, reader in children))
        if not guarded and won[-1] > 1:
            break
    assert won == [1, 1] if guarded else won[-1] > 1, won


def test_on_drive_the_earlier_of_two_locks_counts(tmp_path):
    "Drive makes a second file where two machines create one at the same time."
    drive = tmp_path / "drive"
    drive.mkdir()
    now = time.time()

    def while_settling(started):
        record = {**new_record("the other", 0.1), "machine": "elsewhere", "started": started}
        until(lambda: (drive / LOCK_NAME).exists())
        write_record(drive / "lock (1).json", record)

    for started, wins in ((now - 50, False), (now + 50, True)):
        thread = threading.Thread(target=while_settling, args=(started,))
        thread.start()
        if wins:
            with quick(tmp_path / "run", drive, settle=0.3) as lock:
                thread.join()
                assert lock.holds(drive)
        else:
            refused("the other", act=quick(tmp_path / "run", drive, settle=0.3).acquire)
            thread.join()
        assert not (tmp_path / "run" / LOCK_NAME).exists()
        for path in drive.glob("lock*"):
            path.unlink()


def test_the_beat_goes_on(tmp_path):
    with quick(tmp_path, beat=0.02):
        first = lock_holder(tmp_path)
        until(lambda: lock_holder(tmp_path)["count"] > first["count"] + 3)
        assert lock_holder(tmp_path)["beat"] > first["beat"] and lock_holder(tmp_path)["id"] == first["id"]


@pytest.mark.parametrize("where", ["run", "drive"])
def test_who_was_taken_over_writes_no_more(tmp_path, where):
    "A laptop that slept notices before its next write, and touches nothing of the other's."
    run, drive = tmp_path / "run", tmp_path / "drive"
    drive.mkdir()
    with quick(run, drive) as lock:
        assert lock.holds() and lock.holds(drive)
        lock.check()
        other = elsewhere(tmp_path / where)
        if where == "run":
            assert not lock.holds()
        else:
            assert not lock.holds(drive)
            until(lambda: not lock.holds())
        refused("taken over by another machine", "nothing more is written from here", act=lock.check)
        time.sleep(0.3)  # a few beats
        assert read_record(tmp_path / where / LOCK_NAME)["id"] == other["id"]
    assert read_record(tmp_path / where / LOCK_NAME)["id"] == other["id"]
    assert not lock.holds()


def test_a_lost_drive_stops_nobody(tmp_path):
    run, drive, away = tmp_path / "run", tmp_path / "Drive" / "digits", tmp_path / "away"
    drive.mkdir(parents=True)
    with quick(run, drive, beat=0.03) as lock:
        (tmp_path / "Drive").rename(away)
        time.sleep(0.2)
        assert lock.holds() and lock.holds(drive) and not (tmp_path / "Drive").exists()
        count = lock_holder(away / "digits")["count"]
        away.rename(tmp_path / "Drive")
        until(lambda: lock_holder(drive)["count"] > count)
        assert lock.holds(drive)
        (tmp_path / "Drive").rename(away)
        elsewhere(away / "digits")  # another machine, in the meantime
        time.sleep(0.1)
        assert lock.holds()
        away.rename(tmp_path / "Drive")
        until(lambda: not lock.holds())
    assert lock_holder(drive)["name"] == "another machine"


def test_a_drive_that_is_away_is_taken_when_it_comes(tmp_path):
    run, drive = tmp_path / "run", tmp_path / "Drive" / "digits"
    with quick(run, drive, beat=0.03) as lock:
        assert lock.holds() and not (tmp_path / "Drive").exists()
        drive.mkdir(parents=True)
        until(lambda: lock_holder(drive))
        assert lock.holds(drive)
    assert lock_holder(drive) is None
    (tmp_path / "Drive").rename(tmp_path / "away")
    with quick(run, drive, beat=0.03, expires=60.0) as lock:
        elsewhere(tmp_path / "away" / "digits")
        (tmp_path / "away").rename(tmp_path / "Drive")
        until(lambda: not lock.holds())


def test_a_drive_that_hangs_holds_up_nothing(tmp_path, monkeypatch):
    run, drive, goes_on = tmp_path / "run", tmp_path / "drive", threading.Event()
    drive.mkdir()
    write = module.write_record

    def hangs(path, record):
        if Path(path).parent == drive:
            goes_on.wait(20)
        write(path, record)

    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    with quick(run, drive, beat=0.05) as lock:
        monkeypatch.setattr(module, "write_record", hangs)
        time.sleep(0.3)
        begin = time.monotonic()
        assert all(lock.holds() for _ in range(5))
        assert time.monotonic() - begin < 1.5
        count = lock_holder(run)["count"]
        until(lambda: lock_holder(run)["count"] > count + 2)  # the local beat goes on
    goes_on.set()


def test_given_back_at_the_end(tmp_path):
    run, drive = tmp_path / "run", tmp_path / "drive"
    drive.mkdir()
    with quick(run, drive, name="Ada's notebook") as one:
        assert one.holds()
        refused("Ada's notebook", act=quick(run).acquire)  # also in the same process
        assert one.holds()
    assert not one.holds() and lock_holder(run) is None and lock_holder(drive) is None
    refused("not held for writing", act=one.check)
    one.release()  # once too often: nothing happens


def test_all_folders_or_none(tmp_path):
    elsewhere(tmp_path / "drive")
    refused("another machine", act=quick(tmp_path / "run", tmp_path / "drive").acquire)
    assert not (tmp_path / "run" / LOCK_NAME).exists()


@forks
def test_a_forked_worker_holds_nothing(tmp_path):
    with quick(tmp_path, beat=0.03) as lock:
        assert child(lock.holds) is False
        assert child(lock.release) is None and child(lambda: module._release_all()) is None
        assert "is being written by" in child(lambda: quick(tmp_path).acquire())
        assert lock.holds() and (tmp_path / LOCK_NAME).exists()


def test_given_back_when_python_ends(tmp_path):
    code = "import os, sys, types; sys.modules['torch'] = types.ModuleType('torch'); "  # takes seconds, is not needed
    code += f"from ssnas_colab.sessions.lock import Lock; Lock({str(tmp_path)!r}).acquire(); "
    code += f"print(os.listdir({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert LOCK_NAME in done.stdout and not list(tmp_path.iterdir()), done.stderr


def test_asking_is_cheap(tmp_path):
    (tmp_path / "drive").mkdir()
    with quick(tmp_path / "run", tmp_path / "drive") as lock:
        begin = time.monotonic()
        assert all(lock.holds() for _ in range(200))
        assert time.monotonic() - begin < 2


def test_wrong_arguments(tmp_path):
    for options in ({"beat": 0}, {"beat": 5, "expires": 5}):
        with pytest.raises(ValueError, match="shorter than"):
            Lock(tmp_path, **options)
