"""The playground in a real browser, against a real server with v3-nano. `make test-browser` runs this."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fivefold import Embedder

pytestmark = pytest.mark.browser
settled = pytest.importorskip("tests.browser.chromium", reason="needs playwright").settled

Visit = Callable[..., Any]
TEXTS = ["I lost my keys", "J'ai perdu mes clés", "Он купил хлеб", "النص العربي", "He bought bread"]
HALF_A_CENT = 0.0051  # the page shows two decimals
DOCUMENT = """The Eiffel Tower stands in Paris. 🗼 It was built in 1889 and is 330 metres tall.

The Colosseum stands in Rome. It was finished in the year 80. Fifty thousand people could sit there."""
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}

# Every colour of text in `selector` and what lies behind it, as sRGB, whatever notation the style sheet uses.
COLOURS = """(selector) => {
  const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const seen = (node) => {
    const behind = [];
    for (let at = node; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
    const paint = (colours) => {
      for (const colour of colours) { pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); }
      return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    return [paint(behind), paint([...behind, getComputedStyle(node).color])];
  };
  return [...document.querySelectorAll(selector)].filter((node) => node.checkVisibility()).map(seen);
}"""

FOCUS = """(() => {
  const at = document.activeElement;
  return [at.id || at.ariaLabel || at.textContent, getComputedStyle(at).outlineStyle];
})()"""


def luminance(colour: list[int]) -> float:
    """WCAG 2's relative luminance."""
    parts = np.array(colour) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(pair: list[list[int]]) -> float:
    dark, light = sorted(map(luminance, pair))
    return (light + 0.05) / (dark + 0.05)


def compare(page: Any, texts: list[str]) -> None:
    page.get_by_label("Texts, one a line").fill("\n".join(texts))
    page.get_by_role("button", name="Compare").click()
    settled(page, "compare")


def heat_map(page: Any) -> np.ndarray:
    rows = page.locator("#compare-results tbody tr").all()
    return np.array([[float(cell) for cell in row.locator("td").all_inner_texts()] for row in rows])


def cosines(embedder: Embedder, texts: list[str], **options: Any) -> np.ndarray:
    vectors = embedder.encode(texts, **options)
    return vectors @ vectors.T


def search(page: Any, document: str, query: str, longest: int) -> None:
    page.get_by_role("textbox", name="Document", exact=True).fill(document)
    page.get_by_label("Longest passage").fill(str(longest))
    page.get_by_role("textbox", name="Query").fill(query)
    page.get_by_role("textbox", name="Query").press("Enter")
    settled(page, "search")


def test_the_heat_map_shows_the_cosines(visit: Visit, url: str, embedder: Embedder) -> None:
    page = visit(url)
    settled(page)
    compare(page, ["", *TEXTS, "  "])
    expected = cosines(embedder, TEXTS, task="text-matching")
    np.testing.assert_allclose(heat_map(page), expected, atol=HALF_A_CENT)
    assert page.get_by_role("rowheader").all_inner_texts() == [f"{i} {text}" for i, text in enumerate(TEXTS, 1)]
    assert page.get_by_role("table", name="Cosine similarity: text-matching, 384 dimensions").is_visible()
    first, second = np.unravel_index(np.triu(expected, 1).argmax(), expected.shape)
    assert f"Nearest: {first + 1} and {second + 1}." in page.locator("#compare-status").inner_text()

    page.get_by_label("Dimensions").fill("32")
    page.get_by_role("combobox", name="Task", exact=True).select_option(
        "separation"
    )  # a change is enough, without the button
    page.get_by_role("table", name="Cosine similarity: separation, 32 dimensions").wait_for()
    expected = cosines(embedder, TEXTS, task="separation", truncate_dim=32)
    np.testing.assert_allclose(heat_map(page), expected, atol=HALF_A_CENT)


def test_each_text_may_have_its_own_task(visit: Visit, url: str, embedder: Embedder) -> None:
    page = visit(url)
    settled(page)
    compare(page, TEXTS[:3])
    page.get_by_role("combobox", name="Task", exact=True).select_option("each its own")
    tasks = ["retrieval.query", None, "text-matching"]
    for number, task in enumerate(tasks[:2]):
        page.locator("#tasks select").nth(number).select_option(task or "none")
    page.get_by_text("a task for each text").wait_for()
    settled(page, "compare")
    np.testing.assert_allclose(heat_map(page), cosines(embedder, TEXTS[:3], task=tasks), atol=HALF_A_CENT)
    assert [head.split("\n")[-1] for head in page.get_by_role("rowheader").all_inner_texts()] == [
        t or "none" for t in tasks
    ]
    page.get_by_label("Texts, one a line").fill("\n".join(TEXTS))  # lines that are there keep their task
    assert [s.input_value() for s in page.locator("#tasks select").all()] == [t or "" for t in [*tasks, *tasks[2:] * 2]]


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_everything_can_be_read(visit: Visit, url: str, mode: str) -> None:
    page = visit(url, color_scheme=mode)
    settled(page)
    compare(page, [*TEXTS, TEXTS[0]])  # two alike: the hottest cell there is
    for summary in page.locator("summary").all():
        summary.click()
    cells = page.evaluate(COLOURS, "#compare-results tbody td:not(.self)")
    heat = heat_map(page)[~np.eye(len(TEXTS) + 1, dtype=bool)]
    ground = [luminance(behind) for behind, _ in cells]
    assert heat.max() == 1 and max(ground) - min(ground) > 0.05
    assert np.corrcoef(heat, ground)[0, 1] * (-1 if mode == "light" else 1) > 0.95
    everything = (
        "h1, h2, h3, p, a, label, input, select, textarea, button, summary, caption, th, td, small, pre, li, mark"
    )
    assert min(map(contrast, page.evaluate(COLOURS, everything))) >= 4.5


def test_search_with_and_without_late_chunking(visit: Visit, url: str, embedder: Embedder) -> None:
    page, query = visit(url), "When was the tower in Paris built?"
    settled(page)
    search(page, DOCUMENT, query, 12)
    late = embedder.encode_chunks(DOCUMENT, chunk_tokens=12)
    alone = embedder.encode_document(late.texts)
    wanted = embedder.encode_query(query)
    for column, vectors in (("#late", late.vectors), ("#plain", alone)):
        scores = vectors @ wanted
        order = np.argsort(-scores)[:3]
        shown = [item.split("\n") for item in page.locator(f"{column} li").all_inner_texts()]
        np.testing.assert_allclose([float(score) for score, _ in shown], scores[order], atol=HALF_A_CENT)
        assert [text for _, text in shown] == [late.texts[i] for i in order]
        mark = page.locator(f"{column} mark")
        assert mark.text_content() == late.texts[order[0]]
        assert page.locator(f"{column} .document").text_content() == DOCUMENT
    assert f"{len(late.texts)} passages." in page.locator("#search-status").inner_text()


def test_the_example_shows_what_late_chunking_is_for(visit: Visit, url: str) -> None:
    page = visit(url)
    settled(page)
    assert page.locator("#late mark").text_content() == "She died in Pennsylvania in 1935."
    assert page.locator("#plain mark").text_content().startswith("Emmy Noether was born")
    assert "The two find different ones first." in page.locator("#search-status").inner_text()


def test_the_marked_passage_is_in_sight(visit: Visit, url: str) -> None:
    page = visit(url)
    settled(page)
    filler = "Nothing of note happened on that day. " * 60
    search(page, f"{filler}\n\nThe Eiffel Tower stands in Paris.\n\n{filler}", "Eiffel Tower", 16)
    inside = "(mark) => { const m = mark.getBoundingClientRect(), d = mark.parentElement.getBoundingClientRect();"
    assert page.locator("#plain mark").evaluate(inside + "return d.top <= m.top && m.bottom <= d.bottom; }")


def test_by_keyboard_alone(visit: Visit, url: str) -> None:
    page = visit(url)
    settled(page)
    stops, rings = [], set()
    while "its metrics" not in stops and len(stops) < 60:
        page.keyboard.press("Tab")
        stop, ring = page.evaluate(FOCUS)
        stops.append(stop)
        rings.add(ring)
    order = [
        "API key",
        "texts",
        "task",
        "dimensions",
        "Compare",
        "compare-results",
        "document",
        "query",
        "longest",
        "Search",
    ]
    assert [stop for stop in stops if stop in order] == order and stops[-1] == "its metrics" and rings == {"solid"}

    page.get_by_label("Texts, one a line").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("one cat\ntwo cats")
    page.keyboard.press("Tab")
    page.keyboard.type("classification")
    page.keyboard.press("Tab")
    page.keyboard.press("Control+A")
    page.keyboard.type("48")
    page.keyboard.press("Enter")
    page.get_by_role("table", name="Cosine similarity: classification, 48 dimensions").wait_for()
    settled(page, "compare")
    assert heat_map(page).shape == (2, 2)
    assert page.evaluate("document.activeElement.id") == "dimensions"  # an answer takes the focus from nobody


def test_on_a_phone(visit: Visit, url: str) -> None:
    page = visit(url, **PHONE)
    settled(page)
    for summary in page.locator("summary").all():
        summary.tap()
    compare(page, [*TEXTS * 3, "unbreakable" * 40])
    page.get_by_role("combobox", name="Task", exact=True).select_option("each its own")
    page.get_by_text("a task for each text").wait_for()
    search(page, "word" * 300 + " " + DOCUMENT, "word" * 50, 30)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    small = page.locator("button, select, input, textarea, summary").evaluate_all(
        "(all) => all.filter((one) => one.checkVisibility() && one.getBoundingClientRect().height < 36).map((one) => one.id)"
    )
    assert not small


def test_keys(visit: Visit, locked: str) -> None:
    page = visit(locked, expected=(401,))
    page.get_by_text("this server needs a key").wait_for()
    page.get_by_role("button", name="Search").click()  # the form says so, too
    assert "needs a key" in page.locator("#search-status.bad").inner_text()
    key = page.locator("#key")
    assert key.evaluate("(key) => key === document.activeElement")
    key.fill("sk-wrong")
    key.press("Enter")
    page.locator("#model.bad", has_text="is not one of this server's").wait_for()
    key.fill("sk-right")
    page.get_by_role("button", name="Use key").click()
    page.locator("#model:not(.bad)", has_text="32 dimensions").wait_for()
    settled(page)
    assert heat_map(page).shape == (5, 5)
    assert "sk-right" not in "".join(page.locator("pre").all_text_contents())


def test_what_the_server_refuses_is_told(visit: Visit, url: str) -> None:
    page = visit(url, expected=(400,))
    settled(page)
    compare(page, ["much " * 9000])
    assert "tokens" in page.locator("#compare-status.bad").inner_text()
    assert page.locator("#compare-results").is_hidden()  # no old numbers beside a new error
    compare(page, TEXTS * 11)
    assert "at most 50 texts" in page.locator("#compare-status.bad").inner_text()
    compare(page, TEXTS)
    assert heat_map(page).shape == (5, 5) and page.locator("#compare-status.bad").count() == 0


def test_it_waits_for_the_model_and_survives_the_server(visit: Visit, url: str) -> None:
    body = json.dumps({"detail": "the model is being loaded; try again soon"})
    answers = iter([{"status": 503, "body": body}, {"status": 502, "body": "<html>a proxy's page"}])

    def loading(page: Any) -> None:
        page.route("**/info", lambda route: route.fulfill(**next(answers)), times=1)

    page = visit(url, before=loading, expected=(502, 503))
    page.get_by_text("the model is being loaded").wait_for()
    settled(page)  # by itself
    assert heat_map(page).shape == (5, 5)
    page.route("**/v1/embeddings", lambda route: route.fulfill(**next(answers)), times=1)
    compare(page, TEXTS)
    assert "status 502" in page.locator("#compare-status.bad").inner_text()
    page.evaluate("() => { window.fetch = () => Promise.reject(new TypeError('Failed to fetch')); }")
    compare(page, TEXTS)
    assert "Is it running?" in page.locator("#compare-status.bad").inner_text()


def test_texts_are_text(visit: Visit, url: str) -> None:
    page = visit(url)
    settled(page)
    wild = [
        "<img src=x onerror='window.hit = 1'>",
        "</textarea><script>window.hit = 1</script>",
        "${1}&lt;b&gt; \\ \" ' null",
    ]
    compare(page, wild)
    search(page, "\n\n".join(wild), wild[0], 40)
    assert page.evaluate("window.hit") is None
    assert page.locator("main img, main script").count() == 0
    assert page.get_by_role("rowheader").all_text_contents() == [f"{i} {text}" for i, text in enumerate(wild, 1)]
    assert page.locator("#late .document").text_content() == "\n\n".join(wild)


def copied(page: Any, form: str, language: str) -> str:
    page.locator(f"#{form}-code").evaluate("(details) => { details.open = true; }")
    page.locator(f"#{form}-code").get_by_role("button", name=f"Copy {language}").click()
    page.locator(f"#{form}-status", has_text="Copied").wait_for()
    code: str = page.evaluate("navigator.clipboard.readText()")
    return code


def printed(argv: list[str], code: str) -> str:
    environment = {**os.environ, "FIVEFOLD_KEY": "sk-right"}
    return subprocess.run(
        argv, input=code, capture_output=True, text=True, check=True, env=environment, timeout=60
    ).stdout


def matrix_of(text: str) -> np.ndarray:
    return np.array([[float(x) for x in row.strip(" []").split()] for row in text.strip().splitlines()])


@pytest.mark.parametrize("task", ["none", "separation", "each its own"])
def test_copied_code_gives_the_matrix(visit: Visit, locked: str, task: str) -> None:
    pytest.importorskip("openai")
    page = visit(locked, expected=(401,), permissions=["clipboard-read", "clipboard-write"])
    page.locator("#key").fill("sk-right")
    page.locator("#key").press("Enter")
    settled(page)
    page.get_by_label("Dimensions").fill("16")
    page.get_by_role("combobox", name="Task", exact=True).select_option(task)
    if task == "each its own":
        page.locator("#tasks select").first.select_option("none")
    compare(page, ['it\'s "quoted"', "a \\ b \\n $HOME `ls`", "null", "мир 🗺"])
    shown = heat_map(page)
    np.testing.assert_allclose(
        matrix_of(printed([sys.executable, "-"], copied(page, "compare", "Python"))), shown, atol=0.011
    )
    answer = json.loads(printed(["sh"], copied(page, "compare", "curl")))
    vectors = np.array([row["embedding"] for row in answer["data"]])
    assert vectors.shape == (4, 16)
    np.testing.assert_allclose(vectors @ vectors.T, shown, atol=HALF_A_CENT)


def test_copied_code_gives_the_search(visit: Visit, url: str) -> None:
    pytest.importorskip("openai")
    page = visit(url, permissions=["clipboard-read", "clipboard-write"])
    settled(page)
    best = [float(score) for score in page.locator("#late li span:first-child").all_inner_texts()]
    found = printed([sys.executable, "-"], copied(page, "search", "Python"))
    np.testing.assert_allclose(np.sort(matrix_of(found.replace("\n", " "))[0])[:-4:-1], best, atol=0.0021)
    answers = printed(["sh"], copied(page, "search", "curl")).replace("}{", "}\n{").splitlines()
    query, passages = ([row["embedding"] for row in json.loads(answer)["data"]] for answer in answers)
    np.testing.assert_allclose(np.sort(np.array(passages) @ query[0])[:-4:-1], best, atol=0.0021)


def test_without_a_clipboard_the_code_is_selected(visit: Visit, url: str) -> None:
    page = visit(url)
    settled(page)
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")  # as without https
    page.locator("#compare-code summary").click()
    page.get_by_role("button", name="Copy curl").first.click()
    page.locator("#compare-status", has_text="Selected").wait_for()
    assert page.evaluate("getSelection().toString()").startswith("curl ")
