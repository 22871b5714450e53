"""Every page in Chromium, against a real `iii dev`: what it shows, what it does, and that it follows by itself."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.stdlib_workers.console.conftest import Console

pytestmark = pytest.mark.timeout(120)

PATHS = [
    "/",
    "/workers",
    "/workers?name=shop",
    "/functions",
    "/functions?id=shop::order",
    "/traces",
    "/logs",
    "/queues",
]
PATHS += ["/queues?queue=mails", "/map", "/triggers", "/state", "/state?scope=users&key=ada", "/metrics"]
PATHS += ["/streams", "/streams?stream=chat&group=room&item=1", "/config", "/flows", "/flows?run=waiting"]
# A change made elsewhere is seen after this many milliseconds; the bound is for a loaded machine.
LIVE = 10_000


def trace_of(console: Console, name: str) -> str:
    """Return the newest trace that has a span of this name, once it is stored."""
    query = {"name": name, "search_all_spans": True, "sort_by": "start_time", "sort_order": "desc", "limit": 1}
    for _ in range(1000):
        spans = console.project.call("engine::traces::list", query)["spans"]
        if spans:
            trace: str = spans[0]["trace_id"]
            return trace
    raise TimeoutError(name)


@pytest.mark.parametrize("path", [*PATHS, "/traces?trace=TRACE"])
def test_no_page_keeps_people_out(console: Console, path: str) -> None:
    axe = Axe()
    if "TRACE" in path:
        path = path.replace("TRACE", trace_of(console, "call shop::mail"))
    page = console.open(path)
    expect(page.locator(".loading")).to_have_count(0)
    found = axe.run(page).response["violations"]
    page.emulate_media(color_scheme="dark")
    # What does not depend on the colors is the same in the dark.
    found += axe.run(page, options={"runOnly": ["color-contrast"]}).response["violations"]
    page.emulate_media(color_scheme="light")
    told = [(rule["id"], [node["html"][:200] for node in rule["nodes"][:3]]) for rule in found]
    assert told == []


def test_the_overview_shows_what_needs_somebody(console: Console) -> None:
    page = console.open("/")
    section = page.get_by_label("What needs somebody")
    expect(section).to_contain_text("shop::mail")
    expect(section).to_contain_text("the mail server is away")
    expect(section).to_contain_text("dead letter")
    script = console.project.folder / "shop.py"
    text = script.read_text()
    script.write_text(text + "\nthis is no Python\n")
    try:
        expect(section).to_contain_text("invalid syntax", timeout=LIVE)
        expect(section).to_contain_text("this is no Python")
        expect(section).to_contain_text("shop.py:")
    finally:
        script.write_text(text)
    expect(section).not_to_contain_text("invalid syntax", timeout=LIVE)


def test_a_worker_is_restarted_stopped_and_started(console: Console) -> None:
    page = console.open("/workers")
    row = page.locator("tr", has=page.get_by_role("link", name="cron"))
    generation = int(row.locator("td").nth(2).inner_text())
    row.get_by_role("button", name="Restart cron").click()
    expect(row.locator("td").nth(2)).to_have_text(str(generation + 1))
    row.get_by_role("button", name="Stop cron").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop it").click()
    expect(row).to_contain_text("stopped")
    row.get_by_role("button", name="Start cron").click()
    expect(row).to_contain_text("ready")
    page.get_by_role("link", name="shop", exact=True).click()
    expect(page.get_by_role("heading", name="shop")).to_be_visible()
    expect(page.get_by_role("link", name="math::add")).to_be_visible()


def test_a_function_is_called_by_its_form(console: Console) -> None:
    page = console.open("/functions?filter=order")
    page.get_by_role("link", name="shop::order").click()
    expect(page.get_by_role("heading", name="shop::order")).to_be_visible()
    expect(page.locator(".description")).to_contain_text("<img src=x")  # shown, never made
    assert "broken" not in page.title()
    form = page.get_by_label("Call this function")
    form.get_by_role("button", name="Call", exact=True).click()
    expect(form.get_by_label("Result")).to_contain_text("item")  # what is missing, in the engine's words
    form.get_by_label("item").fill("green tea")
    form.get_by_label("gift").select_option("true")
    expect(form.get_by_label("Payload")).to_have_value(re.compile(r'"gift": true'))
    page.reload()  # what was typed stays
    expect(form.get_by_label("item")).to_have_value("green tea")
    form.get_by_role("button", name="Call", exact=True).click()
    expect(form.get_by_label("Result")).to_contain_text('"item": "green tea"')
    form.get_by_text("Copy as…").click()
    expect(form.locator(".snippets")).to_contain_text(
        """iii trigger shop::order --json '{"item":"green tea","gift":true}'"""
    )
    expect(form.locator(".snippets")).to_contain_text("curl -X POST http://127.0.0.1:")
    form.get_by_label("Payload").fill("{")
    expect(form.get_by_role("alert")).to_contain_text("not JSON")
    form.get_by_role("link", name="its trace").click()
    expect(page.get_by_label("Spans")).to_contain_text("console shop::order")


def test_a_wrong_value_is_told_at_its_field(console: Console) -> None:
    page = console.open("/functions?id=math::add")
    form = page.get_by_label("Call this function")
    form.get_by_label("a", exact=True).or_(form.locator("#field-a")).first.fill("two")
    expect(form.locator("#field-a-note")).to_have_text("must be a number")
    form.get_by_label("Payload").fill('{"a": "two"}')
    form.get_by_role("button", name="Call", exact=True).click()
    expect(form.locator("#field-a")).to_have_attribute("aria-invalid", "true")
    expect(form.locator("#field-a-note")).to_contain_text("number")


def test_items_are_shown_as_they_come(console: Console) -> None:
    page = console.open("/functions?id=shop::count")
    form = page.get_by_label("Call this function")
    form.locator("#field-upto").fill("3")
    form.locator("#field-upto").press("Control+Enter")
    expect(form.get_by_label("Items")).to_have_text("0\n1\n2")
    expect(form.get_by_label("Result")).to_contain_text("3 items")


def test_a_long_result_is_cut_with_the_way_to_the_whole(console: Console) -> None:
    page = console.open("/functions?id=shop::long")
    form = page.get_by_label("Call this function")
    form.locator("#field-size").fill(str(10 * 1024 * 1024))
    form.get_by_role("button", name="Call", exact=True).click()
    expect(form.get_by_label("Result")).to_contain_text("of 10,485,762 bytes")
    expect(form.get_by_label("Result")).to_contain_text("iii trigger shop::long")


def test_a_function_without_description_and_schema_says_what_to_do(console: Console) -> None:
    page = console.open("/functions?id=shop::bare")
    expect(page.locator(".description")).to_contain_text("a docstring becomes one")
    expect(page.locator(".detail")).to_contain_text("Type hints become one")


def test_what_changes_elsewhere_appears_by_itself(console: Console) -> None:
    page = console.open("/functions?filter=fresh")
    expect(page.get_by_text("No function fits.")).to_be_visible()
    script = console.project.folder / "shop.py"
    text = script.read_text()
    script.write_text(text + '\nworker.register_function("shop::fresh", lambda data: data)\n')
    try:
        expect(page.get_by_role("link", name="shop::fresh")).to_be_visible(timeout=LIVE)
    finally:
        script.write_text(text)
    expect(page.get_by_role("link", name="shop::fresh")).to_have_count(0, timeout=LIVE)


def test_traces_are_filtered_by_the_address_and_come_live(console: Console) -> None:
    page = console.open("/traces?name=shop::order&failed=1")
    rows = page.get_by_label("Traces").get_by_role("listitem")
    expect(rows.first).to_contain_text("error")
    page.get_by_role("button", name="Failed").click()
    expect(rows.filter(has_text="ok").first).to_be_visible()
    assert "failed" not in page.url
    before = rows.count()
    console.project.call("shop::order", {"item": "coffee"})
    expect(rows).to_have_count(before + 1, timeout=LIVE)


def test_a_trace_is_a_waterfall_with_payload_error_and_logs(console: Console) -> None:
    trace = trace_of(console, "call shop::mail")
    page = console.open("/traces?name=shop::order&failed=1")
    page.get_by_role("link", name="call shop::order").first.click()
    spans = page.get_by_label("Spans", exact=True).get_by_role("listitem")
    expect(spans.first).to_contain_text("call shop::order")
    expect(spans.filter(has_text="enqueue shop::mail")).to_have_count(1)
    spans.get_by_role("link", name="call shop::mail").first.click()
    detail = page.get_by_label("Span", exact=True)
    expect(detail).to_contain_text("the mail server is away")
    expect(detail).to_contain_text('"to": "xylophone"')
    spans.get_by_role("link", name="call math::add").click()
    expect(detail).to_contain_text("adding")
    detail.get_by_role("button", name="Replay", exact=True).click()
    expect(page.get_by_role("heading", name="console math::add")).to_be_visible()
    expect(spans.filter(has_text="call math::add")).to_have_count(1, timeout=LIVE)
    page.goto(f"{console.address}/traces?trace={'0' * 31}1")
    expect(page.get_by_text("There is no trace of this id.")).to_be_visible()
    assert len(trace) == 32


def test_two_traces_are_compared_span_by_span(console: Console) -> None:
    for item in ("one", "other"):
        console.project.call("shop::order", {"item": item})
    page = console.open("/traces?name=shop::mail")
    page.get_by_role("link", name="call shop::order").first.click()
    page.get_by_label("Compare with").select_option(index=1)
    rows = page.get_by_label("Spans of both").get_by_role("listitem")
    expect(rows.first).to_contain_text("call shop::order")
    expect(rows.filter(has_text="call math::add")).to_contain_text(re.compile(r"[+−][\d.]+ (µs|ms)"))
    before = page.url
    page.get_by_role("button", name="Swap").click()
    assert page.url != before


def test_logs_come_live_are_filtered_and_lead_to_their_trace(console: Console) -> None:
    page = console.open("/logs?worker=shop&filter=a=77")
    rows = page.get_by_label("Log records").get_by_role("listitem")
    page.get_by_label("Filter logs").fill('"a":77')
    expect(rows).to_have_count(0)
    expect(page.locator(".link.live")).to_be_visible()
    console.project.call("math::add", {"a": 77})
    expect(rows).to_have_count(1, timeout=LIVE)
    page.get_by_role("button", name="Pause").click()
    console.project.call("math::add", {"a": 77})
    expect(page.get_by_role("button", name=re.compile("Paused · [1-9]"))).to_be_visible(timeout=LIVE)
    expect(rows).to_have_count(1)
    page.get_by_role("button", name="Paused").click()
    expect(rows).to_have_count(2)
    rows.first.get_by_role("link", name="trace").click()
    expect(page.get_by_role("heading", level=1, name="call math::add")).to_be_visible()


def test_a_dead_letter_is_edited_and_put_back(console: Console) -> None:
    page = console.open("/queues")
    page.get_by_role("link", name="mails").click()
    letters = page.get_by_role("article")
    expect(letters).to_have_count(1)
    expect(letters).to_contain_text("mail_away: the mail server is away")
    letters.get_by_role("button", name="Edit and redrive").click()
    letters.get_by_label("Payload").fill("{")
    letters.get_by_role("button", name="Redrive with this").click()
    expect(letters.get_by_role("alert")).to_contain_text("not JSON")
    letters.get_by_label("Payload").fill('{"to": "tea"}')
    letters.get_by_role("button", name="Redrive with this").click()
    expect(letters).to_have_count(0, timeout=LIVE)
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    console.project.enqueue("shop::mail", {"to": "later"}, "mails")
    expect(page.get_by_role("button", name="Purge")).to_be_enabled(timeout=LIVE)
    page.get_by_role("button", name="Purge").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Purge")).to_be_disabled()
    dialog.get_by_role("textbox").fill("1")
    dialog.get_by_role("button", name="Purge").click()
    expect(page.get_by_role("button", name="Purge")).to_be_disabled(timeout=LIVE)
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()


def test_the_map_shows_who_calls_whom(console: Console) -> None:
    page = console.open("/map")
    drawing = page.get_by_label("Map of functions")
    for text in ("shop::order", "POST /orders", "0 0 1 1 *"):
        expect(drawing.get_by_role("link", name=text)).to_be_visible()
    drawing.get_by_role("link", name="shop::order").click()
    expect(drawing.get_by_role("link", name="0 0 1 1 *")).to_have_count(0)
    expect(drawing.get_by_role("link", name="shop::mail")).to_be_visible()  # through the queue
    page.get_by_role("link", name="Traces").last.click()
    expect(page.get_by_role("heading", name="Traces")).to_be_visible()
    assert "shop%3A%3Aorder" in page.url


def test_a_trigger_is_tried_run_and_published_to(console: Console) -> None:
    page = console.open("/triggers")
    http = page.get_by_role("region", name="http")
    http.get_by_role("button", name="Try").click()
    http.get_by_label("Request, as the function gets it").fill('{"item": "from here"}')
    expect(http.get_by_text("curl -X POST 'http://127.0.0.1:")).to_be_visible()
    http.get_by_role("button", name="Call").click()
    expect(http.get_by_label("Result")).to_be_visible()
    cron = page.get_by_role("region", name="cron")
    cron.get_by_role("button", name="Ticks").click()
    expect(cron.get_by_role("listitem")).to_have_count(5)
    cron.get_by_role("button", name="Run now").click()
    expect(page.get_by_role("status").filter(has_text="yearly was run")).to_be_visible()
    topic = page.get_by_role("region", name="subscribe")
    topic.get_by_role("button", name="Try").click()
    topic.get_by_label("Message").fill('{"number": 7}')
    topic.get_by_role("button", name="Publish").click()
    console.project.wait("@ heard 7")


def test_a_value_is_followed_and_changed_without_losing_anothers_change(console: Console) -> None:
    page = console.open("/state?scope=users")
    page.get_by_role("link", name="ada").click()
    value = page.get_by_label("Value", exact=True)
    expect(value).to_contain_text('"age": 36')
    page.get_by_role("button", name="Edit").click()
    editor = page.get_by_role("textbox", name="Value")
    editor.fill('{"age": 38}')
    console.project.call("state::set", {"scope": "users", "key": "ada", "value": {"age": 37}})
    expect(page.get_by_role("alert")).to_contain_text("changed meanwhile", timeout=LIVE)
    expect(page.locator("pre .line.gone")).to_contain_text('"age": 36')
    expect(page.locator("pre .line.added")).to_contain_text('"age": 37')
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Not written:")).to_be_visible()
    page.get_by_role("button", name="Take mine over the new one").click()
    page.get_by_role("button", name="Save").click()
    expect(editor).to_have_count(0)
    assert console.project.call("state::get", {"scope": "users", "key": "ada"}) == {"age": 38}


def test_a_scope_of_thousands_of_keys_scrolls(console: Console) -> None:
    entries = [{"scope": "many", "key": f"k{number:05}", "value": number} for number in range(1200)]
    with console.project.connect() as connection:
        for entry in entries:
            connection.call("state::set", entry)
    page = console.open("/state?scope=many")
    keys = page.get_by_role("list", name="Keys")
    expect(keys.get_by_role("listitem").first).to_have_attribute("aria-setsize", "1200")
    keys.focus()
    page.keyboard.press("End")
    expect(keys.get_by_text("k01199")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="k01199")).to_be_visible()
    assert keys.get_by_role("listitem").count() < 80


def test_a_stream_shows_its_items_and_takes_events(console: Console) -> None:
    page = console.open("/streams?stream=chat&group=room")
    items = page.get_by_label("Items").get_by_role("listitem")
    expect(items).to_have_count(1)
    item = {"stream_name": "chat", "group_id": "room", "item_id": "2", "data": {"text": "hello"}}
    console.project.call("stream::set", item)
    expect(items).to_have_count(2, timeout=LIVE)
    items.get_by_role("link", name="2").click()
    editor = page.get_by_label("Item 2")
    editor.get_by_label("Value").fill("{")
    editor.get_by_role("button", name="Save").click()
    expect(editor.get_by_role("alert")).to_contain_text("not JSON")
    editor.get_by_label("Value").fill('{"text": "edited"}')
    editor.get_by_role("button", name="Save").click()
    expect(items.last).to_contain_text("edited", timeout=LIVE)
    editor.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(items).to_have_count(1, timeout=LIVE)
    expect(editor).to_contain_text("deleted")
    editor.get_by_role("button", name="Close").click()
    form = page.get_by_label("Send an event")
    form.get_by_label("Type").fill("typing")
    form.get_by_role("button", name="Send").click()
    expect(page.get_by_role("status").filter(has_text="sent")).to_be_visible()


def test_metrics_are_charts_and_alerts_have_a_state(console: Console) -> None:
    page = console.open("/metrics?filter=mail")
    expect(page.locator("canvas")).to_have_count(3)
    expect(page.get_by_role("link", name="shop::mail")).to_be_visible()
    expect(page.locator("tr", has_text="busy")).to_contain_text("GreaterThan 1000")


def test_a_run_of_a_flow_is_a_tree_that_takes_a_signal(console: Console) -> None:
    start = {"function_id": "shop::deliver", "payload": {"order": "tree"}}
    console.project.call("flow::start", start)
    page = console.open("/flows?filter=tree")
    page.get_by_label("Runs").get_by_role("link", name="tree").click()
    steps = page.get_by_label("Steps").get_by_role("listitem")
    expect(steps.filter(has_text="approved")).to_contain_text("open")
    expect(steps.filter(has_text="math::add").first).to_contain_text("done")
    # The map is a node, and each of its two branches is one above its call.
    assert steps.count() == 7
    expect(page.locator("dl")).to_contain_text("approved")
    form = page.get_by_label("Send a signal")
    expect(form.get_by_label("Event")).to_have_value("approved")
    form.get_by_label("Payload").fill("{")
    form.get_by_role("button", name="Send").click()
    expect(form.get_by_role("alert")).to_contain_text("not JSON")
    form.get_by_label("Payload").fill('{"by": "ada"}')
    form.get_by_role("button", name="Send").click()
    expect(page.get_by_label("Result")).to_contain_text('"by": "ada"', timeout=LIVE)
    expect(page.get_by_label("Result")).to_contain_text('"parts": 2')
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_role("status").filter(has_text="today's function matches")).to_be_visible()
    steps.filter(has_text="approved").get_by_role("link").click()
    step = page.get_by_label("Step", exact=True)
    expect(step).to_contain_text('"by": "ada"')
    step.get_by_role("button", name="Fork from here").click()
    expect(page.get_by_role("button", name="Cancel run")).to_be_enabled(timeout=LIVE)
    assert "run=tree" not in page.url
    page.get_by_role("button", name="Cancel run").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel it").click()
    expect(page.locator(".head-line").first).to_contain_text("cancelled", timeout=LIVE)


def test_a_failed_run_says_why_and_is_tried_again(console: Console) -> None:
    console.project.call("flow::start", {"function_id": "shop::deliver", "payload": {"order": "refused"}})
    console.project.call("flow::signal", {"run": "refused", "event": "approved", "payload": "never"})
    page = console.open("/flows?run=refused")
    expect(page.locator(".trouble")).to_contain_text("nobody wants it", timeout=LIVE)
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_role("status").filter(has_text="goes on")).to_be_visible()
    page.goto(f"{console.address}/flows?run=none-of-this-id")
    expect(page.get_by_text("There is no run none-of-this-id.")).to_be_visible()


def test_the_config_says_where_each_value_comes_from_and_what_is_wrong(console: Console) -> None:
    page = console.open("/config")
    shop = page.get_by_role("region", name="[workers.shop]", exact=True)
    expect(shop.locator("tr", has_text="run")).to_contain_text(re.compile(r'"shop\.py"iii\.toml:\d+'))
    expect(shop.locator("tr", has_text="SHOP_KEY")).to_contain_text("secret")
    expect(shop.locator("tr", has_text="MODE")).to_contain_text("SHOP_MODE is not set")
    expect(shop.locator("tr", has_text="instances")).to_contain_text("default")
    page.get_by_label("only what is written").check()
    expect(shop.locator("tr", has_text="instances")).to_have_count(0)
    toml = console.project.folder / "iii.toml"
    text = toml.read_text()
    toml.write_text(text + "\n[workers.shap]\nrun = 3\n")
    try:
        mistakes = page.get_by_label("Mistakes")
        expect(mistakes).to_contain_text("run must be a string", timeout=LIVE)
        expect(mistakes).to_contain_text("iii.toml:")
    finally:
        toml.write_text(text)
    expect(mistakes).to_have_count(0, timeout=LIVE)
    assert "a-secret-of-the-shop" not in page.content()


def test_a_worker_shows_its_environment_with_its_sources_and_without_secrets(console: Console) -> None:
    page = console.open("/workers?name=shop")
    page.get_by_text("Environment", exact=True).click()
    table = page.locator("details table")
    expect(table.locator("tr", has_text="SHOP_KEY")).to_contain_text("secret")
    expect(table.locator("tr", has_text="MODE")).to_contain_text("open")
    expect(table.locator("tr", has_text="PATH").first).to_contain_text("shell")
    assert "a-secret-of-the-shop" not in page.content()


def focus(page: Page, is_it: Callable[[str], bool]) -> str:
    """Press Tab until what has the focus fits; return what it says."""
    for _ in range(60):
        page.keyboard.press("Tab")
        text: str = page.evaluate(
            "document.activeElement.getAttribute('aria-label') || document.activeElement.innerText || ''"
        )
        if is_it(text):
            return text
    raise AssertionError("the keyboard does not get there")


def test_the_keyboard_alone_goes_everywhere(console: Console) -> None:
    page = console.open("/")
    page.keyboard.press("Control+k")
    page.keyboard.type("math::add")
    expect(page.get_by_role("option")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="math::add")).to_be_visible()
    page.keyboard.press("Control+k")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.locator("main").focus()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.type") == "search"
    page.keyboard.type("count")
    focus(page, lambda text: text == "Functions")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="shop::count")).to_be_visible()
    focus(page, lambda text: text == "Call")


@pytest.mark.slow
def test_a_trace_of_thousands_of_spans_scrolls(console: Console) -> None:
    console.project.call("shop::many", {"calls": 9000})
    trace = trace_of(console, "call shop::many")
    page = console.open(f"/traces?trace={trace}")
    expect(page.locator(".head-line").first).to_contain_text(re.compile(r"[\d,]{5,} spans"), timeout=60_000)
    spans = page.get_by_label("Spans", exact=True)
    spans.focus()
    page.keyboard.press("End")
    expect(spans.get_by_role("listitem").last).to_have_attribute("aria-posinset", re.compile(r"\d{4,}"))
    assert spans.get_by_role("listitem").count() < 80
