"use strict";
// Tables with the class "sortable" sort by a click on a heading; a field above them filters their rows.

/** The content of a cell for comparison: data-value where there is one. */
const valueOf = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();

/** Order of two cells: numbers by size, texts by their letters and numbers, empty ones last. */
function compare(one, other, isUp) {
  if (one === "" || other === "") return (one === "") - (other === "");
  const x = Number(one), y = Number(other);
  const isText = Number.isNaN(x) || Number.isNaN(y);
  const order = isText ? one.localeCompare(other, "en", {numeric: true}) : x - y;
  return isUp ? order : -order;
}

function sortBy(table, column) {
  const heads = [...table.tHead.rows[0].cells];
  const isUp = heads[column].getAttribute("aria-sort") !== "ascending";
  for (const head of heads) head.removeAttribute("aria-sort");
  heads[column].setAttribute("aria-sort", isUp ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows];
  rows.sort((one, other) => compare(valueOf(one, column), valueOf(other, column), isUp));
  table.tBodies[0].append(...rows);
}

/** The column with a name, otherwise the first whose name begins so; -1 without any. */
const columnOf = (names, name) => names.includes(name) ? names.indexOf(name) : names.findIndex(own => own.startsWith(name));

/** Whether a row satisfies "column<number", or else contains the text. */
function satisfies(row, names, condition) {
  const parts = condition.match(/^(.+?)(<=|>=|<|>|=)\s*([-+]?[\d.]+(?:e[-+]?\d+)?)$/i);
  const column = parts ? columnOf(names, parts[1].trim()) : -1;
  if (column < 0) return row.textContent.toLowerCase().includes(condition);
  const text = valueOf(row, column), value = Number(text), limit = Number(parts[3]);
  if (text === "" || Number.isNaN(value)) return false;
  return {"<": value < limit, ">": value > limit, "<=": value <= limit, ">=": value >= limit, "=": value === limit}[parts[2]];
}

function filterRows(table, text, count) {
  const names = [...table.tHead.rows[0].cells].map(head => head.textContent.trim().toLowerCase());
  const conditions = text.toLowerCase().split(",").map(part => part.trim()).filter(part => part);
  const rows = [...table.tBodies[0].rows];
  for (const row of rows) row.hidden = !conditions.every(condition => satisfies(row, names, condition));
  count.textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length} rows`;
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => sortBy(table, column));
  });
  const field = document.querySelector(`input[data-table="${table.id}"]`);
  if (field) field.addEventListener("input", () => filterRows(table, field.value, field.closest(".filter").querySelector("output")));
}
