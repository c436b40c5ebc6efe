// Small repairs of what the theme and the bibliography leave undone for screen readers and for file:// pages.

// The site's name stands outside every landmark.
const sidebar = document.querySelector(".bd-sidebar-primary");
sidebar?.setAttribute("role", "region");
sidebar?.setAttribute("aria-label", "The book");

// The bibliography is marked up with a role that is withdrawn, and as a list whose children are no items.
document.querySelectorAll("[role=doc-biblioentry], .citation-list").forEach((element) => element.removeAttribute("role"));

// A page opened as a file cannot fetch other pages, so its search shows titles without excerpts.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// What scrolls sideways must be reachable with the keyboard.
const markScrollable = () =>
  document.querySelectorAll(".pst-scrollable-table-container, .bd-article div.math, .bd-article pre, .bd-article div.cell_output figure").forEach((box) => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  });
addEventListener("load", () => window.MathJax?.startup?.promise.then(markScrollable) ?? markScrollable());
addEventListener("resize", markScrollable);
