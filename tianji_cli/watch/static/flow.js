// The graph of roles and hosts: on a wide page a band for each host and a column for each kind of
// role; on a narrow one a column for each host. Samples flow along solid lines, weights along dashed.

import { el, fillRows, numeric, setHidden, setText, svg } from "./dom.js";
import { bytes, perSecond, plural } from "./format.js";

const KINDS = ["environment", "actor", "buffer", "learner", "reducer", "evaluator"];
const WIDE = 640;
const BOX = { width: 124, height: 50 };
const NARROW_BOX = { width: 68, height: 44 };
const BAND = { head: 26, lane: 34, gap: 10 };

function isWeights(edge) {
  return edge.carries === "weights";
}

/** "actors ×4", "learner". */
function titleOf(node) {
  return node.roles === 1 ? node.kind : `${node.kind}s ×${node.roles}`;
}

function stateOf(node) {
  if (node.gone) return node.roles === 1 ? "lost" : `${node.gone} of ${node.roles} lost`;
  if (node.running === node.roles) return "running";
  if (node.stopped === node.roles) return "stopped";
  return node.running ? `${node.running} running` : "starting";
}

/** Nothing where the rate is not known, as that of a lost role. */
function rateOf(edge, unit = "") {
  return edge.per_s === null ? "" : `${perSecond(edge.per_s)} ${unit}`.trim();
}

function label(x, y, text, anchor) {
  return svg("text", { class: "small halo", x, y, "text-anchor": anchor }, text);
}

/** An arrow head at a point; `way` is where it points to. */
function tip(x, y, way, kind) {
  const points = {
    right: [[0, 0], [-8, -4], [-8, 4]],
    up: [[0, 0], [-4, 8], [4, 8]],
    down: [[0, 0], [-4, -8], [4, -8]],
  }[way].map(([dx, dy]) => `${x + dx},${y + dy}`).join(" ");
  return svg("polygon", { class: `tip-${kind}`, points });
}

function box(node, place) {
  const isLost = node.gone > 0;
  const middle = place.x + place.width / 2;
  return svg("g", {},
    svg("rect", { class: isLost ? "box lost" : "box", x: place.x, y: place.y, rx: 6,
      width: place.width, height: place.height }),
    svg("text", { class: "name", x: middle, y: place.y + 20, "text-anchor": "middle" },
      titleOf(node)),
    svg("text", { class: isLost ? "small bad" : "small", x: middle, y: place.y + 37,
      "text-anchor": "middle" }, stateOf(node)));
}

function wide(flow, width) {
  const kinds = KINDS.filter((kind) => flow.nodes.some((node) => node.kind === kind));
  const space = kinds.length > 1
    ? (width - 24 - kinds.length * BOX.width) / (kinds.length - 1) : 0;
  const gap = Math.max(104, Math.min(space, 260));
  const step = BAND.head + BOX.height + BAND.lane;
  const used = 24 + kinds.length * BOX.width + (kinds.length - 1) * gap;
  const places = flow.nodes.map((node) => ({
    x: 12 + kinds.indexOf(node.kind) * (BOX.width + gap),
    y: flow.hosts.indexOf(node.host) * (step + BAND.gap) + BAND.head,
    ...BOX,
  }));
  const bands = flow.hosts.flatMap((host, i) => [
    svg("rect", { class: "host", x: 0.5, y: i * (step + BAND.gap) + 0.5, rx: 8,
      width: Math.max(used, width) - 1, height: step - 1 }),
    svg("text", { class: "small", x: 12, y: i * (step + BAND.gap) + 18 },
      host === flow.coordinator ? `${host} · coordinator` : host),
  ]);
  const lines = flow.edges.flatMap((edge) => {
    const [from, to] = [places[edge.source], places[edge.target]];
    return to.x < from.x ? backward(edge, from, to, gap) : forward(edge, from, to);
  });
  return {
    width: Math.max(used, width),
    height: flow.hosts.length * (step + BAND.gap) - BAND.gap,
    elements: [...bands, ...lines, ...flow.nodes.map((node, i) => box(node, places[i]))],
  };
}

function forward(edge, from, to) {
  const kind = isWeights(edge) ? "weights" : "samples";
  const height = isWeights(edge) ? 38 : 20;
  const [x1, y1] = [from.x + from.width, from.y + height];
  const [x2, y2] = [to.x, to.y + height];
  const bend = (x2 - x1) / 2;
  const above = y2 < y1 ? 15 : -6;
  return [
    svg("path", { class: kind,
      d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2 - 6} ${y2}` }),
    tip(x2, y2, "right", kind),
    label(x1 + 6, y1 + above, rateOf(edge, edge.unit), "start"),
  ];
}

/** Weights run below the boxes, and between the columns from one host to another. */
function backward(edge, from, to, gap) {
  const lane = (place) => place.y + place.height + BAND.lane / 2;
  const [x1, x2] = [from.x + from.width / 2, to.x + to.width / 2];
  const turn = to.x + to.width + gap * 0.82;
  return [
    svg("path", { class: "weights",
      d: `M${x1} ${from.y + from.height}V${lane(from)}H${turn}V${lane(to)}H${x2}`
        + `V${to.y + to.height + 6}` }),
    tip(x2, to.y + to.height, "up", "weights"),
    label(x2 + 10, lane(to) - 4, rateOf(edge, edge.unit), "start"),
  ];
}

function narrow(flow, width) {
  const kinds = KINDS.filter((kind) => flow.nodes.some((node) => node.kind === kind));
  const column = Math.max(NARROW_BOX.width + 6, width / flow.hosts.length);
  const boxWidth = Math.min(column - 6, 150);
  const rowStep = NARROW_BOX.height + 52;
  const places = flow.nodes.map((node) => ({
    x: flow.hosts.indexOf(node.host) * column + (column - boxWidth) / 2,
    y: 26 + kinds.indexOf(node.kind) * rowStep,
    width: boxWidth,
    height: NARROW_BOX.height,
  }));
  const heads = flow.hosts.map((host, i) =>
    svg("text", { class: "small", x: (i + 0.5) * column, y: 14, "text-anchor": "middle" },
      fit(host, column)));
  const lines = flow.edges.flatMap((edge) => upright(edge, places[edge.source],
    places[edge.target]));
  return {
    width: Math.max(width, flow.hosts.length * column),
    height: 26 + kinds.length * rowStep - 44,
    elements: [...heads, ...lines.map((line) => line.path),
      ...flow.nodes.map((node, i) => box(node, places[i])),
      ...lines.flatMap((line) => line.above)],
  };
}

function fit(text, width) {
  const most = Math.max(4, Math.floor(width / 7));
  return text.length <= most ? text : `${text.slice(0, most - 1)}…`;
}

function upright(edge, from, to) {
  const kind = isWeights(edge) ? "weights" : "samples";
  const isBack = to.y < from.y;
  const side = isWeights(edge) ? 0.82 : 0.22;
  const [x1, x2] = [from.x + side * from.width, to.x + side * to.width];
  const [y1, y2] = isBack ? [from.y, to.y + to.height] : [from.y + from.height, to.y];
  const bend = (y2 - y1) / 2;
  const end = isBack ? y2 + 6 : y2 - 6;
  const path = svg("path", { class: kind,
    d: `M${x1} ${y1}C${x1} ${y1 + bend} ${x2} ${y2 - bend} ${x2} ${end}` });
  const words = rateOf(edge);
  const text = isBack ? label(x2 - 5, y2 + 30, words, "end") : label(x1 + 5, y1 + 14, words, "start");
  return [{ path, above: [tip(x2, y2, isBack ? "up" : "down", kind), text] }];
}

export class FlowPicture {
  constructor(place) {
    this.picture = svg("svg", { role: "img" });
    this.frame = el("div", { class: "picture", tabindex: "0", role: "group",
      "aria-label": "Graph of roles and hosts" }, this.picture);
    this.note = el("p", { class: "soft" });
    this.body = el("tbody");
    this.head = ["from", "to", "carries", "rate", "size"];
    const heads = this.head.map((name, i) =>
      el("th", { scope: "col", class: i >= 3 ? "num" : null }, name));
    const table = el("table", { "aria-label": "What flows between roles" },
      el("thead", {}, el("tr", {}, ...heads)), this.body);
    this.details = el("details", {}, el("summary", {}, "Table"),
      el("div", { class: "scroll", tabindex: "0", role: "group",
        "aria-label": "What flows between roles" }, table));
    place.replaceChildren(el("div", { class: "flow" }, this.frame, this.note, this.details));
    this.details.addEventListener("toggle", () => this.fillTable());
    new ResizeObserver(() => this.draw()).observe(place);
    this.place = place;
  }

  update(flow) {
    this.flow = flow;
    this.draw();
    const lost = flow.nodes.reduce((sum, node) => sum + node.gone, 0);
    const words = `${plural(flow.nodes.reduce((sum, node) => sum + node.roles, 0), "role")} on `
      + `${plural(flow.hosts.length, "host")}${lost ? `, ${lost} lost` : ""}.`;
    this.picture.setAttribute("aria-label", `${words} The table below has all rates.`);
    setText(this.note, flow.nodes.length
      ? "Solid: env steps and samples. Dashed: weights. A line is labelled where it is counted."
      : "The manifest of this run names no roles.");
    this.fillTable();
  }

  draw() {
    const width = Math.floor(this.place.clientWidth) - 26;
    setHidden(this.frame, !this.flow?.nodes.length);
    setHidden(this.details, !this.flow?.edges.length);
    if (!this.flow?.nodes.length || width < 80) return;
    const drawn = width >= WIDE ? wide(this.flow, width) : narrow(this.flow, width);
    this.picture.setAttribute("width", drawn.width);
    this.picture.setAttribute("height", drawn.height);
    this.picture.setAttribute("viewBox", `0 0 ${drawn.width} ${drawn.height}`);
    this.picture.style.width = drawn.width > width ? `${drawn.width}px` : "";
    this.picture.replaceChildren(...drawn.elements);
  }

  fillTable() {
    if (!this.flow || !this.details.open) return;
    const name = (index) => {
      const node = this.flow.nodes[index];
      return `${titleOf(node)} on ${node.host}`;
    };
    fillRows(this.body, this.flow.edges.map((edge) => [
      name(edge.source), name(edge.target),
      edge.channel ? `${edge.carries} (${edge.channel})` : edge.carries,
      numeric(`${perSecond(edge.per_s)} ${edge.unit}`),
      numeric(edge.bytes_per_s === null ? "" : `${bytes(edge.bytes_per_s)}/s`),
    ]));
  }
}
