"""The command line: what it prints, its exit status, and one line per error."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from photo_folders import NEW, SHOTS, write_bad_photos, write_photos

from skbridge import __version__
from skbridge._cli import main

TINY = ["--model", "skbridge-tiny"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SKBRIDGE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    write_photos(root / "photos", SHOTS)
    write_photos(root / "new", NEW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKBRIDGE_CACHE_DIR", str(root / "cache"))
        fit = ["fit", str(root / "photos"), "-o", str(root / "model.skb"), *TINY]
        assert main(fit) == 0
    return root


@pytest.fixture
def work(folders, tmp_path, monkeypatch):
    """Copies of the folders and of the model, in the working directory."""
    shutil.copytree(folders / "photos", tmp_path / "photos")
    shutil.copytree(folders / "new", tmp_path / "new")
    shutil.copy(folders / "model.skb", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def failure(capsys, *arguments):
    """The one line that a command prints which fails."""
    assert main(list(arguments)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("skbridge: error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def test_help_and_version(capsys):
    for arguments in (["--help"], ["fit", "--help"], ["predict", "--help"]):
        with pytest.raises(SystemExit) as exit:
            main(arguments)
        assert exit.value.code == 0
        assert "skbridge predict model.skb new/" in capsys.readouterr().out or (
            arguments[0] == "fit"
        )
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert capsys.readouterr().out == f"skbridge {__version__}\n"


def test_fit_prints_a_table_and_writes_a_model(work, capsys):
    (work / "photos" / "zebra").mkdir()
    write_photos("photos", ["noto-v1"], n_classes=1)
    (work / "photos" / "lone").mkdir()
    shutil.copy(work / "new" / "ant" / "emojione.png", work / "photos" / "lone")
    (work / "photos" / "ant" / "notes.txt").write_text("")
    write_bad_photos(work / "photos" / "ant" / "bad")
    assert main(["fit", "photos", "-o", "other.skb", *TINY]) == 0
    out, err = capsys.readouterr()
    assert "airplane        4" in out
    assert "95% interval" in out
    assert "calibration  mean probability" in out
    assert "written      other.skb" in out
    assert "no photograph in the folders 'zebra'" in err
    assert "one shot only, so no held-out accuracy: 'lone'" in err
    assert len([line for line in err.splitlines() if line.startswith("  ")]) == 10
    assert "1 other file left out: 'notes.txt'" in err
    assert (work / "other.skb").is_file()


def test_predict_prints_paths_labels_and_probabilities(work, capsys):
    assert main(["predict", "model.skb", "new", "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 15
    assert lines[0].startswith(os.path.join("new", "airplane", "emojione.png"))
    assert lines[0].count("%") == 2


def test_predict_writes_csv_and_json(work, capsys):
    write_bad_photos(work / "new" / "bad")
    main(["predict", "model.skb", "new", "--csv", "out.csv", "--top", "3", "--json"])
    out, err = capsys.readouterr()
    content = json.loads(out)
    rows = list(csv.DictReader(io.StringIO((work / "out.csv").read_text())))
    assert len(rows) == 25
    assert len(content["predictions"]) == 15
    assert len(content["unreadable"]) == 10
    first = content["predictions"][0]
    assert rows[0]["path"] == first["path"] == str(work / "new/airplane/emojione.png")
    assert rows[0]["label"] == first["label"] == first["top"][0][0]
    assert float(rows[0]["probability_3"]) == first["top"][2][1]
    assert sum(row["error"] != "" for row in rows) == 10
    assert "10 photographs cannot be read" in err
    main(["predict", "model.skb", "new/ant", "--csv", "-"])
    row = next(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert set(row) >= {"path", "label", "unknown", "error"}


def test_paths_come_from_standard_input(work, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("new/ant/emojione.png\n\n"))
    assert main(["predict", "model.skb", "-"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_photographs_are_copied_by_label_or_moved(work, capsys):
    before = sorted(path for path in work.rglob("new/**/*") if path.is_file())
    for _ in range(2):
        assert main(["predict", "model.skb", "new", "--move-to", "sorted"]) == 0
    assert sorted(path for path in work.rglob("new/**/*") if path.is_file()) == before
    assert len(list(work.rglob("sorted/*/*"))) == 30
    command = ["predict", "model.skb", "new", "--move-to", "moved"]
    assert main([*command, "--delete-originals"]) == 0
    assert [path for path in work.rglob("new/**/*") if path.is_file()] == []
    assert len(list(work.rglob("moved/*/*"))) == 15


def test_label_next_lists_photographs(work, capsys):
    assert main(["label-next", "model.skb", "new", "-n", "4"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert main(["label-next", "model.skb", "new", "-n", "99", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["predictions"]) == 15


def test_corrections_close_the_loop(work, capsys):
    path = work / "new" / "ant" / "emojione.png"
    Path("c.csv").write_text(f"path,label\n{path},bee\n{work}/gone.png,bee\n")
    fit = ["fit", "photos", "-o", "model.skb", *TINY, "--corrections", "c.csv"]
    assert main(fit) == 0
    out, err = capsys.readouterr()
    assert "bee             1" in out
    assert "1 correction applied" in err
    assert "1 correction left out, as the file is gone: 'gone.png'" in err
    assert main(["predict", "model.skb", str(path)]) == 0
    assert "bee" in capsys.readouterr().out


def test_the_share_of_unknown_photographs_is_chosen(work, capsys):
    fit = ["fit", "photos", "-o", "m.skb", *TINY, "--reject"]
    assert main([*fit, "0.6"]) == 0
    capsys.readouterr()
    main(["predict", "m.skb", "new"])
    many = capsys.readouterr().out.count("unknown")
    main(["predict", "model.skb", "new"])
    assert many > capsys.readouterr().out.count("unknown")
    assert "must be" in failure(capsys, *fit, "5")


def test_unlabelled_photographs_and_no_texts(work, capsys):
    fit = ["fit", "photos", "-o", "m.skb", *TINY, "--no-texts", "--unlabelled", "new"]
    assert main(fit) == 0
    assert "unlabelled   15, " in capsys.readouterr().out


def test_large_collections_are_embedded_and_classified(work, capsys):
    pq = pytest.importorskip("pyarrow.parquet")
    (work / "new" / "bad.png").write_bytes(b"")
    embed = ["embed", "new", "-o", "run", *TINY, "--actors", "0", "--shard-size", "9"]
    assert main(embed) == 0
    out, err = capsys.readouterr()
    assert out == f"15 embeddings in {work / 'run'}\n"
    assert "1 image cannot be read" in err
    assert "bad.png': the file is empty" in err
    predict = ["predict", "model.skb", "run", "--ray", "--actors", "0", "-o", "labels"]
    assert main(predict) == 0
    assert capsys.readouterr().out == f"labels in {work / 'labels'}\n"
    found = pq.read_table(work / "labels" / "shard-000001.parquet").to_pylist()
    right = [Path(row["path"]).parent.name == row["label"] for row in found]
    assert sum(right) >= 6
    assert "one folder of skbridge embed and -o" in failure(capsys, *predict[:-2])
    assert "and nothing else" in failure(capsys, *predict, "--json")
    assert "need --ray" in failure(capsys, "predict", "model.skb", "new", "-o", "out")
    assert "another run" in failure(capsys, *embed, "--float16")
    assert "holds no run" in failure(
        capsys, "predict", "model.skb", "new", *predict[3:]
    )


# One line per error


def test_errors_of_fit(work, capsys):
    fit = ["fit", "-o", "out.skb", *TINY]
    (work / "empty").mkdir()
    (work / "one").mkdir()
    shutil.copytree(work / "photos" / "ant", work / "one" / "ant")
    assert "does not exist" in failure(capsys, *fit, "nowhere")
    assert "There is no image" in failure(capsys, *fit, "empty")
    assert "at least two classes, got 1" in failure(capsys, *fit, "one")
    assert "is a file" in failure(capsys, *fit, "photos/ant/noto.png")
    assert "Cannot read" in failure(
        capsys, *fit, "photos", "--corrections", "model.skb"
    )
    assert not (work / "out.skb").exists()
    unwritable = ["fit", "photos", *TINY, "-o"]
    assert "does not exist" in failure(capsys, *unwritable, "no/such/out.skb")
    assert "is a folder" in failure(capsys, *unwritable, "photos")
    write_bad_photos(work / "bad" / "cat")
    (work / "bad" / "cat" / "cut.png").unlink()  # Its header is whole.
    assert "There is no image that can be read" in failure(capsys, *fit, "bad")


def test_errors_of_predict(work, capsys):
    content = (work / "model.skb").read_bytes()
    (work / "damaged.skb").write_bytes(content[:-100])
    (work / "empty").mkdir()
    assert "damaged" in failure(capsys, "predict", "damaged.skb", "new")
    assert "is not a model file" in failure(
        capsys, "predict", "photos/ant/noto.png", "new"
    )
    assert "does not exist" in failure(capsys, "predict", "none.skb", "new")
    assert "is a folder" in failure(capsys, "predict", "new", "new")
    assert "no file or folder 'gone'" in failure(capsys, "predict", "model.skb", "gone")
    assert "There is no image" in failure(capsys, "predict", "model.skb", "empty")
    write_bad_photos(work / "bad")
    assert "None of 10" in failure(capsys, "predict", "model.skb", "bad")
    assert "None of 1" in failure(capsys, "predict", "model.skb", "bad/cut.png")
    assert "needs --move-to" in failure(
        capsys, "predict", "model.skb", "new", "--delete-originals"
    )
    with pytest.raises(SystemExit) as exit:
        main(["predict", "model.skb", "new", "--top", "0"])
    assert exit.value.code == 2


@pytest.mark.skipif(os.name != "posix", reason="such names are not allowed there")
def test_control_characters_of_file_names_are_shown(work, capsys):
    odd = work / "new" / "a\n\x1b[2Jb.png"
    shutil.copy(work / "new" / "ant" / "emojione.png", odd)
    assert main(["predict", "model.skb", str(odd)]) == 0
    out = capsys.readouterr().out
    assert r"a\n\x1b[2Jb.png" in out
    assert out.count("\n") == 1


def test_an_interrupted_command_leaves_nothing(work, capsys, monkeypatch):
    def paths():
        yield "new/ant/emojione.png\n"
        signal.raise_signal(signal.SIGINT)

    before = set(work.iterdir())
    monkeypatch.setattr("sys.stdin", paths())
    # A process that a shell starts in the background ignores the signal.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["predict", "model.skb", "-", "--csv", "out.csv"]) == 130
    finally:
        signal.signal(signal.SIGINT, previous)
    assert capsys.readouterr() == ("", "skbridge: interrupted\n")
    assert set(work.iterdir()) == before


def test_the_command_runs_as_a_process(work):
    command = [sys.executable, "-m", "skbridge", "predict", "model.skb", "gone"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert process.returncode == 1
    assert process.stderr.count("\n") == 1


def test_errors_of_torch_are_one_line_too(work, capsys, monkeypatch):
    def fail(embedder, images):
        raise RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB.")

    monkeypatch.setattr("skbridge.photos._model.embed_readable", fail)
    err = failure(capsys, "predict", "model.skb", "new")
    assert "out of memory. Tried" in err
