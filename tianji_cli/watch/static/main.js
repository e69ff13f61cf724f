// Which page is shown, and the stream of events that fills it.

import { byId, setHidden, setText } from "./dom.js";
import { RunTable } from "./list.js";
import { RunPage } from "./run.js";

const SILENCE_MS = 6000;

const table = new RunTable();
const page = new RunPage();
const state = { runId: "", log: "", source: null, heardAt: 0, pending: new Map() };

function runOfAddress() {
  const found = /^#run=(.*)$/.exec(window.location.hash);
  try {
    return found ? decodeURIComponent(found[1]) : "";
  } catch {
    return "";
  }
}

function say(text, isBad) {
  setText(byId("connection"), text);
  byId("connection").className = isBad ? "bad" : "";
}

const handlers = {
  runs: (data) => table.update(data),
  run: (data) => page.update(data),
  absent: (data) => page.absent(data.run_id),
  logs: (data) => {
    page.showLogs(data);
    if (!data.name && data.logs.length) choose(preferred(data.logs));
  },
};

/** The log that says most about a run, until another is chosen. */
function preferred(logs) {
  const names = logs.map((log) => log.name);
  return names.find((name) => name.includes("/learner-")) ?? names[0];
}

function choose(log) {
  state.log = log;
  connect();
}

/** What arrives while nobody looks is drawn when somebody does. */
function handle(kind, data) {
  if (document.hidden) state.pending.set(kind, data);
  else handlers[kind](JSON.parse(data));
}

function connect() {
  state.source?.close();
  state.pending.clear();
  const query = new URLSearchParams();
  if (state.runId) query.set("run", state.runId);
  if (state.runId && state.log) query.set("log", state.log);
  const source = new EventSource(`events?${query}`);
  state.source = source;
  state.heardAt = performance.now();
  source.addEventListener("open", () => say("connected", false));
  source.addEventListener("error", () =>
    say("tianji watch does not answer; trying again", true));
  for (const kind of Object.keys(handlers)) {
    source.addEventListener(kind, (event) => {
      if (source !== state.source) return;
      state.heardAt = performance.now();
      say("connected", false);
      handle(kind, event.data);
    });
  }
}

function show() {
  const runId = runOfAddress();
  const hasChanged = runId !== state.runId;
  state.runId = runId;
  state.log = hasChanged ? "" : state.log;
  setHidden(byId("list-page"), Boolean(runId));
  setHidden(byId("run-page"), !runId);
  document.title = runId ? `${runId} · TianJi` : "TianJi";
  if (runId && hasChanged) page.begin(runId);
  connect();
}

window.addEventListener("hashchange", () => {
  show();
  window.scrollTo(0, 0);
  byId("main").focus();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  for (const [kind, data] of state.pending) handlers[kind](JSON.parse(data));
  state.pending.clear();
});
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});
byId("log").addEventListener("change", (event) => choose(event.target.value));
window.setInterval(() => {
  page.tick();
  if (performance.now() - state.heardAt > SILENCE_MS) say("no news from tianji watch", true);
}, 500);
show();
