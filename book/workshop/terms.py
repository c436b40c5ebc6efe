"""A Sphinx extension: a link to the glossary carries the definition as its title; `_static/tips.js` shows it.

Without a script a browser shows the title itself.
"""

from docutils import nodes
from sphinx import addnodes

GLOSSARY = "book/glossary"


def definitions(glossary: nodes.document) -> dict[str, str]:
    """The text of each entry, by the anchors of its names."""
    items = [
        item
        for table in glossary.findall(addnodes.glossary)
        for item in table.findall(nodes.definition_list_item)
    ]
    return {
        anchor: " ".join(entry.astext().split())
        for item in items
        for entry in item.findall(nodes.definition)
        for term in item.findall(nodes.term)
        for anchor in term["ids"]
    }


def explain(app, doctree: nodes.document, docname: str) -> None:
    """Give each link to a term its definition. A link that leads elsewhere keeps what it has."""
    links = [
        link
        for link in doctree.findall(nodes.reference)
        if any("std-term" in part["classes"] for part in link.findall(nodes.inline))
    ]
    if links:
        known = definitions(app.env.get_doctree(GLOSSARY))
        for link in links:
            link["reftitle"] = known[link.get("refid") or link["refuri"].split("#")[1]]


def setup(app) -> dict:
    app.connect("doctree-resolved", explain)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
