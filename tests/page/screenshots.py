"""Take the pictures of the page in docs/page: ``python -m tests.page.screenshots``."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect

from tests.page.browser import chromium
from tests.server import serving

REPOSITORY = Path("model_repository")
OUT = Path("docs/page")
HEIGHT = 844


def save(page: Page, name: str, *, whole: bool) -> None:
    """Write a picture of the page, of all of it or of what a window shows, as WebP."""
    with Image.open(io.BytesIO(page.screenshot(full_page=whole))) as picture:
        picture.save(OUT / f"{name}.webp", quality=60, method=6)


def fill(page: Page) -> None:
    """Ask about three photos, and one of them of two models; then watch copies for some seconds."""
    samples = sorted((REPOSITORY / "xception/1/golden").glob("*.jpg"))
    page.get_by_label("Compare with").select_option(index=2)
    page.get_by_label("Choose pictures").set_input_files(samples[0])
    page.get_by_label("Compare with").select_option(index=0)
    page.get_by_label("Choose pictures").set_input_files(samples[1:])
    expect(page.locator("#progress")).to_have_text("4 of 4 answered")
    page.get_by_role("button", name="Send 100 copies").click()
    expect(page.locator("#sent")).to_contain_text("100 of 100 images answered")
    for picture in page.locator("article img").all():
        picture.scroll_into_view_if_needed()
        page.wait_for_function("(one) => one.naturalWidth > 0", arg=picture.element_handle())
    page.evaluate("scrollTo(0, 0)")


def main() -> None:
    """Take the page empty and with answers, light and dark, wide and narrow."""
    OUT.mkdir(exist_ok=True)
    expect.set_options(timeout=60_000)
    with serving(REPOSITORY, device="cpu", max_wait_ms=60_000) as server, chromium() as browser:
        for width in (1280, 390):
            page = browser.new_page(viewport={"width": width, "height": HEIGHT})
            page.goto(server.url)
            for state in ("empty", "answers"):
                if state == "answers":
                    fill(page)
                expect(page.locator(".tile")).to_have_count(5)
                for scheme in ("light", "dark"):
                    page.emulate_media(color_scheme=scheme)
                    save(page, f"{state}-{width}-{scheme}", whole=False)
                    if state == "answers":
                        save(page, f"whole-{width}-{scheme}", whole=True)


if __name__ == "__main__":
    main()
