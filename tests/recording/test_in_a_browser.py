"""O1: the pictures in a real Chromium, Debian's package or another; without one these tests are skipped."""

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.recorded import recorded

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium"),
]

PAGE = """<!doctype html><meta charset="utf-8"><body><img id="picture" src="data:image/svg+xml;base64,SVG"><script>
picture.decode().then(() => {
    const canvas = document.createElement("canvas");
    canvas.width = picture.naturalWidth;
    canvas.height = picture.naturalHeight;
    const context = canvas.getContext("2d");
    context.drawImage(picture, 0, 0);
    const pixel = (x, y) => Array.from(context.getImageData(x, y, 1, 1).data).slice(0, 3);
    return {width: picture.naturalWidth, height: picture.naturalHeight, paper: pixel(2, 2)};
}, error => ({error: String(error)})).then(told => { document.body.textContent = JSON.stringify(told); });
</script></body>"""


def seen(svg: str, folder: Path, *, dark: bool) -> dict[str, Any]:
    """What a browser sees of a picture that a page shows."""
    assert CHROMIUM is not None
    page = folder / "page.html"
    page.write_text(PAGE.replace("SVG", base64.b64encode(svg.encode()).decode()), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom"]
    command += [f"--user-data-dir={folder / 'profile'}", f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120)
    told: dict[str, Any] = json.loads(done.stdout.partition("<body>")[2].partition("</body>")[0])
    return told


@pytest.mark.parametrize("kind", ["sequence_svg", "timeline_svg"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_picture_is_drawn_in_the_colours_of_its_reader(tmp_path: Path, kind: str, dark: bool) -> None:
    svg = getattr(recorded(), kind)()
    told = seen(svg, tmp_path, dark=dark)
    assert told["paper"] == ([13, 17, 23] if dark else [255, 255, 255])
    assert told["width"] > 500
    assert told["height"] > 200
