"""The HTML page: its data, and how it shows, sorts, filters and draws them in a real browser without a network."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from altprop.reporting.comparisons import comparisons
from altprop.reporting.figures.style import save
from altprop.reporting.html.page import html_page, page_data, script_json
from altprop.reporting.milestones import milestones
from altprop.reporting.rows import collect_rows
from altprop.reporting.runs import read_runs
from tests.reporting.fixtures import PAPER, rows_of, write_run

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

CLICKS = """
const seen = {};
const names = () => [...document.querySelectorAll("#rows tbody tr")].map((line) => line.children[1].textContent);
const button = (title) => [...document.querySelectorAll("#rows th button")].find((each) => each.textContent === title);
const isPublished = (trace) => trace.name.endsWith(", published");
const lines = () => document.getElementById("chart").data.filter((trace) => trace.hoverinfo !== "skip" && !isPublished(trace));
const published = () => document.getElementById("chart").data.filter(isPublished);
const drawn = () => document.querySelectorAll("#chart .scatterlayer .trace").length;
const change = (id, value, event) => {
  const field = document.getElementById(id);
  if (field.type === "checkbox") field.click();
  else { field.value = value; field.dispatchEvent(new Event(event)); }
};
seen.start = names();
seen.drawn = drawn();
button("last epoch").click();
seen.ascending = names();
seen.mark = document.querySelector("#rows th[aria-sort]").textContent;
button("last epoch").click();
seen.descending = names();
button("experiment").click();
seen.words = names();
change("filter", "ALPHA -beta", "input");
seen.filtered = names();
seen.count = document.getElementById("count").textContent;
seen.dash = lines()[0].line.dash;
seen.curves = lines().map((trace) => trace.name);
change("filter", "", "input");
seen.bands = document.getElementById("chart").data.length;
change("band");
seen.without_bands = document.getElementById("chart").data.length;
seen.epochs = lines()[0].x;
seen.published = published().map((trace) => [trace.name, trace.x, trace.y]);
change("axis", "seconds", "change");
seen.seconds = lines()[0].x;
seen.published_along_time = published().length;
seen.milestones = [...document.querySelectorAll("#tables tr")].map((line) => line.textContent);
change("axis", "flops", "change");
seen.flops = lines()[0].x;
seen.title = document.querySelector("#chart .xtitle").textContent;
document.querySelector("#rows tbody input:enabled").click();
seen.unchecked = lines().map((trace) => trace.name);
seen.comparison = [...document.querySelectorAll("#comparisons tr")].map((line) => line.children[3].textContent);
seen.remarks = [...document.querySelectorAll("#comparisons .remark")].map((remark) => remark.textContent);
seen.figures = [...document.querySelectorAll("#figures img")].map((image) => [image.alt, image.src.slice(0, 22)]);
seen.messages = [...document.querySelectorAll("#messages li")].map((entry) => entry.textContent);
seen.requests = performance.getEntriesByType("resource").map((entry) => entry.name);
const result = document.createElement("pre");
result.id = "result";
result.textContent = JSON.stringify(seen);
document.body.appendChild(result);
"""


@pytest.fixture
def page(tmp_path: Path) -> str:
    shared = {"model": {"_target_": "models.MLP"}, "dataset": {"label": "MNIST"}}
    hostile = {
        "paper": {**PAPER, "table": "</script><b>bold", "milestones": {"test/accuracy": [[1, 71.5], [2, 72.5], [50, 99.0]]}}
    }
    write_run(tmp_path, "alpha", "00000000000a", [80.0, 90.0], seed=0, config=shared)
    write_run(tmp_path, "alpha", "00000000000b", [82.0, 92.0], seed=1, config=shared)
    dropout = {"model": {**shared["model"], "dropout": 0.5}}
    write_run(tmp_path, "alpha/beta", "00000000000c", [70.0, 9.5], config={**shared, **hostile, **dropout})
    write_run(tmp_path, "gamma", "00000000000d", [60.0], status="failed", error="</script><img src=x onerror=alert(1)>")
    runs, _ = read_runs(tmp_path)
    rows = collect_rows(runs, lambda run: run.name)
    figure = save(Figure(figsize=(1, 1)), tmp_path / "figure.png")
    return html_page(
        rows, "summary", ["failed: </script><i>gamma</i>"], comparisons(rows), milestones(rows), {"</script>a figure": figure}
    )


def test_page_loads_nothing_from_the_network(page: str) -> None:
    own = re.sub(r"<script>/\*\*\n\* plotly.js.*?</script>", "", page, flags=re.DOTALL)
    assert len(own) < len(page) / 50
    assert "http" not in own
    assert not re.search(r"<(link|img|iframe)|src=\"|@import|url\(", own)


def test_data_cannot_end_the_script_element() -> None:
    hostile = {"name": "</script><script>alert(1)</script><!--"}
    assert "<" not in script_json(hostile)
    assert json.loads(script_json(hostile)) == hostile


def test_values_that_are_not_finite_become_null(tmp_path: Path) -> None:
    write_run(tmp_path, "diverged", "00000000000a", [80.0, float("nan")])
    runs, _ = read_runs(tmp_path)
    data = page_data(collect_rows(runs, lambda run: run.name), "", [])
    assert json.loads(json.dumps(data, allow_nan=False))["rows"][0]["curve"]["mean"] == [80.0, None]


def test_many_curves_have_distinct_colors_and_dashes(tmp_path: Path) -> None:
    for place in range(20):
        write_run(tmp_path, f"row{place:02}", f"0000000000{place:02}", [50.0, 60.0])
    rows = page_data(rows_of(tmp_path), "", [])["rows"]
    assert len({(row["color"], row["dash"]) for row in rows}) == 20
    assert {row["dash"] for row in rows[:7]} == {"solid"}


@pytest.mark.skipif(BROWSER is None, reason="chromium is not installed (Debian: apt-get install chromium)")
def test_page_in_a_browser_sorts_filters_and_draws(page: str, tmp_path: Path) -> None:
    seen = clicked(page, tmp_path)
    assert seen["start"] == ["alpha", "alpha/beta", "gamma"]
    assert seen["drawn"] == 4  # a line and a band for two seeds, a line and the published values for one
    assert seen["ascending"] == ["alpha/beta", "alpha", "gamma"]  # by number, so 9.5 before 91; rows without a number come last
    assert seen["mark"] == "last epoch"
    assert seen["descending"] == ["alpha", "alpha/beta", "gamma"]
    assert seen["words"] == ["alpha", "alpha/beta", "gamma"]
    assert seen["filtered"] == ["alpha"]
    assert seen["count"] == "1 of 3 rows"
    assert seen["curves"] == ["alpha"]
    assert seen["dash"] == "solid"
    assert (seen["bands"], seen["without_bands"]) == (4, 3)
    assert seen["epochs"] == [1, 2]
    assert seen["published"] == [["alpha/beta, published", [1, 2], [71.5, 72.5]]]  # without those far beyond our epochs
    assert seen["milestones"] == [
        "experimentmetricepochseedsourspaperdifference",
        "alpha/betatest/accuracy1170.0071.5-1.50",
        "alpha/betatest/accuracy219.5072.5-63.00",
    ]
    assert seen["seconds"] == [2, 4]
    assert seen["published_along_time"] == 0
    assert seen["flops"] == [5e9, 10e9]
    assert seen["title"] == "floating-point operations of training"
    assert seen["unchecked"] == ["alpha/beta"]
    assert seen["figures"] == [["</script>a figure", "data:image/png;base64,"]]
    assert seen["comparison"] == ["at 2 epochs", "91.00 ± 1.41", "9.50"]
    assert seen["remarks"] == ["The rows also differ in model.dropout."]
    assert seen["messages"] == ["failed: </script><i>gamma</i>"]
    assert seen["requests"] == []


def clicked(page: str, folder: Path) -> dict[str, Any]:
    """What :data:`CLICKS` sees in ``page`` in a headless browser without a network."""
    file = folder / "page.html"
    file.write_text(page.replace("</body>", f"<script>{CLICKS}</script></body>"))
    assert BROWSER is not None
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command = [
        BROWSER,
        *options,
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=3000",
        "--dump-dom",
        file.as_uri(),
    ]
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    result = re.search(r'<pre id="result">(.*?)</pre>', dumped, re.DOTALL)
    assert result is not None, dumped[-2000:]
    content: dict[str, Any] = json.loads(html.unescape(result[1]))
    return content
