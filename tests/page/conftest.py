"""One browser and one real server with real models, and a page that must load and say nothing wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.page.browser import chromium
from tests.server import Server, serving

expect.set_options(timeout=30_000)  # the machine may be busy


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="package")
def server(model_repository: Path) -> Iterator[Server]:
    with serving(model_repository, device="cpu", max_wait_ms=60_000) as running:  # even if the machine is busy
        yield running


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context()
    opened.set_default_timeout(30_000)
    yield opened
    opened.close()


@pytest.fixture
def complaints(context: BrowserContext) -> list[str]:
    """What the page says on the console, what it fails to do, and what it asks of others than its server."""
    said: list[str] = []
    context.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    context.on("weberror", lambda error: said.append(str(error.error)))
    context.on("request", lambda request: said.append(request.url) if is_foreign(request.url) else None)
    return said


def is_foreign(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:", "data:"))


@pytest.fixture
def page(context: BrowserContext, complaints: list[str], server: Server) -> Iterator[Page]:
    opened = context.new_page()
    opened.goto(server.url)
    expect(opened.get_by_role("article")).to_have_count(2)
    yield opened
    assert complaints == []


@pytest.fixture(scope="package")
def golden(model_repository: Path) -> list[Path]:
    """Photos of a plate, a spoon and a knife, as Xception names them."""
    return sorted((model_repository / "xception/1/golden").absolute().glob("*.jpg"))
