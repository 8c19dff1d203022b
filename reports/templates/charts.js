// Charts of one block, in Vega-Lite. Colours are CSS variables, so that a change of theme draws nothing again.

const chart = { block: 0, at: null, part: null, marked: null };
const HEAT = [0.6, 0.03, 0.6]; // of fills, so that the numbers on them can be read
const MARKED = 8; // lines that are coloured at first; more cannot be told apart

const LOOK = {
  background: "transparent",
  font: getComputedStyle(document.body).fontFamily, // Vega measures texts before it places them
  view: { stroke: null },
  axis: {
    labelColor: "var(--soft)", titleColor: "var(--soft)", gridColor: "var(--line)", domainColor: "var(--edge)",
    tickColor: "var(--edge)", titleFontWeight: "normal", labelFontSize: 12, titleFontSize: 12, labelLimit: 200,
  },
  header: { labelColor: "var(--ink)", labelFontSize: 12, titleColor: "var(--soft)", labelLimit: 190 },
  text: { fill: "var(--ink)", fontSize: 11 },
  title: { color: "var(--ink)" },
};

async function draw(holder, spec, label, click) {
  const { view } = await vegaEmbed(holder, { config: LOOK, autosize: { type: "fit-x", contains: "padding" }, ...spec },
    { actions: false, ast: true, renderer: "svg", tooltip: { theme: "page" }, hover: false, logLevel: 1 });
  holder.setAttribute("role", "img"); // after Vega, which has its own
  holder.setAttribute("aria-label", label);
  holder.view?.finalize();
  holder.view = view;
  if (click) view.addEventListener("click", (_event, item) => item?.datum && click(item.datum));
}

/** A figure with its heading, its drawing and the same numbers as a table. make: () => { spec, label, note, table } or a reason. */
function figure(id, title, make, wide) {
  const holder = h("div", { class: "plot" });
  const note = h("p", { class: "caption" });
  const alternative = h("details", {}, h("summary", {}, "Data as a table"));
  const element = h("figure", { id, class: wide ? "wide-figure" : null }, h("figcaption", {}, h("h3", {}, title)), holder, note, alternative);
  let content;
  alternative.addEventListener("toggle", () => {
    if (alternative.open && content?.table && alternative.children.length === 1)
      alternative.append(plainTable(title, content.table.head, content.table.body()));
  });
  const render = async () => {
    content = make(element.clientWidth || 600);
    alternative.replaceChildren(alternative.firstChild);
    alternative.open = false;
    const reason = typeof content === "string" ? content : "";
    alternative.hidden = Boolean(reason) || !content.table;
    note.textContent = reason || content.note || "";
    element.classList.toggle("empty", Boolean(reason));
    if (reason) holder.replaceChildren();
    else await draw(holder, content.spec, content.label, content.click);
  };
  return { element, render };
}

const current = () => DATA.blocks[chart.block];
const lastPart = (block) => (chart.part === null || chart.part >= block.parts.length ? block.parts.length - 1 : chart.part);
const partName = (block) => (block.parts.length > 1 ? ` (${block.parts[lastPart(block)].label})` : "");
const labelOf = (block, line) => block.rows[line.row].label;
const zeroRow = (block) => block.rows.findIndex((row) => row.method === "zero-shot" && row.main);
const trains = (block, place) => block.scores.some((line) => line.row === place && line.shots > 0);

/** The rows that are drawn: what the filters show, each with its look. */
function drawn(block) {
  return block.rows.map((row, place) => ({ ...row, place })).filter((row) => shown(row) && trains(block, row.place));
}

function shotsNow(block) {
  const shots = shotsOf(block);
  return shots.includes(chart.at) ? chart.at : shots.at(-1);
}

/** The rows that are coloured: those chosen, or the best at the largest number of shots. */
function marked(block) {
  const rows = drawn(block);
  if (chart.marked) return new Set(rows.filter((row) => chart.marked.has(row.label)).map((row) => row.label));
  const at = (row) => block.score.get(`${row.place}|${shotsNow(block)}|${lastPart(block)}`)?.mean ?? -1;
  return new Set([...rows].sort((a, b) => at(b) - at(a)).slice(0, MARKED).map((row) => row.label));
}

/** One colour, marker and dash a row; a method's variants have its colour and a dash of their own. */
function scales(block, coloured) {
  const rows = block.rows.map((row, place) => ({ ...row, place })).filter(shown);
  const domain = rows.map((row) => row.label);
  const range = (value) => ({ domain, range: rows.map(value) });
  return {
    color: { field: "label", type: "nominal", legend: null, scale: range((row) => (coloured && !coloured.has(row.label) ? "var(--grey)" : colour(row.method))) },
    shape: { field: "label", type: "nominal", legend: null, scale: range((row) => METHODS.get(row.method).shape) },
    dash: { field: "label", type: "nominal", legend: null, scale: range((row) => (row.main ? METHODS.get(row.method).dash : [2, 2])) },
  };
}

const NUMBERS = [
  { field: "label", title: "row" },
  { field: "task", title: "task" },
  { field: "shots", title: "shots" },
  { field: "mean", title: "accuracy (%)", format: ".2f" },
  { field: "std", title: "± over seeds", format: ".2f" },
  { field: "low", title: "95 % from", format: ".2f" },
  { field: "high", title: "to", format: ".2f" },
  { field: "n_seeds", title: "seeds" },
];
const tooltip = (...names) => NUMBERS.filter((field) => names.includes(field.field));
const TIP = tooltip("label", "shots", "mean", "std", "low", "high", "n_seeds");

/** Lines over shots. panels: the name of the field that has a panel for each value, or none. */
function overShots(block, values, zero, { panel, columns, width, height, order }) {
  const shots = shotsOf(block);
  const coloured = marked(block);
  const rows = drawn(block);
  const place = new Map(rows.map((row, i) => [row.label, i]));
  const data = values
    .filter((line) => place.has(line.label) && shots.includes(line.shots))
    .map((line) => ({ ...line, on: coloured.has(line.label), x: line.shots * 2 ** (0.25 * ((place.get(line.label) + 0.5) / rows.length - 0.5)) }));
  const { color, shape, dash } = scales(block, coloured);
  const reach = [Math.min(...shots) / 1.2, Math.max(...shots) * 1.2];
  const x = { field: "x", type: "quantitative", title: "shots per class", scale: { type: "log", base: 2, domain: reach, nice: false },
    axis: { values: shots, format: "d", grid: false } };
  const y = { field: "mean", type: "quantitative", title: panel ? null : "accuracy (%)", scale: { zero: false }, axis: panel ? { minExtent: 26, tickCount: 4 } : {} };
  const only = (on) => [{ filter: `datum.kind === 'line' && ${on ? "" : "!"}datum.on` }];
  const detail = [{ field: "label" }];
  const layer = [
    { transform: [{ filter: "datum.kind === 'zero'" }], mark: { type: "rule", strokeDash: [5, 4], stroke: "var(--ink)", strokeWidth: 1.2 },
      encoding: { y: { field: "mean", type: "quantitative", scale: { zero: false } }, tooltip: tooltip("label", "task", "mean") } },
    { transform: only(false), mark: { type: "line", strokeWidth: 1, opacity: 0.8 }, encoding: { x, y, color, detail } },
    { transform: only(false), mark: { type: "point", filled: true, size: 14, opacity: 0.8 }, encoding: { x, y, color, detail, tooltip: TIP } },
    ...(panel ? [] : [{ transform: [...only(true), { filter: "isValid(datum.low)" }], mark: { type: "rule", strokeWidth: 1, opacity: 0.55 },
      encoding: { x, y: { ...y, field: "low" }, y2: { field: "high" }, color, detail } }]),
    { transform: only(true), mark: { type: "line", strokeWidth: 2 }, encoding: { x, y, color, detail, strokeDash: dash } },
    { transform: only(true), mark: { type: "point", filled: true, size: panel ? 36 : 60, opacity: 1, cursor: "pointer" },
      encoding: { x, y, color, shape, detail, tooltip: TIP } },
  ];
  const every = [...data.map((line) => ({ ...line, kind: "line" })), ...zero.map((line) => ({ ...line, kind: "zero" }))];
  if (!panel) return { data: { values: every }, width: "container", height, layer };
  return { data: { values: every }, columns,
    facet: { field: panel, type: "nominal", title: null, sort: order, header: { labelFontWeight: 600, labelAnchor: "start" } },
    spec: { width, height, layer }, resolve: { scale: { y: "independent" } }, autosize: "pad" };
}

const named = (block, line) => ({ ...line, label: labelOf(block, line), part: block.parts[line.part].label, place: line.row });

function accuracy() {
  const block = current();
  const shots = shotsOf(block);
  const part = lastPart(block);
  const values = block.scores.filter((line) => line.part === part && line.shots > 0).map((line) => named(block, line));
  const zero = block.scores.filter((line) => line.row === zeroRow(block) && line.part === part && line.shots === 0).map((line) => named(block, line));
  if (!shots.length || !drawn(block).length) return "Nothing that was trained is shown.";
  const open = (datum) => datum.place !== undefined && openCell(block, datum.place, datum.shots);
  const told = values.filter((line) => shown(block.rows[line.row]) && shots.includes(line.shots));
  const table = { head: ["row", "shots", "accuracy (%)", "± over seeds", "95 % from", "to", "seeds"],
    body: () => [...zero, ...told].map((l) => [l.label, l.shots, fixed(l.mean), fixed(l.std), fixed(l.low), fixed(l.high), l.n_seeds]) };
  const more = drawn(block).length - marked(block).size;
  const note = "Whiskers: 95 % interval of the mean over seeds. Dashed: zero-shot."
    + (more > 0 ? ` ${plural(more, "line")} in grey: choose above which are coloured.` : "");
  const label = `Accuracy over shots per class of ${plural(drawn(block).length, "row")}${partName(block)}, ${block.title}. The numbers are in the table below.`;
  if (shots.length > 1) return { spec: overShots(block, values, zero, { height: 340 }), label, note, table, click: open };
  return { spec: dots(block, told, zero), label, note: "Whiskers: 95 % interval of the mean over seeds. Dashed: zero-shot.", table, click: open };
}

/** One shot count alone: a dot a row instead of a line. */
function dots(block, values, zero) {
  const { color, shape } = scales(block);
  const y = { field: "label", type: "nominal", title: null, sort: { field: "mean", order: "descending" } };
  const x = { field: "mean", type: "quantitative", title: "accuracy (%)", scale: { zero: false } };
  return { data: { values }, width: "container", height: 24 * values.length, layer: [
    { data: { values: zero }, mark: { type: "rule", strokeDash: [5, 4], stroke: "var(--ink)" }, encoding: { x } },
    { transform: [{ filter: "isValid(datum.low)" }], mark: "rule", encoding: { y, x: { ...x, field: "low" }, x2: { field: "high" }, color } },
    { mark: { type: "point", filled: true, size: 60, opacity: 1, cursor: "pointer" }, encoding: { y, x, color, shape, tooltip: TIP } },
  ] };
}

function everyTask(width) {
  const block = current();
  const part = lastPart(block);
  if (!shotsOf(block).length || !drawn(block).length) return "Nothing that was trained is shown.";
  if (block.tasks.length < 2) return "One task alone: see accuracy over shots.";
  const of = (line) => ({ ...named(block, line), task: block.tasks[line.task].name });
  const lines = block.task_scores.filter((line) => line.part === part);
  const values = lines.filter((line) => line.shots > 0).map(of);
  const zero = lines.filter((line) => line.row === zeroRow(block) && line.shots === 0).map(of);
  const columns = Math.max(1, Math.min(5, Math.floor(width / 160)));
  const each = Math.floor((width - 12) / columns) - 52;
  const spec = overShots(block, values, zero, { panel: "task", columns, width: each, height: 120, order: block.tasks.map((task) => task.name) });
  const told = values.filter((line) => shown(block.rows[line.row]) && shotsOf(block).includes(line.shots));
  return { spec, label: `Accuracy over shots, a panel for each of ${plural(block.tasks.length, "task")}${partName(block)}. The numbers are in the table below.`,
    note: "Accuracy (%), every panel with its own range; intervals are in the table. Dashed: zero-shot.", click: (d) => d.place !== undefined && openCell(block, d.place, d.shots),
    table: { head: ["task", "row", "shots", "accuracy (%)", "± over seeds", "95 % from", "to", "seeds"],
      body: () => [...zero, ...told].map((l) => [l.task, l.label, l.shots, fixed(l.mean), fixed(l.std), fixed(l.low), fixed(l.high), l.n_seeds]) } };
}

function gains(width) {
  const block = current();
  const part = lastPart(block);
  const zero = new Map(block.task_scores.filter((l) => l.row === zeroRow(block) && l.shots === 0 && l.part === part).map((l) => [l.task, l.mean]));
  if (!zero.size) return "No zero-shot cell to compare with.";
  const at = shotsNow(block);
  const rows = drawn(block);
  const values = block.task_scores
    .filter((line) => line.shots === at && line.part === part && rows.some((row) => row.place === line.row) && zero.has(line.task))
    .map((line) => ({ ...named(block, line), task: block.tasks[line.task].name, gain: line.mean - zero.get(line.task) }));
  if (!values.length) return "Nothing that was trained is shown.";
  const most = Math.max(...values.map((value) => Math.abs(value.gain)));
  const tasks = distinct(values.map((value) => value.task));
  const labels = rows.map((row) => row.label);
  const average = (task) => mean(values.filter((value) => value.task === task).map((value) => value.gain));
  const order = [...tasks].sort((a, b) => average(b) - average(a));
  const x = { field: "label", type: "nominal", sort: labels, title: null, axis: { orient: "top", labelAngle: -45, grid: false, domain: false, ticks: false, labelLimit: 130 } };
  const y = { field: "task", type: "nominal", sort: order, title: null, axis: { grid: false, domain: false, ticks: false } };
  const tip = [...tooltip("label", "task", "mean"), { field: "gain", title: "gain (points)", format: "+.2f" }];
  const spec = { data: { values }, width: { step: Math.max(38, Math.min(72, (width - 230) / labels.length)) }, height: { step: 24 }, autosize: "pad", layer: [
    { mark: { type: "rect", stroke: "var(--back)", strokeWidth: 1.5, cornerRadius: 3, cursor: "pointer" }, encoding: { x, y, tooltip: tip,
      color: { condition: { test: "datum.gain < 0", value: "var(--less)" }, value: "var(--more)" },
      fillOpacity: { field: "gain", type: "quantitative", legend: null, scale: { domain: [-most, 0, most], range: HEAT } } } },
    { mark: { type: "text", fontSize: 11, cursor: "pointer" }, encoding: { x, y, tooltip: tip, text: { field: "gain", format: "+.1f" } } },
  ] };
  const found = new Map(values.map((value) => [`${value.task}|${value.label}`, value.gain]));
  return { spec, label: `Gain over zero-shot in points at ${plural(at, "shot")}, tasks by methods. The numbers are in the table below.`,
    note: `Points above (blue) or below (red) zero-shot at ${plural(at, "shot")}${partName(block)}; tasks by their mean gain.`,
    click: (d) => d.place !== undefined && openCell(block, d.place, d.shots),
    table: { head: ["task", ...labels], body: () => order.map((task) => [task, ...labels.map((name) => signed(found.get(`${task}|${name}`)))]) } };
}

/** Accuracy against a cost, on a logarithmic axis with a place for a cost of 0. */
function against(column, what, format, width) {
  const block = current();
  const part = lastPart(block);
  const at = shotsNow(block);
  const rows = block.rows.map((row, place) => ({ ...row, place })).filter(shown);
  const values = block.scores
    .filter((line) => line.part === part && (line.shots === at || line.shots === 0) && rows.some((row) => row.place === line.row) && line[column] !== null)
    .map((line) => named(block, line));
  const costs = values.map((value) => value[column]).filter((cost) => cost > 0);
  if (!costs.length) return "Nothing that is shown has a cost.";
  const least = Math.min(...costs);
  const nothing = least / 4;
  values.forEach((value) => (value.cost = Math.max(value[column], nothing)));
  const { color, shape } = scales(block);
  const high = Math.max(...costs) * 1.6;
  const x = { field: "cost", type: "quantitative", title: what, scale: { type: "log", domain: [nothing / 1.3, high], nice: false },
    axis: { grid: false, tickCount: 5, format, labelOverlap: true, values: ticks(least, high, nothing), labelExpr: `datum.value < ${least * 0.6} ? '0' : datum.label` } };
  const ends = [Math.min(...values.map((v) => v.low ?? v.mean)), Math.max(...values.map((v) => v.high ?? v.mean))];
  const y = { field: "mean", type: "quantitative", title: "accuracy (%)", scale: { domain: ends[0] < ends[1] ? ends : [ends[0] - 1, ends[1] + 1], nice: true } };
  const at_x = (cost) => (Math.log(cost / (nothing / 1.3)) / Math.log(high / (nothing / 1.3))) * (width - 60);
  const at_y = (accuracy) => (1 - (accuracy - ends[0]) / (ends[1] - ends[0] || 1)) * 280;
  const sides = beside(values.map((v) => ({ label: v.label, x: at_x(v.cost), y: at_y(v.mean) })), marked(block), width - 60);
  const tip = [...TIP, { field: column, title: what, format: ",.3~f" }];
  const spec = { data: { values }, width: "container", height: 280, layer: [
    { transform: [{ filter: "isValid(datum.low)" }], mark: { type: "rule", opacity: 0.5 }, encoding: { x, y: { ...y, field: "low" }, y2: { field: "high" }, color } },
    { mark: { type: "point", filled: true, size: 75, opacity: 1, cursor: "pointer" }, encoding: { x, y, color, shape, tooltip: tip } },
    ...["left", "right"].map((align) => ({
      transform: [{ filter: { field: "label", oneOf: [...sides].filter(([, side]) => side === align).map(([label]) => label) } }],
      mark: { type: "text", align, dx: align === "left" ? 8 : -8, limit: NAME }, encoding: { x, y, text: { field: "label" } } })),
  ] };
  return { spec, label: `Accuracy against ${what} at ${plural(at, "shot")}. The numbers are in the table below.`,
    note: `At ${plural(at, "shot")}${partName(block)}; whiskers: 95 % interval.`,
    click: (d) => d.place !== undefined && openCell(block, d.place, d.shots),
    table: { head: ["row", what, "accuracy (%)", "± over seeds"], body: () => values.map((v) => [v.label, v[column], fixed(v.mean), fixed(v.std)]) } };
}

const NAME = 110; // pixels of a name beside its point

/** Where names stand beside their points so that none is over another or over a point: by label "left" (of the text: right of
 * the point) or "right"; of a name without room nothing. points: [label, x, y] in pixels; wanted: labels to be named. */
function beside(points, wanted, width) {
  const taken = points.map(({ x, y }) => [x - 6, x + 6, y - 5, y + 5]);
  const sides = new Map();
  for (const { label, x, y } of [...points].sort((a, b) => a.y - b.y)) {
    if (!wanted.has(label)) continue;
    const long = Math.min(NAME, 6.4 * label.length);
    for (const [side, from] of [["left", x + 7], ["right", x - 7 - long]]) {
      const box = [from, from + long, y - 6, y + 6];
      const free = box[0] >= 0 && box[1] <= width && taken.every((other) => box[1] < other[0] || box[0] > other[1] || box[3] < other[2] || box[2] > other[3]);
      if (!free) continue;
      sides.set(label, side);
      taken.push(box);
      break;
    }
  }
  return sides;
}

/** Powers of ten within the costs, with 2 and 5 where there are few, and the place of 0. */
function ticks(least, most, nothing) {
  const steps = most / least > 300 ? [1] : [1, 2, 5];
  const found = [];
  for (let power = Math.floor(Math.log10(least)); power <= Math.log10(most); power += 1)
    for (const step of steps) found.push(step * 10 ** power);
  return [nothing, ...found.filter((value) => value >= least * 0.9 && value <= most)];
}

function devices() {
  const found = distinct(current().cells.map((cell) => DATA.shared[cell.about]).map((about) => (about.device === "cpu" ? about.processor || "cpu" : about.device)));
  return found.join(", ");
}

function startCharts() {
  const timed = (width) => {
    const made = against("train_seconds", "training time, seconds", "~g", width);
    if (typeof made !== "string") made.note += ` Taken on ${devices()}.`;
    return made;
  };
  const figures = [
    figure("chart-shots", "Accuracy over shots", accuracy, true),
    figure("chart-tasks", "Every task", everyTask, true),
    figure("chart-gain", "Gain over zero-shot", gains, true),
    figure("chart-pairs", "Pairs of methods", pairsOfMethods, true),
    figure("chart-time", "Accuracy against training time", timed),
    figure("chart-params", "Accuracy against learned parameters", (width) => against("params", "learned parameters", "~s", width)),
  ];
  $("#figures").append(...figures.map((made) => made.element));
  const again = () => {
    const there = DATA.blocks.filter(visible);
    if (there.length && !there.includes(current())) chart.block = there[0].place;
    $("#figures").hidden = !there.length;
    chartControls(there, again);
    legend(again);
    return there.length ? inTurn("charts", figures) : Promise.resolve();
  };
  listeners.push(again);
  return again();
}

const turns = {};

/** One figure after the other, so that the page answers between them; a newer call ends an older one. */
async function inTurn(name, figures) {
  const turn = (turns[name] = (turns[name] || 0) + 1);
  for (const made of figures) {
    if (turns[name] !== turn) return;
    await made.render();
    await new Promise((go) => setTimeout(go));
  }
}

function chartControls(there, again) {
  const block = current();
  const controls = [];
  const set = (name) => (value) => {
    chart[name] = Number(value);
    if (name === "block") Object.assign(chart, { at: null, part: null, marked: null });
    again();
    $(`#chart-controls [data-name=${name}] select`)?.focus();
  };
  const add = (name, label, options, value) => {
    const made = choice(label, options, value, set(name));
    made.dataset.name = name;
    controls.push(made);
  };
  if (there.length > 1) add("block", "table", there.map((b) => [b.place, b.title]), chart.block);
  if (shotsOf(block).length > 1) add("at", "shots in gain, time, parameters", shotsOf(block).map((n) => [n, n]), shotsNow(block));
  if (block.parts.length > 1) add("part", "classes", block.parts.map((part, p) => [p, part.label]), lastPart(block));
  $("#chart-controls").replaceChildren(...controls);
}

/** The legend: a button a row, which colours its line or greys it. */
function legend(again) {
  const block = current();
  const on = marked(block);
  const rows = drawn(block);
  const flip = (label) => {
    chart.marked = new Set(on);
    if (!chart.marked.delete(label)) chart.marked.add(label);
    again();
    $$("#legend button").find((button) => button.dataset.label === label)?.focus();
  };
  $("#legend").replaceChildren(...rows.map((row) =>
    h("button", { type: "button", "aria-pressed": String(on.has(row.label)), "data-label": row.label, onclick: () => flip(row.label) },
      swatch(row.method), h("bdi", {}, short(row.label, 60)))));
}
