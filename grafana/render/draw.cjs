// Draw dashboards with Grafana's own components, from a Prometheus: one PNG a dashboard. README.md says how.
//
//   NODE_PATH=FOLDER/node_modules node draw.cjs --prometheus URL --window FILE --out FOLDER [--only UID] [--monitor NAME]
//     [--feature NAME] [--rate-interval 1m] [--theme dark]
//
// Every query is asked as Grafana asks it, with its variables filled in; an error or an unknown variable ends the script.
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawnSync } = require('node:child_process');
const { parseArgs } = require('node:util');
const esbuild = require('esbuild');

const { values: given } = parseArgs({
  options: {
    prometheus: { type: 'string', default: 'http://127.0.0.1:9099' },
    window: { type: 'string' },
    out: { type: 'string' },
    only: { type: 'string' },
    monitor: { type: 'string', default: 'fraud-score' },
    feature: { type: 'string', default: 'amount' },
    'rate-interval': { type: 'string', default: '1m' },
    theme: { type: 'string', default: 'dark' },
    chromium: { type: 'string', default: 'chromium' },
    width: { type: 'string', default: '1600' },
  },
});
const { start, end } = JSON.parse(fs.readFileSync(given.window, 'utf8'));
const POINTS = 300; // about as many as a panel of this width asks for
const STEP = Math.max(5, Math.round((end - start) / POINTS));

async function ask(what, parameters) {
  const answer = await fetch(`${given.prometheus}/api/v1/${what}`, { method: 'POST', body: new URLSearchParams(parameters) });
  const body = await answer.json();
  if (body.status !== 'success') throw new Error(`${parameters.query}: ${body.error}`);
  return body.data;
}

function filledIn(text, variables) {
  return text.replace(/\$\{?(\w+)\}?/g, (whole, name) => {
    if (!(name in variables)) throw new Error(`${text}: unknown variable ${whole}`);
    return variables[name];
  });
}

function variablesOf(dashboard) {
  const variables = { __range: `${Math.round(end - start)}s`, __rate_interval: given['rate-interval'] };
  for (const variable of dashboard.templating.list) {
    if (variable.type !== 'query') continue;
    variables[variable.name] = variable.multi ? '.+' : given[variable.name];
  }
  return variables;
}

async function dataOf(dashboard) {
  const variables = variablesOf(dashboard);
  const panels = {};
  for (const panel of dashboard.panels) {
    for (const target of panel.targets ?? []) {
      const query = filledIn(target.expr, variables);
      const data = target.instant
        ? await ask('query', { query, time: end })
        : await ask('query_range', { query, start, end, step: STEP });
      (panels[panel.id] ??= []).push({ target, result: data.result });
    }
  }
  const marks = [];
  for (const annotation of dashboard.annotations.list) {
    if (!annotation.enable) continue;
    const query = filledIn(annotation.expr, variables);
    const { result } = await ask('query_range', { query, start, end, step: STEP });
    for (const series of result) {
      // As Grafana does: a mark at each new value, or a stretch while the series is there.
      const times = annotation.useValueForTime
        ? [...new Set(series.values.map(([, value]) => Number(value)))].map((at) => [at, at])
        : stretches(series.values.map(([at]) => at * 1000), STEP * 1000);
      for (const [from, to] of times) marks.push({ from, to, color: annotation.iconColor, name: annotation.name });
    }
  }
  return { panels, marks: marks.filter(({ to }) => to >= start * 1000) };
}

function stretches(times, step) {
  const found = [];
  for (const at of times) {
    const last = found.at(-1);
    if (last && at - last[1] <= 1.5 * step) last[1] = at;
    else found.push([at, at]);
  }
  return found;
}

async function main() {
  const folder = path.join(__dirname, '..', 'dashboards');
  const work = fs.mkdtempSync(path.join(os.tmpdir(), 'dashboards-'));
  await esbuild.build({
    entryPoints: [path.join(__dirname, 'page.jsx')],
    bundle: true,
    outfile: path.join(work, 'page.js'),
    nodePaths: process.env.NODE_PATH ? process.env.NODE_PATH.split(':') : [],
    jsx: 'automatic',
    minify: true,
    define: { 'process.env.NODE_ENV': '"production"', global: 'window' },
    loader: { '.svg': 'dataurl', '.woff2': 'dataurl', '.woff': 'dataurl', '.ttf': 'dataurl' },
    logLevel: 'error',
  });
  fs.mkdirSync(given.out, { recursive: true });
  for (const file of fs.readdirSync(folder).sort()) {
    const dashboard = JSON.parse(fs.readFileSync(path.join(folder, file), 'utf8'));
    if (given.only && dashboard.uid !== given.only) continue;
    const data = await dataOf(dashboard);
    const input = { dashboard, ...data, start, end, theme: given.theme, chosen: { monitor: given.monitor, feature: given.feature } };
    const css = fs.existsSync(path.join(work, 'page.css')) ? '<link rel="stylesheet" href="page.css">' : '';
    const page = path.join(work, `${dashboard.uid}.html`);
    const json = JSON.stringify(input).replaceAll('<', '\\u003c');
    fs.writeFileSync(page, `<!doctype html><meta charset="utf-8">${css}<div id="root"></div><script>window.INPUT=${json}</script><script src="page.js"></script>`);
    const rows = Math.max(...dashboard.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
    const height = 64 + rows * 38 + 8;
    const out = path.resolve(given.out, `${dashboard.uid}.png`);
    const options = ['--headless=new', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--allow-file-access-from-files',
      `--window-size=${given.width},${height}`, '--virtual-time-budget=8000', `--screenshot=${out}`,
      `--user-data-dir=${work}/profile`, '--enable-logging=stderr', '--v=0', `file://${page}`];
    const { stderr } = spawnSync(given.chromium, options, { encoding: 'utf8', timeout: 240000 });
    const complaints = stderr.split('\n').filter((line) => /CONSOLE.*(Error|error|Uncaught)/.test(line));
    if (complaints.length) throw new Error(complaints.join('\n'));
    console.log(out);
  }
  if (process.env.KEEP) console.log(work);
  else fs.rmSync(work, { recursive: true });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
