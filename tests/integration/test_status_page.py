"""The status page of a real daemon, in a real browser: what it shows, and what it withstands."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .chromium import Chromium
from .daemon import fixed_ports
from .echo import echo, echo_service, finish
from .failing import MARKUP, ODD_NAME, Failing, failing
from .harness import Culvert
from .peers import TlsPeer, client_context, dial

Start = Callable[..., Culvert]

TOKEN = "a-token-that-nobody-guesses"
PHONE = (320, 640)
SHOWN = "document.getElementById('main')?.hidden === false"

CONTRASTS = """
(() => {
  const numbers = (color) => color.match(/[0-9.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = numbers(color).map((one) => one / 255)
      .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (numbers(color).length === 3) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = {};
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.offsetParent) continue;
    const both = [getComputedStyle(element).color, behind(element)];
    const [low, high] = both.map(light).sort((one, other) => one - other);
    found[both.join(" on ")] = (high + 0.05) / (low + 0.05);
  }
  return found;
})()
"""
"""The contrast of each pair of colours in which text is shown (WCAG 2.2, relative luminance)."""


def address(daemon: Culvert) -> str:
    """Where the page of a daemon is."""
    bound = daemon.await_log(r"Admin endpoint bound to (\S+):(\d+)$")
    return f"http://{bound[1]}:{bound[2]}/"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Failing]:
    folder = tmp_path_factory.mktemp("page")
    with failing(folder, certificates, 2, "admin = 127.0.0.1:0\n") as daemon:
        daemon.knock("echo", b"GET / HTTP/1.1\r\n\r\n")
        daemon.knock("mail")
        daemon.knock("closed")
        daemon.open("dead").close()
        yield daemon


@pytest.fixture
def page(browser: Chromium, daemon: Failing) -> Iterator[Chromium]:
    """The page, once it shows something."""
    browser.open(address(daemon.daemon))
    browser.await_true(SHOWN)
    yield browser
    assert browser.complaints == []


def card(service: str) -> str:
    """The part of the page that is a service's, as an expression."""
    return f"[...document.querySelectorAll('article')].find((one) => one.innerText.startsWith('{service}'))"


def named(daemon: Failing, name: str) -> TlsPeer:
    """A client that asks for a server name and stays."""
    peer = TlsPeer(dial(daemon.daemon.port("echo")), client_context(), server=False, name=name)
    peer.handshake()
    echo(peer)
    return peer


def test_the_numbers_of_real_traffic_are_live(page: Chromium, daemon: Failing) -> None:
    peer = daemon.open()
    try:
        page.await_true(f"{card('echo')}.innerText.includes('1 open')")
        echo(peer, b"x" * 100_000)
        page.await_true(rf"/to TLS [0-9.]+ kB\/s/.test({card('echo')}.innerText)")
        points = page.run(f"{card('echo')}.querySelector('polyline.tls').getAttribute('points')")
        assert re.fullmatch(r"(-?[\d.]+,-?[\d.]+ ?)+", points)
    finally:
        finish(peer)
    page.await_true(f"{card('echo')}.innerText.includes('0 open')")


def test_nothing_is_asked_of_anybody_else(page: Chromium, daemon: Failing) -> None:
    origin = address(daemon.daemon)
    assert {one for one in page.asked if not one.startswith(origin)} == set()
    assert {one.removeprefix(origin) for one in page.asked} >= {"", "status.js", "status.css", "status"}


def test_the_browser_keeps_to_the_policy(browser: Chromium, daemon: Failing) -> None:
    browser.open(address(daemon.daemon))
    browser.await_true(SHOWN)
    browser.run(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'broken = 1'})),"
        "document.body.setAttribute('style', 'color: rgb(1, 2, 3)'),"
        "document.body.append(Object.assign(new Image(), {src: 'data:image/gif;base64,R0lGODlhAQ=='}))"
    )
    assert browser.run("typeof broken") == "undefined"
    assert browser.run("getComputedStyle(document.body).color") != "rgb(1, 2, 3)"
    browser.await_true("document.querySelector('body > img').complete")
    for directive in ("script-src", "style-src", "img-src"):
        assert [one for one in browser.complaints if directive in one], browser.complaints


def test_failures_are_shown_with_their_reasons(page: Chromium) -> None:
    text = page.text("#failures")
    assert "denyFrom names its address" in text
    assert "the target refused the connection" in text
    assert "http request" in text


def test_what_peers_say_stays_text(page: Chromium, daemon: Failing) -> None:
    peer = named(daemon, MARKUP)
    try:
        page.run("document.querySelector('#listed').open = true")
        page.await_true("document.querySelector('#connections').innerText.includes('onerror')")
    finally:
        finish(peer)
    assert f"name {MARKUP}" in page.text("#connections")
    assert MARKUP in page.text("#failures")
    assert ODD_NAME in page.run("[...document.querySelectorAll('h3')].map((one) => one.innerText)")
    assert page.run("document.querySelectorAll('main img, main b, script:not([src])').length") == 0


def test_certificates_and_the_days_left(page: Chromium) -> None:
    assert re.search(r"^\d+ days$", page.text("#certificates"), re.MULTILINE)
    assert "CN=server" in page.text("#certificates")


def test_a_service_without_a_live_target_is_pointed_out(page: Chromium) -> None:
    page.await_true(f"{card('dead')}.innerText.includes('No live target')")
    page.await_true("document.querySelector('#word').innerText === 'Not ready'")
    assert "service [dead] has no live target" in page.text("#notes")


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_text_stands_out_in_both_schemes(page: Chromium, scheme: str) -> None:
    page.prefer(scheme)
    background = page.run("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", background)[0]) < 128) == (scheme == "dark")
    faint = {pair: contrast for pair, contrast in page.run(CONTRASTS).items() if contrast < 4.5}
    assert faint == {}


def test_on_a_phone_nothing_is_beyond_the_edge(page: Chromium, daemon: Failing) -> None:
    peer = named(daemon, "a" * 200 + ".example")
    try:
        page.resize(*PHONE)
        page.run("document.querySelector('#listed').open = true")
        page.await_true("document.querySelector('#connections').innerText.includes('aaaa')")
        assert page.run("innerWidth") == PHONE[0]
        assert page.run("document.documentElement.scrollWidth") <= PHONE[0]
        wide = "[...document.querySelectorAll('*')].filter((o) => o.getBoundingClientRect().right > 320)"
        assert page.run(f"{wide}.map((one) => one.outerHTML.slice(0, 80))") == []
    finally:
        finish(peer)


def test_all_controls_have_names_and_are_reached_by_keyboard(page: Chromium) -> None:
    nameless = (
        "[...document.querySelectorAll('input')].filter((one) => !one.labels.length).map((one) => one.id)"
    )
    assert page.run(nameless) == []
    assert page.run(
        "[...document.querySelectorAll('table')].every((one) => one.querySelector('th[scope=col]'))"
    )
    assert page.run("[...document.querySelectorAll('svg')].every((one) => one.getAttribute('aria-label'))")
    page.press("Tab")
    assert page.run("document.activeElement.id") == "pause"
    page.press(" ", " ")
    assert page.run("document.activeElement.getAttribute('aria-pressed')") == "true"
    for _ in range(5):
        page.press("Tab")
    assert page.run("document.activeElement.tagName") == "SUMMARY"


def test_a_page_that_is_paused_asks_nothing(page: Chromium) -> None:
    page.run("document.querySelector('#pause').click()")
    page.await_true("performance.getEntriesByName(new URL('status', location)).length > 0")
    before = page.run("performance.getEntriesByType('resource').length")
    page.run("new Promise((resolve) => setTimeout(resolve, 2500))")
    assert page.run("performance.getEntriesByType('resource').length") == before


def test_the_token_is_asked_for_and_kept_for_the_tab(
    browser: Chromium, culvert: Start, certificates: Certificates
) -> None:
    daemon = culvert(echo_service(certificates), options=f"admin = 127.0.0.1:0\nadminToken = {TOKEN}\n")
    browser.open(address(daemon))
    browser.await_true("document.activeElement.id === 'token'")
    assert not browser.run(SHOWN)
    browser.type("a-token-that-somebody-guesses")
    browser.await_true("document.querySelector('#wrong').innerText === 'This is not the token.'")
    browser.type(TOKEN)
    browser.await_true(SHOWN)
    assert "echo" in browser.text("#services")
    browser.command("Page.reload")
    browser.await_true(f"performance.getEntriesByType('navigation')[0].type === 'reload' && {SHOWN}")
    browser.run("document.querySelector('#forget').click()")
    browser.await_true("document.activeElement.id === 'token'")
    assert not [one for one in browser.asked if TOKEN in one]
    assert {re.sub(r"\(.*", "", one).strip() for one in browser.complaints} == {
        "error: Failed to load resource: the server responded with a status of 401"
    }


def test_a_daemon_that_is_gone_is_said_to_be_and_found_again(
    browser: Chromium, tmp_path: Path, certificates: Certificates
) -> None:
    with fixed_ports(1) as ports:
        options = f"admin = 127.0.0.1:{ports[0]}\n"
        with Culvert(tmp_path, echo_service(certificates), options=options) as first:
            browser.open(address(first))
            browser.await_true("document.querySelector('#word').innerText === 'Serving'")
            top = "document.querySelector('#services-title').getBoundingClientRect().top"
            before = browser.run(top)
        browser.await_true("document.querySelector('#word').innerText === 'No answer'")
        assert "The last answer came" in browser.text("#notes")
        assert browser.run("document.title") == "No answer \N{EN DASH} Culvert"
        assert browser.run(top) == before, "the page jumps"
        with Culvert(tmp_path, echo_service(certificates), options=options):
            browser.await_true("document.querySelector('#word').innerText === 'Serving'")


def test_a_reload_that_failed_and_a_stop_are_shown(
    browser: Chromium, culvert: Start, certificates: Certificates
) -> None:
    daemon = culvert(echo_service(certificates), options="admin = 127.0.0.1:0\ndrainTimeout = 30\n")
    browser.open(address(daemon))
    browser.await_true("document.querySelector('#word').innerText === 'Serving'")
    daemon.configure("[echo]\naccept = nonsense:here\n")
    daemon.send_signal(signal.SIGHUP)
    browser.await_true("document.querySelector('#word').innerText === 'Reload failed'")
    peer = TlsPeer(dial(daemon.port("echo")), client_context(), server=False)
    peer.handshake()
    echo(peer)
    daemon.send_signal(signal.SIGTERM)
    browser.await_true("document.querySelector('#word').innerText === 'Stopping'")
    assert "1 is still open" in browser.text("#notes")
    finish(peer)
    assert daemon.wait() == 0
