"""The page in a browser: it renders without a complaint, fits a phone, and tables sort."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from fl_opt.reporting.report import write_report
from tests.reporting.report.runs import recorded

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    runs = [recorded(folder, "one"), recorded(folder, "two", lean=True)]
    write_report(runs, folder / "report.html")
    return (folder / "report.html").as_uri()


@contextmanager
def opened(browser: Browser, address: str, width: int, scheme: str) -> Iterator[Page]:
    context = browser.new_context(
        viewport={"width": width, "height": 800},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    complaints: list[str] = []

    def asked(url: str) -> None:
        if url != address and not url.startswith("data:"):
            complaints.append(f"asks for {url}")

    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked(request.url))
    page.goto(address)
    yield page
    context.close()
    assert complaints == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "light")])
def test_it_renders_without_a_complaint_and_fits(
    browser: Browser, address: str, width: int, scheme: str
) -> None:
    with opened(browser, address, width, scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        pictures = page.locator("figure svg")
        assert pictures.count() >= 8
        for number in range(pictures.count()):
            box = pictures.nth(number).bounding_box()
            assert box is not None
            assert box["width"] > 250
            assert box["height"] > 50


def test_dark_and_light_differ_and_are_readable(browser: Browser, address: str) -> None:
    brightness = "c => c.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0)"
    for scheme, back_is_bright in (("light", True), ("dark", False)):
        style = "getComputedStyle(document.body)"
        with opened(browser, address, 1280, scheme) as page:
            back = page.evaluate(f"({brightness})({style}.backgroundColor)")
            ink = page.evaluate(f"({brightness})({style}.color)")
        assert (back > ink) is back_is_bright
        assert abs(back - ink) > 400


def test_tables_sort_by_value_and_back(browser: Browser, address: str) -> None:
    with opened(browser, address, 1280, "light") as page:
        table = page.locator("table.sortable").nth(1)  # clients of the first run
        head = table.get_by_role("button", name="down", exact=True)
        cells = table.locator("tbody tr td:nth-child(5)")
        head.click()
        assert cells.all_text_contents() == ["3.00 kB", "6.00 kB", "9.00 kB"]
        assert table.locator("th[aria-sort=ascending]").count() == 1
        table.locator("th[aria-sort] button").click()
        assert cells.all_text_contents() == ["9.00 kB", "6.00 kB", "3.00 kB"]
        table.get_by_role("button", name="codec up").click()
        codecs = table.locator("tbody tr td:nth-child(10)").all_text_contents()
        assert codecs == sorted(codecs)
