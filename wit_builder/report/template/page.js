"use strict";
// Search, filter, sort and page through the table of queries. Text only ever enters as textContent.
//
// All queries are in the element "packed" (report/embed.py writes it): columns of numbers, over
// which typed arrays are laid, and one text of all queries, a line each, in alphabetical order.
(() => {
  const element = (id) => document.getElementById(id);
  const header = JSON.parse(element("header").textContent);
  const { rows, counts, sources, statuses, page_rows: pageRows } = header;
  const numeric = counts.map(([name]) => name);
  const number = new Intl.NumberFormat("en");
  const body = element("table").tBodies[0];
  const headings = [...document.querySelectorAll("#table [data-column]")];
  const columns = {};
  const orders = new Map();
  const state = { column: "matched", falling: true, page: 0, shown: new Uint32Array(0), idle: false };
  let text = "", starts = new Uint32Array(0);

  // --- unpacking -----------------------------------------------------------

  function fromBase64(base64) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
    const binary = atob(base64), bytes = new Uint8Array(binary.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
    return bytes;
  }

  async function unpack() {
    const packed = fromBase64(element("packed").textContent);
    element("packed").remove();
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    const buffer = await new Response(stream).arrayBuffer();
    let at = 0;
    const take = (bytes) => buffer.slice(at, at += bytes);
    for (const [name, kind] of counts) {
      columns[name] = kind === "u4" ? new Uint32Array(take(4 * rows)) : new Float64Array(take(8 * rows));
    }
    for (const name of ["status", "source"]) columns[name] = new Uint8Array(take(rows));
    text = new TextDecoder().decode(new Uint8Array(buffer, at));
    starts = lineStarts(text, rows);
  }

  function lineStarts(lines, count) {
    const found = new Uint32Array(count + 1);
    for (let i = 1; i < count; i++) found[i] = lines.indexOf("\n", found[i - 1]) + 1;
    found[count] = lines.length + 1;
    return found;
  }

  const query = (row) => text.slice(starts[row], starts[row + 1] - 1);

  // --- choosing rows -------------------------------------------------------

  // as wit_builder/text.py normalises the queries
  function normalised(typed) {
    const lower = typed.normalize("NFKC").toLowerCase().normalize("NFKC");
    return lower.replace(/[^\p{L}\p{M}\p{Nd}]+/gu, " ").trim();
  }

  // A byte per row: 1 where the query contains the needle.
  function containing(needle) {
    const found = new Uint8Array(rows);
    let row = 0;
    for (let at = text.indexOf(needle); at >= 0; at = text.indexOf(needle, starts[row + 1])) {
      while (starts[row + 1] <= at) row++;
      found[row] = 1;
    }
    return found;
  }

  // The rows by a column; equal ones stay in alphabetical order. Radix sort, 16 bits a pass.
  function ordered(column, falling) {
    let order = new Uint32Array(rows);
    for (let i = 0; i < rows; i++) order[i] = i;
    if (column === "query") return falling ? order.reverse() : order;
    const values = columns[column], most = values.reduce((a, b) => Math.max(a, b), 0);
    const digits = new Uint16Array(rows);
    for (let unit = 1; unit <= most; unit *= 65536) {
      const next = new Uint32Array(rows), place = new Uint32Array(65537);
      for (let i = 0; i < rows; i++) {
        digits[i] = values[i] / unit; // which cuts off the fraction, and all above 16 bits
        if (falling) digits[i] = 65535 - digits[i];
        place[digits[i] + 1]++;
      }
      for (let i = 1; i < place.length; i++) place[i] += place[i - 1];
      for (let i = 0; i < rows; i++) next[place[digits[order[i]]]++] = order[i];
      order = next;
    }
    return order;
  }

  function order() {
    const key = `${state.column} ${state.falling}`;
    if (!orders.has(key)) orders.set(key, ordered(state.column, state.falling));
    return orders.get(key);
  }

  function select() {
    const typed = element("search").value.trim(), needle = normalised(typed);
    state.idle = typed !== "" && needle === "";
    const chosen = (id) => element(id).value === "" ? -1 : Number(element(id).value);
    const source = chosen("source"), status = chosen("status");
    const hit = needle ? containing(needle) : null, fit = new Uint32Array(rows);
    let length = 0;
    for (const row of order()) {
      if (hit && !hit[row]) continue;
      if (source >= 0 && columns.source[row] !== source) continue;
      if (status >= 0 && columns.status[row] !== status) continue;
      fit[length++] = row;
    }
    state.shown = fit.subarray(0, length);
    state.page = 0;
    show();
  }

  // --- showing them --------------------------------------------------------

  function cell(kind, words, name = "") {
    const made = document.createElement(kind);
    made.textContent = words;
    if (name) made.className = name;
    return made;
  }

  function tableRow(i) {
    const row = document.createElement("tr"), head = cell("th", "");
    head.scope = "row";
    head.append(cell("span", query(i), "query"));
    row.append(head, ...numeric.map((name) => cell("td", number.format(columns[name][i]), "n")));
    const status = statuses[columns.status[i]], ended = document.createElement("td");
    ended.append(cell("span", "", `swatch status-${status}`), status);
    row.append(ended, cell("td", sources[columns.source[i]]));
    return row;
  }

  function nothing() {
    const row = document.createElement("tr");
    const said = cell("td", "No query fits. Search for less, or choose all sources and any status.");
    said.colSpan = headings.length;
    row.append(said);
    return row;
  }

  // Of the elements that are cut or that scroll, and of no others, make tab stops.
  function settle() {
    const cut = (e) => e.className === "query" ? e.scrollHeight > e.clientHeight : e.scrollWidth > e.clientWidth;
    const all = [...document.querySelectorAll(".query, .scroll")].filter((e) => e !== document.activeElement);
    const stops = all.map(cut); // all are measured before any is changed: one layout, not many
    all.forEach((e, i) => stops[i] ? e.setAttribute("tabindex", "0") : e.removeAttribute("tabindex"));
  }

  // A reader is told of what changed, and of nothing else.
  function say(id, words) {
    if (element(id).textContent !== words) element(id).textContent = words;
  }

  function found(total) {
    const all = `${number.format(rows)} ${rows === 1 ? "query" : "queries"}`;
    const said = total === rows ? all : `${number.format(total)} of ${all}`;
    return state.idle ? `Nothing to search for: letters and digits count. ${said}` : said;
  }

  function show() {
    const first = state.page * pageRows, total = state.shown.length;
    const page = [...state.shown.subarray(first, first + pageRows)];
    body.replaceChildren(...(total ? page.map(tableRow) : [nothing()]));
    say("found", found(total));
    say("place", total ? `${number.format(first + 1)} to ${number.format(first + page.length)}` : "");
    element("previous").disabled = state.page === 0;
    element("next").disabled = first + pageRows >= total;
    element("pager").hidden = total <= pageRows;
    for (const heading of headings) {
      if (heading.dataset.column !== state.column) heading.removeAttribute("aria-sort");
      else heading.setAttribute("aria-sort", state.falling ? "descending" : "ascending");
    }
    settle();
  }

  // --- answering the reader ------------------------------------------------

  function sortBy(column) {
    // a second press turns the order round; numbers start with the most, words with a
    state.falling = column === state.column ? !state.falling : numeric.includes(column);
    state.column = column;
    select();
  }

  function turn(pages) {
    state.page += pages;
    show();
    element("found").scrollIntoView({ block: "start" }); // smoothly or not, as the style sheet says
  }

  function listen() {
    for (const heading of headings) {
      const button = cell("button", heading.textContent);
      button.type = "button";
      button.addEventListener("click", () => sortBy(heading.dataset.column));
      heading.replaceChildren(button);
    }
    element("filters").hidden = false;
    element("filters").addEventListener("submit", (event) => event.preventDefault());
    element("search").addEventListener("input", select);
    for (const id of ["source", "status"]) element(id).addEventListener("change", select);
    element("previous").addEventListener("click", () => turn(-1));
    element("next").addEventListener("click", () => turn(1));
  }

  async function start() {
    document.documentElement.className = "live";
    settle();
    window.addEventListener("resize", settle);
    document.addEventListener("toggle", settle, true); // what was folded away had no width
    const said = element("found"), without = said.textContent;
    if (!window.DecompressionStream) {
      said.textContent = `This browser is too old to unpack the search: it has no DecompressionStream. ${without}`;
      return;
    }
    try {
      said.textContent = "Unpacking the queries…";
      await unpack();
    } catch (error) {
      said.textContent = `The search could not be unpacked (${error}). ${without}`;
      throw error;
    }
    listen();
    select();
  }

  start();
})();
