"""The report in a real browser: it opens without a word on the console, and its plots are on the screen."""

import base64
import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tabpfn_operators.evaluation import render_report

WINDOW = (1280, 4200)
SECONDS = 90
DATA = re.compile(r'(?<=<img src="data:image/png;base64,)[A-Za-z0-9+/=]+')
MAGENTA = (255, 0, 255)


@pytest.fixture
def opened(need_service, tmp_path):
    """Open a page in headless Chromium; return the screen, as RGB of shape (height, width, 3), and the log."""
    need_service("chromium", "chromium")
    profile = tmp_path / "profile"

    def opened(html, name="page"):
        page, screenshot = tmp_path / f"{name}.html", tmp_path / f"{name}.png"
        page.write_text(html, encoding="utf-8")
        command = [
            shutil.which("chromium"),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-breakpad",
            "--disable-background-networking",
            "--no-first-run",
            "--hide-scrollbars",
            "--force-device-scale-factor=1",
            "--enable-logging=stderr",
            f"--user-data-dir={profile}",
            f"--window-size={WINDOW[0]},{WINDOW[1]}",
            f"--screenshot={screenshot}",
            page.as_uri(),
        ]
        # A session of its own, so that whatever it starts can be ended with it; a log in a file waits for nobody.
        with (tmp_path / "log").open("wb") as log:
            browser = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=tmp_path
            )
            try:
                code = browser.wait(SECONDS)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(browser.pid, signal.SIGKILL)
                browser.wait(10)
        said = (tmp_path / "log").read_text(errors="replace")
        assert code == 0, said
        with Image.open(screenshot) as image:
            return np.asarray(image.convert("RGB"), dtype=np.int16), said

    yield opened
    deadline = time.monotonic() + 10
    while left_running(str(profile)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left_running(str(profile)) == []


def left_running(profile):
    """The processes that still work for a profile."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and any(profile in part for part in command):
                found.append(command)
    return found


def on_the_console(log):
    return [line for line in log.splitlines() if ":CONSOLE" in line]


def embedded(html):
    return [Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB") for data in DATA.findall(html)]


def covered(html):
    """The same page with a plain rectangle in each plot's place."""

    def plain(match):
        size = Image.open(io.BytesIO(base64.b64decode(match[0]))).size
        content = io.BytesIO()
        Image.new("RGB", size, MAGENTA).save(content, "PNG")
        return base64.b64encode(content.getvalue()).decode()

    return DATA.sub(plain, html)


def rectangles(screen):
    """Where the plain rectangles are, row by row: left, top, right, bottom in pixels."""
    mask = (screen == MAGENTA).all(axis=2)
    found = []
    for top, bottom in runs(mask.any(axis=1)):
        found += [(left, top, right, bottom) for left, right in runs(mask[top:bottom].any(axis=0))]
    return found


def runs(flags):
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


@pytest.mark.parametrize(("task", "count"), [("classification", 4), ("regression", 3)])
def test_the_plots_are_on_the_screen_and_nothing_on_the_console(opened, build_judged, task, count):
    html = render_report(build_judged(task))
    screen, log = opened(html)
    assert on_the_console(log) == []
    plots = embedded(html)
    places = rectangles(opened(covered(html), "covered")[0])
    assert len(plots) == len(places) == count
    for plot, (left, top, right, bottom) in zip(plots, places, strict=True):
        assert right - left > 250
        shown = screen[top:bottom, left:right]
        wanted = np.asarray(plot.resize((right - left, bottom - top), Image.Resampling.LANCZOS), dtype=np.int16)
        assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 30
        assert np.abs(shown - wanted).mean() < 6
        assert np.abs(shown - 255).mean() > 2 * np.abs(shown - wanted).mean()


def test_labels_that_are_scripts_do_not_run(opened, build_judged):
    script = "<script>document.title='run';console.error('it ran')</script>"
    image = "<img src=x onerror=\"console.error('it ran')\">"
    evaluation = build_judged(classes=[script, image], target=script, notes=[image, script])
    _, log = opened(render_report(evaluation))
    assert on_the_console(log) == []


def test_a_page_that_breaks_its_policy_would_be_noticed(opened, build_judged):
    broken = render_report(build_judged()).replace("</main>", "<script>console.error('it ran')</script></main>")
    _, log = opened(broken)
    (line,) = on_the_console(log)
    assert "Content Security Policy" in line
