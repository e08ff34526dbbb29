"""Pages in headless Chromium: nothing is refused or faulty, tables sort and filter; skipped without Chromium."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from html_reader import Reader
from report_examples import add_uncertainty, predictions

from autoseg.report.page import Section, page, table
from autoseg.report.write_report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="no Chromium"), pytest.mark.slow]


def browse(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open a page in Chromium without a window; messages of the page's console are on stderr."""
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={path.parent / 'profile'}")
    return subprocess.run(
        [str(CHROMIUM), *quiet, "--enable-logging=stderr", *options, path.as_uri()],
        capture_output=True, encoding="utf-8", timeout=100, check=True,
    )  # fmt: skip


def console(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_a_page_is_drawn_and_loads_nothing(tmp_path):
    folder = predictions(tmp_path)
    add_uncertainty(folder)
    made, shot = write_report(folder), tmp_path / "page.png"
    done = browse(made.path, f"--screenshot={shot}", "--window-size=1200,1600")
    assert not console(done)
    assert shot.stat().st_size > 50_000, "an empty page has about 10 kB"


def test_tables_sort_and_filter(tmp_path):
    rows = [["case 10", 0.5, "x"], ["case 9", None, "y"], ["case 1", 0.125, "y"], ["case 2", 12.0, "<b>"]]
    text = page("t", "", [Section("s", (table(["case", "Dice liver", "remark"], rows, name="cases"),))])
    text = re.sub(r"<meta http-equiv[^>]*>", "", text)  # it would refuse the script of this test
    script = """
      const shown = () => [...document.querySelectorAll("tbody tr")].filter(row => !row.hidden)
        .map(row => row.cells[0].textContent).join(" ");
      const head = number => document.querySelectorAll("thead button")[number];
      const field = document.querySelector("input");
      const log = [];
      head(1).click(); log.push(shown());
      head(1).click(); log.push(shown()); log.push(head(1).parentElement.getAttribute("aria-sort"));
      head(0).click(); log.push(shown());
      for (const value of ["dice liver<0.6", "DICE>=0.5", "y", "y, dice<1", "<b>", "", "nothing"]) {
        field.value = value; field.dispatchEvent(new Event("input")); log.push(shown());
      }
      log.push(document.querySelector("output").textContent);
      document.body.innerHTML = "<pre></pre>"; document.querySelector("pre").textContent = log.join("\\n");
    """
    path = tmp_path / "page.html"
    path.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    done = browse(path, "--dump-dom")
    assert Reader(done.stdout).text_of("pre")[0].split("\n") == [
        "case 1 case 10 case 2 case 9",  # numbers ascending, the empty cell last
        "case 2 case 10 case 1 case 9",
        "descending",
        "case 1 case 2 case 9 case 10",  # names by their numbers
        "case 1 case 10",
        "case 2 case 10",
        "case 1 case 9",
        "case 1",
        "case 2",
        "case 1 case 2 case 9 case 10",
        "",
        "0 of 4 rows",
    ]
    assert not console(done)


def test_a_filter_takes_the_column_of_just_that_name_and_spaces(tmp_path):
    rows = [["one", 0.25, 1.0], ["two", 1.0, 0.25]]
    text = page("t", "", [Section("s", (table(["case", "Dice liver tumour", "Dice liver"], rows, name="cases"),))])
    text = re.sub(r"<meta http-equiv[^>]*>", "", text)  # it would refuse the script of this test
    script = """
      const field = document.querySelector("input"), log = [];
      for (const value of ["dice liver<0.5", "dice liver t < 0.5", "dice < 0.5"]) {
        field.value = value; field.dispatchEvent(new Event("input"));
        log.push([...document.querySelectorAll("tbody tr")].filter(row => !row.hidden)
          .map(row => row.cells[0].textContent).join(" "));
      }
      document.body.innerHTML = "<pre></pre>"; document.querySelector("pre").textContent = log.join("\\n");
    """
    path = tmp_path / "page.html"
    path.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    assert Reader(browse(path, "--dump-dom").stdout).text_of("pre")[0].split("\n") == ["two", "one", "one"]
