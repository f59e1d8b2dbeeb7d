"""The site in a real browser: it fits a telephone, is dark or light, asks no other host for anything, and finds."""

import inspect
import re
import shutil
import threading
from contextlib import closing
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import penstock

browsers = pytest.importorskip("playwright.sync_api", reason="`make site-look` has the environment for this")
inventories = pytest.importorskip("sphinx.util.inventory")

SITE = Path(__file__).parents[2] / "build" / "site"
PICTURES = SITE.parent / "site-look"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PAGES = ["README", "docs/index", "docs/pipelines", "docs/reference", "docs/api/penstock"]
MODULES = [each for each in (penstock, *(getattr(penstock, name) for name in dir(penstock))) if inspect.ismodule(each)]
FACES = [(scheme, width) for scheme in ("light", "dark") for width in (400, 1280)]

needs_site = pytest.mark.skipif(not SITE.exists(), reason="needs the site: make site")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
pytestmark = needs_site


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser():
    with (
        browsers.sync_playwright() as playwright,
        closing(playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])) as chromium,
    ):
        yield chromium


@pytest.fixture
def tab(browser, address, request):
    """A page of the browser; fails at the end if it has complained, or asked for what is not there or not ours."""
    scheme, width = getattr(request, "param", ("light", 1280))
    complaints = []
    with closing(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)) as context:
        page = context.new_page()
        page.on("console", lambda message: message.type in {"error", "warning"} and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("response", lambda answer: answer.ok or complaints.append(f"{answer.status} {answer.url}"))
        page.on("request", lambda asked: asked.url.startswith((address, "data:")) or complaints.append(asked.url))
        yield page
    assert not complaints


@needs_chromium
@pytest.mark.parametrize("tab", FACES, indirect=True)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_its_window_in_dark_and_light(name, tab, address, request):
    scheme, width = request.node.callspec.params["tab"]
    tab.goto(f"{address}/{name}.html")
    PICTURES.mkdir(exist_ok=True)
    tab.screenshot(path=PICTURES / f"{name.replace('/', '-')}-{scheme}-{width}.png")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    red, green, blue = re.findall(r"\d+", tab.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]
    assert (int(red) + int(green) + int(blue) > 3 * 127) == (scheme == "light")


@needs_chromium
def test_the_search_finds_a_name(tab, address):
    tab.goto(f"{address}/search.html?q=RateLimit")
    tab.wait_for_selector("#search-results li a")
    assert tab.locator("#search-results li a").count() > 2


@needs_chromium
def test_the_site_begins_at_its_index(tab, address):
    tab.goto(address)
    tab.wait_for_url(f"{address}/docs/index.html")
    assert tab.locator("h1").first.inner_text().startswith("penstock")


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_name_is_described(module):
    """Where several modules export one, with the first of them."""
    inventory = inventories.InventoryFile.loads((SITE / "objects.inv").read_bytes(), uri="")
    kinds = [names for kind, names in inventory.data.items() if kind.startswith("py:")]
    described = {name.rpartition(".")[2] for names in kinds for name in names}
    assert set(module.__all__) - described == set()
