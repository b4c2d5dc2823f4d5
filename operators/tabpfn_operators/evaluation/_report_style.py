"""The style sheet of a report: one column of cards, light and dark by the reader's choice, and paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f4f6fa; --surface: #ffffff; --ink: #1b2430; --muted: #667085; --line: #e6e9ef; --accent: #2456c7;
  --good: #0b7a55; --good-back: #e7f6ef; --bad: #b42318; --bad-back: #fdecea; --soft: #f7f9fc;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --page: #0e131b; --surface: #161c26; --ink: #e8ecf3; --muted: #98a3b5; --line: #2b3443; --accent: #7aa7ff;
    --good: #4fd1a5; --good-back: #12291f; --bad: #ff8f85; --bad-back: #331816; --soft: #1b2330;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; padding: 48px 24px 64px; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main, header, footer { max-width: 1160px; margin: 0 auto; }
h1 { font-size: 34px; line-height: 1.15; letter-spacing: -0.02em; margin: 4px 0 10px; overflow-wrap: anywhere; }
h2 { font-size: 19px; letter-spacing: -0.01em; margin: 44px 0 14px; }
h3 { font-size: 15px; margin: 0; }
p { margin: 0 0 10px; }
.eyebrow { color: var(--accent); font-size: 13px; font-weight: 600; letter-spacing: 0.06em; text-transform: uppercase; }
.about { color: var(--muted); overflow-wrap: anywhere; }
.lede { font-size: 19px; line-height: 1.5; max-width: 72ch; margin: 18px 0 26px; text-wrap: pretty; }
.verdict { border-radius: 12px; padding: 18px 22px; margin: 0 0 22px; border-left: 6px solid; }
.verdict strong { display: block; font-size: 20px; letter-spacing: -0.01em; }
.yes { background: var(--good-back); border-color: var(--good); } .yes strong { color: var(--good); }
.no { background: var(--bad-back); border-color: var(--bad); } .no strong { color: var(--bad); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(215px, 1fr)); gap: 16px; }
.card, figure, .panel { background: var(--surface); border: 1px solid var(--line); border-radius: 12px; }
.card { margin: 0; padding: 16px 20px 18px; }
.card dd { margin: 0; }
.card dt { color: var(--muted); font-size: 13.5px; }
.card .number { margin: 2px 0; font-size: 30px; font-weight: 650; letter-spacing: -0.02em; line-height: 1.2; }
.card .under { margin: 0; color: var(--muted); font-size: 13.5px; line-height: 1.4; text-wrap: balance; }
.card .good { color: var(--good); } .card .bad { color: var(--bad); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 16px; }
figure { margin: 0; padding: 18px 20px; display: flex; flex-direction: column; }
figure picture { margin-bottom: auto; }
figure img { display: block; width: 100%; max-width: 560px; height: auto; margin: 8px auto 6px; }
figcaption { color: var(--muted); font-size: 13.5px; line-height: 1.45; }
@media (min-width: 1000px) {
  .plots:has(> :nth-child(3):last-child) { grid-template-columns: repeat(3, 1fr); }
}
.panel { overflow-x: auto; }
.panel + .panel, .panel + details, .panel + h3 { margin-top: 16px; }
table { width: 100%; border-collapse: collapse; font-size: 15px; }
caption { text-align: left; padding: 12px 20px 0; color: var(--muted); font-size: 13.5px; }
th, td { padding: 9px 20px; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
tbody tr:last-child > * { border-bottom: 0; }
thead th { color: var(--muted); font-size: 13px; font-weight: 600; white-space: nowrap; }
tbody th { font-weight: 500; overflow-wrap: anywhere; }
td { overflow-wrap: anywhere; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.headline > * { background: var(--soft); font-weight: 650; }
.hint { color: var(--muted); font-size: 13px; font-weight: 400; }
.mark { font-weight: 700; white-space: nowrap; width: 1%; }
.passed { color: var(--good); } .failed { color: var(--bad); }
.facts th { width: 230px; color: var(--muted); font-weight: 500; }
th code { white-space: nowrap; }
code { font: 13.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
ul { margin: 0; padding: 14px 20px 14px 40px; } li { overflow-wrap: anywhere; margin: 3px 0; }
details > summary { cursor: pointer; padding: 12px 20px; color: var(--accent); font-weight: 500; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 16px; }
.two > .panel { margin: 0; align-self: start; }
footer { margin-top: 44px; color: var(--muted); font-size: 13px; }
@media screen and (max-width: 680px) {
  body { padding: 24px 14px 40px; } h1 { font-size: 27px; } th, td { padding: 8px 12px; }
  table { min-width: 620px; } table.facts { min-width: 0; } .facts th { width: 128px; }
}
@page { margin: 14mm; }
@media print {
  body { padding: 0; background: #fff; font-size: 9.5pt; }
  h1 { font-size: 21pt; } h2 { font-size: 12pt; margin: 18pt 0 6pt; break-after: avoid; } h3 { font-size: 10pt; }
  .lede { font-size: 11.5pt; margin: 10pt 0 12pt; max-width: none; }
  .verdict { padding: 8pt 12pt; margin-bottom: 10pt; } .verdict strong { font-size: 12pt; }
  .cards { grid-template-columns: repeat(auto-fit, minmax(110px, 1fr)); gap: 8pt; }
  .card { padding: 7pt 10pt; } .card .number { font-size: 16pt; } .card dt, .card .under { font-size: 8pt; }
  table, code { font-size: 8.5pt; } th, td { padding: 4pt 9pt; } thead th, .hint { font-size: 8pt; }
  .facts th { width: 130pt; } .mark { width: auto; }
  .plots, .plots:has(> :nth-child(3):last-child) { grid-template-columns: 1fr 1fr; gap: 8pt; }
  figure { padding: 8pt 10pt; } figcaption { font-size: 8pt; }
  figure, .card, .verdict, tr { break-inside: avoid; }
  .panel { overflow: visible; } .panel + .panel { margin-top: 8pt; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
