import json
import re
import shutil
import subprocess
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from experiments.compare import gallery, page
from experiments.compare.comparison import compare
from experiments.compare.compression import with_compression
from experiments.compare.external import with_external
from experiments.compare.options import options
from experiments.compare.runs import read_run, read_runs
from tests.experiments.conftest import write_test

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
EVIL = "<img src=x onerror=document.title='hacked'>"
# Acts like a reader and writes the outcome into the document.
READER = """
<script>
{
const all = (selector) => [...document.querySelectorAll(selector)];
const names = () => all("tbody td:first-child").map((cell) => cell.textContent);
const press = (text) => all("button").find((button) => button.textContent === text);
const seen = { rows: names() };
press("name").click();
seen.sorted = names();
seen.direction = document.querySelector("th").getAttribute("aria-sort");
press("name").click();
seen.reversed = names();
const filter = document.getElementById("filter");
filter.value = "GOOD";
filter.dispatchEvent(new Event("input"));
seen.filtered = names();
filter.value = "";
filter.dispatchEvent(new Event("input"));
seen.tabs = {};
for (const tab of all("[role=tab]")) {
  tab.click();
  const panel = document.getElementById("panel");
  seen.tabs[tab.textContent] = [panel.textContent.length, panel.querySelectorAll("svg").length];
  for (const select of panel.querySelectorAll("select")) {
    select.value = select.options.length - 1;
    select.dispatchEvent(new Event("change"));
  }
}
press("Table").click();
press("Table").dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
seen.selected = all("[aria-selected=true]").map((tab) => tab.textContent);
seen.focused = document.activeElement.textContent;
seen.title = document.title;
const result = document.createElement("pre");
result.id = "seen";
result.textContent = JSON.stringify(seen);
document.body.append(result);
}
</script>
"""


@pytest.fixture
def comparison(make_run):
    for seed in range(2):
        make_run("ce", seed=seed, decide=True)
    folder = make_run(EVIL)
    with (folder / "config.yaml").open("a") as file:
        file.write("option: </script><script>document.title = 'hacked'</script>\n")
    good = make_run("good", skill=3.0) / "results.json"
    record = json.loads(good.read_text())
    record["metrics"] |= {"psnr": 33.0, "bits_per_pixel": 2.5}
    good.write_text(json.dumps(record))
    (folder / "attention").mkdir()
    Image.new("RGB", (600, 450), "red").save(folder / "attention" / "a.png")
    (folder / "attention" / "torn.jpg").write_bytes(b"no image")
    write_test(folder, "clinic", absent=["df"])
    runs, _ = read_runs(["runs"])
    return with_external(with_compression(compare(runs, 50, baseline="ce")))


def blob(html):
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', html, re.DOTALL)
    return json.loads(found[1])


def test_page_holds_the_comparison_and_needs_nothing_else(comparison):
    html = page.render(comparison)
    data = blob(html)
    assert [row["name"] for row in data["rows"]] == [row.name for row in comparison.rows]
    estimate = comparison.rows[0].metrics["macro_f1"]
    assert data["rows"][0]["metrics"]["macro_f1"]["mean"] == pytest.approx(estimate.mean, rel=1e-4)
    assert "not a medical device" in html
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)|url\(|@import|fetch\(", html)


def test_page_holds_the_curves_of_every_row(comparison):
    data = blob(page.render(comparison))
    rows = {row["name"]: row for row in data["rows"]}
    treatment = data["treatment"]
    assert (treatment["positive"], treatment["of_data_set"]) == ("mel", False)
    assert treatment["prevalence"] == pytest.approx((comparison.rows[0].runs[0].label == 0).mean())
    for name, row in rows.items():
        curves = comparison.curves[name]
        assert row["net_benefit"]["high"] == pytest.approx(
            curves["net_benefit"]["high"].tolist(), rel=1e-4, abs=1e-6
        )
        assert ("risk_coverage" in row) == ("mean_probability" in row) == (not row["decided"])
    risk = rows["ce"]["risk_coverage"]["mean"][-1]
    assert risk == pytest.approx(1 - rows["ce"]["metrics"]["accuracy"]["mean"], rel=1e-4)
    assert len(risk_levels := data["coverages"]) == len(rows["ce"]["risk_coverage"]["mean"])
    assert {0.5, 0.8, 0.9, 1.0} <= set(risk_levels)
    assert {0.05, 0.1, 0.2, 0.3} <= set(treatment["thresholds"])


def test_page_holds_the_tests_on_other_data_and_the_subgroups(comparison):
    data = blob(page.render(comparison))
    (test,) = data["external"]
    (row,) = test["rows"]
    assert (test["name"], row["name"]) == ("clinic", EVIL)
    assert "df" not in row["recall"]
    change = comparison.external[0].changes[EVIL]
    assert row["difference"]["lesions"] == pytest.approx(change.difference.lesions)
    own, clinic = data["subgroups"]
    assert (own["group"], clinic["group"]) == ("lesion", "patient")
    assert set(own["scores"]) == {row["name"] for row in data["rows"]}
    assert {len(scores) for scores in own["scores"].values()} == {len(own["groups"])}
    few = [group["lesions"] < data["min_lesions"] for group in own["groups"]]
    assert few == [scores is None for scores in own["scores"]["ce"]]


def test_classes_without_a_positive_one_have_no_net_benefit(make_run):
    run = read_run(make_run("other", classes=["a", "b", "c"]))
    data = blob(page.render(compare([run], 5)))
    assert data["treatment"] is None
    assert "net_benefit" not in data["rows"][0]
    named = blob(page.render(compare([run], 5, positive="c")))
    assert named["treatment"]["positive"] == "c"


def test_names_of_runs_are_no_markup(comparison):
    html = page.render(comparison)
    assert EVIL not in html
    assert "<script>document.title" not in html
    assert EVIL in [row["name"] for row in blob(html)["rows"]]


def test_the_modules_share_a_script_without_sharing_names():
    text = page.script()
    assert not re.findall(r"^(?:import|export)\b", text, re.MULTILINE)
    names = re.findall(r"^(?:const|let|function) (\w+)", text, re.MULTILINE)
    assert len(names) > 50
    assert sorted(names) == sorted(set(names))


def test_modules_stand_after_those_that_they_import():
    for i, name in enumerate(page.MODULES):
        text = (page.WEB / f"{name}.js").read_text()
        assert set(re.findall(r'from "\./(\w+)\.js"', text)) <= set(page.MODULES[:i]), name
    assert {path.stem for path in page.WEB.glob("*.js")} == set(page.MODULES)


def test_options_are_those_that_differ(comparison):
    runs = {run["name"]: run["options"] for run in blob(page.render(comparison))["runs"]}
    assert runs["ce seed 0"] == runs["ce seed 1"] == {"model.lr": "2"}
    assert runs["good seed 0"] == {"model.lr": "4"}


def test_options_are_flat_and_say_nothing_of_place():
    config = {
        "seed_everything": 3,
        "data": {"root": "here", "cache_dir": "there", "size": 64},
        "model": {"class_path": "a.B", "init_args": {"lr": 0.1, "size": [1, 2], "x": None}},
        "trainer": {"callbacks": [{"class_path": "c.D", "init_args": {"dirpath": "here", "n": 1}}]},
    }
    assert options(config) == {
        "data.size": "64",
        "model": "a.B",
        "model.lr": "0.1",
        "model.size": "[1, 2]",
        "model.x": "None",
        "trainer.callbacks[D]": "c.D",
        "trainer.callbacks[D].n": "1",
    }


def test_thumbnails_are_small_and_within_the_budget(comparison):
    runs = [run for row in comparison.rows for run in row.runs if not row.decided]
    kept, left_out = gallery.thumbnails(runs)
    assert [one.file for one in kept] == ["a.png"]
    assert left_out == 1
    with Image.open(BytesIO(b64decode(kept[0].jpeg))) as small:
        assert (small.format, small.size) == ("JPEG", (480, 360))
    assert gallery.thumbnails(runs, budget=100) == ([], 2)


def test_attention_has_its_chance_level_where_it_was_measured(comparison, make_run):
    folder = make_run("looked", seed=3)
    values = {"test/energy": 0.4, "test/pointing": 0.6, "test/lesion_area": 0.2}
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"attempt": 2, "step": 0, "epoch": 0} | values) + "\n")
    run = read_run(folder)
    assert gallery.attention_scores([run]) == {"energy": 0.4, "pointing": 0.6, "lesion_area": 0.2}
    assert gallery.attention_scores(comparison.rows[0].runs) == {}


def test_a_run_without_training_has_neither_curve_nor_epochs(make_run):
    folder = make_run("derived")
    line = {"attempt": 1, "step": 0, "epoch": 0, "test/accuracy": 0.5}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    runs, _ = read_runs(["runs"])
    (row,) = blob(page.render(compare(runs, 20)))["rows"]
    assert row["learning"]["validation"]["epoch"] == row["learning"]["training"]["epoch"] == []
    assert row["resources"]["epochs"] is None


def test_classes_have_their_full_names(comparison):
    titles = blob(page.render(comparison))["class_titles"]
    assert titles["mel"] == "melanoma"
    assert list(titles) == list(comparison.classes)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the page with")
def test_a_browser_sorts_filters_and_turns_the_pages(comparison, tmp_path):
    path = tmp_path / "index.html"
    path.write_text(page.render(comparison).replace("</body>", READER + "</body>"))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += [f"--user-data-dir={tmp_path}/profile", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    seen = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert seen["rows"] == [row.name for row in comparison.rows]
    assert seen["direction"] == "ascending"
    assert sorted(seen["sorted"]) == sorted(seen["rows"])
    assert seen["sorted"] == seen["reversed"][::-1] != seen["rows"]
    assert seen["filtered"] == ["good"]
    assert seen["title"] == "LongDerm: 4 rows compared"
    tabs = seen["tabs"]
    assert len(tabs) == 15
    assert all(text > 0 for text, _ in tabs.values())
    assert tabs["Learning"][1] == tabs["Reliability"][1] == 3
    assert tabs["Confusion"][1] == 4
    assert tabs["Compression"][1] == 1
    assert tabs["Risk and coverage"][1] > 1
    assert tabs["Net benefit"][1] > 1
    assert seen["selected"] == ["Classes"]
    assert seen["focused"] == "Classes"


def test_a_page_of_one_row_of_two_classes(make_run):
    make_run("melanoma", classes=["nv", "mel"])
    (Path("runs/melanoma/seed0/metrics.jsonl")).write_text("")
    runs, _ = read_runs(["runs"])
    data = blob(page.render(compare(runs, 20)))
    titles = [column["title"] for column in data["columns"]]
    assert {"sensitivity", "specificity", "PPV", "NPV", "average precision"} <= set(titles)
    assert data["rows"][0]["resources"]["hours"] is None
