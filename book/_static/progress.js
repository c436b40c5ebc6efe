// What the reader has done, kept in this browser and nowhere else: sections marked as read, answers to quizzes.
// One entry a chapter in localStorage: "tta-progress/<page>" → {total, done: [section ids], answers: {quiz: option}}.

const PREFIX = "tta-progress/";
const page = location.pathname.split("/").pop() || "index.html";
const isChapter = /^\d\d_\w+\.html$/.test(page);

const read = (name) => {
  try {
    return { total: 0, done: [], answers: {}, ...JSON.parse(localStorage.getItem(PREFIX + name)) };
  } catch {
    return { total: 0, done: [], answers: {} }; // storage is switched off, or holds something else
  }
};
const write = (state) => {
  try {
    localStorage.setItem(PREFIX + page, JSON.stringify(state));
  } catch {} // the page works without memory
};

// In the list of chapters: how much of each is done.
const showProgress = () => {
  let any = false;
  document.querySelectorAll(".bd-links a").forEach((link) => {
    const name = new URL(link.href).pathname.split("/").pop();
    if (!/^\d\d_\w+\.html$/.test(name) && !(isChapter && link.parentElement.classList.contains("current"))) return;
    const { total, done } = read(/^\d\d_/.test(name) ? name : page);
    let badge = link.querySelector(".tta-progress");
    if (!done.length) return badge?.remove();
    any = true;
    if (!badge) link.append((badge = Object.assign(document.createElement("span"), { className: "tta-progress" })));
    badge.textContent = done.length >= total ? " ✓" : ` ${done.length}/${total}`;
    badge.title = `${done.length} of ${total} sections read`;
  });
  const forget = document.querySelector(".tta-forget");
  if (forget) forget.hidden = !any;
};

const addForget = () => {
  const list = document.querySelector(".bd-links");
  if (!list) return;
  const button = Object.assign(document.createElement("button"), { type: "button", className: "tta-forget", hidden: true });
  button.textContent = "Forget my progress";
  button.title = "Progress is kept in this browser only";
  button.addEventListener("click", () => {
    Object.keys(localStorage).filter((key) => key.startsWith(PREFIX)).forEach((key) => localStorage.removeItem(key));
    location.reload();
  });
  list.append(button);
};

const addSections = (state) => {
  const sections = [...document.querySelectorAll(".bd-article section section")].filter(
    (s) => s.querySelector(":scope > h2") && s.id !== "references",
  );
  state.total = sections.length;
  sections.forEach((section) => {
    const title = section.querySelector("h2").firstChild.textContent.trim();
    const button = Object.assign(document.createElement("button"), { type: "button", className: "tta-done" });
    const show = () => {
      const done = state.done.includes(section.id);
      button.textContent = done ? "✓ Read" : "Mark as read";
      button.setAttribute("aria-label", `${button.textContent}: ${title}`);
      button.setAttribute("aria-pressed", done);
    };
    button.addEventListener("click", () => {
      const done = state.done.includes(section.id);
      state.done = done ? state.done.filter((id) => id !== section.id) : [...state.done, section.id];
      write(state);
      show();
      showProgress();
    });
    show();
    section.append(button);
  });
};

const addQuizzes = (state) =>
  document.querySelectorAll(".tta-quiz").forEach((quiz) => {
    const options = [...quiz.querySelectorAll("input[type=radio]")];
    const name = options[0]?.name;
    if (name in state.answers && options[state.answers[name]]) options[state.answers[name]].checked = true;
    quiz.addEventListener("change", (event) => {
      state.answers[name] = options.indexOf(event.target);
      write(state);
    });
  });

addForget();
if (isChapter) {
  const state = read(page);
  addSections(state);
  addQuizzes(state);
}
showProgress();
