"use strict";
// Tables of examples: sorted, filtered and shown page by page from JSON in the page. Nothing is loaded, and what the
// data say becomes text, never markup.
(() => {
  const SIZES = [50, 200, 1000];
  const CHOICES = 40;
  const PATTERN = new Intl.Collator("en", { numeric: true });
  let made = 0;

  function element(name, properties, ...children) {
    const found = Object.assign(document.createElement(name), properties);
    found.append(...children);
    return found;
  }

  function isNumber(column) {
    return column.kind === "count" || column.kind === "number" || column.kind === "seconds";
  }

  function written(value, column) {
    if (value === null || value === "") return "–";
    if (column.kind === "seconds") return value.toFixed(3);
    if (column.kind === "number") return value === 0 ? "0" : String(Number(value.toPrecision(4)));
    return String(value);
  }

  // Nothing comes last, whichever way the others go.
  function comparison(place, sign, numeric) {
    return (a, b) => {
      const x = a.cells[place], y = b.cells[place];
      const noX = x === null || x === "", noY = y === null || y === "";
      if (noX || noY) return noX - noY || a.order - b.order;
      const order = numeric ? x - y : PATTERN.compare(x, y);
      return sign * order || a.order - b.order;
    };
  }

  function choices(rows, place) {
    const counts = new Map();
    for (const row of rows) {
      const value = row.cells[place];
      if (value !== null && value !== "") counts.set(String(value), (counts.get(String(value)) || 0) + 1);
    }
    return [...counts].sort((a, b) => b[1] - a[1] || PATTERN.compare(a[0], b[0])).slice(0, CHOICES);
  }

  function start(root) {
    const id = root.dataset.table, noun = root.dataset.noun;
    const { columns, rows: cells } = JSON.parse(document.getElementById(id).textContent);
    const every = cells.map((row, order) => ({ cells: row, order, text: row.filter((v) => v !== null).join(" ").toLowerCase() }));
    const [controls, count, scroll, pager] = ["form", ".count", ".scroll", ".pager"].map((s) => root.querySelector(s));
    const [head, body] = [scroll.querySelector("thead"), scroll.querySelector("tbody")];
    const state = { sort: -1, sign: 1, page: 0, size: SIZES[0], search: "", picked: new Map() };
    let shown = every;

    function filter() {
      const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
      // A number alone is the number of an example, or a word that is looked for.
      const exact = words.length === 1 && /^\d+$/.test(words[0]) && every.some((r) => String(r.cells[0]) === words[0]);
      shown = every.filter((row) =>
        [...state.picked].every(([place, value]) => String(row.cells[place]) === value) &&
        (exact ? String(row.cells[0]) === words[0] : words.every((word) => row.text.includes(word))));
      if (state.sort >= 0) shown.sort(comparison(state.sort, state.sign, isNumber(columns[state.sort])));
      state.page = 0;
      draw();
    }

    function sort(place) {
      state.sign = state.sort === place ? -state.sign : 1;
      state.sort = place;
      filter();
    }

    function draw() {
      const pages = Math.max(1, Math.ceil(shown.length / state.size));
      state.page = Math.min(state.page, pages - 1);
      const first = state.page * state.size;
      const part = shown.slice(first, first + state.size);
      body.replaceChildren(...part.map(line));
      [...head.rows[0].cells].forEach((cell, place) => {
        cell.setAttribute("aria-sort", place !== state.sort ? "none" : state.sign > 0 ? "ascending" : "descending");
      });
      const all = every.length.toLocaleString("en");
      const named = `${all} ${noun}${every.length === 1 ? "" : "s"}`;
      const found = shown.length === every.length ? named : `${shown.length.toLocaleString("en")} of ${named}`;
      const range = shown.length > part.length ? `, rows ${first + 1} to ${first + part.length} shown` : "";
      count.textContent = found + range;
      pager.hidden = every.length <= SIZES[0];
      back.disabled = state.page === 0;
      next.disabled = state.page >= pages - 1;
      where.textContent = `page ${state.page + 1} of ${pages}`;
    }

    function line(row) {
      return element("tr", {}, ...columns.map((column, place) => {
        const text = written(row.cells[place], column);
        const cell = element("td", {});
        if (column.kind === "verdict") cell.className = row.cells[place] || "";
        else cell.className = isNumber(column) ? "number" : "text";
        const picture = place === 0 && document.getElementById(`found-${id.slice(5)}-${row.cells[0]}`);
        if (picture) {
          const button = element("button", { type: "button", title: "show the counterexample" }, text);
          button.setAttribute("aria-expanded", "false");
          button.addEventListener("click", () => toggle(button, picture));
          cell.append(button);
        } else cell.append(text);
        return cell;
      }));
    }

    function toggle(button, picture) {
      const row = button.closest("tr"), isOpen = button.getAttribute("aria-expanded") === "true";
      button.setAttribute("aria-expanded", String(!isOpen));
      if (isOpen) return void row.nextElementSibling.remove();
      const copy = picture.cloneNode(true);
      copy.removeAttribute("id");
      row.after(element("tr", { className: "detail" }, element("td", { colSpan: columns.length }, copy)));
    }

    function labelled(title, field) {
      field.id = `field-${++made}`;
      controls.append(element("label", { htmlFor: field.id }, title, field));
      return field;
    }

    const search = labelled("search", element("input", { type: "search", placeholder: "index, reason, …" }));
    search.addEventListener("input", () => { state.search = search.value; filter(); });
    columns.forEach((column, place) => {
      if (column.kind !== "verdict" && !["method", "stage", "flagged"].includes(column.name)) return;
      const found = choices(every, place);
      if (found.length < 2) return;
      const field = labelled(column.title, element("select", { name: column.name }, element("option", { value: "" }, "all")));
      // A value may be anything, so that options go by number.
      found.forEach(([value, n], i) => field.append(element("option", { value: String(i) }, `${value} (${n.toLocaleString("en")})`)));
      field.addEventListener("change", () => {
        if (field.value === "") state.picked.delete(place);
        else state.picked.set(place, found[Number(field.value)][0]);
        filter();
      });
    });
    controls.addEventListener("submit", (event) => event.preventDefault());

    head.append(element("tr", {}, ...columns.map((column, place) => {
      const button = element("button", { type: "button" }, column.title);
      button.addEventListener("click", () => sort(place));
      return element("th", { scope: "col", className: isNumber(column) ? "number" : "" }, button);
    })));

    const back = element("button", { type: "button" }, "previous"), next = element("button", { type: "button" }, "next");
    const where = element("span", {});
    back.addEventListener("click", () => { state.page -= 1; draw(); });
    next.addEventListener("click", () => { state.page += 1; draw(); });
    const size = element("select", {}, ...SIZES.filter((n, i) => i === 0 || SIZES[i - 1] < every.length).map((n) =>
      element("option", { value: String(n) }, `${n} rows`)));
    size.setAttribute("aria-label", "rows on a page");
    size.addEventListener("change", () => { state.size = Number(size.value); draw(); });
    pager.append(back, where, next, size);

    for (const part of [controls, count, scroll]) part.hidden = false;
    draw();
  }

  document.querySelectorAll("[data-table]").forEach(start);
})();
