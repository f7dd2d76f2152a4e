// Searches the manual without a server: the first time that somebody searches, the pages of the
// navigation are fetched (revalidated, if the browser has them), and cut at their headings. Nothing
// has to be built, so nothing can be out of date.

const MOST_SHOWN = 8;

const form = document.querySelector(".search");
const input = form.querySelector("input");
const list = form.querySelector("ol");
const status = form.querySelector("[role=status]");
const links = [...document.querySelectorAll(".masthead nav a")];

// The sections of a page: { url, title, heading, text, found }.
async function sections(link) {
  const response = await fetch(link.href);
  if (!response.ok) throw new Error(`${link.href}: ${response.status}`);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const title = link.textContent;
  const all = [{ url: link.pathname, title, heading: title, text: "" }];
  const main = page.querySelector("main");
  main.querySelectorAll("nav").forEach((each) => each.remove());
  for (const part of main.children) {
    const isHeading = /^H[1-3]$/.test(part.tagName);
    if (isHeading && part.id) {
      all.push({ url: `${link.pathname}#${part.id}`, title, heading: part.textContent, text: "" });
    } else if (part.classList.contains("terms")) {
      // Neighbouring cells are words of their own.
      const cells = [...part.querySelectorAll("dt, dd")];
      all.at(-1).text += ` ${cells.map((each) => each.textContent).join(" ")}`;
    } else {
      all.at(-1).text += ` ${part.textContent}`;
    }
  }
  for (const each of all) {
    each.text = each.text.replace(/\s+/g, " ").trim();
    each.inHeading = each.heading.toLowerCase();
    each.inTitle = each.title.toLowerCase();
    each.inText = each.text.toLowerCase();
  }
  return all;
}

let index;

// One index for all searches of this page. After a failure the next search tries again.
function load() {
  index ??= Promise.all(links.map(sections)).then((pages) => pages.flat());
  index.catch(() => { index = undefined; });
  return index;
}

// How well a section answers the words, all of which it must have; 0: not at all.
function score(section, words) {
  let sum = section.inHeading === words.join(" ") ? 30 : 0;
  for (const word of words) {
    const inHeading = section.inHeading.includes(word);
    const inTitle = section.inTitle.includes(word);
    const times = section.inText.split(word).length - 1;
    if (!inHeading && !inTitle && times === 0) return 0;
    sum += (inHeading ? 20 : 0) + (inTitle ? 5 : 0) + Math.min(times, 5);
  }
  return sum;
}

// The words around the first hit.
function excerpt(section, words) {
  const places = words.map((word) => section.inText.indexOf(word)).filter((at) => at >= 0);
  const at = places.length ? Math.min(...places) : 0;
  const from = at < 40 ? 0 : section.text.indexOf(" ", at - 40) + 1;
  const text = section.text.slice(from, from + 110);
  return `${from > 0 ? "… " : ""}${text}${from + 110 < section.text.length ? " …" : ""}`;
}

function show(found, words) {
  const items = found.slice(0, MOST_SHOWN).map((section) => {
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = section.url;
    const name = document.createElement("b");
    name.textContent = section.heading === section.title ? section.title : `${section.title}: ${section.heading}`;
    const text = document.createElement("span");
    text.textContent = excerpt(section, words);
    link.append(name, text);
    item.append(link);
    return item;
  });
  list.replaceChildren(...items);
  list.hidden = items.length === 0;
}

async function search() {
  const asked = input.value;
  const words = asked.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) {
    show([], words);
    status.textContent = "";
    return;
  }
  try {
    const all = await load();
    // Somebody has typed on while the pages came.
    if (asked !== input.value) return;
    const found = all
      .map((section) => ({ section, points: score(section, words) }))
      .filter(({ points }) => points > 0)
      .sort((a, b) => b.points - a.points)
      .map(({ section }) => section);
    show(found, words);
    status.textContent = found.length ? "" : "Nothing found.";
  } catch {
    show([], words);
    status.textContent = "The pages could not be fetched. Is etagd still running?";
  }
}

function clear() {
  input.value = "";
  search();
}

input.addEventListener("input", search);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  list.querySelector("a")?.click();
});
form.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    clear();
    input.focus();
  }
});
// A hit on this very page only moves to its section.
list.addEventListener("click", clear);
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    input.focus();
  }
});
form.hidden = false;
