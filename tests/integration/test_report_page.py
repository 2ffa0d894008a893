"""Pages, opened in a browser as a person would: on a desk and on a phone, in light and in dark."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from noria.report import render, render_contract
from tests.integration.chromium import Chromium, chromium
from tests.unit import report_upload
from tests.unit.report_run import HOSTILE, run, spec

WIDTHS = (1280, 360)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

VERDICT = (
    "5 of 14 monitors are beyond the limit: Data drift, Outliers, Model quality (auc), Bias by color: disparate impact "
    "and Traffic; 4 could not be judged."
)
CONTRASTS = """
(() => {
  const parse = text => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [255, 255, 255, 1];
  };
  const found = [];
  for (const element of document.body.querySelectorAll('*')) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!own || ['title', 'style'].includes(element.localName)) continue;
    const style = getComputedStyle(element);
    const ink = light(parse(element.localName === 'text' ? style.fill : style.color)), paper = light(behind(element));
    found.push([(Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05), element.textContent.slice(0, 40)]);
  }
  return found.sort((a, b) => a[0] - b[0]);
})()
"""
"""Contrast of each text with what is behind it, the smallest first, by WCAG 2.2's definition."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A usual run, one in which everything that has a name was named by an enemy, and uploads of both kinds."""
    folder = tmp_path_factory.mktemp("pages")
    texts = {
        "usual": render(run()),
        "hostile": render(run(spec(HOSTILE), HOSTILE)),
        "accepted": render_contract(report_upload.accepted(folder)),
        "refused": render_contract(report_upload.refused(folder)),
    }
    pages = {name: folder / f"{name}.html" for name in texts}
    for name, path in pages.items():
        path.write_text(texts[name], encoding="utf-8")
    return pages


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("page", ["usual", "hostile", "accepted", "refused"])
def test_a_page_fetches_nothing_runs_nothing_and_fits_its_screen(
    browser: Chromium, pages: dict[str, Path], page: str, scheme: Literal["light", "dark"], width: int
) -> None:
    browser.open(pages[page], width=width, scheme=scheme)

    assert browser.problems == []
    assert browser.requests == [pages[page].as_uri()]
    assert browser.run("document.documentElement.scrollWidth") <= width
    beyond = browser.run(
        "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && "
        "getComputedStyle(e.closest('thead, caption') ?? e).position !== 'absolute').map(e => e.outerHTML).slice(0, 3)"
    )
    assert beyond == []
    contrast, text = browser.run(CONTRASTS)[0]
    assert contrast >= 4.5, text


def test_a_page_looks_as_the_reader_wants_it_light_or_dark(browser: Chromium, pages: dict[str, Path]) -> None:
    seen = []
    for scheme in SCHEMES:
        browser.open(pages["usual"], scheme=scheme)
        seen.append(browser.run("getComputedStyle(document.body).backgroundColor"))

    light, dark = ([int(part) for part in colour[4:-1].split(",")] for colour in seen)
    assert min(light) > 230
    assert max(dark) < 40


@pytest.mark.parametrize("width", WIDTHS)
def test_what_matters_is_seen_first(browser: Chromium, pages: dict[str, Path], width: int) -> None:
    browser.open(pages["usual"], width=width)

    seen = browser.run(
        "[...document.querySelectorAll('h1, h2, .verdict p')].map(e => [e.innerText, e.getBoundingClientRect().top])"
    )
    texts, tops = [text for text, _ in seen], [top for _, top in seen]
    assert texts[:4] == [
        "example",
        VERDICT,
        "Decision: Retraining requested: 2 datasets arrived since the last training.",
        "What changed most",
    ]
    assert tops == sorted(tops)
    assert tops[2] < 900, "verdict and decision are on the first screen"
    assert browser.run("document.querySelectorAll('article.card svg').length") > 10


def test_states_are_told_without_colour(browser: Chromium, pages: dict[str, Path]) -> None:
    browser.open(pages["usual"])
    states = browser.run("[...document.querySelectorAll('#monitors .badge')].map(e => e.innerText)")
    assert {*states} == {"▲\nbeyond limit", "?\nnot enough data", "✓\nok"}


def test_names_are_texts_whatever_they_look_like(browser: Chromium, pages: dict[str, Path]) -> None:
    browser.open(pages["hostile"])

    assert browser.run("document.title").startswith("example: beyond limits")
    assert browser.run("document.querySelectorAll('script, img, iframe, object, form, [onerror]').length") == 0
    named = browser.run("[...document.querySelectorAll('#features tbody th')].map(e => e.textContent)")
    expected = [name if len(name) < 60 else f"{name[:59]}…" for name in HOSTILE]
    assert {*named} == {name.replace("\x00", "\ufffd").replace("\x1b", "\ufffd") for name in expected}


def test_no_script_runs_even_where_one_gets_in(browser: Chromium, pages: dict[str, Path], tmp_path: Path) -> None:
    """The page's policy is a second wall behind the escaping."""
    text = pages["usual"].read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    broken.write_text(
        text.replace("<main>", "<main><script>document.title = 'owned'</script><img src='https://example.com/x.png'>"),
        encoding="utf-8",
    )

    browser.open(broken)

    assert browser.run("document.title") != "owned"
    refused = [problem for problem in browser.problems if "Content Security Policy" in problem]
    assert any("inline script" in problem for problem in refused)
    assert any("https://example.com/x.png" in problem for problem in refused)
