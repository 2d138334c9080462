"""How smoothly the page of `skbridge report` scrolls, with 500 and 5,000 photographs.

The page is written for drawn copies of the bundled emoji, opened in Chromium or Chrome
without a window, and scrolled for some seconds. The browser traces the main thread of
the page, which runs script, style and layout; its CPU time counts, so that other
processes do not. Other threads then draw the pixels, without a GPU on the CPU: a page
with nothing on it shows how often they do on this machine.

    python benchmarks/report_page.py

Needs the extra `browser`, and Chromium or Chrome.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from _measure import markdown_table
from PIL import Image, ImageEnhance

from skbridge import make_few_shot_pipeline
from skbridge.datasets import load_emoji
from skbridge.photos import fit_photos, write_report

BROWSERS = ("chromium", "google-chrome", "chrome", "chromium-browser")
SIDE = 320
SPEEDS = (1_500, 6_000)  # Pixels per second.
LONG_TASK = 50  # Milliseconds, as browsers define it.
FRAMES = """() => {
  window.frames_ = [];
  const note = (time) => { frames_.push(time); requestAnimationFrame(note); };
  requestAnimationFrame(note);
}"""


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=int, nargs="+", default=[500, 5000])
    parser.add_argument("--seconds", type=float, default=6.0, help="of each scroll")
    options = parser.parse_args(argv)
    print(run(options.photographs, options.seconds))


def run(counts, seconds):
    """Measure pages of so many photographs, as a section of Markdown."""
    from playwright.sync_api import sync_playwright

    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        raise SystemExit(f"None of these browsers is there: {', '.join(BROWSERS)}.")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        folder = Path(folder)
        model, photographs = _photographs(folder, max(counts))
        options = {"executable_path": executable, "args": ["--no-sandbox"]}
        browser = driver.chromium.launch(**options)
        rows = []
        for n in counts:
            page = folder / f"{n}.html"
            started = time.perf_counter()
            write_report(model, photographs[:n], page)
            written = time.perf_counter() - started
            size = page.stat().st_size / 1e6
            made = [f"{n:,}", f"{size:.1f}", f"{written:.0f}"]
            for speed in SPEEDS:
                rows.append([*made, *_scroll(browser, page, speed, seconds)])
        blank = folder / "blank.html"
        blank.write_text("<!DOCTYPE html><body style='height: 200000px'>")
        for speed in SPEEDS:
            rows.append(["nothing", "", "", *_scroll(browser, blank, speed, seconds)])
        version = browser.version
        browser.close()
    names = ["photographs", "MB", "written, s", "opened, ms", "pixels per s"]
    names += ["between frames, ms (95 %)", "CPU per frame, ms"]
    names += ["longest task, CPU ms", "tasks over 50 ms"]
    title = f"## Scrolling the page of `skbridge report`\n\nChromium {version}.\n\n"
    return title + markdown_table(names, rows)


def _photographs(folder, n):
    """A model of three emoji per class, and n other drawings, each one different."""
    emoji = load_emoji()
    is_shot = np.isin(emoji.styles, ["noto", "twemoji", "fxemoji"])
    paths = []
    rng = np.random.default_rng(0)
    names = np.array(emoji.target_names)[emoji.target]
    for i in np.flatnonzero(is_shot):
        paths.append(folder / f"shot-{i}.png")
        Image.fromarray(emoji.images[i]).save(paths[-1])
    model = fit_photos(
        make_few_shot_pipeline("skbridge-tiny"), paths, names[is_shot].tolist()
    )
    others = np.flatnonzero(~is_shot)
    drawn = []
    for k in range(n):
        image = Image.fromarray(emoji.images[others[k % len(others)]])
        image = image.rotate(rng.uniform(-30, 30), fillcolor="white")
        image = ImageEnhance.Color(image).enhance(rng.uniform(0.3, 1.7))
        drawn.append(folder / f"{k:05}.jpg")
        image.resize((SIDE, SIDE)).save(drawn[-1])
    return model, drawn


def _scroll(browser, path, speed, seconds):
    """Scroll one page, and return what the trace says of it."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    started = time.perf_counter()
    page.goto(path.as_uri())
    opened = time.perf_counter() - started
    page.wait_for_timeout(1000)
    session = page.context.new_cdp_session(page)
    page.evaluate(FRAMES)
    browser.start_tracing(page=page, categories=["devtools.timeline", "toplevel"])
    gesture = {"x": 640, "y": 450, "yDistance": -speed * seconds, "speed": speed}
    session.send("Input.synthesizeScrollGesture", gesture)
    trace = json.loads(browser.stop_tracing())["traceEvents"]
    gaps = np.diff(page.evaluate("frames_"))
    page.close()
    tasks = _main_thread_tasks(trace)
    return [
        f"{1e3 * opened:.0f}",
        f"{speed:,}",
        f"{np.median(gaps):.0f} ({np.percentile(gaps, 95):.0f})",
        f"{sum(tasks) / len(gaps):.1f}",
        f"{max(tasks):.0f}",
        str(sum(task > LONG_TASK for task in tasks)),
    ]


def _main_thread_tasks(trace):
    """Milliseconds of CPU of each task of the page's main thread."""
    threads = {
        (event["pid"], event["tid"])
        for event in trace
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    return [
        event["tdur"] / 1e3
        for event in trace
        if event["name"].endswith("RunTask")
        and "tdur" in event
        and (event["pid"], event["tid"]) in threads
    ]


if __name__ == "__main__":
    main()
