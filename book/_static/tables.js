// On a phone, a table that is wider than the page becomes a list: the name of each row, below it those of the columns with
// what stands in them. Where the table fits, it stays a table. Style: .as-list in tta.css.
const phone = matchMedia("(max-width: 30rem)");
// What is no longer laid out as a table would no longer be read out as one.
const ROLES = { table: "table", thead: "rowgroup", tbody: "rowgroup", tr: "row", td: "cell", "thead th": "columnheader", "tbody th": "rowheader" };

function fit(box) {
  box.classList.remove("as-list");
  if (!phone.matches || box.scrollWidth <= box.clientWidth) return;
  const columns = [...box.querySelectorAll("thead th")].map((cell) => cell.textContent);
  for (const row of box.querySelectorAll("tbody tr")) [...row.cells].forEach((cell, i) => (cell.dataset.column = columns[i]));
  for (const [part, role] of Object.entries(ROLES)) box.querySelectorAll(part).forEach((element) => element.setAttribute("role", role));
  box.classList.add("as-list");
}
const fitAll = () => document.querySelectorAll(".bd-article :is(.tta-table, .pst-scrollable-table-container)").forEach(fit);
addEventListener("load", fitAll);
phone.addEventListener("change", fitAll);
document.addEventListener("toggle", fitAll, true); // what is folded has no width yet
