// Line and bar charts, drawn as SVG at the size at which they are shown.
//
// Each is a figure with a legend, a picture that takes the focus (arrow keys move a cursor, whose
// values are written below), and a table of the same numbers.

import { el, fillRows, numeric, setText, svg } from "./dom.js";
import { short } from "./format.js";

const HEIGHT = 220;
const MARGIN = { left: 52, right: 12, top: 10, bottom: 30 };
const MAX_TABLE_ROWS = 60;
const CLASSES = ["first", "second", "third", "fourth", "fifth", "sixth"];

/** Round numbers that cover a range, about `wanted` of them. */
export function ticksOf(low, high, wanted) {
  const span = high - low;
  if (!(span > 0) || !Number.isFinite(span)) return [low];
  const power = 10 ** Math.floor(Math.log10(span / wanted));
  const step = power * ([1, 2, 5, 10].find((factor) => span / (factor * power) <= wanted) ?? 10);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i += 1) found.push(i * step);
  return found;
}

function rangeOf(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (Number.isFinite(value)) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  return low <= high ? [low, high] : null;
}

function scale(low, high, from, to) {
  const span = high - low || 1;
  return (value) => from + ((value - low) / span) * (to - from);
}

/** Points of a path, in whole tenths of a pixel; a gap where a value is missing. */
function pathOf(xs, ys) {
  let path = "";
  let isPenDown = false;
  xs.forEach((x, i) => {
    const isThere = Number.isFinite(x) && Number.isFinite(ys[i]);
    if (isThere) path += `${isPenDown ? "L" : "M"}${x.toFixed(1)} ${ys[i].toFixed(1)}`;
    isPenDown = isThere;
  });
  return path;
}

function key(kind) {
  return svg("svg", { viewBox: "0 0 26 8", "aria-hidden": "true" },
    svg("path", { class: `line ${kind}`, d: "M0 4H26" }));
}

class Chart {
  /**
   * place: the element that it fills. title: of the figure. xName, formatX: what is on the x axis.
   */
  constructor(place, { title, xName, formatX, formatY = short }) {
    Object.assign(this, { title, xName, formatX, formatY });
    this.heading = el("h3", {}, title);
    this.legend = el("span", { class: "legend" });
    this.picture = svg("svg", { role: "img", tabindex: "0", height: HEIGHT });
    this.output = el("output");
    this.headRow = el("tr");
    this.body = el("tbody");
    const table = el("table", { "aria-label": title }, el("thead", {}, this.headRow), this.body);
    this.details = el("details", {}, el("summary", {}, "Table"),
      el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": `${title}, table` },
        table));
    place.replaceChildren(el("figure", {},
      el("figcaption", {}, this.heading, this.legend), this.picture, this.output, this.details));
    this.cursor = null;
    this.details.addEventListener("toggle", () => this.fillTable());
    this.picture.addEventListener("keydown", (event) => this.onKey(event));
    this.picture.addEventListener("pointermove", (event) => this.onPointer(event));
    for (const kind of ["pointerleave", "blur"]) {
      this.picture.addEventListener(kind, () => this.moveTo(null));
    }
    new ResizeObserver(() => this.draw()).observe(place);
    this.place = place;
  }

  onKey(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    const last = this.length - 1;
    if (event.key === "Escape") this.moveTo(null);
    else if (event.key === "Home") this.moveTo(0);
    else if (event.key === "End") this.moveTo(last);
    else if (step) this.moveTo((this.cursor ?? (step > 0 ? -1 : last + 1)) + step);
    else return;
    event.preventDefault();
  }

  onPointer(event) {
    if (!this.length) return;
    const x = event.clientX - this.picture.getBoundingClientRect().left;
    let nearest = 0;
    this.xs.forEach((place, i) => {
      if (Math.abs(place - x) < Math.abs(this.xs[nearest] - x)) nearest = i;
    });
    this.moveTo(nearest);
  }

  moveTo(index) {
    const last = this.length - 1;
    this.cursor = index === null || last < 0 ? null : Math.min(Math.max(index, 0), last);
    this.draw();
  }

  /** Draws anew; `paint(width)` of the subclass gives the elements, and sets `xs`. */
  draw() {
    const width = Math.floor(this.place.clientWidth) - 30;
    if (width < 80 || this.data === undefined) return;
    this.picture.setAttribute("width", width);
    this.picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.xs = [];
    const elements = this.length ? this.paint(width) : [
      svg("text", { x: width / 2, y: HEIGHT / 2, "text-anchor": "middle", class: "small" },
        "nothing yet")];
    if (this.cursor !== null && this.cursor < this.xs.length) {
      const x = this.xs[this.cursor];
      elements.push(svg("line",
        { class: "cursor", x1: x, x2: x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
    }
    this.picture.replaceChildren(...elements);
    setText(this.output, this.cursor === null ? "" : this.words(this.cursor));
  }

  update(data) {
    this.data = data;
    if (this.cursor !== null && this.cursor >= this.length) this.cursor = null;
    this.draw();
    this.picture.setAttribute("aria-label", `${this.title}. ${this.inWords()}`);
    if (this.details.open) this.fillTable();
  }

  fillTable() {
    if (this.data === undefined || !this.details.open) return;
    const { heads, rows } = this.table();
    this.headRow.replaceChildren(...heads.map((head, i) =>
      el("th", { scope: "col", class: i ? "num" : null }, head)));
    const every = Math.ceil(rows.length / MAX_TABLE_ROWS);
    const kept = rows.filter((_, i) => (rows.length - 1 - i) % every === 0);
    fillRows(this.body, kept.map(([first, ...rest]) => [first, ...rest.map(numeric)]));
  }

  /** Axes with their labels. */
  frame(width, xTicks, toX, yTicks, toY) {
    const bottom = HEIGHT - MARGIN.bottom;
    const elements = [];
    for (const tick of yTicks) {
      const y = toY(tick);
      elements.push(
        svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }),
        svg("text", { class: "small", x: MARGIN.left - 6, y: y + 4, "text-anchor": "end" },
          short(tick)));
    }
    for (const tick of xTicks) {
      elements.push(svg("text",
        { class: "small", x: toX(tick), y: bottom + 16, "text-anchor": "middle" },
        this.formatX(tick)));
    }
    elements.push(svg("line",
      { class: "axis", x1: MARGIN.left, x2: width - MARGIN.right, y1: bottom, y2: bottom }));
    return elements;
  }
}

/**
 * data: {series: [{name, x, y, low?, high?}], dots?: {name, x, y}, limit?: {name, value}}; series
 * share no x unless they come with the same one. The cursor moves over the first series.
 */
export class LineChart extends Chart {
  get length() {
    return this.data?.series[0].x.length ?? 0;
  }

  update(data) {
    const named = data.series.length > 1 ? data.series : [];
    const items = named.map((one, i) => el("span", {}, key(CLASSES[i]), one.name));
    if (data.dots?.x.length) {
      items.push(el("span", {},
        svg("svg", { viewBox: "0 0 26 8", "aria-hidden": "true" },
          svg("circle", { class: "dot", cx: 13, cy: 4, r: 3 })), data.dots.name));
    }
    if (Number.isFinite(data.limit?.value)) {
      items.push(el("span", {}, key("limit"), data.limit.name));
    }
    this.legend.replaceChildren(...items);
    super.update(data);
  }

  paint(width) {
    const { series, dots, limit } = this.data;
    const marks = dots ?? { x: [], y: [] };
    const limits = Number.isFinite(limit?.value) ? [limit.value] : [];
    const [begin, end] = rangeOf([...series.flatMap((one) => one.x), ...marks.x]) ?? [0, 1];
    let [low, high] = rangeOf([
      ...series.flatMap((one) => [...one.y, ...(one.low ?? []), ...(one.high ?? [])]),
      ...marks.y, ...limits]) ?? [0, 1];
    if (low >= 0) low = 0;
    if (low === high) high = low + 1;
    const toX = scale(begin, end, MARGIN.left, width - MARGIN.right);
    const toY = scale(low, high, HEIGHT - MARGIN.bottom, MARGIN.top);
    const elements = this.frame(width, ticksOf(begin, end, width / 90), toX,
      ticksOf(low, high, 5), toY);
    series.forEach((one, i) => {
      const xs = one.x.map(toX);
      if (one.low) {
        const up = pathOf(xs, one.high.map(toY));
        const back = pathOf([...xs].reverse(), [...one.low].reverse().map(toY));
        elements.push(svg("path", { class: "band", d: `${up}${back.replace("M", "L")}Z` }));
      }
      elements.push(svg("path", { class: `line ${CLASSES[i]}`, d: pathOf(xs, one.y.map(toY)) }));
      if (i === 0) this.xs = xs;
    });
    marks.x.forEach((x, i) => {
      if (Number.isFinite(marks.y[i])) {
        elements.push(svg("circle", { class: "dot", cx: toX(x), cy: toY(marks.y[i]), r: 3 }));
      }
    });
    for (const value of limits) {
      elements.push(svg("path", { class: "line limit",
        d: `M${MARGIN.left} ${toY(value)}H${width - MARGIN.right}` }));
    }
    return elements;
  }

  words(index) {
    const at = this.data.series[0].x[index];
    const values = this.data.series.map((one) => `${one.name} ${this.formatY(one.y[index])}`);
    return `${this.xName} ${this.formatX(at)}: ${values.join(", ")}`;
  }

  inWords() {
    if (!this.length) return "Nothing yet.";
    const last = this.length - 1;
    return `${this.length} points; the last: ${this.words(last)}.`;
  }

  table() {
    const { series } = this.data;
    return {
      heads: [this.xName, ...series.map((one) => one.name)],
      rows: series[0].x.map((x, i) =>
        [this.formatX(x), ...series.map((one) => this.formatY(one.y[i]))]),
    };
  }
}

/** data: {low, high, y, limit?: {name, value}}: a bar for each range of whole numbers. */
export class BarChart extends Chart {
  get length() {
    return this.data?.low.length ?? 0;
  }

  update(data) {
    const isLimited = Number.isFinite(data.limit?.value);
    this.legend.replaceChildren(
      ...(isLimited ? [el("span", {}, key("limit"), data.limit.name)] : []));
    super.update(data);
  }

  paint(width) {
    const { low, high, y, limit } = this.data;
    const right = width - MARGIN.right;
    const isLimited = Number.isFinite(limit?.value);
    const end = Math.max(high[high.length - 1], isLimited ? limit.value : -Infinity);
    const toX = scale(low[0] - 0.5, end + 0.5, MARGIN.left, right);
    const toY = scale(0, rangeOf(y)?.[1] || 1, HEIGHT - MARGIN.bottom, MARGIN.top);
    const whole = ticksOf(low[0], end, width / 60).filter(Number.isInteger);
    const elements = this.frame(width, whole, toX, ticksOf(0, rangeOf(y)?.[1] || 1, 5), toY);
    this.xs = low.map((from, i) => (toX(from - 0.5) + toX(high[i] + 0.5)) / 2);
    y.forEach((value, i) => {
      const from = toX(low[i] - 0.5);
      const space = toX(high[i] + 0.5) - from;
      const gap = Math.min(2, space / 4);
      elements.push(svg("rect", { class: "bar", x: from + gap, width: Math.max(1, space - 2 * gap),
        y: toY(value), height: HEIGHT - MARGIN.bottom - toY(value) }));
    });
    if (isLimited) {
      const x = toX(limit.value + 0.5);
      elements.push(
        svg("path", { class: "line limit", d: `M${x} ${MARGIN.top}V${HEIGHT - MARGIN.bottom}` }));
    }
    return elements;
  }

  rangeWords(index) {
    const { low, high } = this.data;
    const from = this.formatX(low[index]);
    return low[index] === high[index] ? from : `${from} to ${this.formatX(high[index])}`;
  }

  shareWords(index) {
    const total = this.data.y.reduce((sum, value) => sum + value, 0);
    return `${((100 * this.data.y[index]) / (total || 1)).toFixed(1)} %`;
  }

  words(index) {
    const steps = this.formatY(this.data.y[index]);
    return `${this.xName} ${this.rangeWords(index)}: ${steps} env steps, ${this.shareWords(index)}`;
  }

  inWords() {
    if (!this.length) return "Nothing yet.";
    const most = this.data.y.indexOf(Math.max(...this.data.y));
    return `The most: ${this.words(most)}.`;
  }

  table() {
    return {
      heads: [this.xName, "env steps", "share"],
      rows: this.data.y.map((value, i) =>
        [this.rangeWords(i), this.formatY(value), this.shareWords(i)]),
    };
  }
}
