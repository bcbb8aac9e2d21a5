"""A headless Chromium for the tests of the site: open a page, ask it, take its picture.

It speaks Chrome's DevTools protocol over `websocket-client`, which Jupyter brings along: no driver
program, no browser to download. The network is off: names do not resolve, and what a page asks
for is kept in `requests`.
"""

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-port=0",
    "--hide-scrollbars",
)
KEYS = {"End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


def find():
    """The path of a Chromium or a Chrome, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One tab. `errors` is what its console complained of, `requests` the addresses asked for."""

    def __init__(self, address):
        self.socket = websocket.create_connection(address, timeout=300, suppress_origin=True)
        self.count, self.errors, self.requests, self.loaded = 0, [], [], False
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        self.send("Network.setCacheDisabled", cacheDisabled=True)

    def send(self, method, **parameters):
        """One command of the protocol; its result."""
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": parameters}))
        number = self.count
        while True:
            message = self._next()
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]

    def _next(self):
        message = json.loads(self.socket.recv())
        parameters = message.get("params", {})
        method = message.get("method")
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Network.loadingFailed" and not parameters.get("canceled"):
            self.errors.append(f"failed request: {parameters['errorText']}")
        elif method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(parameters["exceptionDetails"])[:500])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] != "log":
            self.errors.append(json.dumps(parameters["args"])[:500])
        elif method == "Log.entryAdded":
            self.errors.append(parameters["entry"]["text"])
        return message

    def open(self, url, width=1280, height=900, dark=False):
        """Go to `url`, and wait until it is loaded and its mathematics is set."""
        self.errors, self.requests, self.loaded = [], [], False
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.send(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        self.send("Page.navigate", url=url)
        while not self.loaded:
            self._next()
        self.ask("window.MathJax?.startup?.promise?.then(() => true)")

    def ask(self, expression):
        """The value of a JavaScript expression in the page; a promise is waited for."""
        answer = self.send(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def press(self, key, times=1):
        """Press one of KEYS, or type a character, on what has the focus."""
        code = {"windowsVirtualKeyCode": KEYS[key]} if key in KEYS else {"text": key}
        for kind in ("keyDown", "keyUp") * times:
            self.send("Input.dispatchKeyEvent", type=kind, key=key, **code)

    def wait(self, expression, seconds=60):
        """Whether `expression` becomes true in the page within that time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.ask(expression):
                return True
            time.sleep(0.1)
        return False

    def picture(self, path, whole=True):
        """Write a PNG of the page."""
        data = self.send("Page.captureScreenshot", captureBeyondViewport=whole, format="png")
        Path(path).write_bytes(base64.b64decode(data["data"]))


@contextlib.contextmanager
def chromium():
    """A `Page` of a new Chromium with an empty profile; it ends with the `with` block."""
    profile = tempfile.mkdtemp()
    process = subprocess.Popen(
        [find(), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Page(_address(process, Path(profile, "DevToolsActivePort")))
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(profile, ignore_errors=True)  # a helper process may still write there


def _address(process, file, seconds=60):
    """Where the first tab listens: Chromium writes its port into a file when it is ready."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if file.exists() and file.read_text().count("\n"):
            port = file.read_text().split()[0]
            with urlopen(f"http://127.0.0.1:{port}/json", timeout=seconds) as answer:
                tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
            if tabs:
                return tabs[0]["webSocketDebuggerUrl"]
        time.sleep(0.05)
    raise RuntimeError(f"{find()} did not start (exit status {process.poll()})")
