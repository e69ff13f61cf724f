"""The page's style sheet. System fonts; light or dark as the reader's system says."""

from __future__ import annotations

CSS = """
:root {
  color-scheme: light dark;
  --page: #f6f7f8; --card: #ffffff; --ink: #1c2127; --soft: #5b6570; --line: #dfe3e7;
  --link: #0b5d95; --good: #0a6b4c; --bad: #a63a00; --bad-page: #fdf3ec;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --card: #1d2126; --ink: #e6e9ec; --soft: #a0a9b3; --line: #333a42;
    --link: #7cc0f0; --good: #5fcfa6; --bad: #f0a070; --bad-page: #2b211b;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
main, header, footer { max-width: 1180px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 40px; }
h1 { font-size: 1.65rem; line-height: 1.25; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 44px 0 14px; }
h3 { font-size: 1rem; margin: 26px 0 8px; overflow-wrap: anywhere; }
p { margin: 0 0 10px; }
a { color: var(--link); }
code, pre { font: 0.86em/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
code { overflow-wrap: anywhere; }
pre { overflow-x: auto; margin: 10px 0 0; }
.soft { color: var(--soft); }
.good { color: var(--good); }
.bad { color: var(--bad); }
.lead { font-size: 1.1rem; }
.card, .tile, figure, details {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
}
.card { padding: 16px 20px; }
.card + .card { margin-top: 10px; }
.tiles {
  display: grid; gap: 14px; margin: 26px 0 0; padding: 0;
  grid-template-columns: repeat(auto-fit, minmax(200px, 1fr));
}
.tile { padding: 14px 18px; margin: 0; }
.tile dt { color: var(--soft); font-size: 0.86rem; }
.tile dd { margin: 2px 0 0; font-size: 1.32rem; font-weight: 600; line-height: 1.3; }
.tile dd + dd { font-size: 0.82rem; font-weight: 400; color: var(--soft); }
.warnings {
  margin: 24px 0 0; padding: 14px 20px; border: 1px solid var(--bad); border-radius: 10px;
  background: var(--bad-page);
}
.warnings strong { color: var(--bad); }
.warnings ul { margin: 4px 0 0; padding-left: 20px; }
.warnings li { white-space: pre-wrap; overflow-wrap: anywhere; }
.figures.below { margin-top: 18px; }
td details pre { white-space: pre-wrap; overflow-wrap: anywhere; max-width: 60ch; }
.figures {
  display: grid; gap: 18px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr));
}
figure { margin: 0; overflow: hidden; }
figure .paper { background: #ffffff; padding: 14px 12px 8px; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { padding: 7px 16px 9px; font-size: 0.84rem; color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 14px 6px 0; text-align: left; vertical-align: top; }
tbody tr + tr > * { border-top: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 500; font-size: 0.86rem; }
tbody th { font-weight: 500; white-space: nowrap; }
td { overflow-wrap: break-word; }
.num { text-align: right; white-space: nowrap; }
details { margin-top: 12px; padding: 10px 20px; }
summary { cursor: pointer; font-weight: 500; }
details[open] > summary { margin-bottom: 8px; }
.files { columns: 3 240px; padding-left: 18px; margin: 0; }
footer { padding-top: 36px; padding-bottom: 44px; font-size: 0.86rem; color: var(--soft); }
@media print { body { background: #fff; } details, .card, .tile, figure { break-inside: avoid; } }
"""
