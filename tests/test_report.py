"""The report: one file, nothing fetched, the disclaimer, every number with its doubt, every gap with its reason."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from shutil import which

import numpy as np
import pytest
from analytic_solids import Pose, RootPhantom, hinge_points, landmarks, render, with_spheres
from PIL import Image

from cardiac_ct_fm.errors import OutputError
from cardiac_ct_fm.landmark_io import Landmark
from cardiac_ct_fm.planning import PlanningOptions, measure
from cardiac_ct_fm.planning.catalogue import CATALOGUE
from cardiac_ct_fm.planning.flags import find_flags
from cardiac_ct_fm.report import DISCLAIMER, write_report
from cardiac_ct_fm.report.figures import calcium_rule
from cardiac_ct_fm.report.page import build_page
from cardiac_ct_fm.report.pictures import draw_pictures
from cardiac_ct_fm.report.plots import profile_plot
from cardiac_ct_fm.result import Measurement

ROOT = RootPhantom(lobes=1.5)
AXES = np.array([[-0.80, -0.25, 0.55], [0.25, -0.96, 0.10], [0.55, 0.10, 0.83]])
AXES = np.linalg.qr(AXES)[0] * np.sign(np.diag(np.linalg.qr(AXES)[1]))
POSE = Pose(AXES if np.linalg.det(AXES) > 0 else AXES @ np.diag([1.0, -1.0, 1.0]), np.array([4.0, -7.0, 11.0]))
FEW = PlanningOptions(samples=8)
VOID = {"meta", "link", "img", "br", "hr", "input", "line", "polyline", "polygon", "circle", "ellipse", "path"}


@pytest.fixture(scope="module")
def scan():
    plain = render(ROOT.inside(), POSE, 1.4, half_extent=44, middle=(0, 0, 26), noise=15)
    return with_spheres(plain, POSE.world([[11.0, 2.0, 3.0], [-6.0, 9.0, 0.5]]), 2.5, 1400.0)


@pytest.fixture(scope="module")
def points():
    found = hinge_points(POSE, ROOT.annulus, ROOT.annulus, start_deg=80.0)
    found |= {"RCA": POSE.world([3.0, 15.0, 14.0]), "LCA": POSE.world([-14.0, -6.0, 9.0])}
    return found | {"MS1": POSE.world([9.0, 8.0, -0.5]), "MS2": POSE.world([8.5, 8.0, -5.0])}


@pytest.fixture(scope="module")
def plan(scan, points):
    return measure(scan, landmarks(points, 0.9), options=FEW)


@pytest.fixture(scope="module")
def page(scan, plan, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, scan, plan, facts={"model": "cardiac_swin_tiny"}, warnings=["The scan is <old>."])
    return path


class Document(HTMLParser):
    """Checks that tags nest, and collects text, sources and ids."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.sources, self.alts = [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        found = dict(attrs)
        self.sources += [found[k] for k in ("src", "href", "data") if k in found]
        if tag == "img":
            self.alts.append(found.get("alt"))

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def read(path: Path) -> Document:
    document = Document()
    document.feed(path.read_text(encoding="utf-8"))
    assert document.open == []
    return document


def test_page_is_one_file_that_fetches_nothing(page):
    html = page.read_text(encoding="utf-8")
    document = read(page)
    assert document.sources and all(s.startswith("data:image/jpeg;base64,") for s in document.sources)
    assert not re.search(r"<script|<link|@import|url\(|http-equiv|https?://", html)
    assert page.stat().st_size < 4_000_000


def test_disclaimer_stands_on_top_and_in_the_foot_of_every_printed_page(page):
    html = page.read_text(encoding="utf-8")
    assert html.count(DISCLAIMER) == 2
    assert re.search(r"<tfoot>.*Research use only\. Not a medical device\..*</tfoot>", html)
    assert "table-footer-group" in html


def test_every_measurement_is_listed_with_value_doubt_and_definition(page, plan):
    text = " ".join(read(page).text)
    for name, spec in CATALOGUE.items():
        assert name in text and spec.title in text
    area = plan.measurements["annulus_area_mm2"]
    assert f"{area.value:.0f}" in text and f"± {area.uncertainty:.0f}" in text
    assert "Tzikas et al." in text
    assert plan.views["three_cusp"].text in text


def test_calcium_says_beside_its_number_what_was_counted(page, plan, scan):
    html = page.read_text(encoding="utf-8")
    assert plan.measurements["calcium_valve_mm3"].value > 0.0
    assert html.count("deposits from 850 HU, to half-way") >= 3  # key figure, table, picture
    assert "--calcium-extent threshold" in html
    row = plan.measurements["calcium_valve_mm3"]
    counted = replace(row, details=row.details | {"extent": "threshold"})
    assert calcium_rule(counted) == "voxels from 850 HU"
    assert "Valve calcium, voxels from 850 HU" in build_page(
        scan, plan, plan.measurements | {row.name: counted}, [], {}, []
    )


def test_pictures_show_what_was_found_and_are_described(page, plan, scan):
    keys = {p.key for p in draw_pictures(scan, plan)}
    assert keys >= {"annulus", "long_axis_1", "long_axis_2", "lvot", "sinus", "stj", "rca", "lca", "ms2", "stretched"}
    assert "calcium" in keys
    assert all(read(page).alts)


def test_names_of_levels_lie_on_no_line(plan):
    svg = profile_plot(plan)
    lines = re.findall(r'class="level" x1="([\d.]+)" x2="[\d.]+" y1="([\d.]+)" y2="([\d.]+)"', svg)
    names = re.findall(r'class="label" text-anchor="(\w+)" x="([\d.]+)" y="([\d.]+)">([^<]+)', svg)
    assert len(names) == len(lines) == 1 + len(plan.sections) >= 4
    for anchor, x, y, name in names:
        width = 6.5 * len(name)  # letters of 12 px
        left, base = float(x) - (width if anchor == "end" else 0.0), float(y)
        assert left > 0 and left + width < 560
        for at, top, foot in (map(float, line) for line in lines):
            assert not (left < at < left + width and top < base and foot > base - 9), f"{name} lies on a line"


def test_a_footnote_mark_stays_with_its_text(page):
    html = page.read_text(encoding="utf-8")
    assert "&nbsp;<sup>1</sup>" in html
    assert not re.search(r"\s<sup>", html)


@pytest.fixture(scope="module")
def unsure_plan(scan, points):
    marks = landmarks(points, 0.9)
    marks |= {n: replace(marks[n], confidence=c) for n, c in (("NCC", 0.13), ("LCA", 0.28), ("MS2", 0.2))}
    return measure(scan, marks | {"MS1": Landmark.missing("MS1")}, options=FEW)


@pytest.fixture(scope="module")
def unsure_page(scan, unsure_plan):
    return build_page(scan, unsure_plan, unsure_plan.measurements, draw_pictures(scan, unsure_plan), {}, ["Old scan."])


def part(html: str, begin: str, end: str) -> str:
    """The text of a page between two of its tags, tags taken out."""
    return re.sub("<[^>]+>", " ", html.split(begin)[1].split(end)[0])


def rows_of(html: str) -> dict[str, str]:
    """Name of a measurement → HTML of its row."""
    rows = re.findall(r'<tr><th scope="row">.*?</tr>', html.split("<h2>All measurements</h2>")[1])
    return {re.search(r"<code>(\w+)</code>", row)[1]: row for row in rows}


def test_one_banner_names_the_unsure_points_how_unsure_they_are_and_what_rests_on_them(unsure_page):
    assert unsure_page.count("Look at this first") == 1
    assert unsure_page.index("Look at this first") < unsure_page.index('class="card"'), "it stands above all numbers"
    banner = part(unsure_page, '<section class="attention">', "</section>")
    assert "3 of 6 points are unsure" in banner and "confidence below 0.5" in banner
    assert "Not found: MS1." in banner and "Old scan." in banner
    table = unsure_page.split('<table class="unsure">')[1].split("</table>")[0]
    lines = {re.search("<b>(.*?)</b>", line)[1]: line for line in table.split("<tbody>")[1].split("<tr>")[1:]}
    assert list(lines) == ["NCC", "LCA", "MS2"]
    for name, confidence in (("NCC", "0.13"), ("LCA", "0.28"), ("MS2", "0.20")):
        assert f">{confidence}<" in lines[name] and 'fill="none"' in lines[name]
    assert "The annulus plane; all of Annulus, Outflow tract (LVOT), Sinuses of Valsalva," in lines["NCC"]
    assert "Coronary ostia: 4 of 6 values" in lines["NCC"]
    assert "Coronary ostia: Height of the left ostium, Left ostium to its hinge point," in lines["LCA"]
    assert "Length" in lines["MS2"] and "Annulus" not in lines["MS2"]


def test_every_unsure_value_has_a_short_tag_with_its_points_and_keeps_its_definition(unsure_page, unsure_plan):
    rows = rows_of(unsure_page)
    assert rows.keys() == unsure_plan.measurements.keys()
    for name, row in unsure_plan.measurements.items():
        weak = [n for n in row.details.get("uses", []) if n in ("NCC", "LCA", "MS2")]
        assert ("unsure" in rows[name]) == (row.status == "low_confidence") == bool(weak), name
        if weak:
            assert f">unsure: {', '.join(weak)}<" in rows[name]
            assert escape(CATALOGUE[name].definition, quote=True) in rows[name]
        if row.status == "not_found":
            assert ">not measured<" in rows[name] and escape(row.details["message"]) in rows[name]
    sentence = unsure_plan.measurements["annulus_area_mm2"].details["message"]
    assert "Confidence of NCC" in sentence and "Confidence of NCC" not in unsure_page, "said once, in the banner"
    cards = unsure_page.split('<div class="card">')[1:]
    tagged = {part(card, 'class="title">', "<"): "unsure: " in card for card in cards}
    assert tagged["Left ostium height"] and tagged["Annulus area"] and tagged["Membranous septum"]


def test_pictures_curves_and_thresholds_of_unsure_values_are_tagged(unsure_page):
    captions = [c.split("</strong>")[0] for c in unsure_page.split("<figcaption>")[1:]]
    assert len(captions) >= 10 and all("unsure: NCC" in caption for caption in captions)
    assert any("Ostium of the left" in caption and "unsure: NCC, LCA" in caption for caption in captions)
    flags = unsure_page.split('<table class="flags">')[1].split("</table>")[0]
    tags = [re.findall(">(unsure[^<]*)<", row) for row in flags.split('<tr><th scope="row">')[1:]]
    left, right, septum = ["unsure: NCC, LCA"], ["unsure: NCC"], ["unsure: NCC, MS2"]
    assert tags == [left, right, left, right, septum]
    assert re.findall(r'"chip flag-[\w-]+">([^<]*)<', flags) == ["not judged"] * 5


def test_a_figure_that_is_drawn_is_not_said_to_be_not_measured(scan, plan):
    pictures = draw_pictures(scan, plan)
    drawn = [
        *(p.measured for p in pictures),
        "carm_three_cusp_lao_deg",
        "sinus_mean_diameter_mm",
        "calcium_annulus_mm3",
    ]
    lost = {n: Measurement(n, None, plan.measurements[n].unit, "not_found", details={"reason": "lost"}) for n in drawn}
    without = replace(plan, measurements=plan.measurements | lost)
    html = build_page(scan, without, without.measurements, pictures, {}, [])
    captions = [c.split("</strong>")[0] for c in html.split("<figcaption>")[1:]]
    assert any("Diameters along the root" in caption for caption in captions)
    assert not any("chip" in caption for caption in captions)


def test_the_tags_have_a_legend_and_nothing_is_said_where_all_is_sure(unsure_page, page):
    assert unsure_page.count("The value rests on points of low confidence, which are named") == 2, "key figures, list"
    assert unsure_page.count("No number; “All measurements” says why.") >= 1
    assert "open, with “?”: unsure, confidence below 0.5" in unsure_page
    sure = page.read_text(encoding="utf-8")
    assert "points are unsure" not in sure and ">unsure" not in sure and "The value rests on" not in sure


def test_one_unsure_point_is_told_in_the_singular_and_hinge_points_share_a_line(scan, points):
    def banner_of(**confidence: float) -> str:
        marks = landmarks(points, 0.9)
        marks |= {n: replace(marks[n], confidence=c) for n, c in confidence.items()}
        plan = measure(scan, marks, options=FEW)
        return build_page(scan, plan, plan.measurements, [], {}, []).split("<h2>Look at this first</h2>")[1]

    assert "1 of 7 points is unsure" in banner_of(RCA=0.3)
    both = banner_of(RCC=0.4, NCC=0.2).split("<tbody>")[1].split("</table>")[0]
    assert both.count("The annulus plane;") == 1
    assert re.findall(r"<b>(\w+)</b>.*?<b>(0\.\d+)</b>", both) == [("RCC", "0.40"), ("NCC", "0.20")]


def test_a_value_that_is_unsure_for_another_reason_says_it_in_its_row(scan, points):
    below = points | {"RCA": points["RCA"] + 20.0 * (points["MS2"] - points["MS1"]) / 5.0}
    plan = measure(scan, landmarks(below, 0.9), options=FEW)
    low = plan.measurements["rca_height_mm"]
    assert low.status == "low_confidence" and low.value < 0
    row = rows_of(build_page(scan, plan, plan.measurements, [], {}, []))["rca_height_mm"]
    assert ">unsure<" in row and escape(low.details["message"]) in row


def test_captions_say_that_longest_and_shortest_diameter_need_not_be_perpendicular(plan, scan):
    captions = {p.key: p.caption for p in draw_pictures(scan, plan)}
    longest, shortest = (plan.measurements[f"annulus_{q}_diameter_mm"].value for q in ("max", "min"))
    assert f"longest diameter {longest:.1f}" in captions["annulus"]
    assert f"shortest {shortest:.1f}" in captions["annulus"]
    assert "not always perpendicular" in captions["annulus"]
    ends = plan.sections["lvot"].contour.chord_ras(longest=True)
    length = float(np.linalg.norm(ends[0] - ends[1]))
    assert length == pytest.approx(plan.sections["lvot"].contour.max_diameter_mm, abs=0.3)
    assert f"longest diameter {plan.sections['lvot'].contour.max_diameter_mm:.1f}" in captions["lvot"]
    assert "each sinus to the opposite commissure" in captions["sinus"]


def test_warnings_are_shown_and_markup_in_them_is_harmless(page):
    html = page.read_text(encoding="utf-8")
    assert "The scan is &lt;old&gt;." in html


def test_report_without_annulus_says_why_and_shows_no_number(scan, points, tmp_path):
    plan = measure(scan, landmarks({k: v for k, v in points.items() if k != "NCC"}), options=FEW)
    path = write_report(tmp_path / "report.html", scan, plan)
    document = read(path)
    text = " ".join(document.text)
    assert "two hinge points define no plane" in text
    assert "not measured" in text
    assert document.sources == []
    assert "C-arm angles are withheld" in text


def test_the_head_names_model_and_quality_where_there_were_any(scan, plan):
    def head(facts: dict) -> str:
        return build_page(scan, plan, plan.measurements, [], facts, []).split('<p class="facts">')[1].split("</p>")[0]

    assert head({"model": "cardiac_swin_tiny", "quality": "fast"}) == head({}) + " · cardiac_swin_tiny · quality fast"


def test_other_measurements_have_a_place(scan, plan, tmp_path):
    rows = {**plan.measurements, "LV_volume_ml": Measurement("LV_volume_ml", 123.4, "mL")}
    rows["RA_volume_ml"] = Measurement("RA_volume_ml", None, "mL", "not_found")
    text = " ".join(read(write_report(tmp_path / "r.html", scan, plan, measurements=rows)).text)
    assert "Volumes" in text and "123" in text


def test_report_is_written_whole_or_not_at_all(scan, plan, tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OutputError):
        write_report(tmp_path / "report.html", scan, plan)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def row(name, value, sd=0.5, status="ok"):
    status = status if value is not None else "not_found"
    return {name: Measurement(name, value, "mm", status, None if value is None else sd)}


def flag_of(rows, title):
    return next(f for f in find_flags(rows) if title in f.title)


@pytest.mark.parametrize(
    ("height", "sinus", "state"),
    [
        (9.0, 28.0, "met"),
        (10.8, 28.0, "borderline"),
        (9.0, 31.3, "borderline"),
        (14.0, 28.0, "not met"),
        (9.0, 36.0, "not met"),
    ],
)
def test_flags_say_whether_a_published_threshold_is_met(height, sinus, state):
    flags = {f.title: f for f in find_flags(row("lca_height_mm", height) | row("sinus_mean_diameter_mm", sinus))}
    assert flags["Coronary obstruction, left"].state == state
    assert flags["Pacemaker after TAVI"].state == "not judged"
    assert all(f.source for f in flags.values())


@pytest.mark.parametrize(
    ("sinus", "state"), [(28.0, "not judged"), (29.3, "not judged"), (29.7, "not met"), (36.0, "not met")]
)
def test_a_missing_value_matters_only_while_it_could_decide(sinus, state):
    flag = flag_of(row("sinus_mean_diameter_mm", sinus) | row("rca_height_mm", None), "obstruction, right")
    assert flag.state == state
    assert "a value is missing" in flag.values


@pytest.mark.parametrize(
    ("value", "sd", "state", "text"),
    [
        (1.5, 0.5, "met", "1.5 ± 0.5 mm: short"),
        (2.8, 0.5, "borderline", "2.8 ± 0.5 mm: short"),
        (4.5, 0.5, "intermediate", "4.5 ± 0.5 mm: intermediate"),
        (5.8, 0.5, "borderline", "5.8 ± 0.5 mm: intermediate"),
        (9.0, 0.5, "not met", "9.0 ± 0.5 mm: long"),
        (
            -3.0,
            1.2,
            "not judged",
            "-3.0 ± 1.2 mm: The point lies on the wrong side of the annulus plane; check the points.",
        ),
        (2.9, None, "met", "2.9 mm: short"),
        (4.5, None, "intermediate", "4.5 mm: intermediate"),
    ],
)
def test_flag_of_the_membranous_septum(value, sd, state, text):
    flag = flag_of(row("membranous_septum_length_mm", value, sd), "Pacemaker")
    assert (flag.state, flag.values) == (state, text)


@pytest.mark.parametrize(
    ("score", "sd", "state"),
    [
        (900.0, None, "not met"),
        (1500.0, None, "intermediate"),
        (2400.0, None, "met"),
        (1100.0, 150.0, "borderline"),
        (2400.0, 150.0, "met"),
    ],
)
@pytest.mark.parametrize("status", ["ok", "low_confidence"])
def test_flag_of_calcium_lies_between_the_limits_of_women_and_men_and_tells_doubt(score, sd, state, status):
    flag = flag_of(row("calcium_agatston", score, sd, status), "Severe stenosis")
    weak = status == "low_confidence"
    assert (flag.state, flag.doubtful) == ("not judged" if weak else state, weak)
    assert ("±" in flag.values) == (sd is not None)


def test_without_a_standard_deviation_none_is_shown_and_nothing_is_borderline():
    flag = flag_of(row("lca_height_mm", 10.9, None) | row("sinus_mean_diameter_mm", 28.0), "obstruction, left")
    assert (flag.state, flag.values) == ("met", "10.9 mm, 28.0 ± 0.5 mm")


@pytest.mark.parametrize(
    ("height", "height_status", "sinus", "sinus_status", "state", "doubtful"),
    [
        (14.0, "ok", 36.0, "ok", "not met", False),
        (14.0, "low_confidence", 28.0, "ok", "not judged", True),
        (9.0, "low_confidence", 28.0, "ok", "not judged", True),
        (9.0, "low_confidence", 36.0, "ok", "not met", False),
        (14.0, "ok", 28.0, "low_confidence", "not met", False),
        (9.0, "ok", 36.0, "low_confidence", "not judged", True),
        (None, "ok", 36.0, "low_confidence", "not judged", True),
    ],
)
def test_an_unsure_value_judges_nothing_and_a_sure_one_alone_rules_out(
    height, height_status, sinus, sinus_status, state, doubtful
):
    rows = row("lca_height_mm", height, status=height_status)
    rows |= row("sinus_mean_diameter_mm", sinus, status=sinus_status)
    flag = flag_of(rows, "obstruction, left")
    assert (flag.state, flag.doubtful) == (state, doubtful)
    assert flag.uses == tuple(name for name, r in rows.items() if r.value is not None)


def test_a_septum_that_is_unsure_says_nothing_about_pacemakers():
    flag = flag_of(row("membranous_septum_length_mm", 0.8, 3.9, "low_confidence"), "Pacemaker")
    assert (flag.state, flag.doubtful, flag.values) == ("not judged", True, "0.8 ± 3.9 mm")


BROWSER = next((path for path in map(which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
in_a_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (Debian's package: chromium)")


def browse(*arguments: str) -> str:
    """What headless Chromium prints."""
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout


@in_a_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_no_part_of_the_page_is_wider_than_the_screen(page, tmp_path, width):
    inner = escape(page.read_text(encoding="utf-8"))
    frame = f'<iframe id="f" style="width:{width}px;height:900px;border:0" srcdoc="{inner}"></iframe>'
    script = (
        "<script>f.onload=()=>{const d=f.contentDocument.documentElement;"
        "document.body.dataset.widths=d.scrollWidth+'/'+d.clientWidth}</script>"
    )
    probe = tmp_path / "probe.html"
    probe.write_text(f"<!doctype html><body>{frame}{script}", encoding="utf-8")
    shown = browse("--virtual-time-budget=3000", "--dump-dom", probe.as_uri())
    found = re.search(r'data-widths="(\d+)/(\d+)"', shown)
    assert found, "the page did not load"
    assert int(found[1]) <= int(found[2]) <= width


@in_a_browser
def test_a_plot_that_stands_alone_has_letters_of_the_usual_size(scan, plan, tmp_path):
    alone = replace(plan, s_curve=None, calcium_clock=None)
    script = (
        "<script>document.body.dataset.plots="
        "[...document.querySelectorAll('.plot')].map(p=>p.getBoundingClientRect().width).join('/')</script></body>"
    )
    probe = tmp_path / "probe.html"
    html = build_page(scan, alone, plan.measurements, [], {}, []).replace("</body>", script)
    probe.write_text(html, encoding="utf-8")
    found = re.search(r'data-plots="([\d.]+)"', browse("--window-size=1280,900", "--dump-dom", probe.as_uri()))
    assert found, "the page has not one plot"
    assert float(found[1]) == pytest.approx(560, rel=0.1), "letters of 12 px, as in the text"


@in_a_browser
def test_pictures_are_drawn_by_the_browser(page, tmp_path):
    browse("--window-size=1280,3600", f"--screenshot={tmp_path / 'shot.png'}", page.as_uri())
    pixels = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB")).astype(int)
    assert pixels.shape == (3600, 1280, 3)
    dark = (pixels.max(axis=-1) < 40).mean()
    green = (np.abs(pixels - [125, 240, 200]).max(axis=-1) < 40).sum()  # the annulus contour's colour
    assert dark > 0.01 and green > 300


@in_a_browser
@pytest.mark.skipif(which("pdftotext") is None, reason="no pdftotext is installed (Debian's package: poppler-utils)")
def test_every_printed_page_carries_the_disclaimer(page, tmp_path):
    browse("--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'report.pdf'}", page.as_uri())
    done = subprocess.run(["pdftotext", tmp_path / "report.pdf", "-"], capture_output=True, text=True, check=True)
    pages = done.stdout.split("\f")[:-1]
    assert len(pages) >= 3
    assert all("Research use only. Not a medical device." in " ".join(text.split()) for text in pages)
