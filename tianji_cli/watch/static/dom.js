// Elements. Text of runs only ever becomes text nodes and attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

export function byId(id) {
  return document.getElementById(id);
}

/** Sets a text only if it changes, so that selections and screen readers are left alone. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setHidden(element, isHidden) {
  if (element.hidden !== isHidden) element.hidden = isHidden;
}

function setClass(element, name) {
  if (element.className !== name) element.className = name;
}

/**
 * Makes the rows of a table body those given, keeping the elements that are there.
 *
 * A row is a list of cells, the first of which heads it. A cell is a text, or {text, kind} with the
 * name of a class.
 */
export function fillRows(body, rows) {
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, index) => {
    const row = body.rows[index] ?? body.insertRow();
    while (row.cells.length > cells.length) row.deleteCell(-1);
    cells.forEach((cell, column) => {
      const place = row.cells[column] ?? row.appendChild(
        column === 0 ? el("th", { scope: "row" }) : el("td"));
      setText(place, cell.text ?? cell);
      setClass(place, cell.kind ?? "");
    });
  });
}

export function numeric(text) {
  return { text, kind: "num" };
}
