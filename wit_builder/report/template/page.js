"use strict";
// Search, filter, sort and page through the table of queries. Text only ever enters as textContent.
(() => {
  const element = (id) => document.getElementById(id);
  const { sources, statuses, columns, page_rows: pageRows } = JSON.parse(element("data").textContent);
  const number = new Intl.NumberFormat("en");
  const numeric = ["matched", "drawn", "alive", "kept", "contained"];
  const collator = new Intl.Collator("en", { numeric: true });
  const body = element("table").tBodies[0];
  const headers = [...document.querySelectorAll("#table [data-column]")];
  const state = { column: "matched", falling: true, page: 0, rows: [] };

  const plain = (text) => text.normalize("NFKC").toLowerCase();
  const haystack = columns.query.map(plain);

  function compare(a, b) {
    const values = columns[state.column];
    const order = state.column === "query" ? collator.compare(values[a], values[b]) : values[a] - values[b];
    return (state.falling ? -order : order) || a - b;
  }

  function select() {
    const needle = plain(element("search").value.trim());
    const source = element("source").value, status = element("status").value;
    const rows = [];
    for (let i = 0; i < haystack.length; i++) {
      if (source !== "" && columns.source[i] !== Number(source)) continue;
      if (status !== "" && columns.status[i] !== Number(status)) continue;
      if (haystack[i].includes(needle)) rows.push(i);
    }
    state.rows = rows.sort(compare);
    state.page = 0;
    show();
  }

  function cell(kind, text) {
    const made = document.createElement(kind);
    made.textContent = text;
    return made;
  }

  function tableRow(i) {
    const row = document.createElement("tr");
    const head = cell("th", columns.query[i]);
    head.scope = "row";
    head.title = columns.query[i];
    row.append(head);
    for (const name of numeric) {
      const made = cell("td", number.format(columns[name][i]));
      made.className = "n";
      row.append(made);
    }
    const status = statuses[columns.status[i]];
    const last = document.createElement("td"), swatch = document.createElement("span");
    swatch.className = `swatch status-${status}`;
    last.append(swatch, status);
    row.append(last, cell("td", sources[columns.source[i]]));
    return row;
  }

  function show() {
    const first = state.page * pageRows, total = state.rows.length;
    const shown = state.rows.slice(first, first + pageRows);
    body.replaceChildren(...shown.map(tableRow));
    if (!total) {
      const none = cell("td", "No query fits. Search for less, or choose all sources and any status.");
      none.colSpan = headers.length;
      body.append(document.createElement("tr"));
      body.rows[0].append(none);
    }
    element("found").textContent = total === haystack.length
      ? `${number.format(total)} queries` : `${number.format(total)} of ${number.format(haystack.length)} queries`;
    element("place").textContent = `${number.format(first + 1)} to ${number.format(first + shown.length)}`;
    element("previous").disabled = state.page === 0;
    element("next").disabled = first + pageRows >= total;
    element("pager").hidden = total <= pageRows;
    for (const header of headers) {
      if (header.dataset.column !== state.column) header.removeAttribute("aria-sort");
      else header.setAttribute("aria-sort", state.falling ? "descending" : "ascending");
    }
  }

  function sortBy(column) {
    // a second press turns the order round; numbers start with the most, words with a
    state.falling = column === state.column ? !state.falling : numeric.includes(column);
    state.column = column;
    select();
  }

  function turn(pages) {
    state.page += pages;
    show();
    element("table").scrollIntoView({ block: "nearest" });
  }

  for (const header of headers) {
    const button = cell("button", header.textContent);
    button.type = "button";
    button.addEventListener("click", () => sortBy(header.dataset.column));
    header.replaceChildren(button);
  }
  element("filters").hidden = false;
  element("filters").addEventListener("submit", (event) => event.preventDefault());
  element("search").addEventListener("input", select);
  for (const id of ["source", "status"]) element(id).addEventListener("change", select);
  element("previous").addEventListener("click", () => turn(-1));
  element("next").addEventListener("click", () => turn(1));
  select();
})();
