"""Makes the pictures of the console in docs/images: a real fleet in a real browser (`make screenshots`).

Eight sites learn the digits, slowly enough for a busy machine, held against gossip's run that `concord demo` recorded,
if there is one.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from concord.apps.local import LocalFleet
from concord.cli.demo import DEMO_JOB
from concord.job import parse_job
from tools import get_chromium

IMAGES = Path(__file__).parents[1] / "docs" / "images"
REFERENCE = Path("out/demo/gossip.run.json")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
PORT = 18090
PICTURES = {
    "console": {"viewport": {"width": 1440, "height": 1000}, "color_scheme": "light"},
    "console-dark": {"viewport": {"width": 1440, "height": 1000}, "color_scheme": "dark"},
    "console-phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "device_scale_factor": 2},
}
_COLOURS = 256
_LEARNT = re.compile(r"^(9|100)")


def main() -> None:
    """Start the fleet, its console and the browser, wait until the sites know something, and take the pictures."""
    # A browser without a graphics card takes the processors that the sites' exchange needs: they get more time for it.
    with LocalFleet(parse_job(DEMO_JOB, ["training.pace=0.5"], "screenshots"), 18100) as fleet:
        reference = [f"--reference={REFERENCE}"] if REFERENCE.exists() else []
        sites = ",".join(f"{name}={url}" for name, url in fleet.urls.items())
        command = [sys.executable, "-m", "concord", "console", f"--port={PORT}", f"--sites={sites}", *reference]
        console = subprocess.Popen(command, env={**os.environ, "BROWSER": "true"})  # noqa: S603 - our own words
        try:
            _wait_for_console()
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=str(get_chromium.find()), args=list(FLAGS))
                for name, options in PICTURES.items():
                    _take(browser, name, options)
        finally:
            console.terminate()
            console.wait(10)


def _wait_for_console() -> None:
    for _ in range(300):
        try:
            urlopen(f"http://127.0.0.1:{PORT}/healthz")
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("the console did not start")


def _take(browser: Browser, name: str, options: dict[str, object]) -> None:
    page = browser.new_page(**options)
    page.goto(f"http://127.0.0.1:{PORT}/")
    page.wait_for_selector("#try[data-ready]", timeout=60_000)
    expect(page.locator("#mean")).to_have_text(_LEARNT, timeout=240_000)
    page.select_option("#site", "N3")
    _draw_seven(page)
    page.wait_for_selector(".verdict")
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_selector("#graph[data-moving]")
    picture = page.screenshot(full_page=name != "console-phone")
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(_COLOURS).save(IMAGES / f"{name}.png", optimize=True)
    page.close()


def _draw_seven(page: Page) -> None:
    pad = page.locator(".pad")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    if box is None:
        raise SystemExit("the pad is not there")
    points = [(55, 40), (145, 40), (95, 165)]
    page.mouse.move(box["x"] + points[0][0], box["y"] + points[0][1])
    page.mouse.down()
    for x, y in points[1:]:
        page.mouse.move(box["x"] + x, box["y"] + y, steps=12)
    page.mouse.up()


if __name__ == "__main__":
    main()
