"""Stamps of files, and files that are written whole or not at all."""

import json
import os
import stat
import sys
import threading
import time

import pytest

from skbridge._files import FileStamp, file_stamp, file_stamps, written_atomically


def test_stamp_tells_one_file_from_another_and_from_its_past(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"12")
        os.utime(tmp_path / name, ns=(10**18, 10**18))
    first, second = (file_stamp(tmp_path / name) for name in ("a", "b"))
    assert first == file_stamp(tmp_path / "a")
    assert first.size == second.size
    assert first.inode != second.inode
    os.utime(tmp_path / "a", ns=(10**18, 10**18 + 10**9))
    assert file_stamp(tmp_path / "a").modified == first.modified + 10**9


def test_stamp_of_an_open_file_is_that_of_its_path(tmp_path):
    (tmp_path / "a").write_bytes(b"12")
    with open(tmp_path / "a", "rb") as stream:
        assert file_stamp(stream.fileno()) == file_stamp(tmp_path / "a")


def test_only_regular_files_have_a_stamp(tmp_path):
    assert file_stamp(tmp_path) is None
    assert file_stamp(tmp_path / "nothing") is None
    assert file_stamp("\0") is None
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        assert file_stamp(tmp_path / "pipe") is None


@pytest.mark.parametrize(
    ("age", "settled"), [(0, False), (1.9e9, False), (2.1e9, True)]
)
@pytest.mark.parametrize("which", ["modified", "changed"])
def test_file_is_settled_once_the_coarsest_clock_has_moved_on(which, age, settled):
    now = time.time_ns()
    stamp = FileStamp(1, 2, 3, 0, 0)._replace(**{which: now - int(age)})
    assert stamp.is_settled(now) is settled


def test_stamps_of_a_folder_are_those_of_its_files_and_survive_json(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).write_bytes(b"12")
    (tmp_path / "folder").mkdir()
    stamps = file_stamps([str(tmp_path), str(tmp_path / "nothing")])
    assert [os.path.basename(path) for path, *_ in stamps] == ["a", "b"]
    assert json.loads(json.dumps(stamps)) == stamps


def test_file_appears_once_it_is_complete(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with written_atomically(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_error_leaves_the_old_file_and_no_other(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail():
        with written_atomically(path) as stream:
            stream.write(b"new")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX permissions")
def test_permissions_are_those_of_the_old_file_else_of_a_new_one(tmp_path):
    path = tmp_path / "file"
    for before, expected in ((None, 0o640), (0o604, 0o604)):
        mask = os.umask(0o027)
        try:
            if before is not None:
                path.chmod(before)
            with written_atomically(path) as stream:
                stream.write(b"new")
        finally:
            os.umask(mask)
        assert stat.S_IMODE(path.stat().st_mode) == expected


def test_threads_that_write_one_file_leave_one_of_their_versions(tmp_path):
    path = tmp_path / "file"

    def write(number):
        for _ in range(20):
            with written_atomically(path) as stream:
                stream.write(bytes([number]) * 10_000)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        content = path.read_bytes() if path.exists() else b""
        assert len(content) in (0, 10_000)
        assert len(set(content)) <= 1
    assert list(tmp_path.iterdir()) == [path]
