"""A headless Chromium, driven over a pipe by its DevTools protocol: what a page shows and complains of.

The browser is asked for one thing at a time, and each wait is bounded. It reaches this machine alone.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from .harness import PATIENCE, require

_OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--lang=en-US",
    "--mute-audio",
    "--no-default-browser-check",
    "--no-first-run",
    "--password-store=basic",
)


class PageError(Exception):
    """The browser refused what it was asked for, or the page's script failed."""


class Chromium:
    """One browser with one page. `complaints` are what its console had to say; `asked` is every address that
    the page asked for.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._session: str | None = None
        self._received = b""
        self.complaints: list[str] = []
        self.asked: list[str] = []

    # --- its life ---

    def __enter__(self) -> Chromium:
        binary = require("chromium")
        ours_out, theirs_in = os.pipe()
        theirs_out, ours_in = os.pipe()
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        # The protocol's pipe is descriptors 3 and 4, which a shell can set and Popen cannot.
        script = f'exec "$@" 3<&{theirs_out} 4>&{theirs_in} {theirs_out}<&- {theirs_in}>&-'
        arguments = [binary, *_OPTIONS, *sandbox, f"--user-data-dir={self._folder}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs_in, theirs_out),
            start_new_session=True,
            env={**os.environ, "HOME": str(self._folder), "TZ": "UTC"},
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out = ours_out, ours_in
        try:
            self._attach()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
        os.close(self._in)
        os.close(self._out)

    def _attach(self) -> None:
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")

    # --- the protocol ---

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the browser for something, and take the answer. Raises PageError."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 2 * PATIENCE
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self._number:
                break
        if "error" in answer:
            raise PageError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._in], [], [], max(0, deadline - time.monotonic()))
            data = os.read(self._in, 1 << 20) if ready else b""
            if not data:
                raise PageError("the browser is gone" if ready else "the browser does not answer")
            self._received += data
        line, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, event: str | None, parameters: dict[str, Any]) -> None:
        match event:
            case "Log.entryAdded":
                entry = parameters["entry"]
                self.complaints.append(f"{entry['level']}: {entry['text']} ({entry.get('url', '')})")
            case "Runtime.consoleAPICalled":
                self.complaints.append(f"console.{parameters['type']}: {parameters['args']}")
            case "Runtime.exceptionThrown":
                self.complaints.append(f"exception: {parameters['exceptionDetails']}")
            case "Network.requestWillBeSent":
                self.asked.append(parameters["request"]["url"])

    # --- what a test does with it ---

    def open(self, address: str, width: int = 1000, height: int = 800) -> None:
        """Show a page in a window of this size, with what it complained of before forgotten."""
        self.resize(width, height)
        self.command("Page.navigate", url="about:blank")
        self.complaints.clear()
        self.asked.clear()
        failure = self.command("Page.navigate", url=address).get("errorText")
        if failure:
            raise PageError(f"{address}: {failure}")
        self.await_true(f"location.href === {json.dumps(address)} && document.readyState === 'complete'")

    def resize(self, width: int, height: int) -> None:
        """Make the window this large; a narrow one is a phone's."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def prefer(self, scheme: str) -> None:
        """Have the user prefer `dark` or `light`."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.command("Emulation.setEmulatedMedia", features=features)

    def run(self, script: str) -> Any:
        """The value of an expression in the page. Raises PageError."""
        result = self.command(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in result:
            raise PageError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def await_true(self, script: str) -> Any:
        """The first value of an expression that is true. It may fail meanwhile, where the page changes."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(PageError):
                if value := self.run(script):
                    return value
            if time.monotonic() > deadline:
                text = self.run("document.body.innerText")
                raise AssertionError(f"{script} is not true; the page:\n{text}\n{self.complaints}")
            time.sleep(0.05)

    def text(self, selector: str) -> str:
        """What a reader sees of the first element that matches."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def type(self, text: str) -> None:
        """Type into what has the focus, and press Enter."""
        self.command("Input.insertText", text=text)
        self.press("Enter", "\r")

    def press(self, key: str, text: str = "") -> None:
        """Press a key."""
        code = {"Enter": 13, "Tab": 9, " ": 32}[key]
        for kind in ("keyDown", "keyUp"):
            self.command(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=code,
                **({"text": text} if text and kind == "keyDown" else {}),
            )

    def screenshot(self, path: Path) -> None:
        """Write what the window shows as PNG."""
        data = self.command("Page.captureScreenshot", format="png", optimizeForSpeed=False)["data"]
        path.write_bytes(base64.b64decode(data))
