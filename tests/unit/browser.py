"""Look at a page with a real browser."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")

# The script writes into the title, for each frame: its width, the overflow of the page, and the pictures not shown.
FRAMES = """<!DOCTYPE html>
<iframe src="report.html" width="400" height="800"></iframe>
<iframe src="report.html" width="1280" height="800"></iframe>
<script>
onload = () => document.title = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument
    page.querySelectorAll("details").forEach(details => details.open = true)
    const {clientWidth, scrollWidth} = page.documentElement
    return [frame.width, scrollWidth - clientWidth, [...page.images].filter(one => !one.naturalWidth).length].join()
}).join(" ")
</script>"""


def faults_in_browser(html: str, folder: Path) -> list[str]:
    """Return the faults of a page at the width of a phone and of a desktop: overflow, missing pictures, messages."""
    (folder / "report.html").write_text(html, encoding="utf-8")
    (folder / "frames.html").write_text(FRAMES)
    ended = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={folder / 'profile'}", "--allow-file-access-from-files", "--enable-logging=stderr"),
            *("--dump-dom", f"file://{folder}/frames.html"),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    (found,) = re.findall("<title>(.*)</title>", ended.stdout)
    faults = [frame for frame in found.split() if not frame.endswith(",0,0")]
    assert len(found.split()) == 2
    return faults + [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
