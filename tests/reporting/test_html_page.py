"""The page opened in a real browser: what is shown, sorted, filtered and drawn, without a network."""

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

from altprop.reporting.collect import collect
from altprop.reporting.figures.style import save
from altprop.reporting.html_page import embedded, html_page, page_data
from altprop.reporting.runs import read_runs
from altprop.reporting.tables.milestones import milestones
from altprop.reporting.tables.side_by_side import comparisons
from tests.reporting.test_report import PAPER, rows_of, write_run

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

CLICKS = """
const found = {};
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
found.start = names();
found.drawn = drawn();
button("last epoch").click();
found.ascending = names();
found.mark = document.querySelector("#rows th[aria-sort]").textContent;
button("last epoch").click();
found.descending = names();
button("experiment").click();
found.words = names();
change("filter", "ALPHA -beta", "input");
found.filtered = names();
found.count = document.getElementById("count").textContent;
found.dash = lines()[0].line.dash;
found.curves = lines().map((trace) => trace.name);
change("filter", "", "input");
found.bands = document.getElementById("chart").data.length;
change("band");
found.without_bands = document.getElementById("chart").data.length;
found.epochs = lines()[0].x;
found.published = published().map((trace) => [trace.name, trace.x, trace.y]);
change("axis", "seconds", "change");
found.seconds = lines()[0].x;
found.published_along_time = published().length;
found.milestones = [...document.querySelectorAll("#milestones tr")].map((line) => line.textContent);
change("axis", "flops", "change");
found.flops = lines()[0].x;
found.title = document.querySelector("#chart .xtitle").textContent;
document.querySelector("#rows tbody input:enabled").click();
found.unticked = lines().map((trace) => trace.name);
found.comparison = [...document.querySelectorAll("#comparisons tr")].map((line) => line.children[3].textContent);
found.remarks = [...document.querySelectorAll("#comparisons .remark")].map((remark) => remark.textContent);
found.figures = [...document.querySelectorAll("#figures img")].map((image) => [image.alt, image.src.slice(0, 22)]);
found.troubles = [...document.querySelectorAll("#troubles li")].map((entry) => entry.textContent);
found.requests = performance.getEntriesByType("resource").map((entry) => entry.name);
const result = document.createElement("pre");
result.id = "result";
result.textContent = JSON.stringify(found);
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
    rows = collect(runs, lambda run: run.name)
    figure = save(Figure(figsize=(1, 1)), tmp_path / "figure.png")
    return html_page(
        rows, "summary", ["failed: </script><i>gamma</i>"], comparisons(rows), milestones(rows), {"</script>a figure": figure}
    )


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    own = re.sub(r"<script>/\*\*\n\* plotly.js.*?</script>", "", page, flags=re.DOTALL)
    assert len(own) < len(page) / 50
    assert "http" not in own
    assert not re.search(r"<(link|img|iframe)|src=\"|@import|url\(", own)


def test_data_cannot_leave_its_element() -> None:
    hostile = {"name": "</script><script>alert(1)</script><!--"}
    assert "<" not in embedded(hostile)
    assert json.loads(embedded(hostile)) == hostile


def test_values_that_are_not_finite_become_null(tmp_path: Path) -> None:
    write_run(tmp_path, "diverged", "00000000000a", [80.0, float("nan")])
    runs, _ = read_runs(tmp_path)
    data = page_data(collect(runs, lambda run: run.name), "", [])
    assert json.loads(json.dumps(data, allow_nan=False))["rows"][0]["curve"]["mean"] == [80.0, None]


def test_many_curves_are_told_apart_by_color_and_dashes(tmp_path: Path) -> None:
    for place in range(20):
        write_run(tmp_path, f"row{place:02}", f"0000000000{place:02}", [50.0, 60.0])
    rows = page_data(rows_of(tmp_path), "", [])["rows"]
    assert len({(row["color"], row["dash"]) for row in rows}) == 20
    assert {row["dash"] for row in rows[:7]} == {"solid"}


@pytest.mark.skipif(BROWSER is None, reason="chromium is not installed (Debian: apt-get install chromium)")
def test_the_page_in_a_browser_sorts_filters_and_draws(page: str, tmp_path: Path) -> None:
    found = clicked(page, tmp_path)
    assert found["start"] == ["alpha", "alpha/beta", "gamma"]
    assert found["drawn"] == 4  # a line and a band of two seeds, a line of one, the values published of it
    assert found["ascending"] == ["alpha/beta", "alpha", "gamma"]  # 9.5 before 91: by number; without a number last
    assert found["mark"] == "last epoch"
    assert found["descending"] == ["alpha", "alpha/beta", "gamma"]
    assert found["words"] == ["alpha", "alpha/beta", "gamma"]
    assert found["filtered"] == ["alpha"]
    assert found["count"] == "1 of 3 rows"
    assert found["curves"] == ["alpha"]
    assert found["dash"] == "solid"
    assert (found["bands"], found["without_bands"]) == (4, 3)
    assert found["epochs"] == [1, 2]
    assert found["published"] == [["alpha/beta, published", [1, 2], [71.5, 72.5]]]  # what is far beyond our epochs is left out
    assert found["milestones"] == [
        "experimentmetricepochseedsourspaperdifference",
        "alpha/betatest/accuracy1170.0071.5-1.50",
        "alpha/betatest/accuracy219.5072.5-63.00",
    ]
    assert found["seconds"] == [2, 4]
    assert found["published_along_time"] == 0
    assert found["flops"] == [5e9, 10e9]
    assert found["title"] == "floating-point operations of training"
    assert found["unticked"] == ["alpha/beta"]
    assert found["figures"] == [["</script>a figure", "data:image/png;base64,"]]
    assert found["comparison"] == ["at 2 epochs", "91.00 ± 1.41", "9.50"]
    assert found["remarks"] == ["The rows differ in model.dropout, too."]
    assert found["troubles"] == ["failed: </script><i>gamma</i>"]
    assert found["requests"] == []


def clicked(page: str, folder: Path) -> dict[str, Any]:
    """What :data:`CLICKS` finds in ``page`` in a headless browser without a network."""
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
