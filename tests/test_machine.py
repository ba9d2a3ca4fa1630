"""Where things are kept, how they are written, and what is never replaced."""

import errno
import json
import os
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import pytest
import torch
from conftest import left_in

from ssgn import machine
from ssgn.machine import atomic, cache_dir, check_free, lock, read_json, write_json

# The cache folder -----------------------------------------------------------------------------


def test_the_cache_is_the_users_own_unless_the_variable_names_another(monkeypatch, tmp_path):
    monkeypatch.setenv("SSGN_CACHE", str(tmp_path / "here"))
    assert cache_dir() == tmp_path / "here"
    monkeypatch.setenv("SSGN_CACHE", "~/there")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "there"
    for unset in ("", None):
        monkeypatch.setenv("SSGN_CACHE", "") if unset == "" else monkeypatch.delenv("SSGN_CACHE")
        assert cache_dir().name == "ssgn" and cache_dir().is_absolute()


def test_a_relative_cache_stays_one_folder_when_the_working_folder_changes(monkeypatch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSGN_CACHE", "cache")
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cache_dir() == tmp_path / "cache" == Path(os.environ["SSGN_CACHE"])  # as a child sees it


@pytest.mark.parametrize("chosen", ["", "~/cache"])
def test_a_user_without_a_home_folder_is_told_what_to_set(monkeypatch, chosen):
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user without an entry
    monkeypatch.setenv("SSGN_CACHE", chosen)
    with pytest.raises(OSError, match="no place for the cache.*set SSGN_CACHE"):
        cache_dir()


# Writing all or nothing -----------------------------------------------------------------------


def make(path, text, folder):
    """Write a text as a file, or as a file in a folder."""
    if folder:
        path.mkdir()
        path = path / "inside"
    path.write_text(text)


def read(path):
    return (path / "inside" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("folder", [False, True])
def test_atomic_shows_nothing_until_the_block_ends(tmp_path, folder):
    target = tmp_path / "deep" / "target"
    with atomic(target) as made:
        make(made, "new", folder)
        assert not target.exists() and made.parent == target.parent
    assert read(target) == "new" and os.listdir(target.parent) == ["target"]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("folder", [False, True])
def test_atomic_leaves_everything_as_it_was_after_an_error(tmp_path, folder, old):
    target = tmp_path / "target"
    if old:
        make(target, "old", folder)
    with pytest.raises(KeyboardInterrupt), atomic(target) as made:
        make(made, "half", folder)
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == (["target"] if old else [])
    assert not old or read(target) == "old"


def test_atomic_replaces_a_file_with_its_mode_but_not_a_folder(tmp_path):
    file, folder = tmp_path / "file", tmp_path / "folder"
    make(file, "old", False)
    make(folder, "old", True)
    file.chmod(0o600)
    with pytest.raises(FileNotFoundError), atomic(file):
        pass  # a block that writes nothing
    assert read(file) == "old"
    with atomic(file) as made:
        make(made, "new", False)
    with pytest.raises(OSError, match="not empty"), atomic(folder) as made:
        make(made, "new", True)
    assert read(file) == "new" and read(folder) == "old"
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.parametrize("folder", [False, True])
def test_atomic_never_puts_a_file_in_a_folders_place_or_the_reverse(tmp_path, folder):
    target = tmp_path / "target"
    make(target, "old", folder)
    with pytest.raises(OSError), atomic(target) as made:
        make(made, "new", not folder)
    assert read(target) == "old" and os.listdir(tmp_path) == ["target"]


def test_atomic_writes_to_what_a_link_points_to(tmp_path):
    real, link = tmp_path / "real" / "file", tmp_path / "link"
    link.symlink_to(real)
    for text in ("first", "second"):  # nothing is there at first
        with atomic(link) as made:
            made.write_text(text)
        assert link.is_symlink() and real.read_text() == text
    assert os.listdir(real.parent) == ["file"]


@pytest.mark.parametrize("folder", [False, True])
def test_atomic_removes_what_a_killed_process_left(tmp_path, folder):
    make(machine.partial(tmp_path / "target"), "half", folder)
    with atomic(tmp_path / "target") as made:
        assert not made.exists()
        made.write_text("new")
    assert os.listdir(tmp_path) == ["target"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_the_way_out(tmp_path, code):
    message = "no space is left.*SSGN_CACHE.*same command"
    with pytest.raises(OSError, match=message) as error, atomic(tmp_path / "target"):
        raise OSError(code, "as the system says it")
    assert error.value.errno == code and str(tmp_path / "target") in str(error.value)
    with pytest.raises(PermissionError, match="not yours"), atomic(tmp_path / "target"):
        raise PermissionError(errno.EACCES, "not yours")


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("failed", ["cache", "cache/features", "cache/features/.a.ssgn-partial"])
def test_a_disk_that_cannot_be_written_is_named_with_the_way_out(tmp_path, code, failed):
    target = tmp_path / "cache" / "features" / "a"
    message = "as it says.*set SSGN_CACHE"
    with pytest.raises(OSError, match=message) as error, machine.bad_disk_named(target):
        raise OSError(code, "as it says", str(tmp_path / failed))
    assert error.value.errno == code and error.value.filename == str(target)
    theirs = str(tmp_path / "pictures" / "a.png")  # what cannot be read while something is made
    with pytest.raises(OSError, match="Errno.*a.png") as error, machine.bad_disk_named(target):
        raise OSError(code, "as it says", theirs)
    assert "SSGN_CACHE" not in str(error.value)


# Locks ----------------------------------------------------------------------------------------


def test_a_lock_lets_one_in_at_a_time(cache, tmp_path):
    inside = []

    def work(_):
        with lock(tmp_path / "target"):
            inside.append(1)
            time.sleep(0.01)
            return len(inside), inside.pop()

    with ThreadPoolExecutor(5) as threads:
        assert list(threads.map(work, range(5))) == [(1, 1)] * 5
    assert left_in(tmp_path) == []  # the lock file lies in the cache


def test_a_lock_is_one_for_all_names_of_a_target_and_free_after_an_error(cache, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(KeyError), lock(tmp_path / "target"):
        (held,) = (cache / "locks").iterdir()
        with pytest.raises(filelock.Timeout):
            filelock.FileLock(held).acquire(timeout=0)
        raise KeyError
    with lock(tmp_path / "link"):
        assert list((cache / "locks").iterdir()) == [held]
        with lock(tmp_path / "another"):
            pass


def test_a_cache_that_cannot_be_written_locks_nothing(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSGN_CACHE", str(tmp_path / "file"))  # no folder can be made there
    with lock(tmp_path / "target"):
        pass
    with pytest.raises(OSError, match="from the block"), lock(tmp_path / "target"):
        raise OSError("from the block")


# What is in the way ---------------------------------------------------------------------------


def refuse(path):
    raise AssertionError("there is nothing to look at")


def test_a_new_or_empty_target_is_free(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty file").touch()
    check_free(tmp_path / "new", refuse)
    check_free(tmp_path / "new", refuse, folder=True)
    check_free(tmp_path / "empty", refuse, folder=True)
    check_free(tmp_path / "empty file", refuse)


@pytest.mark.parametrize("folder", [False, True])
def test_a_target_of_the_same_kind_is_free_and_another_only_with_overwrite(tmp_path, folder):
    target = tmp_path / "target"
    make(target, "mine", folder)
    check_free(target, lambda _: None, folder=folder)
    message = r"target is in the way: it is another\\nthing\. Give another name, or --overwrite"
    with pytest.raises(FileExistsError, match=message):
        check_free(target, lambda _: "it is another\nthing", folder=folder)
    check_free(target, refuse, folder=folder, overwrite=True)
    assert read(target) == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("folder", [False, True])
def test_a_file_where_a_folder_goes_and_the_reverse_are_never_free(tmp_path, folder, overwrite):
    make(tmp_path / "target", "mine", not folder)
    what = "file" if folder else "folder"
    with pytest.raises(FileExistsError, match=f"it is a {what}. Give another name$"):
        check_free(tmp_path / "target", refuse, folder=folder, overwrite=overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("folder", [False, True])
def test_special_files_and_broken_links_are_never_free(tmp_path, folder, overwrite):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/null")
    (tmp_path / "broken link").symlink_to(tmp_path / "nowhere")
    for name in ("pipe", "device", "broken link"):
        with pytest.raises(FileExistsError, match=f"{name} is in the way: it is a special file"):
            check_free(tmp_path / name, refuse, folder=folder, overwrite=overwrite)


def test_a_target_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "circle").symlink_to("circle")
    for target in ("file/model", "file/a/model", "circle/model", "x" * 250):
        with pytest.raises(OSError, match="Not a directory|symbolic links|name too long"):
            check_free(tmp_path / target, refuse)


def test_a_target_without_permission_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(PermissionError, match=f"no permission.*{tmp_path}"):
        check_free(tmp_path / "new" / "model", refuse)


# JSON -----------------------------------------------------------------------------------------


def test_json_is_written_all_or_nothing(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"mAP": 0.5, "pair": (1, 2)})
    with pytest.raises(TypeError):
        write_json(path, {"mAP": object()})
    assert read_json(path) == {"mAP": 0.5, "pair": [1, 2]} == json.loads(path.read_text())
    assert left_in(tmp_path) == ["a.json"] and path.read_text().endswith("}\n")


@pytest.mark.parametrize(
    "content", [b"", b'{"a": 1', b"[1]", b"7", b"\xff\xfe", b"[" * 100_000, b'{"a": nul}']
)
def test_damaged_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is damaged, or another kind of file: "):
        read_json(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "nowhere.json")


# Names and hashes -----------------------------------------------------------------------------


def test_a_digest_keeps_its_parts_apart():
    assert machine.digest("ab", "c") != machine.digest("a", "bc") != machine.digest("abc")
    assert machine.digest("é") == machine.digest("é".encode())
    assert machine.digest("a\udce9") != machine.digest("a")  # a file name that is not UTF-8
    assert machine.digest(memoryview(b"ab")) == machine.digest("ab")


def test_printable_text_is_one_line_that_moves_no_cursor():
    assert machine.printable(Path("a b/é.png")) == "a b/é.png"
    assert machine.printable("a\nb\x1b[2J\u202e") == r"a\nb\x1b[2J\u202e"
    assert "\n" not in machine.printable("\udce9\n")


def test_reasons_leave_out_the_path():
    assert machine.reason(FileNotFoundError(errno.ENOENT, "No such file", "/a")) == "No such file"
    unknown = OSError("cannot identify image file '/a/b.png'")
    assert machine.reason(unknown) == "not an image that Pillow knows"
    assert machine.reason(ValueError("two\nlines")) == r"two\nlines"
    assert machine.reason(EOFError()) == "EOFError"


def test_the_digest_of_the_source_leaves_out_what_cannot_change_a_result(tmp_path, monkeypatch):
    for name in ("machine.py", "model.py", "cli.py", "data/folders.py", "plots/page.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "machine.py"))
    digest = machine.package_digest.__wrapped__  # without the cache
    first = digest()
    for name in ("cli.py", "plots/page.py"):
        (tmp_path / name).write_text("x = 2\n")
    assert digest() == first
    for name in ("model.py", "data/folders.py"):
        (tmp_path / name).write_text("x = 2\n")
        assert digest() != first
        (tmp_path / name).write_text("x = 1\n")
    (tmp_path / "new.py").touch()
    assert digest() != first


# Devices --------------------------------------------------------------------------------------


@pytest.fixture
def gpus(monkeypatch):
    """Pretends that there are some GPUs, for choosing among them."""

    def some(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return some


def test_the_device_is_a_gpu_if_there_is_one_and_what_was_asked_for_otherwise(gpus):
    gpus(0)
    assert machine.pick_device().type == machine.pick_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="finds no GPU here"):
        machine.pick_device("cuda")
    with pytest.raises(ValueError, match="unknown device 'gpu'.*'cpu', 'cuda'"):
        machine.pick_device("gpu")
    gpus(1)
    assert machine.pick_device().type == "cuda" and machine.pick_device("cpu").type == "cpu"


def test_each_process_of_torchrun_takes_a_gpu_of_its_own(gpus, monkeypatch):
    gpus(2)
    for rank, index in ((0, 0), (1, 1), (2, 0)):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert machine.pick_device() == torch.device("cuda", index)
    assert machine.pick_device("cuda:0") == torch.device("cuda", 0)


def test_processes_of_torchrun_share_the_cores(monkeypatch):
    alone = machine.cores()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert machine.cores() == max(1, alone // 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1000")
    assert machine.cores() == 1


def test_provenance_says_where_a_number_comes_from():
    about = machine.provenance("cpu")
    assert set(about) == {"date", "device", "commit", "source", "python", "torch"}
    assert about["device"] == f"CPU, {torch.get_num_threads()} threads"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", about["date"]) and about["torch"] == torch.__version__
    assert about["source"] == machine.package_digest()[:16]


def test_the_commit_is_read_without_a_lock_on_the_index(monkeypatch, tmp_path):
    """A process that is killed while it reads the commit must not lock the user's repository."""
    for words in (["init", "-q"], ["add", "."]):
        (tmp_path / "a.py").touch()
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *who, "commit", "-qm", "a"], cwd=tmp_path, check=True)
    os.utime(tmp_path / "a.py", (0, 0))  # git status would note it in the index
    index = (tmp_path / ".git/index").read_bytes()
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "a.py"))
    assert re.fullmatch("[0-9a-f]{7,}", machine.commit())
    assert (tmp_path / ".git/index").read_bytes() == index


def test_provenance_has_no_commit_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert machine.provenance("cpu")["commit"] is None


def test_remove_takes_a_file_a_folder_or_a_link_and_nothing_behind_it(tmp_path):
    make(tmp_path / "kept", "mine", True)
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    for name in ("link", "nothing"):
        machine.remove(tmp_path / name)
    assert os.listdir(tmp_path) == ["kept"] and read(tmp_path / "kept") == "mine"
    machine.remove(tmp_path / "kept")
    assert os.listdir(tmp_path) == []
