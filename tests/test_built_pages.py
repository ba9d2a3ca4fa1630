"""The built book's pages: links, pictures, headings; in a browser, whether everybody can read them.

They need a built book: ``make book``, then ``make pages``; SSGN_HTML names another folder. What
needs a browser is skipped where there is none. ``python tests/test_built_pages.py --shots DIR``
takes pictures of all pages.
"""

import argparse
import functools
import http.server
import os
import re
import shutil
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "book/_ext"))
from chapter_map import CHAPTERS  # noqa: E402

bs4 = pytest.importorskip("bs4", reason="BeautifulSoup comes with the book: pip install .[book]")

HTML = Path(
    os.environ.get("SSGN_HTML") or Path(__file__).parents[1] / "book" / "_build" / "html"
).resolve()
CONFIG = yaml.safe_load((Path(__file__).parents[1] / "_config.yml").read_text())
MOVED = {f"{page}.html": new for page, new in CONFIG["sphinx"]["config"]["redirects"].items()}
PAGES = sorted(
    str(page.relative_to(HTML))
    for page in HTML.rglob("*.html")
    if page.relative_to(HTML).parts[0] not in ("_static", "_sources")
    and str(page.relative_to(HTML)) not in MOVED
)
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
MODES = ("light", "dark")

pytestmark = pytest.mark.skipif(not PAGES, reason=f"no built book in {HTML}: make book")
every_page = pytest.mark.parametrize("page", PAGES)


@functools.cache
def soup(page: str) -> bs4.BeautifulSoup:
    found = bs4.BeautifulSoup((HTML / page).read_bytes(), "html.parser")
    for twin in found.select(".onlyprint"):  # the theme repeats title and contents for the printer
        twin.decompose()
    return found


@functools.cache
def anchors(page: str) -> set[str]:
    return {tag.get("id") or tag.get("name") for tag in soup(page).select("[id], a[name]")}


def say(tag: bs4.Tag) -> str:
    text = str(tag)
    return f"  {text[:160]}{'...' if len(text) > 160 else ''}"


def check(wrong: list, what: str) -> None:
    lines = [say(x) if isinstance(x, bs4.Tag) else x for x in wrong]
    assert not lines, "\n".join([what, *lines])


@every_page
def test_links_and_files_are_there(page):
    wrong = []
    for tag in soup(page).select("[href], [src]"):
        url = urlsplit(tag.get("href") or tag.get("src") or "")
        if url.scheme or url.netloc:
            continue
        target = ((HTML / page).parent / unquote(url.path)).resolve() if url.path else HTML / page
        name = os.path.relpath(target, HTML)
        anchor = unquote(url.fragment) if name in PAGES else ""
        inside = target.is_file() and target.is_relative_to(HTML)
        if not inside or (anchor and anchor not in anchors(name)):
            wrong.append(tag)
    check(wrong, "these lead nowhere:")


def test_external_links_are_well_formed():
    """Whether they answer, `make links` asks the network."""
    tags = [(p, t["href"]) for p in PAGES for t in soup(p).select("a[href]")]
    external = {url: page for page, url in tags if urlsplit(url).scheme or url.startswith("//")}
    wrong = [f"  {page}: {url}" for url, page in external.items() if not is_well_formed(url)]
    check(wrong, "not https, or with a space:")


def is_well_formed(url: str) -> bool:
    return re.fullmatch(r"https://[\w.-]+\.\w+(?:[/?#]\S*)?|mailto:\S+@\S+", url) is not None


@every_page
def test_ids_are_unique(page):
    ids = Counter(tag["id"] for tag in soup(page).select("[id]"))
    check([f"  {name}" for name, n in ids.items() if n > 1], "these ids are there more than once:")


@every_page
def test_pictures_have_a_text(page):
    wrong = [img for img in soup(page).select("img") if not is_text(img.get("alt", ""))]
    wrong += [svg for svg in soup(page).select('svg[role="img"]') if not accessible_name(svg)]
    check(wrong, "without a text for those who do not see them:")


def is_text(alt: str) -> bool:
    """Sphinx gives a picture that has no text the name of its file."""
    return bool(alt.strip()) and not re.search(r"\.(png|jpe?g|svg|gif|webp)$", alt.strip())


def accessible_name(svg: bs4.Tag) -> str:
    elsewhere = [svg.find_parent("html").find(id=i) for i in svg.get("aria-labelledby", "").split()]
    named = [tag.get_text() for tag in (*elsewhere, svg.find("title", recursive=False)) if tag]
    return svg.get("aria-label", "").strip() or " ".join(named).strip()


@every_page
def test_headings_go_down_one_by_one(page):
    levels = [int(tag.name[1]) for tag in soup(page).find_all(re.compile(r"^h[1-6]$"))]
    assert levels.count(1) == 1, f"{levels.count(1)} headings of level 1"
    jumps = [f"h{a} to h{b}" for a, b in zip(levels, levels[1:], strict=False) if b > a + 1]
    assert levels[0] == 1 and not jumps, jumps


@every_page
def test_page_has_a_language_and_a_title(page):
    assert soup(page).html.get("lang")
    assert soup(page).title.get_text(strip=True)


@every_page
def test_page_describes_itself_for_link_previews(page):
    found = {
        tag.get("name") or tag.get("property"): tag["content"].strip()
        for tag in soup(page).select("meta[content]")
    }
    named = ("description", "og:title", "og:description", "og:image", "og:image:alt")
    assert all(found.get(name) for name in named), found
    assert (HTML / "_static" / found["og:image"].rpartition("/")[2]).is_file()


@pytest.mark.parametrize("page", MOVED)
def test_an_old_page_leads_to_the_new_one(page):
    found, new = soup(page), f"{Path(page).parent}/{MOVED[page]}"
    assert new in PAGES and found.html["lang"] and found.title.get_text(strip=True)
    assert found.a["href"] == MOVED[page] == found.find(rel="canonical")["href"]


def test_an_old_page_keeps_the_place_in_a_browser(browser, site):
    tab = browser.new_page()
    tab.goto(f"{site}/{next(iter(MOVED))}#exercises")
    tab.wait_for_url(f"**/{next(iter(MOVED.values()))}#exercises")
    tab.close()


@pytest.mark.parametrize(
    "page", [page for page in PAGES if Path(page).stem in CHAPTERS and page.startswith("chapters")]
)
def test_a_chapter_shows_where_it_is_in_the_story(page):
    (here,) = soup(page).select(".chapter-map [aria-current]")
    assert "you are here" in here.get_text()
    assert len(soup(page).select(".chapter-map .step")) == 6


def test_the_index_says_the_verdict_and_shows_the_way_of_a_sketch():
    found = soup("index.html")
    lines = [line.get_text() for line in found.select(".verdict li")]
    assert len(lines) == 6 and all(re.match(r"[✓✗?] (Holds|Does not hold|Open):", x) for x in lines)
    assert all(re.search(r"\d \[\d.*, \d.*\]", x) for x in lines)
    assert len(found.select(".verdict li a")) == 6 and found.select("figure.fig")
    assert len(found.select(".chapter-map.full .step")) == 6


def test_the_book_weighs_what_its_page_on_publishing_says():
    (megabytes,) = re.findall(r"about (\d+) MB", (HTML / "publish.html").read_text())
    size = sum(path.stat().st_size for path in HTML.rglob("*") if path.is_file())
    assert 0.7 < size / 1e6 / int(megabytes) < 1.3


def test_github_pages_serves_folders_with_an_underscore():
    assert (HTML / ".nojekyll").is_file()


# In a browser.


@contextmanager
def served():
    """The book on a port of this machine: from file:// a browser refuses some of the scripts."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=str(HTML))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def launched():
    """The browser that the machine has; playwright's own is never downloaded."""
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: make pages")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if not path:
        pytest.skip("no Chromium or Chrome on this machine's PATH")
    offline = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=[offline])
        yield browser
        browser.close()


@contextmanager
def opened(browser, url: str, size: str, mode: str):
    """The page as a reader with this screen and this choice of light or dark meets it."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=mode, reduced_motion="reduce"
    )
    context.add_init_script(f"localStorage.mode = localStorage.theme = '{mode}'")
    tab = context.new_page()
    tab.troubles = []  # console messages and requests, from the first byte on
    tab.on("console", lambda m: m.type == "error" and tab.troubles.append(logged(m)))
    tab.on("pageerror", lambda error: tab.troubles.append(f"script: {error}"))
    tab.on("request", lambda r: is_local(r.url) or tab.troubles.append(f"asks for {r.url}"))
    tab.goto(url, wait_until="load")
    tab.evaluate("window.MathJax?.startup?.promise?.then(() => 0)")
    yield tab
    context.close()


def logged(message) -> str:
    return f"console: {message.text} {message.location.get('url', '')}"


def is_local(url: str) -> bool:
    return urlsplit(url).scheme in ("data", "blob", "file") or urlsplit(url).hostname == "127.0.0.1"


@pytest.fixture(scope="module")
def browser():
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def site():
    with served() as url:
        yield url


def unlike_pages() -> list[str]:
    """Listings of the library's source are long and all alike: the shortest stands for them."""
    listings = [page for page in PAGES if page.startswith("_modules/ssgn/")]
    spared = sorted(listings, key=lambda page: (HTML / page).stat().st_size)[1:]
    return [page for page in PAGES if page not in spared]


# Solutions and long code are shut when a page opens, and must be readable once they are not.
UNFOLD = """() => {
  document.querySelectorAll("details").forEach(d => { d.open = true; });
  document.querySelectorAll(".toggle-hidden").forEach(t => t.classList.remove("toggle-hidden"));
  document.getAnimations().forEach(a => { a.finish(); });  // half faded in, nothing has contrast
}"""
AXE = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa"]},
    "resultTypes": ["violations"],
    "preload": False,  # of style sheets, for rules that are not asked for
}
UNFOLDED = 500  # milliseconds: the theme then measures again what scrolls, 300 late
KNOWN = {("_modules/index.html", "list")}  # Sphinx's own nesting of lists
OVERFLOW = "() => document.scrollingElement.scrollWidth - window.innerWidth"


@pytest.mark.parametrize("page", unlike_pages())
def test_page_in_a_browser(browser, site, page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="make pages").Axe()
    wrong = []
    for size in SIZES:
        for mode in MODES:
            with opened(browser, f"{site}/{page}", size, mode) as tab:
                tab.evaluate(UNFOLD)
                tab.wait_for_timeout(UNFOLDED)
                found = list(tab.troubles)
                for rule in axe.run(tab, options=AXE).response["violations"]:
                    severe = rule["impact"] in ("serious", "critical")
                    if severe and (page, rule["id"]) not in KNOWN:
                        found += [f"{rule['id']}: {explain(node)}" for node in rule["nodes"]]
                if size == "phone" and (over := tab.evaluate(OVERFLOW)) > 1:
                    found.append(f"scrolls sideways, by {over} pixels")
            wrong += [f"  {size}, {mode}: {trouble}" for trouble in found]
    check(wrong, f"{page}, with everything unfolded:")


def explain(node: dict) -> str:
    why = " ".join(check["message"] for check in node["any"] + node["all"] + node["none"])
    return f"{node['html'][:120]} {why}"


def take_shots(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with served() as url, launched() as found:
        for page in PAGES:
            print(page, flush=True)
            for size in SIZES:
                for mode in MODES:
                    name = page.removesuffix(".html").replace("/", "-")
                    with opened(found, f"{url}/{page}", size, mode) as tab:
                        tab.screenshot(path=folder / f"{name}-{size}-{mode}.png", full_page=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Take full-page pictures of the built book.")
    parser.add_argument("--shots", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    if not PAGES:
        parser.error(f"no built book in {HTML}: make book")
    take_shots(args.shots)
