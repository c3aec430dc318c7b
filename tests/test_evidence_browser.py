"""The page of a bundle in a real browser: it works, and asks nothing of any network.

Needs Chromium, its driver and selenium; skips itself, saying which, where one is absent.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seamline import Session, evidence
from seamline.evidence import record
from tests.films import film, picture, tone
from tests.test_evidence import EVIL, TALKER, reds
from tests.toys import CARD, POINT, Red, Spans

webdriver = pytest.importorskip("selenium.webdriver", reason="the browser tests need selenium (the extra 'dev')")

from selenium.webdriver import ActionChains, Keys  # noqa: E402  after the check
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on this machine")

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-background-networking --disable-component-update"
    " --disable-sync --no-first-run --disable-dev-shm-usage --window-size=1280,900"
).split()


class Browser:
    """A browser with one page, and everything that the page asked for."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path, width: int = 1280, height: int = 900, mobile: bool = False, dark: bool = False) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get_log("performance")
        self.driver.get_log("browser")
        self.driver.get(path.as_uri())

    def js(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)

    def find(self, css: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def click(self, css: str) -> None:
        element = self.find(css)
        self.js("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def wait(self, condition: Callable[[], Any]) -> None:
        WebDriverWait(self.driver, 60, poll_frequency=0.05).until(lambda _: condition())

    def requests(self) -> list[str]:
        """The addresses that were asked for since the page was opened, without those that lie in the page itself.

        What the browser's own first tab may still ask for is not the page's.
        """
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        asked = [one["request"]["url"] for one in sent if not one["documentURL"].startswith("chrome://")]
        return [url for url in asked if not url.startswith("data:")]

    def complaints(self) -> list[str]:
        """What the console says: errors of scripts, and what the page's own policy forbade."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield Browser(driver)
    driver.quit()


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a forged photo."""
    folder = tmp_path_factory.mktemp("photo")
    session = Session(Red(), card=dataclasses.replace(CARD, operating_points=(POINT,)), isolate=False)
    evidence.write(session, reds(folder / "photo.png"), folder / "bundle")
    return folder / "bundle" / "report.html"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a forged clip, which is inside the page."""
    folder = tmp_path_factory.mktemp("clip")
    evidence.write(Session(Spans(), card=CARD, isolate=False), TALKER, folder / "bundle")
    return folder / "bundle" / "report.html"


def style(browser: Browser, css: str, name: str) -> str:
    return str(browser.js("return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]", css, name))


def test_the_slider_compares(browser: Browser, photo: Path) -> None:
    browser.open(photo)
    assert style(browser, "[data-layer=heat]", "clipPath") == "inset(0px 0px 0px 50%)"
    slide = browser.find("#slide")
    browser.js("arguments[0].scrollIntoView({block: 'center'})", slide)
    slide.send_keys(Keys.HOME)
    assert style(browser, "[data-layer=heat]", "clipPath") in ("inset(0px)", "inset(0px 0px 0px 0%)")
    slide.send_keys(Keys.END)
    assert style(browser, "[data-layer=heat]", "clipPath") == "inset(0px 0px 0px 100%)"
    viewer = browser.find("#viewer")
    browser.js("arguments[0].scrollIntoView({block: 'center'})", viewer)
    quarter = viewer.size["width"] // 4  # ActionChains begins in the middle
    ActionChains(browser.driver).move_to_element(viewer).click_and_hold().move_by_offset(
        -quarter, 0
    ).release().perform()
    assert abs(float(slide.get_property("value")) - 25) <= 1
    browser.click("input[value=marked]")
    assert style(browser, "[data-layer=marked]", "display") == "block"
    assert style(browser, "[data-layer=heat]", "display") == "none"
    assert style(browser, "[data-layer=marked]", "clipPath") == "inset(0px 0px 0px 25%)"
    assert browser.find("#other").text == "Marked areas"
    assert browser.complaints() == []


def scale(browser: Browser) -> float:
    return float(
        browser.js("return new DOMMatrix(getComputedStyle(document.querySelector('#viewer img')).transform).a")
    )


def test_zoom_by_buttons_wheel_keys_fingers_and_to_an_area(browser: Browser, photo: Path) -> None:
    browser.open(photo)
    browser.click("#in")
    assert scale(browser) == pytest.approx(1.5)
    assert browser.find("#scale").text == "1.5\u00d7"
    browser.click("#reset")
    assert scale(browser) == 1
    viewer = browser.find("#viewer")
    viewer.send_keys("+")
    viewer.send_keys("+")
    assert scale(browser) == pytest.approx(2.25)
    before = browser.js("return new DOMMatrix(getComputedStyle(document.querySelector('#viewer img')).transform).e")
    viewer.send_keys(Keys.ARROW_RIGHT)
    after = browser.js("return new DOMMatrix(getComputedStyle(document.querySelector('#viewer img')).transform).e")
    assert after < before  # the photo moves to the left
    viewer.send_keys("0")
    assert scale(browser) == 1

    box = browser.js(
        "const b = arguments[0].getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]", viewer
    )
    wheel = {"type": "mouseWheel", "x": box[0], "y": box[1], "deltaX": 0, "deltaY": -100}
    browser.driver.execute_cdp_cmd("Input.dispatchMouseEvent", wheel)  # it has the focus
    browser.wait(lambda: scale(browser) > 1.2)
    viewer.send_keys("0")
    for kind, gap in (("touchStart", 20), ("touchMove", 30), ("touchMove", 60)):
        points = [{"x": box[0] + sign * gap, "y": box[1], "id": i} for i, sign in enumerate((-1, 1))]
        browser.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    browser.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    browser.wait(lambda: scale(browser) == pytest.approx(3, rel=0.1))

    browser.click("[data-box]")
    assert scale(browser) == pytest.approx(0.6 * 150 / 60, rel=0.02)  # the red box is 60 x 60 of 200 x 150
    assert browser.complaints() == []


def test_the_player_seeks_and_jumps(browser: Browser, clip: Path) -> None:
    browser.open(clip)
    browser.wait(lambda: browser.js("return document.querySelector('#player').readyState >= 1"))
    assert browser.js("return document.querySelector('#player').duration") == pytest.approx(5.84, abs=0.1)

    def now() -> float:
        return float(browser.js("return document.querySelector('#player').currentTime"))

    jumps = browser.driver.find_elements(By.CSS_SELECTOR, ".jumps button")
    assert [jump.text.split(" in ")[0] for jump in jumps] == ["1.40\u20132.40 s", "3.48\u20134.16 s"]
    browser.js("arguments[0].scrollIntoView({block: 'center'})", jumps[1])
    jumps[1].click()
    browser.wait(lambda: now() == pytest.approx(3.48, abs=0.01))
    browser.wait(lambda: not browser.js("return document.querySelector('#player').seeking"))
    assert float(browser.js("return parseFloat(document.querySelector('.playhead').style.left)")) == pytest.approx(
        100 * 3.48 / 5.84, abs=0.2
    )
    timeline = browser.find("#timeline")
    assert timeline.get_attribute("aria-valuetext") == "3.48 s"
    browser.js("arguments[0].scrollIntoView({block: 'center'})", timeline)
    ActionChains(browser.driver).move_to_element(timeline).click().perform()
    browser.wait(lambda: now() == pytest.approx(2.92, abs=0.05))
    timeline.send_keys(Keys.ARROW_RIGHT)
    browser.wait(lambda: now() == pytest.approx(2.96, abs=0.05))
    timeline.send_keys(Keys.HOME)
    browser.wait(lambda: now() == 0)
    browser.click(".frames button.marked")
    browser.wait(lambda: 1.4 <= now() < 2.4)
    assert browser.js("return document.querySelectorAll('#boxes rect').length") == 1  # the face that was followed
    before = now()
    timeline.send_keys(" ")
    browser.wait(lambda: now() > before)
    browser.js("document.querySelector('#player').pause()")
    assert browser.complaints() == []


@pytest.mark.parametrize(("codec", "how"), [("libx264", "beside"), ("mpeg4", "strip")])
def test_a_large_clip_lies_beside_and_another_is_shown_in_pictures(
    browser: Browser, codec: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "EMBEDDED", 0)
    film(tmp_path / "a.mp4", [picture(i) for i in range(40)], tone(1.6), codec=codec)
    evidence.write(Session(Spans(), card=CARD, isolate=False), tmp_path / "a.mp4", tmp_path / "out")
    browser.open(tmp_path / "out" / "report.html")
    if how == "beside":
        browser.wait(lambda: browser.js("return document.querySelector('#player').readyState >= 1"))
        assert {url.rsplit("/", 1)[-1] for url in browser.requests()} == {"report.html", "media.mp4"}
    else:
        assert browser.js("return document.querySelector('#player')") is None
        first = browser.js("return document.querySelector('#still').src")
        browser.find("#timeline").send_keys(Keys.END)
        assert browser.js("return document.querySelector('#still').src") != first
        assert browser.find("#still").is_displayed()
    assert browser.complaints() == []


@pytest.mark.parametrize("name", ["photo", "clip"])
def test_no_request_leaves_the_page(name: str, browser: Browser, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(name)
    browser.open(path)
    browser.wait(lambda: browser.js("return document.readyState === 'complete'"))
    assert browser.requests() == [path.as_uri()]
    # Nor could one: the page's own policy forbids it.
    blocked = "const done = arguments[0]; fetch('http://127.0.0.1:9/').then(() => done(false), () => done(true))"
    assert browser.driver.execute_async_script(blocked)
    assert any("Content Security Policy" in text for text in browser.complaints())


def test_hostile_names_and_metadata_do_nothing_in_a_browser(browser: Browser, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        evil = EVIL.replace("127.0.0.1:9", f"127.0.0.1:{listener.getsockname()[1]}")
        exif = Image.Exif()
        exif[0x010E] = exif[0x0131] = evil
        name = evil.replace("/", "\u2215").replace("\x00", "")[:100] + ".png"
        file = reds(tmp_path / name, exif=exif)
        (report,) = evidence.scan(Session(Red(), card=CARD, isolate=False), [file], tmp_path / "out")
        assert report.verdict == "forged", report.error
        (folder,) = (tmp_path / "out").iterdir()
        browser.open(folder / "report.html")  # an alert would raise at the next command
        assert "alert(1)" in browser.find(".file").text
        assert browser.js("return document.scripts.length") == 2
        assert len(browser.requests()) == 1
        assert browser.complaints() == []
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["photo", "clip"])
def test_it_fits_phones_and_desktops(
    name: str, width: int, dark: bool, browser: Browser, request: pytest.FixtureRequest
) -> None:
    browser.open(request.getfixturevalue(name), width, 844, mobile=width < 500, dark=dark)
    assert browser.js("return document.documentElement.scrollWidth") <= width
    assert style(browser, "body", "backgroundColor") == ("rgb(22, 22, 24)" if dark else "rgb(255, 255, 255)")
    # Whatever is clicked is large enough for a finger, and has a name for a screen reader.
    small = browser.js(
        "return [...document.querySelectorAll('button, summary')].filter(e => e.getBoundingClientRect().height < 32"
        " || !(e.getAttribute('aria-label') || e.textContent).trim()).length"
    )
    assert small == 0
    assert browser.js("return [...document.images].filter(e => !e.hasAttribute('alt')).length") == 0
    assert browser.js("return document.querySelectorAll('h1').length") == 1


def test_it_is_printed_with_everything_open(browser: Browser, photo: Path, clip: Path) -> None:
    for path in (photo, clip):
        browser.open(path)
        closed = "return document.querySelectorAll('details:not([open])').length"
        assert browser.js(closed) > 0
        opened = (
            "addEventListener('beforeprint', () =>"
            " { window.closedInPrint = document.querySelectorAll('details:not([open])').length; })"
        )
        browser.js(opened)
        pdf = browser.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True, "preferCSSPageSize": True})
        data = base64.b64decode(pdf["data"])
        assert data.startswith(b"%PDF")
        assert b"/MediaBox [0 0 594.95996 841.91998]" in data or b"/MediaBox [0 0 595" in data  # A4
        assert browser.js("return window.closedInPrint") == 0
        assert browser.js(closed) > 0


def test_without_scripts_all_pictures_and_facts_are_there(browser: Browser, photo: Path) -> None:
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(photo)
        figures = browser.driver.find_elements(By.CSS_SELECTOR, "#viewer figure")
        assert [figure.is_displayed() for figure in figures] == [True] * 3
        assert not browser.find(".tools").is_displayed()
        assert "about 3 of 100 authentic photos" in browser.find("main").text
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_colours_can_be_told_from_their_ground() -> None:
    css = (Path(evidence.__file__).parent / "page.css").read_text("utf-8")
    blocks = [dict(part.split(":", 1) for part in block.split(";") if part.startswith("--")) for block in _roots(css)]
    light, dark, _ = blocks
    for colours in (light, light | dark):
        for ink, ground in (("fg", "bg"), ("soft", "bg"), ("soft", "box"), ("link", "bg"), ("bg", "video")):
            assert _contrast(colours[f"--{ink}"], colours[f"--{ground}"]) >= 4.5, (ink, ground)
        for ground in ("forged", "authentic", "grey"):
            assert _contrast("#fff", colours[f"--{ground}"]) >= 4.5, ground


def _roots(css: str) -> list[str]:
    return [block.split("}")[0] for block in css.split(":root{")[1:]]


def _contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2."""

    def luminance(colour: str) -> float:
        digits = colour.lstrip("#")
        digits = digits if len(digits) == 6 else "".join(2 * d for d in digits)
        share = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
        linear = np.where(share <= 0.03928, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
