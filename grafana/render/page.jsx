// One dashboard as a page: its JSON and the answers of Prometheus are in window.INPUT.
//
// Grafana's own: the theme, frames, units, thresholds, mappings and overrides (@grafana/data), PanelChrome, TimeSeries,
// BigValue, BarGauge, Table and VizLegend (@grafana/ui). Ours, because Grafana publishes no component of theirs: the head
// of the page, the grid, state timelines, the heatmap and the marks of annotations.
import { createRoot } from 'react-dom/client';
import { useEffect, useLayoutEffect, useState } from 'react';
import {
  EventBusSrv, FieldConfigOptionsRegistry, FieldType, ThemeContext, applyFieldOverrides, cacheFieldDisplayNames, createTheme, dateTime, formattedValueToString,
  getFieldDisplayValues, getDisplayProcessor, renderMarkdown, standardTransformersRegistry, standardTransformers,
  transformDataFrame, getValueFormat,
} from '@grafana/data';
import { BarGauge, BigValue, GlobalStyles, PanelChrome, PanelContextProvider, TimeSeries, VizLayout, VizLegend } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';

const { dashboard, panels, marks, start, end, theme: mode, chosen } = window.INPUT;
const theme = createTheme({ colors: { mode } });
const timeRange = {
  from: dateTime(start * 1000), to: dateTime(end * 1000), raw: { from: dateTime(start * 1000), to: dateTime(end * 1000) },
};
const CELL = 38; // pixels of a row of the grid, with its gap
const GAP = 8;

standardTransformersRegistry.setInit(() =>
  [standardTransformers.mergeTransformer, standardTransformers.organizeFieldsTransformer].map((one) => ({ id: one.id, name: one.name, transformation: async () => one })));

// Which settings of a field count; what is not registered is ignored.
function registry(panel) {
  const plain = ['unit', 'min', 'max', 'decimals', 'color', 'thresholds', 'mappings', 'noValue', 'displayName'];
  const own = new Set(Object.keys(panel.fieldConfig.defaults.custom ?? {}));
  for (const { properties } of panel.fieldConfig.overrides) {
    for (const { id } of properties) if (id.startsWith('custom.')) own.add(id.slice('custom.'.length));
  }
  const item = (id, path, isCustom) => ({
    id, path, name: id, isCustom, settings: {}, override: () => null, editor: () => null,
    process: (value) => value, shouldApply: () => true,
  });
  return new FieldConfigOptionsRegistry(() => [
    ...plain.map((id) => item(id, id, false)), ...[...own].map((id) => item(`custom.${id}`, id, true)),
  ]);
}

function named(format, labels) {
  if (format === '__auto') {
    const inside = Object.entries(labels).filter(([name]) => name !== '__name__').map(([name, value]) => `${name}="${value}"`);
    return inside.length ? `{${inside.join(', ')}}` : 'Value';
  }
  return format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name) => labels[name] ?? '');
}

const number = (text) => (text === 'NaN' ? null : Number(text));

function frames(panel) {
  const found = [];
  for (const { target, result } of panels[panel.id] ?? []) {
    if (target.format === 'table') {
      const labels = [...new Set(result.flatMap(({ metric }) => Object.keys(metric)))].filter((name) => name !== '__name__');
      found.push({
        refId: target.refId, length: result.length,
        fields: [
          { name: 'Time', type: FieldType.time, config: {}, values: result.map(({ value }) => value[0] * 1000) },
          ...labels.map((name) => ({ name, type: FieldType.string, config: {}, values: result.map(({ metric }) => metric[name] ?? '') })),
          { name: `Value #${target.refId}`, type: FieldType.number, config: {}, values: result.map(({ value }) => number(value[1])) },
        ],
      });
      continue;
    }
    for (const series of result) {
      const values = series.values ?? [series.value];
      const shown = named(target.legendFormat, series.metric);
      found.push({
        refId: target.refId, name: shown, length: values.length,
        fields: [
          { name: 'Time', type: FieldType.time, config: { interval: 5000 }, values: values.map(([at]) => at * 1000) },
          {
            name: 'Value', type: FieldType.number, labels: series.metric, config: { displayNameFromDS: shown },
            values: values.map(([, value]) => number(value)),
          },
        ],
      });
    }
  }
  return found;
}

function configured(panel, data) {
  const shown = applyFieldOverrides({
    data, fieldConfig: panel.fieldConfig, fieldConfigRegistry: registry(panel), replaceVariables: (text) => text, theme, timeZone: 'utc',
  });
  cacheFieldDisplayNames(shown);
  return shown;
}

// A stretch without samples is a gap and not a line across it.
function withGaps(data) {
  const step = Math.max(...data.map(({ fields }) => smallest(fields[0].values)), 1);
  const times = [];
  for (let at = start * 1000; at <= end * 1000; at += step) times.push(at);
  for (const frame of data) {
    const known = new Map(frame.fields[0].values.map((at, i) => [Math.round((at - start * 1000) / step), i]));
    const values = frame.fields[1].values;
    frame.fields[1].values = times.map((_, i) => (known.has(i) ? values[known.get(i)] : null));
    frame.fields[0].values = times;
    frame.length = times.length;
  }
  return data;
}

const smallest = (times) => times.slice(1).reduce((least, at, i) => Math.min(least, at - times[i]), times.length > 1 ? Infinity : 0);

function Empty({ panel }) {
  return <div style={{ height: '100%', display: 'grid', placeItems: 'center', color: theme.colors.text.secondary }}>{panel.fieldConfig.defaults.noValue ?? 'No data'}</div>;
}

function Marks({ config }) {
  useLayoutEffect(() => {
    config.addHook('draw', (plot) => {
      const { ctx, bbox } = plot;
      ctx.save();
      ctx.beginPath();
      ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
      ctx.clip();
      for (const { from, to, color } of marks) {
        const shade = theme.visualization.getColorByName(color);
        const [left, right] = [from, to].map((at) => plot.valToPos(at, 'x', true));
        ctx.strokeStyle = shade;
        ctx.lineWidth = 1;
        ctx.setLineDash([4, 4]);
        for (const x of new Set([left, right])) {
          ctx.beginPath();
          ctx.moveTo(x, bbox.top);
          ctx.lineTo(x, bbox.top + bbox.height);
          ctx.stroke();
        }
        if (right > left) {
          ctx.globalAlpha = 0.03;
          ctx.fillStyle = shade;
          ctx.fillRect(left, bbox.top, right - left, bbox.height);
          ctx.globalAlpha = 1;
        }
      }
      ctx.restore();
    });
  }, [config]);
  return null;
}

function Lines({ panel, width, height }) {
  const found = frames(panel);
  if (!found.length) return <Empty panel={panel} />;
  const data = configured(panel, withGaps(found));
  return (
    <TimeSeries frames={data} width={width} height={height} timeRange={timeRange} timeZone="utc" legend={panel.options.legend}>
      {(config) => <Marks config={config} />}
    </TimeSeries>
  );
}

function displayValues(panel, data) {
  return getFieldDisplayValues({
    data: configured(panel, data), fieldConfig: panel.fieldConfig, reduceOptions: panel.options.reduceOptions,
    replaceVariables: (text) => text, theme, timeZone: 'utc',
  });
}

function Stat({ panel, width, height }) {
  const data = frames(panel);
  const shown = data.length ? displayValues(panel, data)[0] : null;
  if (!shown) return <Empty panel={panel} />;
  return (
    <BigValue value={shown.display} width={width} height={height} theme={theme} colorMode={panel.options.colorMode}
      graphMode={panel.options.graphMode} justifyMode={panel.options.justifyMode} textMode={panel.options.textMode} text={panel.options.text}
      disableWideLayout={!panel.options.wideLayout} />
  );
}

function Bars({ panel, width, height }) {
  const data = frames(panel);
  if (!data.length) return <Empty panel={panel} />;
  const values = displayValues(panel, data);
  const highest = Math.max(...values.map(({ display }) => display.numeric));
  const longest = values.reduce((a, b) => (a.display.title.length > b.display.title.length ? a : b)).display;
  const each = Math.min(300, (height - (values.length - 1) * 10) / values.length);
  return (
    <div>
      {values.map(({ display, field }, i) => (
        <div key={i} style={{ marginBottom: 10 }}>
          <BarGauge value={display} width={width} height={each} theme={theme} orientation={panel.options.orientation} field={{ max: highest, ...field }}
            display={getDisplayProcessor({ field: { type: FieldType.number, config: { max: highest, ...field } }, theme })}
            displayMode={panel.options.displayMode} valueDisplayMode={panel.options.valueMode} namePlacement={panel.options.namePlacement}
            showUnfilled={panel.options.showUnfilled} itemSpacing={10} alignmentFactors={{ title: longest.title, text: formattedValueToString(longest) }} />
        </div>
      ))}
    </div>
  );
}

function Cells({ panel, width, height }) {
  const [frame, setFrame] = useState(null);
  useEffect(() => {
    const asked = transformDataFrame(panel.transformations, frames(panel)).subscribe((merged) => setFrame(configured(panel, merged)[0] ?? null));
    return () => asked.unsubscribe();
  }, [panel]);
  if (!frame) return <Empty panel={panel} />;
  return (
    <TableNG data={frame} width={width} height={height} cellHeight={panel.options.cellHeight} sortBy={panel.options.sortBy}
      timeRange={timeRange} getActions={() => []} enableVirtualization={false} />
  );
}

function axisTimes(width) {
  const choices = [15, 30, 60, 120, 180, 300, 600, 1800, 3600, 10800, 21600, 43200, 86400];
  const step = choices.find((seconds) => ((end - start) / seconds) * 70 < width) ?? 86400;
  const found = [];
  for (let at = Math.ceil(start / step) * step; at <= end; at += step) found.push(at);
  return found;
}

function TimeAxis({ left, width, top }) {
  const times = axisTimes(width);
  const step = times[1] - times[0];
  return times.map((at) => {
    const x = left + ((at - start) / (end - start)) * width;
    return <text key={at} x={x} y={top} fontSize={12} fill={theme.colors.text.primary} textAnchor="middle">{new Date(at * 1000).toISOString().slice(11, step < 60 ? 19 : 16)}</text>;
  });
}

function Timeline({ panel, width, height }) {
  const found = frames(panel);
  if (!found.length) return <Empty panel={panel} />;
  const data = configured(panel, withGaps(found));
  const bands = data.map((frame) => {
    const value = frame.fields[1];
    const runs = [];
    value.values.forEach((number, i) => {
      const last = runs.at(-1);
      if (last && last.number === number) last.to = i + 1;
      else runs.push({ number, from: i, to: i + 1 });
    });
    return { name: value.config.displayNameFromDS, display: value.display, runs: runs.filter(({ number }) => number !== null), length: value.values.length };
  });
  const legend = new Map();
  for (const { runs, display } of bands) for (const { number } of runs) {
    const { text, color } = display(number);
    if (text && panel.options.legend.showLegend) legend.set(text, color);
  }
  const items = [...legend].map(([label, color]) => ({ label, color, yAxis: 1 }));
  const left = 12 + 7 * Math.max(...bands.map(({ name }) => name.length));
  return (
    <VizLayout width={width} height={height} legend={items.length ? <VizLayout.Legend placement="bottom"><VizLegend items={items} displayMode="list" placement="bottom" /></VizLayout.Legend> : null}>
      {(w, h) => {
        const inner = w - left - 8;
        const each = (h - 24) / bands.length;
        return (
          <svg width={w} height={h} style={{ fontFamily: theme.typography.fontFamily }}>
            {bands.map(({ name, runs, display, length }, row) => (
              <g key={name}>
                <text x={left - 8} y={row * each + each / 2 + 4} fontSize={12} textAnchor="end" fill={theme.colors.text.primary}>{name}</text>
                {runs.map(({ number, from, to }) => {
                  const { text, color } = display(number);
                  const x = left + (from / length) * inner;
                  const breadth = ((to - from) / length) * inner;
                  return (
                    <g key={from}>
                      <rect x={x} y={row * each + each * 0.1} width={breadth} height={each * 0.8} fill={color} fillOpacity={0.8} />
                      {text && breadth > 7 * text.length + 8 && color !== 'transparent' && (
                        <text x={x + 6} y={row * each + each / 2 + 4} fontSize={12} fill={theme.colors.getContrastText(theme.visualization.getColorByName(color))}>{text}</text>
                      )}
                    </g>
                  );
                })}
              </g>
            ))}
            <TimeAxis left={left} width={inner} top={h - 6} />
          </svg>
        );
      }}
    </VizLayout>
  );
}

// Cumulative buckets as a histogram a step.
function Heat({ panel, width, height }) {
  const bounds = (panels[panel.id]?.[0].result ?? [])
    .map(({ metric, values }) => ({ le: metric.le === '+Inf' ? Infinity : Number(metric.le), name: metric.le, values }))
    .sort((a, b) => a.le - b.le);
  if (!bounds.length) return <Empty panel={panel} />;
  const columns = bounds[0].values.map(([at], i) => ({ at, counts: bounds.map(({ values }, b) => Math.max(0, Number(values[i]?.[1] ?? 0) - Number(b ? bounds[b - 1].values[i]?.[1] ?? 0 : 0))) }));
  const used = bounds.map((_, b) => columns.some(({ counts }) => counts[b] > 0));
  const [low, high] = [used.indexOf(true), used.lastIndexOf(true)];
  if (low < 0) return <Empty panel={panel} />;
  const shown = bounds.slice(Math.max(0, low - 1), high + 2);
  const most = Math.max(...columns.flatMap(({ counts }) => counts));
  const format = getValueFormat('s');
  const left = 60;
  const inner = width - left - 8;
  const each = (height - 36) / shown.length;
  const shade = theme.visualization.getColorByName('blue');
  return (
    <svg width={width} height={height} style={{ fontFamily: theme.typography.fontFamily }}>
      {shown.map((bound, row) => {
        const y = 12 + (shown.length - 1 - row) * each;
        const b = bounds.indexOf(bound);
        return (
          <g key={bound.name}>
            <text x={left - 8} y={y + 5} fontSize={12} textAnchor="end" fill={theme.colors.text.primary}>{bound.le === Infinity ? '+Inf' : formattedValueToString(format(bound.le))}</text>
            {columns.map(({ at, counts }, i) => counts[b] > 0 && (
              <rect key={i} x={left + (i / columns.length) * inner} y={y} width={inner / columns.length + 0.3} height={each - 1} fill={shade} fillOpacity={0.15 + 0.85 * Math.sqrt(counts[b] / most)} />
            ))}
          </g>
        );
      })}
      <TimeAxis left={left} width={inner} top={height - 6} />
    </svg>
  );
}

function Text({ panel }) {
  const style = { height: '100%', overflow: 'hidden', fontSize: 13, lineHeight: 1.45 };
  return <div className="markdown-html" style={style} dangerouslySetInnerHTML={{ __html: renderMarkdown(panel.options.content) }} />;
}

const KINDS = { stat: Stat, timeseries: Lines, bargauge: Bars, table: Cells, 'state-timeline': Timeline, heatmap: Heat, text: Text };

function Panel({ panel, unit }) {
  const { x, y, w, h } = panel.gridPos;
  const at = { position: 'absolute', left: x * unit + GAP, top: y * CELL, width: w * unit - GAP, height: h * CELL - GAP };
  if (panel.type === 'row') {
    return <div style={{ ...at, fontSize: 16, fontWeight: 500, paddingTop: 4, color: theme.colors.text.primary }}>⌄ {panel.title}</div>;
  }
  const Kind = KINDS[panel.type];
  return (
    <div style={at}>
      <PanelChrome title={panel.title} description={panel.description} width={at.width} height={at.height} padding={panel.type === 'table' ? 'none' : 'md'}>
        {(width, height) => <Kind panel={panel} width={width} height={height} />}
      </PanelChrome>
    </div>
  );
}

function Head() {
  const pill = { border: `1px solid ${theme.colors.border.medium}`, borderRadius: 4, padding: '4px 10px', fontSize: 13 };
  const moment = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 16).replace('T', ' ');
  return (
    <div style={{ display: 'flex', gap: 8, alignItems: 'center', padding: `12px ${GAP}px`, height: 40, color: theme.colors.text.primary }}>
      <strong style={{ fontSize: 18, marginRight: 12 }}>{dashboard.title}</strong>
      {dashboard.templating.list.filter(({ hide }) => hide !== 2).map(({ name, label, multi }) => (
        <span key={name} style={pill}><span style={{ color: theme.colors.text.secondary }}>{label}</span> {name === 'datasource' ? 'Prometheus' : multi ? 'All' : chosen[name]}</span>
      ))}
      <span style={{ flex: 1 }} />
      {dashboard.links.map(({ title }) => <span key={title} style={pill}>{title}</span>)}
      <span style={pill}>{moment(start)} to {moment(end)} UTC</span>
    </div>
  );
}

function Page() {
  const unit = (window.innerWidth - GAP) / 24;
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <PanelContextProvider value={{ eventBus: new EventBusSrv(), eventsScope: 'page' }}>
        <div style={{ background: theme.colors.background.canvas, minHeight: '100vh' }}>
          <Head />
          <div style={{ position: 'relative' }}>{dashboard.panels.map((panel) => <Panel key={panel.id} panel={panel} unit={unit} />)}</div>
        </div>
      </PanelContextProvider>
    </ThemeContext.Provider>
  );
}

document.body.style.margin = '0';
createRoot(document.getElementById('root')).render(<Page />);
