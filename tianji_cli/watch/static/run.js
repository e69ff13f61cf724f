// The page of one run.

import { BarChart, LineChart } from "./charts.js";
import { byId, el, fillRows, numeric, setHidden, setText } from "./dom.js";
import { FlowPicture } from "./flow.js";
import { bytes, count, decimal, isNumber, meanReturn, moment, perSecond, plural, seconds, short,
  shortSeconds } from "./format.js";
import { stateOf } from "./list.js";

const TILES = ["time", "env steps", "return", "evaluation", "collected", "consumed", "trained",
  "balance", "lag", "weights", "replay", "lost"];

class Tiles {
  constructor(place) {
    this.tiles = new Map(TILES.map((key) => {
      const tile = { head: el("dt"), figure: el("dd"), note: el("dd"),
        bar: el("progress", { max: "1" }) };
      tile.element = el("div", { class: "tile" }, tile.head, tile.figure, tile.note);
      return [key, tile];
    }));
    place.replaceChildren(...[...this.tiles.values()].map((tile) => tile.element));
  }

  /** share: from 0 to 1, drawn as a bar; the figures themselves are the text. */
  show(key, head, figure, note = "", share = null) {
    const tile = this.tiles.get(key);
    setHidden(tile.element, false);
    setText(tile.head, head);
    setText(tile.figure, figure);
    setText(tile.note, note);
    if (share === null) {
      tile.bar.remove();
      return;
    }
    tile.bar.value = Math.min(Math.max(share, 0), 1);
    tile.bar.setAttribute("aria-label", `${head}, share of the limit`);
    if (!tile.bar.isConnected) tile.element.append(tile.bar);
  }

  hide(key) {
    setHidden(this.tiles.get(key).element, true);
  }
}

function shareOf(value, limit) {
  return isNumber(value) && isNumber(limit) && limit > 0 ? value / limit : null;
}

function ofLimit(limit, format) {
  return isNumber(limit) ? `of ${format(limit)}` : "";
}

export class RunPage {
  constructor() {
    this.tiles = new Tiles(byId("tiles"));
    this.flow = new FlowPicture(byId("flow"));
    const overTime = { xName: "time", formatX: shortSeconds };
    this.returns = new LineChart(byId("returns"),
      { title: "Return of training episodes", formatY: meanReturn, ...overTime });
    this.withinTeam = new LineChart(byId("within-team"),
      { title: "Mean return within the team", formatY: meanReturn, ...overTime });
    this.rates = new LineChart(byId("rates"),
      { title: "Production and consumption", ...overTime });
    this.lags = new BarChart(byId("lags"),
      { title: "Lag of the samples trained", xName: "lag", formatX: count });
    this.log = byId("log");
    this.lines = byId("log-lines");
  }

  /** Forgets the run that was shown. */
  begin(runId) {
    setText(byId("run-title"), runId);
    setText(byId("run-state"), "");
    setText(byId("run-age"), "reading");
    setText(byId("run-lead"), "");
    setText(this.lines, "");
    setHidden(byId("run-note"), true);
    this.log.replaceChildren();
    this.view = null;
  }

  absent(runId) {
    this.begin(runId);
    setText(byId("run-age"), "");
    this.tell("There is no run of this name here.", "", []);
  }

  update(view) {
    this.view = view;
    this.toldAt = performance.now();
    const state = stateOf(view);
    setText(byId("run-state"), state.text);
    byId("run-state").className = state.kind;
    setText(byId("run-lead"), [view.experiment, view.algorithm, view.env_id,
      view.policy && `policy ${view.policy}`, view.seed && `seed ${view.seed}`,
      view.started_at && `started ${moment(view.started_at)}`].filter(Boolean).join(" · "));
    this.tell(view.words, view.command, view.problems);
    this.tick();
    this.showFigures(view.figures, view.liveness === "over");
    this.flow.update(view.flow);
    this.showCurves(view);
    this.showResources(view);
    this.showEvents(view);
  }

  tell(words, command, problems) {
    setText(byId("run-words"), words);
    setHidden(byId("run-command"), !command);
    setText(byId("run-command").firstElementChild, command);
    const list = byId("run-problems");
    if (list.children.length !== problems.length) {
      list.replaceChildren(...problems.map(() => el("li")));
    }
    problems.forEach((problem, i) => setText(list.children[i], problem));
    setHidden(byId("run-note"), !words && !problems.length);
  }

  /** The age of what is shown goes on between two messages. */
  tick() {
    if (!this.view) return;
    const { age_s: age, is_behind: isBehind, liveness } = this.view;
    if (isBehind) setText(byId("run-age"), "reading what is here");
    else if (liveness === "over" || age === null) setText(byId("run-age"), "");
    else {
      const now = Math.floor(age + (performance.now() - this.toldAt) / 1000);
      setText(byId("run-age"), now < 1 ? "newest data just now" : `newest data ${seconds(now)} ago`);
    }
  }

  showFigures(figures, isOver) {
    const { tiles } = this;
    const per = isOver ? "steady window" : "over the last seconds";
    tiles.show("time", "Time", seconds(figures.t_s), ofLimit(figures.seconds_limit, seconds),
      shareOf(figures.t_s, figures.seconds_limit));
    tiles.show("env steps", "Env steps consumed", short(figures.env_steps_consumed),
      ofLimit(figures.env_steps_limit, short),
      shareOf(figures.env_steps_consumed, figures.env_steps_limit));
    tiles.show("return", figures.return_of ? `Mean return of ${figures.return_of}` : "Mean return",
      meanReturn(figures.return_mean),
      `${ofLimit(figures.threshold, meanReturn)} ${plural(figures.episodes, "episode")}`.trim(),
      shareOf(figures.return_mean, figures.threshold));
    if (figures.evaluation_return === null) tiles.hide("evaluation");
    else tiles.show("evaluation", "Evaluation", meanReturn(figures.evaluation_return), "the last");
    tiles.show("collected", "Collected", perSecond(figures.collect_per_s), `env steps, ${per}`);
    tiles.show("consumed", "Consumed", perSecond(figures.consume_per_s), `env steps, ${per}`);
    tiles.show("trained", "Trained", perSecond(figures.trained_per_s), `samples, ${per}`);
    tiles.show("balance", "Balance P/C", decimal(figures.balance, 2),
      "production over consumption");
    const lag = figures.lag_max === null ? "–"
      : `${decimal(figures.lag_mean, 1)} / ${count(figures.lag_max)}`;
    tiles.show("lag", "Lag mean / max", lag,
      figures.max_lag === null ? "versions, no bound" : `versions, bound ${figures.max_lag}`);
    tiles.show("weights", "Weights version", count(figures.weights_version),
      plural(figures.updates, "update"));
    if (figures.replay_ratio === null) tiles.hide("replay");
    else tiles.show("replay", "Replay ratio", decimal(figures.replay_ratio, 2));
    tiles.show("lost", "Dropped", short(figures.env_steps_dropped),
      `env steps; ${short(figures.env_steps_in_flight)} in flight; `
        + plural(figures.restarts, "restart"));
  }

  showCurves({ returns, within_team: withinTeam, rates, lags, figures }) {
    this.returns.update({
      series: [{ name: "mean return", x: returns.t_s, y: returns.mean, low: returns.low,
        high: returns.high }],
      dots: { name: "evaluation", x: returns.evaluation_t_s, y: returns.evaluation_mean },
      limit: { name: "threshold", value: figures.threshold },
    });
    setHidden(byId("within-team"), !withinTeam.length);
    if (withinTeam.length) {
      this.withinTeam.update({
        series: withinTeam.map((one) =>
          ({ name: `${one.kind} ${one.name}`, x: one.t_s, y: one.mean })),
      });
    }
    this.rates.update({
      series: [
        { name: "env steps/s collected", x: rates.t_s, y: rates.collect },
        { name: "env steps/s consumed", x: rates.t_s, y: rates.consume },
      ],
    });
    this.lags.update({ low: lags.low, high: lags.high, y: lags.env_steps,
      limit: { name: `bound ${figures.max_lag}`, value: figures.max_lag } });
  }

  showResources({ hosts, processes }) {
    const of = (used, all, format) =>
      numeric(isNumber(all) ? `${format(used)} of ${format(all)}` : format(used));
    const cores = (value) => (Number.isInteger(value) ? count(value) : decimal(value, 2));
    fillRows(byId("hosts").tBodies[0], hosts.map((host) => [
      host.host, host.cpu_model, of(host.cores, host.num_cores, cores),
      of(host.rss_bytes, host.memory_bytes, bytes), numeric(count(host.processes)),
      host.gpus.join(", "),
    ]));
    fillRows(byId("processes").tBodies[0], processes.map((process) => [
      process.process, process.host,
      { text: process.state, kind: process.state === "gone" ? "bad" : "" },
      numeric(decimal(process.cores, 2)), numeric(bytes(process.rss_bytes)),
      numeric(count(process.threads)), process.device, process.roles.join(", "),
    ]));
  }

  showEvents({ events, num_events: numEvents }) {
    const bad = new Set(["exited", "given-up", "host-lost", "group-lost", "stuck", "not-finite",
      "off-policy", "checkpoint-failed", "traces-stopped", "uncounted", "irreproducible"]);
    fillRows(byId("events").tBodies[0], [...events].reverse().map((event) => [
      numeric(shortSeconds(event.t_s)),
      { text: event.kind, kind: bad.has(event.kind) ? "bad" : "" },
      event.host ? `${event.role} on ${event.host}` : event.role,
      event.detail,
    ]));
    const rest = numEvents - events.length;
    setText(byId("events-note"), rest > 0
      ? `The newest ${events.length}; ${plural(rest, "older one")} in trace/events.jsonl.` : "");
  }

  showLogs({ logs, name, lines, problem }) {
    const options = [...this.log.options];
    const isSame = options.length === logs.length
      && logs.every((log, i) => options[i].value === log.name);
    if (!isSame) {
      this.log.replaceChildren(...logs.map((log) => el("option", { value: log.name }, log.name)));
    }
    if (name && this.log.value !== name) this.log.value = name;
    const chosen = logs.find((log) => log.name === name);
    const note = chosen ? `${bytes(chosen.num_bytes)}, written to ${seconds(chosen.age_s)} ago`
      : logs.length ? "" : "There is no log here.";
    setText(byId("log-note"), problem || note);
    const isAtEnd = this.lines.scrollHeight - this.lines.scrollTop - this.lines.clientHeight < 30;
    setText(this.lines, lines.join("\n"));
    if (isAtEnd) this.lines.scrollTop = this.lines.scrollHeight;
  }
}
