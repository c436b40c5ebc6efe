"""What stands on a slide and what is said to it: the rule, on a small page."""

from bs4 import BeautifulSoup
from workshop.slides import deck

CELL = '<div class="cell"><div class="cell_input"><pre>{code}</pre></div><div class="cell_output">{output}</div></div>'
PLAYER = '<figure class="tta-player"><img alt="" src="a.png"><script type="application/json">{}</script></figure>'
PAGE = f"""<html><body><nav>not this</nav><article><section id="top">
<h1>4. A title<a class="headerlink" href="#top">#</a></h1><div class="admonition"><p>goals</p></div>
<section id="one"><h2>One<a class="headerlink" href="#one">#</a></h2>
<p>lead with <a href="04_shift.html">chapter 4</a> and <a href="https://example.org">a site</a></p>
<div class="math">\\[x\\]</div><p>spoken</p>
{CELL.format(code="drawing()", output=PLAYER)}
{CELL.format(code="printing()", output="<pre>printed</pre>")}
<details><summary>guess</summary><p>answer</p></details>
<section id="below"><h3>Below</h3><p>lead below</p><p>more</p></section></section>
<section id="ex"><h2>Exercise 4.1: do it</h2><p>first</p><p>second</p><details><summary>Hint</summary>try</details></section>
<section id="references"><h2>References</h2><div class="citation">Who, when</div></section>
</section></article></body></html>"""


def slides():
    """(heading, text of what is shown, text of the notes, whether the heading stood before), slide by slide."""
    title, body = deck(PAGE)
    assert title == "4. A title"
    found = []
    for slide in BeautifulSoup(body, "html.parser").select("section > section"):
        heading = slide.find(["h1", "h2"]).extract()
        notes = slide.find("aside")
        said = notes.extract().get_text(" ", strip=True) if notes else ""
        found.append((heading.get_text(), slide.get_text(" ", strip=True), said, "again" in heading.get("class", [])))
    return found


def test_what_is_seen_is_shown_and_the_rest_is_said():
    first, one, over, below, exercise = slides()
    assert first[:2] == ("4. A title", "goals")
    assert one[0] == "One" and one[1].startswith("lead with chapter 4 and a site") and "printed" not in one[1]
    assert one[2] == "" and not one[3]
    # The player does not fit any more; what is spoken before it goes with it.
    assert over == ("One", "printing() printed", "spoken guess answer", True)
    assert below[:3] == ("Below", "lead below", "more")
    assert exercise[:3] == ("Exercise 4.1: do it", "first second", "Hint try")


def test_players_stay_whole_and_links_lead_nowhere_but_out():
    body = deck(PAGE)[1]
    assert '<script type="application/json">{}</script>' in body and "drawing()" not in body
    assert "not this" not in body and "Who, when" not in body and "headerlink" not in body
    links = BeautifulSoup(body, "html.parser").select("a")
    assert [link["href"] for link in links] == ["https://example.org"]
