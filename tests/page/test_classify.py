"""Pictures on the page: real answers, problems, several models, many files, a keyboard alone."""

from __future__ import annotations

import base64
import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from service.inference.image import crop_box
from service.inference.manifest import read_manifest


def choose(page: Page, *files: Path) -> Locator:
    """Choose files, and return their entries in the list of pictures."""
    page.get_by_label("Choose pictures").set_input_files(files)
    return page.get_by_role("list", name="Pictures").locator("> li")


def test_a_photo_gets_its_label_and_where_the_time_went(page: Page, golden: list[Path]) -> None:
    (entry,) = choose(page, golden[0]).all()
    best = entry.locator(".bars li").first
    expect(best).to_contain_text("plate")
    expect(best).to_contain_text("%")
    expect(entry.locator(".bars li")).to_have_count(5)
    expect(entry).to_contain_text("version 1, ")
    expect(entry).to_contain_text("on CPUExecutionProvider, in a batch of ")
    legend = entry.locator(".legend li").all_inner_texts()
    names, times = zip(*(text.removesuffix(" ms").rsplit(" ", 1) for text in legend), strict=True)
    assert names == ("in all", "network", "read", "decode", "queue", "infer", "other")
    assert sum(map(float, times[1:])) == pytest.approx(float(times[0]), abs=0.5)
    with Image.open(golden[0]) as picture:
        ratio = picture.width / picture.height
    box = entry.get_by_role("img", name="Thumbnail of 0.jpg").bounding_box()
    assert box is not None
    assert box["width"] / box["height"] == pytest.approx(ratio, rel=0.02)


def test_a_broken_file_has_its_problem_beside_it(
    page: Page, complaints: list[str], golden: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    first, second = choose(page, broken, golden[1]).all()
    expect(first.locator(".problem")).to_contain_text("Bad Requestnot an image of a known format")
    expect(first).to_contain_text("This browser can't show the file.")
    expect(second.locator(".bars li").first).to_contain_text("spoon")
    expect(page.locator("#progress")).to_have_text("2 of 2 answered, 1 with a problem")
    assert "400" in complaints.pop()  # Chromium itself reports each answer that is an error


def test_two_models_answer_side_by_side_and_show_what_they_see(
    page: Page, golden: list[Path], model_repository: Path
) -> None:
    page.get_by_label("Compare with").select_option(label="inception_v4, version 1 (random weights)")
    (entry,) = choose(page, golden[2]).all()
    trained, untrained = entry.locator(".result").all()
    expect(trained.locator(".bars li").first).to_contain_text("knife")
    expect(trained).not_to_contain_text("Random weights")
    expect(untrained.locator(".bars li")).to_have_count(5)
    expect(untrained).to_contain_text("Random weights: the labels mean nothing.")
    with Image.open(golden[2]) as picture:
        width, height = picture.size
    frames = entry.locator(".frame").all()
    for name, frame in zip(("xception", "inception_v4"), frames, strict=True):
        manifest = read_manifest(model_repository / name / "1")
        left, top, right, bottom = crop_box(width, height, manifest.input.width, manifest.preprocessing)
        wanted = [left / width, top / height, (right - left) / width, (bottom - top) / height]
        style = frame.evaluate("({style}) => [style.left, style.top, style.width, style.height].map(parseFloat)")
        assert [percent / 100 for percent in style] == pytest.approx(wanted, abs=0.005)


def test_twenty_files_at_once_are_answered_and_downloaded(
    page: Page, kitchenware_photos: list[tuple[Path, str | None]], tmp_path: Path
) -> None:
    photos = [*kitchenware_photos, *kitchenware_photos[:2]]
    assert len(photos) == 20
    choose(page, *(path for path, _ in photos))
    expect(page.locator("#progress")).to_have_text("20 of 20 answered")
    for kind in ("CSV", "JSON"):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Download {kind}").click()
        download.value.save_as(tmp_path / kind)
    best = [row for row in csv.DictReader(io.StringIO((tmp_path / "CSV").read_text())) if row["rank"] == "1"]
    answers = json.loads((tmp_path / "JSON").read_text())
    assert [row["file"] for row in best] == [answer["file"] for answer in answers] == [path.name for path, _ in photos]
    assert [row["label"] for row in best] == [answer["predictions"][0]["label"] for answer in answers]
    assert all(row["label"] == label for row, (_, label) in zip(best, photos, strict=True) if label is not None)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#pictures > li")).to_have_count(0)


@pytest.mark.parametrize(("event", "carrier"), [("drop", "dataTransfer"), ("paste", "clipboardData")])
def test_a_picture_is_dropped_or_pasted(page: Page, golden: list[Path], event: str, carrier: str) -> None:
    page.evaluate(
        """([data, event, carrier]) => {
            const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "there.jpg", { type: "image/jpeg" }));
            const kind = event === "drop" ? DragEvent : ClipboardEvent;
            document.body.dispatchEvent(new kind(event, { [carrier]: transfer, bubbles: true, cancelable: true }));
        }""",
        [base64.b64encode(golden[0].read_bytes()).decode(), event, carrier],
    )
    expect(page.locator("#pictures li .bars li").first).to_contain_text("plate")


def test_a_keyboard_is_enough_and_the_code_shown_runs(page: Page, golden: list[Path], tmp_path: Path) -> None:
    with page.expect_file_chooser() as chooser:
        press_until(page, "Tab", "#choose")
        page.keyboard.press("Enter")
    chooser.value.set_files(golden[0])
    expect(page.locator(".bars li").first).to_contain_text("plate")
    (tmp_path / "0.jpg").write_bytes(golden[0].read_bytes())
    programs = {"curl": ["/bin/sh", "-c"], "Python": [sys.executable, "-c"], "tritonclient": [sys.executable, "-c"]}
    for language, command in programs.items():
        press_until(page, "Tab", f"button:text-is('{language}')")
        page.keyboard.press("Enter")
        code = page.get_by_role("dialog", name=f"Ask xception with {language}").locator("pre").inner_text()
        page.keyboard.press("Escape")
        done = subprocess.run([*command, code], cwd=tmp_path, capture_output=True, text=True, check=True)  # noqa: S603
        assert "plate" in done.stdout


def press_until(page: Page, key: str, selector: str) -> None:
    for _ in range(40):
        page.keyboard.press(key)
        if page.locator(f"{selector}:focus").count():
            return
    raise AssertionError(f"{key} never reaches {selector}")


def test_the_code_is_copied(page: Page, golden: list[Path]) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    choose(page, golden[0])
    page.get_by_role("button", name="curl").click()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("dialog")).to_contain_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("dialog pre").inner_text()
