"""The rest of the page: the live panel, the models, how the page looks and reads, and the API's page."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.server import Server


def test_the_live_panel_shows_batches_grow(page: Page) -> None:
    expect(page.locator(".tile")).to_have_count(5)
    assert float(page.locator(".tile", has_text="Memory").locator("strong").inner_text()) > 0
    page.get_by_role("button", name="Send 100 copies").click()
    page.wait_for_function(
        """() => {
            const shown = (title) => [...document.querySelectorAll(".tile")]
                .filter((tile) => tile.textContent.startsWith(title))
                .map((tile) => Number(tile.querySelector("strong").textContent))[0];
            return shown("Images a second") > 0 && shown("Mean batch") > 1;
        }"""
    )
    half, most, _ = page.get_by_role("row", name="infer").locator("td").all_inner_texts()
    assert 0 < float(half) <= float(most)
    expect(page.locator("#sent")).to_contain_text("100 of 100 images answered in batches of ")
    assert page.locator(".tile", has_text="Images a second").locator("path").get_attribute("d")


def test_quantiles_are_read_off_the_histogram(page: Page) -> None:
    """Of 100 images since the first look, 50 took up to 0.1 s, and 50 took between 0.1 and 0.25 s."""
    found = page.evaluate("""async () => {
        const { quantile, rate } = await import("/page/figures.js");
        const look = (time_s, ...counts) => {
            const bucket = (le, place) => ({ labels: { stage: "infer", le }, value: counts[place] });
            const count = { labels: { stage: "infer" }, value: counts[2] };
            return { time_s, figures: {
                inferception_stage_seconds_bucket: ["0.1", "0.25", "+Inf"].map(bucket),
                inferception_stage_seconds_count: [count],
            } };
        };
        const looks = [look(10, 7, 7, 8), look(12, 57, 107, 108)];
        const shares = [0.25, 0.5, 0.99].map((share) => quantile(...looks, "infer", share));
        const none = quantile(looks[0], looks[0], "infer", 0.5);
        return [...shares, none, rate(...looks, "inferception_stage_seconds_count")];
    }""")
    assert found == pytest.approx([0.05, 0.1, 0.247, None, 50.0])


def test_the_live_panel_goes_on_after_an_outage(page: Page, complaints: list[str]) -> None:
    expect(page.locator(".tile")).to_have_count(5)
    page.context.set_offline(True)
    expect(page.locator("#live-problem")).to_have_text("No answer: The server could not be reached.")
    page.context.set_offline(False)
    expect(page.locator("#live-problem")).to_be_hidden()
    assert all("net::ERR_INTERNET_DISCONNECTED" in complaint for complaint in complaints)
    complaints.clear()


def test_a_golden_sample_is_shown_and_classified_again(page: Page) -> None:
    again = page.get_by_role("button", name="Classify golden sample 1 of xception")
    again.scroll_into_view_if_needed()
    sample = page.locator("figure", has=again)
    page.wait_for_function("(picture) => picture.naturalWidth > 0", arg=sample.locator("img").element_handle())
    recorded = sample.locator("figcaption").inner_text().partition(",")[0]
    again.click()
    expect(page.locator("#pictures .bars li").first).to_contain_text(recorded)


def test_models_say_how_they_run(page: Page) -> None:
    trained = page.get_by_role("article").filter(has_text="xception, version 1")
    expect(trained).to_contain_text("CPUExecutionProvider")
    expect(trained).to_contain_text("give or take 10%")
    expect(trained.get_by_role("row", name="int8")).to_contain_text("100.0 %")
    expect(trained.locator(".speed li").last).to_contain_text("ms an image")
    other = page.get_by_role("article").filter(has_text="inception_v4, version 1")
    expect(other).to_contain_text("Random weights: the labels mean nothing.")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_nothing_and_nothing_is_cut_off(page: Page, golden: list[Path], scheme: str, width: int) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 844})
    expect(page.locator("#stages")).to_be_visible()
    assert Axe().run(page).generate_report() == NOTHING
    page.get_by_label("Compare with").select_option(index=2)
    page.get_by_label("Choose pictures").set_input_files(golden[:2])
    expect(page.locator("#progress")).to_have_text("4 of 4 answered")
    assert Axe().run(page).generate_report() == NOTHING
    assert page.evaluate(f"({WIDER})({width})") == []
    page.get_by_role("button", name="curl").first.click()
    assert Axe().run(page).generate_report() == NOTHING


WIDER = """(width) => [...document.querySelectorAll("main *")]
    .filter((one) => one.getBoundingClientRect().right > width).map((one) => one.outerHTML.slice(0, 200))"""
NOTHING = "Found 0 accessibility violations:\n"


def test_the_api_is_described_without_a_network(page: Page, server: Server) -> None:
    page.get_by_role("link", name="API").click()
    expect(page).to_have_url(f"{server.url}/docs")
    expect(page.get_by_text("/models/{name}/golden/{number}")).to_be_visible()
    page.get_by_role("button", name="GET /health/live Live").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table")).to_contain_text('"status": "live"')
