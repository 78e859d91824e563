"""Drives a headless Chromium over the pipes of its DevTools protocol, without a dependency."""

import json
import os
import select
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

# True on the playground once it shows an answer; for ``Page.wait_for``.
SEGMENTED = "document.querySelector('#status').textContent.includes('classes found')"

_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--remote-debugging-pipe",
)


class Page:
    """A tab; every message is JSON ended by a zero byte."""

    def __init__(self, commands: int, messages: int, patience_seconds: float = 60.0) -> None:
        self.complaints: list[str] = []
        self._commands, self._messages = commands, messages
        self._patience_seconds = patience_seconds
        self._received = b""
        self._session = ""
        self._last_id = 0
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command; what the page complains about meanwhile is kept."""
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last_id:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def open(self, address: str) -> None:
        """Load a page; complaints about the one before are forgotten."""
        self.complaints.clear()
        self.call("Page.navigate", url=address)
        loaded = "document.readyState === 'complete' ? done() : addEventListener('load', done)"
        self.run(f"new Promise((done) => {loaded})")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise."""
        options = {"awaitPromise": True, "returnByValue": True}
        answer = self.call("Runtime.evaluate", expression=script, **options)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Return when a JavaScript condition has come true, looked at on every frame."""
        look = f"() => {{ ({condition}) ? done() : requestAnimationFrame(look) }}"
        self.run(f"new Promise((done) => {{ const look = {look}; look(); }})")

    def press(self, key: str) -> None:
        """Press and release a key by its name, such as Tab, ArrowLeft or +."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowDown": 40}.get(key, 0)
        options: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code}
        options |= {"code": key} if code else {}
        typed = "\r" if key == "Enter" else key
        text = {"text": typed} if len(typed) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **options, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **options)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._messages], [], [], self._patience_seconds)
            chunk = os.read(self._messages, 1 << 16) if ready else b""
            if not chunk:
                raise TimeoutError("Chromium says nothing")
            self._received += chunk
        raw, self._received = self._received.split(b"\0", 1)
        message: dict[str, Any] = json.loads(raw)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method: str | None, event: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(event["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(str(event["args"]))
        elif method == "Log.entryAdded":
            self.complaints.append(str(event["entry"]))


@contextmanager
def chromium_page(profile: Path) -> Iterator[Page]:
    """A tab of a fresh browser whose files go to ``profile``."""
    assert CHROMIUM is not None
    reading, commands = os.pipe()
    messages, writing = os.pipe()
    process = os.posix_spawn(
        CHROMIUM,
        [CHROMIUM, *_OPTIONS, f"--user-data-dir={profile}"],
        {**os.environ, "HOME": str(profile)},
        # Chromium reads commands from descriptor 3 and writes messages to 4.
        file_actions=[
            (os.POSIX_SPAWN_DUP2, reading, 3),
            (os.POSIX_SPAWN_DUP2, writing, 4),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ],
    )
    for end in (reading, writing):
        os.close(end)
    try:
        yield Page(commands, messages)
    finally:
        # It quits when nobody is left to command it.
        os.close(commands)
        os.close(messages)
        os.waitpid(process, 0)
