"use strict";
// Search and sort the table of classes. All its rows are in the page; text is only ever read.
(() => {
  const table = document.getElementById("table");
  if (!table) return;
  const element = (id) => document.getElementById(id);
  const number = new Intl.NumberFormat("en"), alphabet = new Intl.Collator("en", { numeric: true });
  const body = table.tBodies[0], rows = [...body.rows];
  const headings = [...table.tHead.rows[0].cells];
  const without = element("found").textContent;
  const folded = (text) => text.normalize("NFKC").toLowerCase();
  const names = rows.map((row) => folded(row.cells[0].textContent));
  const keys = new Map();

  // A column's values: numbers where its cells are right-aligned, else words. Read once.
  function keysOf(column) {
    if (!keys.has(column)) {
      const cells = rows.map((row) => row.cells[column]);
      const value = (cell) => Number(cell.dataset.value ?? cell.textContent.replaceAll(",", ""));
      const numeric = headings[column].classList.contains("n");
      keys.set(column, cells.map(numeric ? value : (cell) => cell.textContent.trim()));
    }
    return keys.get(column);
  }

  // Equal rows keep the order they came in; where a column is empty, its rows are last.
  function sortBy(column, falling) {
    const of = keysOf(column), sign = falling ? -1 : 1;
    const compare = typeof of[0] === "number" ? (a, b) => of[a] - of[b]
      : (a, b) => alphabet.compare(of[a], of[b]);
    const order = rows.map((_, i) => i);
    order.sort((a, b) => (of[a] === "") - (of[b] === "") || sign * compare(a, b) || a - b);
    body.append(...order.map((i) => rows[i]));
    headings.forEach((heading) => heading.removeAttribute("aria-sort"));
    headings[column].setAttribute("aria-sort", falling ? "descending" : "ascending");
  }

  // A second press turns the order round; a count starts with the most, the others with the least.
  function press(column) {
    const heading = headings[column], now = heading.getAttribute("aria-sort");
    const most = heading.classList.contains("n") && !rows[0].cells[column].dataset.value;
    sortBy(column, now ? now === "ascending" : most);
  }

  function search() {
    const needle = folded(element("search").value.trim());
    let shown = 0;
    rows.forEach((row, i) => {
      row.hidden = !names[i].includes(needle);
      if (!row.hidden) shown++;
    });
    const said = needle ? `${number.format(shown)} of ${number.format(rows.length)} classes` : without;
    if (element("found").textContent !== said) element("found").textContent = said;
  }

  headings.forEach((heading, column) => {
    if ("unsorted" in heading.dataset) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    button.addEventListener("click", () => press(column));
    heading.replaceChildren(button);
  });
  element("filters").hidden = false;
  element("filters").addEventListener("submit", (event) => event.preventDefault());
  element("search").addEventListener("input", search);
})();
