"""Publishing to a Drive that fails, hangs, vanishes, is full, lies and forgets; and what another machine finds there.

Each fault is a scenario. It must pass, and it must fail once the handling of that fault is taken away.
"""

import errno
import os
import shutil
import sys
import threading
import time
import types
from pathlib import Path

import pytest
from refusal import refused

from ssnas_colab.sessions import colab as colab_module
from ssnas_colab.sessions.colab import run_path
from ssnas_colab.sessions.publisher import (
    EMPTY_INDEX,
    INDEX_FILES,
    PRIVATE,
    FileSystem,
    Outbox,
    Publisher,
    RemoteFolder,
    digest,
    dump_index,
    load_index,
    published_files,
    restore,
    writer_name,
)


class Quick(FileSystem):
    "A file system that does not flush, and counts what is asked of it."

    def __init__(self):
        self.done, self.broken, self.contents = [], None, []

    def copy(self, source, target):
        self.done.append(("copy", target.name))
        self.contents.append((target, Path(source).read_bytes()))
        if self.broken:
            raise self.broken
        shutil.copyfile(source, target)

    def remove(self, path):
        self.done.append(("remove", path.name))
        super().remove(path)

    def repeated(self):
        "How many copies brought what was there already."
        return len(self.contents) - len(set(self.contents))

    def count(self, kind):
        return sum(one == kind for one, _ in self.done)


class Patient(Publisher):
    def wait(self, timeout):
        "Whether everything is published, after `timeout` seconds at most."
        end = time.monotonic() + timeout
        while not self.stopped and (self.lost or self.waits()) and time.monotonic() < end:
            time.sleep(0.002)
        return not (self.stopped or self.lost or self.waits())


class Place:
    "A run's folder, the Drive it is published to, and what was said."

    def __init__(self, path, files=None):
        self.here, self.root, self.said = path / "here", path / "Drive", []
        self.drive, self.files, self.path = self.root / "digits", files or Quick(), path
        self.root.mkdir(parents=True, exist_ok=True)
        self.here.mkdir(exist_ok=True)
        self.drive.mkdir(exist_ok=True)

    def publisher(self, **options):
        options = {"retry": 0.01, "say": self.said.append, **options}
        return Patient(self.here, RemoteFolder(self.drive, self.files, patience=0.002), **options)

    def restore(self, there):
        "Whether the folder `there` has got what is published."
        return restore(there, RemoteFolder(self.drive, patience=0), self.said.append)

    def write(self, name, text, publisher=None):
        (self.here / name).parent.mkdir(parents=True, exist_ok=True)
        beside = self.here / (name + ".partial")
        beside.write_text(text)
        beside.replace(self.here / name)
        if publisher:
            publisher.written(name)

    def remove(self, name, publisher):
        (self.here / name).unlink(missing_ok=True)
        publisher.written(name)

    def state(self, number, publisher=None):
        "What a training leaves at its checkpoint `number`: two checkpoints, three files that are replaced."
        if not (self.here / "run.json").exists():
            self.write("run.json", "settings", publisher)
        self.write("alphas.npz", f"alphas {number}", publisher)
        self.write(f"checkpoints/search/{number:06}.pt", f"weights {number} " * 1000, publisher)
        self.write("checkpoints/search/manifest.json", f"manifest {number}", publisher)
        if number > 2 and publisher:
            self.remove(f"checkpoints/search/{number - 2:06}.pt", publisher)

    def restored(self, name="there"):
        "What another machine gets: texts by name."
        there = self.path / name
        assert self.restore(there)
        return {one: (there / one).read_text() for one in published_files(there)}

    def is_whole(self):
        found = self.restored(f"there{time.monotonic_ns()}")
        assert found == {name: (self.here / name).read_text() for name in published_files(self.here)}


def fails_without(monkeypatch, scenario, path, *changes):
    "The scenario passes, and does not with the changes (object, name, value)."
    scenario(path / "with")
    for thing, name, value in changes:
        monkeypatch.setattr(thing, name, value)
    with pytest.raises((AssertionError, OSError)):
        scenario(path / "without")


def until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this did not happen in time"
        time.sleep(0.005)


# ---- faults


def test_writes_that_fail(monkeypatch, tmp_path):
    def scenario(path):
        place = Place(path)
        publisher = place.publisher()
        place.state(1, publisher)
        assert publisher.wait(5)
        place.files.broken = OSError(errno.EIO, "Input/output error")
        for number in range(2, 8):
            place.state(number, publisher)
        until(lambda: place.said)
        before = place.restored("meanwhile")
        assert before["alphas.npz"] == "alphas 1"
        time.sleep(0.05)
        place.files.broken = None
        assert publisher.wait(2), publisher.lost
        assert [("cannot be written" in text, "is back at" in text) for text in place.said] == [(1, 0), (0, 1)]
        place.is_whole()
        place.files.broken = OSError(errno.EIO, "Input/output error")
        place.state(8, publisher)
        assert "alphas.npz" in publisher.close(5) and "not published" in place.said[-1]

    def give_up(self, error):
        self.stopped = str(error)
        self.say(self.stopped)

    fails_without(monkeypatch, scenario, tmp_path, (Publisher, "_lose", give_up))


class Hanging(Quick):
    def __init__(self):
        super().__init__()
        self.goes_on = threading.Event()
        self.goes_on.set()

    def copy(self, source, target):
        self.goes_on.wait(20)
        super().copy(source, target)


def test_writes_that_take_half_a_minute(monkeypatch, tmp_path):
    "Training goes on; what waits is bounded, and of a file that was replaced only the newest version is copied."

    def scenario(path):
        place = Place(path, Hanging())
        publisher = place.publisher()
        place.state(1, publisher)
        assert publisher.wait(5)
        place.files.goes_on.clear()
        begin, copies = time.monotonic(), place.files.count("copy")
        for number in range(2, 14):
            place.state(number, publisher)
        slow = time.monotonic() - begin
        links = len(list((place.here / PRIVATE / "links").iterdir()))
        assert "alphas.npz" in {**publisher.outbox.waiting, **publisher.outbox.under_way}
        assert not publisher.wait(0.01) and publisher.close(0) != []
        place.files.goes_on.set()
        until(lambda: not publisher.waits())
        assert slow < 1.0, f"training waited {slow:.1f} s"
        assert links < 12 and place.files.count("copy") - copies < 20
        place.is_whole()
        assert "000008.pt" not in {path.name for path in place.drive.rglob("*.pt")}

    written = Publisher.written

    def waits(self, name):
        written(self, name)
        self.wait(0.04)

    fails_without(monkeypatch, scenario, tmp_path, (Publisher, "written", waits))


def test_a_drive_that_is_unmounted(monkeypatch, tmp_path):
    "Its place is left alone, or it could not be mounted again."

    def scenario(path):
        place = Place(path)
        publisher = place.publisher()
        place.state(1, publisher)
        assert publisher.wait(5)
        place.root.rename(path / "unmounted")
        place.state(2, publisher)
        until(lambda: place.said or place.root.exists())
        time.sleep(0.1)
        assert not place.root.exists(), "something was written where Drive should be"
        (path / "unmounted").rename(place.root)
        assert publisher.wait(5) and len(place.said) == 2
        place.is_whole()
        assert publisher.close(5) == []

    def makes_everything(self, folder):
        Path(folder).mkdir(parents=True, exist_ok=True)

    def parent_device(self, path):
        return 1

    changes = (FileSystem, "make", makes_everything), (FileSystem, "device", parent_device)
    fails_without(monkeypatch, scenario, tmp_path, *changes)


class Mounted(Quick):
    number = 1

    def device(self, path):
        super().device(path)
        return self.number


def test_an_empty_place_where_drive_was(monkeypatch, tmp_path):
    def scenario(path):
        place = Place(path, Mounted())
        publisher = place.publisher()
        place.state(1, publisher)
        assert publisher.wait(5)
        place.drive.rename(path / "unmounted")
        place.drive.mkdir()
        place.files.number = 2
        place.state(2, publisher)
        until(lambda: place.said or list(place.drive.iterdir()))
        assert not list(place.drive.iterdir()), "something was written where Drive should be"
        place.drive.rmdir()
        (path / "unmounted").rename(place.drive)
        place.files.number = 3  # mounted again, under another number
        assert publisher.close(5) == [] and len(place.said) == 2
        place.is_whole()

    fails_without(monkeypatch, scenario, tmp_path, (Mounted, "device", FileSystem.device))


def test_a_folder_that_a_person_has_emptied(tmp_path):
    place = Place(tmp_path)
    publisher = place.publisher()
    place.state(1, publisher)
    assert publisher.wait(5)
    shutil.rmtree(place.drive)
    place.drive.mkdir()
    place.state(2, publisher)
    assert publisher.close(5) == [] and not place.said
    place.is_whole()


def test_writes_that_were_forgotten(monkeypatch, tmp_path):
    "Drive came back as it was a while ago: everything that is missing is published again."

    def scenario(path):
        place = Place(path)
        publisher = place.publisher()
        place.state(1, publisher)
        assert publisher.wait(5)
        shutil.copytree(place.drive, path / "earlier")
        for number in (2, 3):
            place.state(number, publisher)
            assert publisher.wait(5)
        place.files.broken = OSError(errno.EIO, "Input/output error")
        place.write("report.md", "done", publisher)
        until(lambda: place.said)
        with publisher.outbox.changed:
            shutil.rmtree(place.drive)
            shutil.copytree(path / "earlier", place.drive)
            place.files.broken = None
        assert publisher.close(5) == []
        place.is_whole()

    reach = Publisher._reach

    def trusts(self):
        before = self.index
        reach(self)
        if before is not None:
            self.index, self.everything = before, False

    fails_without(monkeypatch, scenario, tmp_path, (Publisher, "_reach", trusts))


def test_writes_that_were_forgotten_between_two_rounds(tmp_path):
    "No write has failed: that the index is an older one tells it."
    place = Place(tmp_path)
    publisher = place.publisher()
    place.state(1, publisher)
    assert publisher.wait(5)
    shutil.copytree(place.drive, tmp_path / "earlier")
    place.state(2, publisher)
    assert publisher.wait(5)
    before = publisher.index["generation"]
    with publisher.outbox.changed:
        shutil.rmtree(place.drive)
        (tmp_path / "earlier").rename(place.drive)
    place.write("report.md", "done", publisher)
    assert publisher.close(5) == [] and not place.said
    place.is_whole()
    assert publisher.index["generation"] > before  # no number stands for two states


class Small(Quick):
    "A disk of `room` bytes: what does not fit is cut off, and an error raised."

    def __init__(self, root, room=10**9):
        super().__init__()
        self.root, self.room = root, room

    def copy(self, source, target):
        self.done.append(("copy", target.name))
        data = Path(source).read_bytes()
        used = sum(size for name, size in self.sizes(self.root).items() if self.root / name != target)
        target.write_bytes(data[: max(0, self.room - used)])
        if used + len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_keeps_no_halves_and_says_so_once(monkeypatch, tmp_path):
    def scenario(path):
        place = Place(path)
        place.files = Small(place.root)
        place.state(1)
        assert published(place) == []
        place.files.room = sum(place.files.sizes(place.root).values()) + 5000
        place.state(2)
        publisher = place.publisher()
        publisher.start()
        until(lambda: place.said)
        assert place.restored("meanwhile")["alphas.npz"] == "alphas 1"
        until(lambda: not publisher.outbox.under_way)
        assert not [name for name in place.files.sizes(place.root) if name.endswith(".partial")]
        place.files.room = 10**9
        assert publisher.close(5) == []
        assert len(place.said) == 2 and "full: make room" in place.said[0]
        place.is_whole()

    def nothing(self, path):
        pass

    fails_without(monkeypatch, scenario, tmp_path, (Quick, "remove", nothing))


class Halves(Quick):
    "The first renames to a name leave half a file; after each rename some reads find nothing."

    def __init__(self, halves=0, away=0):
        super().__init__()
        self.halves, self.away, self.hidden, self.renamed = halves, away, {}, {}

    def rename(self, old, new):
        super().rename(old, new)
        self.hidden[new] = self.away
        self.renamed[new] = self.renamed.get(new, 0) + 1
        if self.renamed[new] <= self.halves:
            new.write_bytes(new.read_bytes()[:4])

    def read(self, path):
        if self.hidden.get(path, 0) > 0:
            self.hidden[path] -= 1
            raise FileNotFoundError(path)
        return super().read(path)


def test_a_rename_that_leaves_half(monkeypatch, tmp_path):
    def scenario(path):
        place = Place(path, Halves(halves=2))
        publisher = place.publisher()
        for number in range(1, 4):
            place.state(number, publisher)
            assert publisher.wait(5)
        assert not place.said
        place.is_whole()
        assert not place.said

    def believes(self, name, entry, waits=None):
        return self.files.read(self.folder / name)

    fails_without(monkeypatch, scenario, tmp_path, (RemoteFolder, "read", believes))


READ = RemoteFolder.read


def looks_once(self, name, entry, waits=None):
    return READ(self, name, entry, [0])


def test_a_rename_that_takes_a_moment(monkeypatch, tmp_path):
    def scenario(path):
        place = Place(path, Halves(away=2))
        publisher = place.publisher()
        place.state(1, publisher)
        assert publisher.close(5) == []
        assert place.files.repeated() == 0 and not place.said
        place.is_whole()

    fails_without(monkeypatch, scenario, tmp_path, (RemoteFolder, "read", looks_once))


class Stale(Quick):
    "After a write the next two reads give what was there before."

    def __init__(self):
        super().__init__()
        self.before = {}

    def rename(self, old, new):
        self.before[new] = [new.read_bytes() if new.exists() else None] * 2
        super().rename(old, new)

    def read(self, path):
        if self.before.get(path):
            data = self.before[path].pop()
            if data is None:
                raise FileNotFoundError(path)
            return data
        return super().read(path)


def test_a_stale_read_after_a_write(monkeypatch, tmp_path):
    def scenario(path):
        place = Place(path, Stale())
        publisher = place.publisher()
        for number in range(1, 5):
            place.state(number, publisher)
            assert publisher.wait(5)
        assert place.files.repeated() == 0 and not place.said
        place.is_whole()
        assert publisher.close(5) == []

    fails_without(monkeypatch, scenario, tmp_path, (RemoteFolder, "read", looks_once))


# ---- always whole, in order


def published(place, **options):
    publisher = place.publisher(**options)
    publisher.start()
    return publisher.close(5)


def whole_generations(place):
    "Generations of the index files all of whose files are whole."
    found, remote = [], RemoteFolder(place.drive, patience=0)
    for _, index in remote.indexes():
        if all(remote.read(entry["at"], entry) is not None for entry in index["files"].values()):
            found.append(index["generation"])
    return found


class Watched(Quick):
    "Looks before each write and after each removal whether Drive holds a whole state."

    def __init__(self):
        super().__init__()
        self.to, self.seen = None, []

    def look(self):
        if (self.to.drive / INDEX_FILES[0]).exists():
            self.seen.append(max(whole_generations(self.to), default=0))

    def copy(self, source, target):
        self.look()
        super().copy(source, target)

    def remove(self, path):
        super().remove(path)
        self.look()


def test_drive_holds_a_whole_state_at_every_moment(monkeypatch, tmp_path):
    def scenario(path):
        place = Place(path, Watched())
        place.files.to = place
        publisher = place.publisher()
        for number in range(1, 7):
            place.state(number, publisher)
            assert publisher.wait(5)
        assert publisher.close(5) == []
        assert min(place.files.seen) >= 1 and place.files.seen == sorted(place.files.seen)
        assert place.files.count("remove") > 6 and len(list(place.drive.rglob("*.pt"))) == 3
        place.is_whole()

    def in_place(self, name, link):
        return {**digest(link.read_bytes()), "at": name}

    fails_without(monkeypatch, scenario, tmp_path, (Publisher, "_entry", in_place))


def test_old_checkpoints_go_only_after_the_newer_one_counts(monkeypatch, tmp_path):
    def scenario(path):
        place = Place(path)
        publisher = place.publisher()
        for number in range(1, 4):
            place.state(number, publisher)
            assert publisher.wait(5)
        place.files.broken = OSError(errno.EIO, "Input/output error")
        for number in range(4, 9):  # removes the three that are on Drive
            place.state(number, publisher)
        until(lambda: place.said)
        time.sleep(0.05)
        assert {"000002.pt", "000003.pt"} <= {path.name for path in place.drive.rglob("*.pt")}
        assert place.restored("meanwhile")["alphas.npz"] == "alphas 3"
        publisher.close(5)

    publish = Publisher._publish

    def removes_first(self, batch):
        for name, link in batch.items():
            if link is None:
                (self.remote.folder / name).unlink(missing_ok=True)
        publish(self, batch)

    fails_without(monkeypatch, scenario, tmp_path, (Publisher, "_publish", removes_first))


def test_what_waits_is_a_state_that_was(monkeypatch, tmp_path):
    "While state 2 is copied the training goes on to state 3: what is published is state 2, in every file."

    def scenario(path):
        place = Place(path)
        publisher = place.publisher()
        publisher.start = lambda: None
        copy, number = place.files.copy, [1]

        def training_goes_on(source, target):
            copy(source, target)
            if target.name.startswith("000002"):
                number[0] = 3
                place.state(3, publisher)

        place.files.copy = training_goes_on
        for number[0] in (1, 2):
            place.state(number[0], publisher)
            publisher._round()
        assert number == [3]
        found = place.restored("meanwhile")
        kinds = {name: text for name, text in found.items() if name != "run.json" and not name.endswith(".pt")}
        assert kinds == {"alphas.npz": "alphas 2", "checkpoints/search/manifest.json": "manifest 2"}
        assert {name[-4:] for name in found if name.endswith("1.pt")} == {"1.pt"}
        publisher._round()
        place.is_whole()

    def no_link(self, name):
        return self.local / name if (self.local / name).exists() else None

    changes = (Outbox, "_link", no_link), (Outbox, "_drop", lambda self, link: None)
    fails_without(monkeypatch, scenario, tmp_path, *changes)


def test_what_does_not_belong_to_the_run_is_left_alone(tmp_path):
    place = Place(tmp_path)
    place.state(1)
    for name in ("lock.json", "alphas.npz.partial", "checkpoints/search/000000.damaged"):
        place.write(name, "not for Drive")
    (place.drive / "my notes.txt").write_text("mine")
    (place.drive / "lock.json").write_text("another's")
    assert published(place) == []
    names = set(FileSystem().sizes(place.drive))
    assert {"my notes.txt", "lock.json", "alphas.npz", "run.json"} <= names
    assert not [name for name in names if name.endswith((".partial", ".damaged"))]
    assert (place.drive / "lock.json").read_text() == "another's"
    assert (place.drive / "alphas.npz").read_text() == "alphas 1"


def test_a_session_that_was_killed_is_caught_up_with(tmp_path):
    place = Place(tmp_path)
    place.state(1)
    assert published(place) == []
    place.state(2)  # never announced: the session was killed
    (place.here / "checkpoints/search/000001.pt").unlink()
    copies = place.files.count("copy")
    assert published(place) == [] and place.files.count("copy") - copies == 6
    place.is_whole()
    assert published(place) == [] and place.files.count("copy") - copies == 6  # and nothing twice


def test_a_file_of_the_same_name_and_size_is_not_taken_for_ours(tmp_path):
    "Another machine has brought this checkpoint, and died before it was listed."
    place = Place(tmp_path)
    place.state(1)
    assert published(place) == []
    place.state(2)
    (place.drive / "checkpoints/search/000002.pt").write_text("WEIGHTS 2 " * 1000)
    assert published(place) == [] and not place.said
    place.is_whole()
    assert not place.said


def test_what_a_killed_session_has_left_waiting_is_not_written_over(tmp_path):
    place = Place(tmp_path)
    killed = place.publisher()
    killed.start = lambda: None
    place.state(1, killed)
    before = {name: (place.here / name).read_text() for name in published_files(place.here)}
    assert published(place) == []
    assert before == {name: (place.here / name).read_text() for name in published_files(place.here)}
    place.is_whole()


# ---- two sessions


def test_another_session_has_published(tmp_path):
    place = Place(tmp_path)
    publisher = place.publisher()
    place.state(1, publisher)
    assert publisher.wait(5)
    other = Place(tmp_path)
    other.here = tmp_path / "elsewhere"
    assert place.restore(other.here)
    other.state(2)
    assert published(other) == []
    place.state(9, publisher)
    until(lambda: publisher.stopped)
    assert not publisher.wait(1) and "alphas.npz" in publisher.close(1)
    assert "another session has published" in place.said[0]
    assert other.restored("third")["alphas.npz"] == "alphas 2"
    assert "alphas.npz" in published(place) and "restore it first" in place.said[-2]


def test_asks_before_each_write(tmp_path):
    place, may = Place(tmp_path), [True]
    publisher = place.publisher(allowed=lambda: may[0])
    place.state(1, publisher)
    assert publisher.wait(5)
    may[0] = False
    before = {path: path.read_bytes() for path in place.drive.rglob("*") if path.is_file()}
    place.state(2, publisher)
    until(lambda: publisher.stopped)
    assert "taken over" in place.said[0] and "alphas.npz" in publisher.close(1)
    assert before == {path: path.read_bytes() for path in place.drive.rglob("*") if path.is_file()}


def test_an_empty_folder_does_not_empty_drive(tmp_path):
    place = Place(tmp_path)
    place.state(1)
    assert published(place) == []
    for name in ("run.json", "alphas.npz"):
        (place.here / name).unlink()
    published(place)
    assert "restore it first" in place.said[0] and place.restored()["alphas.npz"] == "alphas 1"


# ---- restoring


def test_restores_only_what_is_older(tmp_path):
    place = Place(tmp_path)
    place.state(1)
    assert published(place) == []
    place.state(2)  # newer than Drive
    assert not place.restore(place.here) and (place.here / "alphas.npz").read_text() == "alphas 2"
    other = Place(tmp_path)
    other.here = tmp_path / "elsewhere"
    assert place.restore(other.here)
    other.state(3)
    assert published(other) == []
    assert place.restore(place.here) and (place.here / "alphas.npz").read_text() == "alphas 3"
    aside = tmp_path / "here.aside1"
    assert (aside / "alphas.npz").read_text() == "alphas 2" and (aside / "checkpoints/search/000002.pt").exists()
    assert "here.aside1" in place.said[-1] and published(place) == []


def test_damage_on_drive(tmp_path):
    place = Place(tmp_path)
    for number in (1, 2, 3):
        place.state(number)
        assert published(place) == []
    newest = place.drive / "checkpoints/search/000003.pt"
    newest.write_text("half")
    assert place.restored("a")["alphas.npz"] == "alphas 2" and "000003.pt" in place.said[0]
    newest.write_text("weights 3 " * 1000)
    slot = max(INDEX_FILES, key=lambda slot: load_index((place.drive / slot).read_bytes())["generation"])
    (place.drive / slot).write_bytes((place.drive / slot).read_bytes()[:-9])
    assert place.restored("b")["alphas.npz"] == "alphas 2"
    for path in place.drive.rglob("*.pt"):
        path.write_text("")
    assert "alphas.npz" in place.restored("c") and "without what is damaged" in place.said[-1]
    for path in place.drive.rglob("*"):
        if path.is_file() and path.name not in INDEX_FILES:
            path.write_text("")
    refused("Nothing whole is left", "another folder", act=lambda: place.restored("d"))


def test_a_restore_that_was_killed_is_done_again(monkeypatch, tmp_path):
    place = Place(tmp_path)
    place.state(1)
    assert published(place) == []
    replace, left = os.replace, [2]

    def dies(old, new):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr("ssnas_colab.sessions.publisher.os.replace", dies)
        with pytest.raises(KeyboardInterrupt):
            place.restored()
    assert not (tmp_path / "there/run.json").exists() and (tmp_path / "there/alphas.npz").exists()
    assert len(place.restored()) == 4 and not list(tmp_path.glob("there.aside*"))


def test_an_index_that_points_outside_is_not_followed(tmp_path):
    place = Place(tmp_path)
    for name in ("../outside", "/outside", "a/../../outside", "..\\outside", ".publishing/writer", "lock.json"):
        source = place.drive / "evil"
        source.write_text("evil")
        entry = {**digest(b"evil"), "at": "evil"}
        index = {**EMPTY_INDEX, "generation": 1, "writer": "x", "files": {name: entry, "run.json": entry}}
        (place.drive / INDEX_FILES[0]).write_bytes(dump_index(index))
        there = tmp_path / "in/there"
        place.restore(there)
        assert "evil" not in {path.read_text() for path in tmp_path.rglob("*outside*")}
        assert not (there / "lock.json").exists() and writer_name(there) != "evil"
        shutil.rmtree(there)


def test_two_folders_that_lie_in_each_other(tmp_path):
    for remote in (tmp_path, tmp_path / "inside", tmp_path.parent):
        with pytest.raises(ValueError, match="another folder"):
            Publisher(tmp_path, RemoteFolder(remote))


# ---- mounting


@pytest.fixture
def colab(monkeypatch, tmp_path):
    "A stub of google.colab whose `drive.mount` makes a folder; `colab.refuse` makes it fail."
    google, inner, stub = (types.ModuleType(name) for name in ("google", "google.colab", "google.colab.drive"))
    google.__path__, inner.__path__, google.colab, inner.drive = [], [], inner, stub
    inner.__spec__ = type(sys.__spec__)("google.colab", None)
    stub.asked, stub.refuse = [], None

    def stub_mount(path, **options):
        stub.asked.append(options)
        print("Go to https://accounts.example/?token=ya29.secret")
        print("token=ya29.secret", file=sys.stderr)
        if stub.refuse:
            raise stub.refuse
        (Path(path) / "MyDrive").mkdir(parents=True)

    stub.mount = stub_mount
    for one in (google, inner, stub):
        monkeypatch.setitem(sys.modules, one.__name__, one)
    monkeypatch.delenv("SSNAS_RUNS", raising=False)
    monkeypatch.setattr(colab_module, "DRIVE", tmp_path / "content" / "drive")
    monkeypatch.setattr(colab_module, "_REFUSED", [])
    return stub


def test_mounting(colab, capfd, monkeypatch, tmp_path):
    folder = tmp_path / "content/drive/MyDrive/ssnas_colab/digits"
    assert run_path("digits") == folder and folder.is_dir()
    assert run_path("digits") == folder and colab.asked == [{}]  # asked once
    assert "ya29" not in "".join(capfd.readouterr())
    refused("ssnas_colab/../x", "a folder in it", act=lambda: run_path("digits", "ssnas_colab/../x"))
    monkeypatch.setenv("SSNAS_RUNS", str(tmp_path))
    assert run_path("digits") == tmp_path / "digits"


def test_mounting_is_refused(colab, capfd):
    colab.refuse = ValueError("credential propagation failed, token=ya29.secret")
    assert run_path("digits") == run_path("digits") == Path("runs/digits") and colab.asked == [{}]
    said = "".join(capfd.readouterr())
    assert said.count("was not mounted (ValueError): the run stays on this machine, which forgets it") == 1
    scans = colab_module.DRIVE / "MyDrive/scans.zip"
    refused("was not mounted (ValueError)", "allow access", act=lambda: colab_module.own_images(scans))
    assert "ya29" not in said + "".join(capfd.readouterr())


def test_a_mount_that_has_died_is_mounted_again(colab, monkeypatch):
    is_dir, calls = Path.is_dir, []

    def dead(self, **options):
        if self.name == "MyDrive" and not calls:
            calls.append(self)
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return is_dir(self, **options)

    monkeypatch.setattr(Path, "is_dir", dead)
    assert run_path("digits").is_dir() and colab.asked == [{"force_remount": True}]


def test_outside_colab_nothing_is_mounted(monkeypatch):
    monkeypatch.delenv("SSNAS_RUNS", raising=False)
    if "google.colab" not in sys.modules:
        assert run_path("digits") == Path("runs/digits")


def test_closing_leaves_nothing_behind(tmp_path):
    place = Place(tmp_path)
    place.state(1)
    publisher = place.publisher()
    assert publisher.waits()  # nothing is known yet
    publisher.start()
    assert publisher.wait(5)
    assert len(publisher.index["files"]) == 4 and publisher.index["generation"] == 1 and not publisher.waits()
    assert publisher.close(5) == [] and publisher.close(5) == []
    assert not list((place.here / PRIVATE).glob("links/*"))
