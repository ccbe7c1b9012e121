// Without scripts the page still works: numbers link to their provenance below, tables keep their order.
const dialog = document.querySelector("dialog");
const show = (kind, ...nodes) => {
  dialog.className = kind;
  dialog.querySelector("div").replaceChildren(...nodes);
  dialog.showModal();
  dialog.scrollTop = 0;
};
const make = (name, text, properties) => Object.assign(document.createElement(name), { textContent: text }, properties);
const prove = (link) => {
  const cell = link.closest("td");
  const details = document.querySelector(link.getAttribute("href"));
  const title = make("h3", details.querySelector("summary").textContent);
  const here = make("a", "link to this number", { href: `#${cell.id}`, className: "here" });
  show("", title, here, details.querySelector(".body").cloneNode(true));
};
document.addEventListener("click", (event) => {
  const link = event.target.closest("td a[href^='#p']");
  if (link && !event.metaKey && !event.ctrlKey) {
    prove(link);
    event.preventDefault();
  } else if (event.target.closest(".here")) {
    dialog.close();
  } else if (event.target.closest("figure img")) {
    const figure = event.target.closest("figure");
    show("image", figure.querySelector("img").cloneNode(), figure.querySelector("figcaption").cloneNode(true));
  } else if (event.target === dialog) {
    dialog.close();
  }
});

// A heading sorts the whole table: down, up, then back to its blocks. Missing numbers are last.
for (const heading of document.querySelectorAll("th.sort")) {
  heading.tabIndex = 0;
  heading.title = "Sort";
  const table = heading.closest("table");
  const sort = () => {
    const next = { none: "descending", descending: "ascending", ascending: "none" }[heading.ariaSort || "none"];
    for (const other of table.querySelectorAll("th.sort")) other.removeAttribute("aria-sort");
    if (next !== "none") heading.setAttribute("aria-sort", next);
    const rows = [...table.querySelectorAll("tbody tr:not(.block)")];
    rows.forEach((row, i) => { row.home ??= row.parentNode; row.place ??= i; });
    const sign = next === "ascending" ? 1 : -1;
    const value = (row) => parseFloat(row.cells[heading.cellIndex].dataset.v ?? sign * Infinity);
    rows.sort((a, b) => (next === "none" ? 0 : sign * (value(a) - value(b)) || 0) || a.place - b.place);
    for (const row of rows) (next === "none" ? row.home : table.tBodies[0]).append(row);
    table.classList.toggle("sorted", next !== "none");
  };
  heading.addEventListener("click", sort);
  heading.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); }
  });
}

// Above each table: a filter of its rows, and its text to copy.
const copy = async (text) => {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.body.appendChild(make("textarea", text));
    area.select();
    document.execCommand("copy");
    area.remove();
  }
};
for (const section of document.querySelectorAll("section.table")) {
  const filter = make("input", "", { type: "search", placeholder: "Filter rows", ariaLabel: "Filter rows" });
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/);
    for (const row of section.querySelectorAll("tbody tr:not(.block)")) {
      const text = `${row.textContent} ${row.title}`.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    for (const body of section.querySelector("table").tBodies)
      body.querySelector(".block").hidden = ![...body.rows].some((row) => !row.hidden && row.className !== "block");
  });
  const tools = make("p", "", { className: "tools" });
  tools.append(filter, "Copy as ");
  for (const template of section.querySelectorAll("template")) {
    const button = make("button", template.dataset.kind);
    button.addEventListener("click", async () => {
      await copy(template.content.textContent);
      button.textContent = "copied";
      setTimeout(() => (button.textContent = template.dataset.kind), 1500);
    });
    tools.append(button);
  }
  section.querySelector(".scroll").before(tools);
}

// Paper shows what is folded on the screen.
addEventListener("beforeprint", () => { for (const details of document.querySelectorAll("details")) details.open = true; });
