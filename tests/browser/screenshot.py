"""Write docs/playground.png: the page as it opens, in light colours, 1280 wide. `make screenshot` runs this."""

from __future__ import annotations

from io import BytesIO

from PIL import Image

from tests.browser.chromium import chromium, settled
from tests.browser.conftest import NANO
from tests.serve.process import ROOT, Process

COLOURS = 64  # enough for a page of text, at a third of the size
PATH = ROOT / "docs" / "playground.png"


def main() -> None:
    process = Process(NANO).ready()
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
        page.goto(process.url)
        settled(page)
        for button in ("Compare", "Search"):  # once more: the first pass of a new process is slow
            page.get_by_role("button", name=button).click()
            settled(page)
        page.evaluate("document.activeElement.blur()")
        page.mouse.move(0, 0)
        shot = Image.open(BytesIO(page.screenshot(full_page=True)))
    process.stop()
    shot.convert("RGB").quantize(COLOURS).save(PATH, optimize=True)
    print(f"wrote {PATH}, {PATH.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
