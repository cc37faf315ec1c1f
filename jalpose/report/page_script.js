"use strict";
// Tables sort by a press on a heading: numbers by value, words by alphabet, and what
// is missing stays last either way.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.firstElementChild.addEventListener("click", () => {
      const body = table.tBodies[0];
      const falling = head.getAttribute("aria-sort") === "descending";
      const unsorted = !head.hasAttribute("aria-sort");
      // Of numbers the largest is looked for first, of words the first.
      const up = unsorted ? !head.classList.contains("number") : falling;
      const key = (row) => {
        const cell = row.cells[column];
        if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
        const words = cell.textContent.trim();
        return words === "" || words === "-" || head.classList.contains("number")
          ? null : words;
      };
      const compare = (a, b) => {
        if (a === null || b === null) return (a === null) - (b === null);
        const order = typeof a === "number" && typeof b === "number"
          ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
        return up ? order : -order;
      };
      const rows = [...body.rows].map((row) => [key(row), row]);
      rows.sort((a, b) => compare(a[0], b[0]));
      body.append(...rows.map((pair) => pair[1]));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
    });
  });
}
// On paper nothing can be opened.
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((part) => { part.open = true; });
});
