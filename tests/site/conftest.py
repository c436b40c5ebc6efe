"""The built site, a server for it, and one browser for all its tests."""

import functools
import http.server
import os
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from workshop.paper import BROWSERS

SITE = Path(__file__).resolve().parents[2] / "_build" / "html"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # the network is cut
]
NO_NETWORK = {  # the same for Firefox: all but this machine lies behind a proxy that is not there
    "network.proxy.type": 1,
    "network.proxy.socks": "127.0.0.1",
    "network.proxy.socks_port": 9,
    "network.proxy.no_proxies_on": "127.0.0.1",
}
STOCK = {"chromium": BROWSERS, "firefox": ("firefox", "firefox-esr")}
HOW_TO_GET_ONE = (
    "no {0} found, so the pages are not tested in a browser. Install one: `apt install {0}`, "
    "or `.venv/bin/playwright install {0}`."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--browser", default="chromium", choices=list(STOCK), help="which one opens the pages")


def list_pages() -> list[str]:
    """Every page; of the source listings, which all come from one template, the largest stands for all."""
    pages = [path for path in sorted(SITE.rglob("*.html")) if "_static" not in path.parts]
    listings = sorted((path for path in pages if "_modules" in path.parts), key=lambda path: path.stat().st_size)
    return [path.relative_to(SITE).as_posix() for path in pages if path not in listings[:-1]] or ["index.html"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run page tests on every page; those that take `origin` run both over http and from file://."""
    if "path" in metafunc.fixturenames:
        metafunc.parametrize("path", list_pages(), scope="module")
    if "origin" in metafunc.fixturenames:
        metafunc.parametrize("origin", ["http", "file"], scope="module")


@pytest.fixture(scope="session")
def site() -> Path:
    if not (SITE / "index.html").exists():
        pytest.fail("no pages: run `make book` or `python book/tools.py build` first", pytrace=False)
    return SITE


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="session")
def serve():
    """Serve a folder over http: serve(folder) → where it starts."""
    servers = []

    def start(folder: Path) -> str:
        handler = functools.partial(QuietHandler, directory=str(folder))
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture(scope="session")
def roots(site: Path, serve):
    """Where a page of the site starts, over http and from a file."""
    return {"http": serve(site), "file": site.as_uri()}


@pytest.fixture(scope="session")
def browser_name(pytestconfig) -> str:
    return pytestconfig.getoption("--browser", "chromium")  # the default where this folder was not asked for by name


@pytest.fixture(scope="session")
def browser(browser_name):
    with sync_playwright() as playwright:
        kind = getattr(playwright, browser_name)
        stock = next(filter(None, map(shutil.which, STOCK[browser_name])), None)
        if stock is None and not Path(kind.executable_path).exists():  # what `playwright install` would bring
            (pytest.fail if os.environ.get("CI") else pytest.skip)(HOW_TO_GET_ONE.format(browser_name))
        if browser_name == "chromium":
            options = {"args": ARGUMENTS}
        else:
            options = {"firefox_user_prefs": NO_NETWORK, "channel": stock and "moz-firefox"}  # not Playwright's own
        browser = kind.launch(executable_path=stock, **options)
        yield browser
        browser.close()


@dataclass
class Visit:
    """One page in the browser, and all that went wrong on it."""

    page: Page
    root: str
    problems: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("console", lambda m: self.note(m.type == "error", f"console: {m.text}"))
        self.page.on("pageerror", lambda error: self.note(True, f"script error: {error}"))
        self.page.on("requestfailed", lambda r: self.note(True, f"failed: {r.url}"))
        self.page.on("response", lambda r: self.note(r.status >= 400, f"status {r.status}: {r.url}"))
        self.page.route("**/*", self.stay_on_site)

    def note(self, wrong: bool, text: str) -> None:
        if wrong:
            self.problems.append(text)

    def stay_on_site(self, route) -> None:
        if route.request.url.startswith((self.root, "data:", "blob:")):
            route.continue_()
        else:
            self.problems.append(f"leaves the site: {route.request.url}")
            route.abort()

    def open(self, path: str) -> "Visit":
        self.page.goto(f"{self.root}/{path}", wait_until="load")
        self.page.evaluate("window.MathJax?.startup?.promise")  # resolves when the formulas are set
        return self


@pytest.fixture(scope="session")
def watched():
    """Watch a page that may leave a folder or a host as little as those of the site: watched(page, root) → Visit."""

    def watch(page: Page, root: str) -> Visit:
        visit = Visit(page, root)
        visit.watch()
        return visit

    return watch


@pytest.fixture(scope="session")
def context(browser: Browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    context.set_default_timeout(10_000)
    yield context
    context.close()


@pytest.fixture(scope="module")
def visits(context, roots, watched):
    """Open a page: visits(origin, path) → Visit. The last one stays open until another is asked for."""
    last: dict[tuple[str, str], Visit] = {}

    def visit(origin: str, path: str) -> Visit:
        if (origin, path) not in last:
            for old in last.values():
                old.page.close()
            last.clear()
            last[origin, path] = watched(context.new_page(), roots[origin]).open(path)
        return last[origin, path]

    return visit
