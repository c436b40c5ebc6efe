// A switch between versions of the book, where a site holds several: each in a folder of its name, the newest at the top.
// `book/tools.py versions` writes the list into every copy of this file.
const VERSIONS = [];

document.addEventListener("DOMContentLoaded", () => {
  const bar = document.querySelector(".article-header-buttons");
  if (VERSIONS.length < 2 || !bar) return;
  const root = new URL(document.documentElement.dataset.content_root, location.href);
  const page = location.href.slice(root.href.length);
  const choice = document.createElement("select");
  choice.className = "tta-versions";
  choice.setAttribute("aria-label", "Version of the book");
  for (const { version, folder } of VERSIONS) choice.append(new Option(version, folder, folder === "", folder === ""));
  choice.addEventListener("change", async () => {
    const there = new URL(choice.value, root);
    // A page that the other version lacks: its first page.
    const known = await fetch(new URL(page, there), { method: "HEAD" }).then((answer) => answer.ok, () => false);
    location.href = known ? new URL(page, there).href : new URL("index.html", there).href;
  });
  bar.prepend(choice);
});
