// The list of all runs.

import { byId, el, setHidden, setText } from "./dom.js";
import { count, meanReturn, perSecond, plural, seconds } from "./format.js";

const LABELS = ["", "state", "environment", "algorithm", "policy", "return", "steps/s", "age"];
const NUMERIC = new Set([5, 6, 7]);

/** The state of a run in one word, and how it is coloured. */
export function stateOf(run) {
  if (run.liveness === "live") return { text: "running", kind: "state good" };
  const kinds = { ok: "state soft", interrupted: "state warn", failed: "state bad",
    unreadable: "state bad" };
  const text = run.status === "unfinished" ? "silent" : run.status;
  return { text, kind: kinds[run.status] ?? "state warn" };
}

export function linkTo(runId) {
  return `#run=${encodeURIComponent(runId)}`;
}

function cellsOf(run) {
  const state = stateOf(run);
  const isRun = run.kind === "run";
  const progress = `${count(run.num_cells_finished)} of ${plural(run.num_cells, "cell")}`;
  const target = Number.isFinite(run.threshold) ? ` of ${meanReturn(run.threshold)}` : "";
  return [
    isRun ? { text: run.run_id, href: linkTo(run.run_id) } : { text: run.run_id },
    isRun ? state : { text: run.num_cells === null ? run.status : progress, kind: state.kind },
    { text: isRun ? run.env_id : run.kind },
    { text: run.algorithm },
    { text: run.policy },
    { text: run.return_mean === null ? "" : meanReturn(run.return_mean) + target },
    { text: run.per_s === null ? "" : perSecond(run.per_s) },
    { text: run.age_s === null ? "" : seconds(run.age_s) },
  ];
}

function rowFor() {
  const cells = LABELS.map((label, i) => (i === 0
    ? el("th", { scope: "row", role: "rowheader" })
    : el("td", { role: "cell", "data-label": label })));
  return el("tr", { role: "row" }, ...cells);
}

function show(row, cells, title) {
  cells.forEach((cell, i) => {
    const place = row.cells[i];
    const kind = `${cell.kind ?? ""}${NUMERIC.has(i) ? " num" : ""}`.trim();
    if (place.className !== kind) place.className = kind;
    if (!cell.href) {
      setText(place, cell.text);
      return;
    }
    const link = place.firstElementChild ?? place.appendChild(el("a"));
    if (link.getAttribute("href") !== cell.href) link.setAttribute("href", cell.href);
    setText(link, cell.text);
  });
  if (row.title !== title) row.title = title;
}

export class RunTable {
  constructor() {
    this.body = byId("list").tBodies[0];
    this.note = byId("list-note");
    this.filter = byId("filter");
    this.rows = new Map();
    this.view = { runs: [], num_left_out: 0, problem: "" };
    this.filter.addEventListener("input", () => this.draw());
  }

  update(view) {
    this.view = view;
    this.draw();
  }

  draw() {
    const wanted = this.filter.value.trim().toLowerCase().split(/\s+/);
    const shown = this.view.runs.filter((run) => {
      const text = cellsOf(run).map((cell) => cell.text).join(" ").toLowerCase();
      return wanted.every((word) => text.includes(word));
    });
    const rows = shown.map((run) => {
      const row = this.rows.get(run.run_id) ?? rowFor();
      show(row, cellsOf(run), run.problem);
      return [run.run_id, row];
    });
    this.rows = new Map(rows);
    const elements = rows.map(([, row]) => row);
    const isSame = elements.length === this.body.rows.length
      && elements.every((row, i) => this.body.rows[i] === row);
    if (!isSame) this.body.replaceChildren(...elements);
    this.tell(shown.length);
  }

  tell(numShown) {
    const { runs, num_left_out: numLeftOut, problem } = this.view;
    const words = [];
    if (problem) words.push(problem);
    if (!runs.length && !problem) words.push("No run here yet: tianji up starts one.");
    if (runs.length && !numShown) words.push("No run matches the filter.");
    if (numLeftOut) words.push(`${plural(numLeftOut, "older run")} not shown: tianji runs.`);
    setText(this.note, words.join(" "));
    setHidden(this.note, !words.length);
  }
}
