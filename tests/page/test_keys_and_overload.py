"""A server that wants keys and that two pictures keep busy: the page asks for a key, and comes back when told to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from service.auth import new_key
from tests.server import Server, serving

APP, _, APP_LINES = new_key("app").partition("\n\n")
ADMIN, _, ADMIN_LINES = new_key("night-shift").partition("\n\n")


@pytest.fixture(scope="module")
def locked(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    keys = tmp_path_factory.mktemp("keys") / "keys.toml"
    keys.write_text(f"{APP_LINES}\n{ADMIN_LINES}\nadmin = true\n")
    settings = {"api_keys": keys, "max_queue_size": 1, "max_batch_size": 1, "max_wait_ms": 60_000}
    with serving(model_repository, device="cpu", **settings) as running:
        yield running


@pytest.fixture
def locked_page(context: BrowserContext, locked: Server) -> Page:
    page = context.new_page()
    page.goto(locked.url)
    return page


def enter(page: Page, key: str) -> None:
    """Enter a key, after which the page starts anew."""
    page.get_by_label("API key").fill(key)
    with page.expect_navigation():
        page.get_by_role("button", name="Use this key").click()


def test_the_page_asks_for_a_key_and_uses_it(locked_page: Page, golden: list[Path]) -> None:
    expect(locked_page.locator("#catalogue")).to_contain_text("an API key is needed")
    enter(locked_page, APP)
    expect(locked_page.locator("#live-problem")).to_have_text("The live panel needs the key of an administrator.")
    locked_page.get_by_label("Choose pictures").set_input_files(golden[0])
    expect(locked_page.locator(".bars li").first).to_contain_text("plate")
    locked_page.get_by_role("button", name="curl").click()
    code = locked_page.locator("dialog pre").inner_text()
    assert "X-API-Key: $KEY" in code
    assert APP not in locked_page.content()
    locked_page.get_by_role("button", name="Close").click()
    enter(locked_page, ADMIN)
    expect(locked_page.locator(".tile")).to_have_count(5)
    expect(locked_page.locator("#live-problem")).to_be_hidden()
    locked_page.get_by_role("link", name="API").click()
    expect(locked_page.get_by_text("/classify", exact=True)).to_be_visible()


def test_a_busy_server_is_asked_again_when_it_says(locked_page: Page, golden: list[Path]) -> None:
    enter(locked_page, ADMIN)
    expect(locked_page.get_by_role("article")).to_have_count(2)
    locked_page.get_by_label("Choose pictures").set_input_files(golden * 2)
    expect(locked_page.get_by_text("The server is busy. The page asks again in 1 s.").first).to_be_visible()
    expect(locked_page.locator("#progress")).to_have_text("6 of 6 answered")
    labels = [bars.locator("li span").first.inner_text() for bars in locked_page.locator(".result .bars").all()]
    assert labels == ["plate", "spoon", "knife"] * 2
    expect(locked_page.locator(".tile", has_text="Refusals a second")).to_contain_text("QueueFull")


def test_a_picture_without_a_model_gets_a_word(locked_page: Page, golden: list[Path]) -> None:
    expect(locked_page.locator("#catalogue")).to_contain_text("an API key is needed")
    locked_page.get_by_label("Choose pictures").set_input_files(golden[0])
    expect(locked_page.locator("#progress")).to_have_text("No model is ready yet.")
    locked_page.get_by_role("button", name="Send 100 copies").click()
    expect(locked_page.locator("#sent")).to_contain_text("No model is ready yet.")
