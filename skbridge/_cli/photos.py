"""Commands for folders of photographs."""

import os
import sys
import time
import warnings
from pathlib import Path

from skbridge._cli import output, scale
from skbridge._cli.arguments import add_command, positive, verbose
from skbridge._messages import brief, shown

_PREDICT_EXAMPLES = """\
examples:
  skbridge predict model.skb new/
  skbridge predict model.skb new/ --csv new.csv --top 3
  skbridge predict model.skb new/ --move-to sorted/
  find . -name '*.jpg' -mtime -1 | skbridge predict model.skb - --json
"""
_REPORT_EXAMPLES = """\
The page is one file and loads nothing. If the new photographs lie in folders that are
named like the classes, it shows how many are classified correctly. Labels that are
corrected on it are saved as corrections.csv, for:
  skbridge fit photos/ -o model.skb --corrections corrections.csv

example:
  skbridge report model.skb new/ -o report.html
"""
_FIT_EXAMPLES = """\
The folder has one folder per class, whose name is the name of the class:
  photos/cat/1.jpg  photos/cat/2.png  photos/dog/holiday.JPG
Photographs beside these folders, and in a folder named "unlabelled", have no label.
In place of class folders there may be a table labels.csv: file_name,label

examples:
  skbridge fit photos/ -o model.skb
  skbridge fit photos/ -o model.skb --model ViT-L-14 --unlabelled more/
  skbridge fit photos/ -o model.skb --corrections corrections.csv
"""


def add_parsers(commands):
    """Declare the commands and their arguments."""
    fit = add_command(commands, "fit", run_fit, "learn from folders of photographs")
    fit.epilog = _FIT_EXAMPLES
    fit.add_argument("folder", help="folder with one folder of photographs per class")
    fit.add_argument("-o", "--output", required=True, help="model file to write")
    fit.add_argument(
        "--model",
        "--texts",
        default="ViT-B-16",
        help="CLIP model for photographs and class names; "
        "skbridge-tiny needs no download (default: %(default)s)",
    )
    fit.add_argument(
        "--no-texts",
        action="store_true",
        help="ignore the class names",
    )
    fit.add_argument(
        "--reject",
        type=float,
        metavar="SHARE",
        help="share of photographs of known classes that may be marked as unknown "
        "(default: 0.05)",
    )
    fit.add_argument(
        "--unlabelled", metavar="FOLDER", help="more photographs, without labels"
    )
    fit.add_argument(
        "--corrections", metavar="CSV", help="labels that a report exported"
    )

    predict = add_command(commands, "predict", run_predict, "classify photographs")
    predict.epilog = _PREDICT_EXAMPLES
    _add_model_and_sources(predict)
    predict.add_argument("--csv", metavar="FILE", help="write a table; - is stdout")
    predict.add_argument("--json", action="store_true", help="print JSON")
    predict.add_argument(
        "--top", type=positive, default=1, metavar="N", help="show N classes of each"
    )
    predict.add_argument(
        "--move-to",
        metavar="FOLDER",
        help="copy each photograph to FOLDER/LABEL; nothing is overwritten",
    )
    predict.add_argument(
        "--delete-originals",
        action="store_true",
        help="with --move-to: move in place of copying",
    )
    predict.add_argument(
        "--ray",
        action="store_true",
        help="the photos are a folder that skbridge embed wrote; needs -o",
    )
    predict.add_argument(
        "-o", "--output", metavar="FOLDER", help="with --ray: folder to write"
    )
    scale.add_actors(predict)

    report = add_command(
        commands, "report", run_report, "write a page for checking predictions"
    )
    report.epilog = _REPORT_EXAMPLES
    _add_model_and_sources(report)
    report.add_argument("-o", "--output", required=True, help="HTML file to write")
    report.add_argument(
        "-n",
        type=positive,
        default=20,
        help="photographs to mark as most worth a label (default: %(default)s)",
    )

    label_next = add_command(
        commands, "label-next", run_label_next, "find photographs most worth a label"
    )
    _add_model_and_sources(label_next)
    label_next.add_argument(
        "-n", type=positive, default=20, help="how many (default: %(default)s)"
    )
    label_next.add_argument("--json", action="store_true", help="print JSON")


def run_fit(options):
    """``skbridge fit``."""
    from skbridge.photos import fit_photos

    _check_writable(options.output)
    started = time.perf_counter()
    paths, labels = _training_photos(options)
    model = fit_photos(_pipeline(options), paths, labels)
    seconds = time.perf_counter() - started
    _tell_unreadable(model.unreadable)
    size = model.save(options.output)
    output.print_fit(model, seconds, options.output, size)


def run_predict(options):
    """``skbridge predict``."""
    from skbridge.photos import sort_photos

    if options.ray:
        others = (options.csv, options.json, options.move_to, options.delete_originals)
        if any(others) or options.top != 1:
            raise ValueError("--ray writes Parquet files to -o, and nothing else.")
        scale.run_predict(options)
        return
    if options.output or options.actors is not None:
        raise ValueError("-o and --actors need --ray; a table is written by --csv.")
    if options.delete_originals and not options.move_to:
        raise ValueError("--delete-originals needs --move-to.")
    if options.csv and options.csv != "-":
        _check_writable(options.csv)
    model = _load(options)
    predicted = model.predict(_sources(options.sources))
    table = output.PredictionTable(predicted, model.classifier.classes_, options.top)
    if options.move_to:
        table.moved = sort_photos(
            predicted, options.move_to, move=options.delete_originals
        )
    if options.csv:
        table.write_csv(options.csv)
    if options.json:
        table.print_json()
    elif options.csv != "-":
        table.print_text()
    _tell_unreadable(predicted.unreadable)


def run_report(options):
    """``skbridge report``."""
    from skbridge.photos import write_report

    _check_writable(options.output)
    model = _load(options)
    paths = _sources(options.sources)
    labels = _labels_of_classes(options.sources, model.classifier.classes_)
    predicted = write_report(
        model,
        paths,
        options.output,
        labels=[labels.get(path) for path in paths],
        n_next=options.n,
    )
    _tell_unreadable(predicted.unreadable)
    print(
        f"{output.count(len(predicted.paths), 'photograph')}, "
        f"{int(predicted.unknown.sum())} unknown"
    )
    if predicted.measured:
        measured, (low, high) = predicted.measured, predicted.measured.interval
        print(
            f"accuracy {measured.accuracy:.1%} of {measured.n} with a label (95% "
            f"interval {low:.1%} to {high:.1%}), calibration error "
            f"{measured.calibration_error:.1%}"
        )
    size = os.path.getsize(options.output) / 1e6
    print(f"written {output.printable(options.output)} ({size:.1f} MB)")


def run_label_next(options):
    """``skbridge label-next``."""
    from skbridge.review import label_next

    model = _load(options)
    predicted = model.predict(_sources(options.sources))
    chosen = label_next(
        model.classifier,
        predicted.embeddings,
        options.n,
        labelled=model.embeddings[model.shots],
    )
    rows = chosen.indices
    table = output.PredictionTable(
        output.take(predicted, rows), model.classifier.classes_, top=2
    )
    if options.json:
        table.print_json()
    else:
        table.print_text()
    _tell_unreadable(predicted.unreadable)


def _add_model_and_sources(parser):
    parser.add_argument("model", help="file that skbridge fit wrote")
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="photos",
        help="folders or files; - reads paths from standard input, one per line",
    )


def _training_photos(options):
    """Paths and labels for a fit, with warnings of what is left out."""
    from skbridge.datasets import load_image_folder
    from skbridge.photos import apply_corrections, read_corrections

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # All are listed here.
        data = load_image_folder(options.folder)
    _tell_left_out(data.left_out)
    paths = [os.path.abspath(path) for path in data.paths]
    labels = [None if label is None else str(label) for label in data.target]
    if options.corrections:
        corrections = read_corrections(options.corrections)
        paths, labels, gone = apply_corrections(paths, labels, corrections)
        applied = len(corrections) - len(gone)
        output.tell(f"{output.count(applied, 'correction')} applied")
        if gone:
            output.tell(
                f"warning: {output.count(len(gone), 'correction')} left out, as the "
                f"file is gone: {_names(gone)}"
            )
    if options.unlabelled:
        known = set(paths)
        more = [path for path in _files_of([options.unlabelled]) if path not in known]
        paths, labels = [*paths, *more], [*labels, *[None] * len(more)]
    return paths, labels


def _tell_left_out(left_out):
    lost = {one.path: one.reason for one in left_out if one.is_image or one.is_unlisted}
    empty = [one.path for one in left_out if os.path.isdir(one.path)]
    empty = [path for path in empty if not os.path.basename(path).startswith(".")]
    others = [one.path for one in left_out if os.path.isfile(one.path)]
    others = [path for path in others if path not in lost]
    if others:
        output.tell(
            f"{output.count(len(others), 'other file')} left out: {_names(others)}"
        )
    if empty:
        output.tell(f"warning: no photograph in the folders {_names(empty)}")
    _tell_unreadable(lost)


def _pipeline(options):
    from skbridge._pipeline import make_few_shot_pipeline

    pipeline = make_few_shot_pipeline(
        options.model, device=options.device, cache_dir=options.cache_dir
    )
    pipeline.set_params(clip__verbose=verbose())
    if options.reject is not None:
        pipeline.set_params(clf__reject=options.reject)
    if options.no_texts:
        pipeline.set_params(clf__texts=None)
    return pipeline


def _load(options):
    from skbridge.photos import PhotoModel

    return PhotoModel.load(
        options.model,
        device=options.device,
        cache_dir=options.cache_dir,
        verbose=verbose(),
    )


def _sources(sources):
    if "-" in sources:
        if len(sources) > 1:
            raise ValueError("- stands alone: it reads all paths from standard input.")
        sources = [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
        if not sources:
            raise ValueError("There is no path in standard input.")
    return _files_of(sources)


def _files_of(sources):
    """Absolute paths of files and of the photographs in folders, each once."""
    from skbridge.datasets import list_images

    paths = []
    for source in sources:
        source = os.path.expanduser(source)
        if not os.path.isdir(source):
            if not os.path.lexists(source):
                raise FileNotFoundError(f"There is no file or folder {brief(source)}.")
            paths.append(source)
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # The embedder finds them too.
            images = list_images(source)
        lost = [one.path for one in images.left_out if one.is_image]
        paths += sorted([*images.paths, *lost])
    return list(dict.fromkeys(map(os.path.abspath, paths)))


def _labels_of_classes(sources, classes):
    """Labels of the files in folders, where they are among these classes."""
    from skbridge.datasets import load_image_folder

    labels = {}
    for source in sources:
        if not os.path.isdir(os.path.expanduser(source)):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            data = load_image_folder(source)
        for path, label in zip(data.paths, data.target, strict=True):
            if label is not None:
                labels[os.path.abspath(path)] = str(label)
    known = {path: label for path, label in labels.items() if label in classes}
    others = sorted(set(labels.values()) - set(known.values()))
    if known and others:
        output.tell(
            f"warning: {output.count(len(labels) - len(known), 'photograph')} in "
            f"folders that name no class of the model: {shown(others)}"
        )
    return known


def _check_writable(path):
    """Fail before the work rather than after it."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{brief(str(path))} is a folder; expected a file to write.")
    folder = path.absolute().parent
    if not os.access(folder, os.W_OK):
        why = "is read-only" if folder.is_dir() else "does not exist"
        raise ValueError(f"Cannot write {brief(str(path))}: its folder {why}.")


def _tell_unreadable(unreadable):
    if not unreadable:
        return
    n = output.count(len(unreadable), "photograph")
    output.tell(f"warning: {n} cannot be read:")
    for path, why in unreadable.items():
        print(
            f"  {output.printable(output.nearby(path))}: {output.printable(why)}",
            file=sys.stderr,
        )


def _names(paths):
    return shown([os.path.basename(path) for path in paths])
