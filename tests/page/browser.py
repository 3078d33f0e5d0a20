"""A real browser without a window."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from tests.deploy.programs import libraries, program


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Debian's Chromium. It gets no sandbox, because containers allow none, and it sees only our own pages."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program("chromium"),
            env={**libraries()},
            args=["--no-sandbox"],
        )
        try:
            yield browser
        finally:
            browser.close()
