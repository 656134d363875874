"""A headless Chromium driven over its debugging pipe (--remote-debugging-pipe: JSON messages that end
in NUL on file descriptors 3 and 4), with the standard library alone."""
import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIMEOUT_S = 60


def find():
    """The path of a browser, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class BrowserError(Exception):
    pass


class Browser:
    """A browser with one page, ended on leaving. width and height are of the window, in CSS pixels."""

    def __init__(self, width=1280, height=800, dark=False, phone=False):
        self.size, self.dark, self.phone = (width, height), dark, phone
        self.counter, self.buffer, self.session, self.log = 0, b"", None, []

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="sigmoe-browser-", ignore_cleanup_errors=True)
        to_read, self.to = os.pipe()
        self.come, to_write = os.pipe()
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (to_read, to_write)]

        def wire():
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        flags = ["--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu",
                 "--disable-dev-shm-usage", "--disable-background-networking", "--disable-extensions",
                 "--disable-component-update", "--disable-sync", "--mute-audio", "--hide-scrollbars",
                 f"--user-data-dir={self.folder.name}"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")  # Chromium's sandbox refuses root; containers are root
        self.process = subprocess.Popen([find(), *flags, "about:blank"], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        pass_fds=(3, 4), preexec_fn=wire)
        for fd in (to_read, to_write, *high):
            os.close(fd)
        try:
            self.attach()
        except BaseException:
            self.__exit__()
            raise
        return self

    def attach(self):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")
        self.call("Runtime.enable")
        self.call("Log.enable")
        self.resize(*self.size)
        self.theme(self.dark)

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for fd in (self.to, self.come):
            os.close(fd)
        self.folder.cleanup()

    # The protocol ----------------------------------------------------------------------------------

    def call(self, method, **params):
        self.counter += 1
        message = {"id": self.counter, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        limit = time.monotonic() + TIMEOUT_S
        while True:
            answer = self.message(limit)
            if answer.get("id") == self.counter:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                return answer["result"]
            self.note(answer)

    def message(self, limit):
        while b"\0" not in self.buffer:
            ready = select.select([self.come], [], [], max(0, limit - time.monotonic()))[0]
            got = os.read(self.come, 1 << 20) if ready else b""
            if not got:
                raise BrowserError("the browser does not answer")
            self.buffer += got
        line, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(line)

    def note(self, event):
        """Keeps what the page complains of: exceptions, blocked resources, console errors."""
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            detail = params["exceptionDetails"]
            self.log.append(detail.get("exception", {}).get("description", detail["text"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.log.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.log.append(str([a.get("value") for a in params["args"]]))

    # What a person does ------------------------------------------------------------------------------

    def resize(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=2 if self.phone else 1, mobile=self.phone)

    def theme(self, dark):
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def js(self, expression):
        """The value of an expression in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                           awaitPromise=True)
        if "exceptionDetails" in result:
            raise BrowserError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def until(self, expression, timeout=TIMEOUT_S):
        """Waits until the expression is true."""
        limit = time.monotonic() + timeout
        while not self.js(f"!!({expression})"):
            if time.monotonic() > limit:
                raise BrowserError(f"not within {timeout} s: {expression}; the page said {self.log}")
            time.sleep(0.05)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def press(self, key, code=None, number=0):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code or key,
                      windowsVirtualKeyCode=number, text="\r" if key == "Enter" and kind == "keyDown" else "")

    def screenshot(self, path):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        with open(path, "wb") as f:
            f.write(base64.b64decode(data))
