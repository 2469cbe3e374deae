"""The page in headless Chromium: sorting, filters, comparison, 10,000 rows, widths, and that nothing leaves it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_kinds import line, page_of, read, write_run

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# What a slow machine may take to load or sort 10,000 rows; here it is a fraction of a second.
SECONDS = 30


class Browser:
    """A page that is open, and its table of the given id."""

    def __init__(self, driver: Any, folder: Path) -> None:
        self.driver, self.folder = driver, folder

    def open(self, *runs: Path, check: bool = True, width: int = 1280, media: str = "light") -> None:
        page = self.folder / "report.html"
        page.write_bytes(page_of(*runs, check=check))
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": media}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get(page.as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def cells(self, column: int, table: str = "rows-a") -> list[str]:
        script = """return [...document.querySelectorAll(`[data-table="${arguments[0]}"] tbody tr:not(.detail)`)]
            .map((row) => row.cells[arguments[1]].innerText.trim())"""
        return list(self.run(script, table, column))

    def headings(self, table: str = "rows-a") -> list[Any]:
        return list(self.driver.find_elements("css selector", f'[data-table="{table}"] thead button'))

    def count(self, table: str = "rows-a") -> str:
        return str(self.driver.find_element("css selector", f'[data-table="{table}"] .count').text)

    def choose(self, name: str, start: str, table: str = "rows-a") -> None:
        from selenium.webdriver.support.ui import Select

        field = Select(self.driver.find_element("css selector", f'[data-table="{table}"] select[name="{name}"]'))
        field.select_by_visible_text(next(o.text for o in field.options if o.text.startswith(start)))

    def search(self, text: str, table: str = "rows-a") -> None:
        field = self.driver.find_element("css selector", f'[data-table="{table}"] input')
        field.clear()
        field.send_keys(text)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium with its console and its network log; skipped where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium; pip install 'lpverify[dev]'")
    browser = next(filter(None, map(shutil.which, CHROMIUM)), None)
    service = shutil.which("chromedriver")
    if browser is None or service is None:
        pytest.skip("no chromium with its driver; on Debian: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    folder = tmp_path_factory.mktemp("browser")
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={folder}"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(service))
    found.set_page_load_timeout(SECONDS)
    found.set_script_timeout(SECONDS)
    # Leave the page that a new window opens with.
    found.get("about:blank")
    yield found
    found.quit()


@pytest.fixture
def browser(driver: Any, tmp_path: Path) -> Iterator[Browser]:
    """Fails at the end if a request left the page, or anything was said on its console."""
    driver.get_log("performance")
    yield Browser(driver, tmp_path)
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    page = (tmp_path / "report.html").as_uri()
    assert asked and {url for url in asked if not url.startswith("data:")} == {page}
    assert driver.get_log("browser") == []


def numbers(cells: list[str]) -> list[float]:
    return [float(cell) for cell in cells if cell != "–"]


@pytest.mark.parametrize("name", ["verify", "detect", "radius", "cascade"])
def test_every_column_sorts_both_ways(browser: Browser, runs: dict[str, Path], name: str) -> None:
    report = read(runs[name])
    browser.open(runs[name])
    assert browser.cells(0) == [str(int(index or 0)) for index in report.values("index")]
    for place, (heading, column) in enumerate(zip(browser.headings(), report.columns, strict=True)):
        for direction in ("ascending", "descending"):
            heading.send_keys("\ue007")  # Enter: a heading is a button.
            assert heading.find_element("xpath", "..").get_attribute("aria-sort") == direction
            found = browser.cells(place)
            empty = found.count("–")
            # What has no value comes last, both ways.
            assert found[len(found) - empty :] == ["–"] * empty and sorted(found) == sorted(browser.cells(place))
            if column.kind in ("count", "number", "seconds"):
                assert numbers(found) == sorted(numbers(found), reverse=direction == "descending")
            elif column.kind == "verdict":
                assert found == sorted(found, reverse=direction == "descending")
    others = [cell for cell in browser.driver.find_elements("css selector", "[aria-sort]")][:-1]
    assert {cell.get_attribute("aria-sort") for cell in others} == {"none"}


def test_rows_are_filtered_by_verdict_method_and_words(browser: Browser, runs: dict[str, Path]) -> None:
    report = read(runs["larger"])
    browser.open(runs["larger"])
    assert browser.count() == "6 examples"
    for verdict in ("verified", "falsified"):
        browser.choose("verdict", verdict)
        assert set(browser.cells(1)) == {verdict} and len(browser.cells(1)) == report.verdicts[verdict]
    browser.choose("method", "clean")
    assert browser.cells(0) == ["71"] and browser.count() == "1 of 6 examples"
    browser.choose("verdict", "verified")
    assert browser.cells(0) == [] and browser.count() == "0 of 6 examples"
    for name in ("verdict", "method"):
        browser.choose(name, "all")
    browser.search("misCLASSIFIED clean")
    assert browser.cells(0) == ["71"]
    browser.search("1")
    assert len(browser.cells(0)) > 1
    browser.search("13")
    assert browser.cells(0) == ["13"]


def test_an_example_shows_its_counterexample(browser: Browser, runs: dict[str, Path]) -> None:
    browser.open(runs["verify"])
    (button,) = browser.driver.find_elements("css selector", ".examples td button")
    assert button.text == "12"
    button.click()
    images = browser.driver.find_elements("css selector", ".detail img")
    assert [image.get_attribute("alt").split()[0] for image in images] == ["input", "change", "result"]
    assert button.get_attribute("aria-expanded") == "true"
    assert browser.run("return [...document.images].every((i) => i.complete && i.naturalWidth === 8)")
    button.click()
    assert browser.driver.find_elements("css selector", ".detail") == []


def test_runs_are_compared(browser: Browser, runs: dict[str, Path]) -> None:
    browser.open(runs["verify"], runs["larger"], runs["radius"])
    table = "rows-together"
    assert [button.text for button in browser.headings(table)] == ["example", "run A", "run B"]
    pairs = list(zip(browser.cells(1, table), browser.cells(2, table), strict=True))
    assert pairs and all(a != b for a, b in pairs)
    browser.headings(table)[0].click()
    browser.headings(table)[0].click()
    shown = numbers(browser.cells(0, table))
    assert shown == sorted(shown, reverse=True) and len(browser.cells(0, "rows-c")) == 6
    assert browser.run("return document.querySelectorAll('.side thead th').length") == 4


def test_ten_thousand_rows(browser: Browser, runs: dict[str, Path], tmp_path: Path) -> None:
    verdicts = ("unknown", "unknown", "falsified", "verified")
    lines = [
        line(i, verdict=verdicts[i % 4], margin_lower=(i * 7919 % 10007) / 1000 - 5, method=f"m{i % 3}")
        for i in range(10_000)
    ]  # fmt: skip
    big = write_run(tmp_path / "big", runs["verify"], lines)
    browser.open(big, check=False)
    assert browser.count() == "10,000 examples, rows 1 to 50 shown" and len(browser.cells(0)) == 50
    margin = browser.headings()[5]
    assert margin.text == "margin ≥"
    margin.click()
    assert numbers(browser.cells(5))[0] == min(record["margin_lower"] for record in lines)
    browser.choose("verdict", "verified")
    browser.choose("method", "m1")
    expected = [record["index"] for record in lines if record["verdict"] == "verified" and record["method"] == "m1"]
    assert browser.count() == f"{len(expected)} of 10,000 examples, rows 1 to 50 shown"
    for name in ("verdict", "method"):
        browser.choose(name, "all")
    browser.driver.find_elements("css selector", ".pager button")[1].click()
    assert "rows 51 to 100 shown" in browser.count()
    browser.search("9876")
    assert browser.cells(0) == ["9876"]


def test_no_page_is_wider_than_the_screen(browser: Browser, runs: dict[str, Path]) -> None:
    for width, media, paper in [
        (390, "light", "rgb(255, 255, 255)"), (390, "dark", "rgb(20, 23, 27)"),
        (1280, "light", "rgb(255, 255, 255)"), (1280, "dark", "rgb(20, 23, 27)"),
    ]:  # fmt: skip
        browser.open(*runs.values(), width=width, media=media)
        assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth") is True
        assert browser.run("return window.innerWidth") == width
        assert browser.run("return getComputedStyle(document.body).backgroundColor") == paper


def test_hostile_text_does_nothing(browser: Browser, runs: dict[str, Path], tmp_path: Path) -> None:
    image = "<img src='http://127.0.0.1:9/x' onerror='document.title=1'>"
    hostile = f"</script><script>document.title='taken'</script>{image}"
    lines = [line(i, method=hostile, reason=f"{hostile}{i}") for i in range(3)]
    run = write_run(tmp_path / "hostile", runs["verify"], lines, stopped=hostile, device=hostile)
    browser.open(run, check=False)
    assert browser.driver.title.startswith("lpverify report") and browser.cells(2) == [hostile] * 3
    assert browser.run("return document.images.length") == 0
    browser.search("</script>")
    assert len(browser.cells(0)) == 3


def test_the_page_prints_without_what_only_screens_can_use(browser: Browser, runs: dict[str, Path]) -> None:
    browser.open(runs["verify"], media="dark")
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    script = "return getComputedStyle(document.querySelector(arguments[0])).display"
    assert browser.run(script, ".controls") == "none" != browser.run(script, ".examples")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    printed = browser.driver.execute_cdp_cmd("Page.printToPDF", {})
    assert printed["data"].startswith("JVBERi")
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
