// Without scripts the page still works: numbers link to their provenance below, tables keep their order.
const dialog = document.querySelector("dialog");
const show = (kind, ...nodes) => {
  dialog.className = kind;
  dialog.querySelector("div").replaceChildren(...nodes);
  dialog.showModal();
  dialog.scrollTop = 0;
};
document.addEventListener("click", (event) => {
  const link = event.target.closest("td a");
  if (link && !event.metaKey && !event.ctrlKey) {
    const details = document.querySelector(link.getAttribute("href"));
    const title = document.createElement("h3");
    title.textContent = details.querySelector("summary").textContent;
    show("", title, details.querySelector(".body").cloneNode(true));
    event.preventDefault();
  } else if (event.target.closest(".images img")) {
    const figure = event.target.closest("figure");
    show("image", figure.querySelector("img").cloneNode(), figure.querySelector("figcaption").cloneNode(true));
  } else if (event.target === dialog) {
    dialog.close();
  }
});

// A heading sorts each block for itself: down, up, then back to the order it had.
for (const heading of document.querySelectorAll("th.sort")) {
  heading.tabIndex = 0;
  heading.title = "Sort";
  const sort = () => {
    const table = heading.closest("table");
    const next = { none: "descending", descending: "ascending", ascending: "none" }[heading.ariaSort || "none"];
    for (const other of table.querySelectorAll("th.sort")) other.removeAttribute("aria-sort");
    if (next !== "none") heading.setAttribute("aria-sort", next);
    const value = (row) => parseFloat(row.cells[heading.cellIndex].dataset.v ?? "-Infinity");
    for (const body of table.tBodies) {
      const [block, ...rows] = body.rows;
      rows.forEach((row, i) => (row.dataset.place ??= i));
      const place = (row) => Number(row.dataset.place);
      const sign = next === "ascending" ? 1 : -1;
      rows.sort((a, b) => (next === "none" ? 0 : sign * (value(a) - value(b)) || 0) || place(a) - place(b));
      body.append(block, ...rows);
    }
  };
  heading.addEventListener("click", sort);
  heading.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); }
  });
}
