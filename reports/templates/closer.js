// A closer look at one row on one task: classes, confusion, calibration and the training's course.

const look = { block: 0, task: 0, row: null, shots: null, part: null };
const SHOWN_CLASSES = 40; // bars; more cannot be read
const SHOWN_CONFUSED = 12; // classes of the matrix

/** What is chosen; where the data have no such look, the nearest they have. */
function lookNow() {
  const found = DATA.blocks[look.block].looks.filter((l) => shown(DATA.blocks[look.block].rows[l.row]));
  const narrow = (lines, name, first) => {
    const values = distinct(lines.map((l) => l[name]));
    if (!values.includes(look[name])) look[name] = first(values);
    return { lines: lines.filter((l) => l[name] === look[name]), values };
  };
  if (!found.length) return null;
  const tasks = narrow(found, "task", (values) => values[0]);
  const rows = narrow(tasks.lines, "row", (values) => values.find((place) => trains(DATA.blocks[look.block], place)) ?? values[0]);
  const shots = narrow(rows.lines, "shots", (values) => values[0]);
  const parts = narrow(shots.lines, "part", (values) => values[0]);
  return { now: parts.lines[0], tasks: tasks.values, rows: rows.values, shots: shots.values, parts: parts.values };
}

const share = (part, whole) => (whole ? (100 * part) / whole : null);
/** The classes' names; those that several classes have, with their places. */
function names(now) {
  const all = DATA.shared[now.classes];
  const times = groups(all, (name) => name);
  return all.map((name, i) => (times.get(name).length > 1 ? `${name} (class ${i})` : name));
}
const brief = (name) => short(name.replace(/\s+/g, " "), 60);

function perClass() {
  const now = lookNow()?.now;
  if (!now || now.missing) return now?.missing ?? "Nothing is shown.";
  const all = names(now).map((name, i) => ({ place: i, name: brief(name), full: name, n: now.n[i], right: now.right[i], accuracy: share(now.right[i], now.n[i]) }));
  const tested = all.filter((line) => line.n).sort((a, b) => a.accuracy - b.accuracy || a.place - b.place);
  const values = tested.slice(0, SHOWN_CLASSES);
  const untested = all.length - tested.length;
  const y = { field: "place", type: "ordinal", sort: values.map((v) => v.place), title: null,
    axis: { labelExpr: `${JSON.stringify(Object.fromEntries(values.map((v) => [v.place, v.name])))}[datum.value]`, labelLimit: 150, grid: false } };
  const x = { field: "accuracy", type: "quantitative", title: "accuracy (%)", scale: { domain: [0, 100] } };
  const tip = [{ field: "name", title: "class" }, { field: "accuracy", title: "accuracy (%)", format: ".2f" }, { field: "right", title: "right" }, { field: "n", title: "images" }];
  return { spec: { data: { values }, width: "container", height: 18 * values.length, mark: { type: "bar", color: "var(--more)", opacity: 0.75 }, encoding: { y, x, tooltip: tip } },
    label: `Accuracy of each class, ${all.length} in all. The numbers are in the table below.`,
    note: "Lowest first; test images of all seeds counted together."
      + (tested.length > values.length ? ` The ${values.length} lowest of ${tested.length} are drawn; the table has all.` : "")
      + (untested ? ` ${untested} without test images.` : ""),
    table: { head: ["class", "accuracy (%)", "right", "images"], body: () => all.map((l) => [l.full, fixed(l.accuracy), l.right, l.n]) } };
}

function confusion() {
  const now = lookNow()?.now;
  if (!now || now.missing) return now?.missing ?? "Nothing is shown.";
  const [kinds, images] = now.wrong;
  if (!kinds) return "No test image was given a wrong class.";
  const order = distinct(now.pairs.flatMap(([a, b]) => [a, b])).slice(0, SHOWN_CONFUSED);
  const inside = ([a, b]) => order.includes(a) && order.includes(b);
  const all = names(now);
  const cell = (a, b, count) => ({ a, b, count, label: brief(all[a]), predicted: brief(all[b]), share: count / now.n[a] });
  const wrong = now.pairs.filter(inside).map(([a, b, count]) => cell(a, b, count));
  const values = [...wrong, ...order.filter((c) => now.right[c]).map((c) => ({ ...cell(c, c, now.right[c]), fine: true }))];
  const text = `${JSON.stringify(Object.fromEntries(order.map((c) => [c, brief(all[c])])))}[datum.value]`;
  const axis = { labelExpr: text, grid: false, domain: false, ticks: false, labelLimit: 110 };
  const x = { field: "b", type: "ordinal", sort: order, title: "predicted", axis: { ...axis, orient: "top", labelAngle: -45 } };
  const y = { field: "a", type: "ordinal", sort: order, title: "label", axis };
  const tip = ["label", "predicted"].map((field) => ({ field })).concat([{ field: "count", title: "images" }]);
  const drawnImages = wrong.reduce((sum, v) => sum + v.count, 0);
  const keptImages = now.pairs.reduce((sum, [, , count]) => sum + count, 0);
  return { spec: { data: { values }, width: { step: 34 }, height: { step: 24 }, autosize: "pad", layer: [
    { mark: { type: "rect", cornerRadius: 3 }, encoding: { x, y, tooltip: tip,
      color: { condition: { test: "datum.fine", value: "var(--more)" }, value: "var(--less)" },
      fillOpacity: { field: "share", type: "quantitative", legend: null, scale: { domain: [0, 1], range: [0.06, 0.85] } } } },
    { mark: { type: "text", fontSize: 11 }, encoding: { x, y, tooltip: tip, text: { field: "count" } } },
  ] },
    label: "Confusion: test images by label and predicted class. The numbers are in the table below.",
    note: `Test images of all seeds. Drawn are ${drawnImages} of ${images} wrong answers, among the classes most often confused; `
      + (now.pairs.length < kinds ? `the table has the ${now.pairs.length} most frequent of ${kinds} pairs, ${keptImages} answers.` : "the table has all."),
    table: { head: ["label", "predicted", "images"], body: () => now.pairs.map(([a, b, count]) => [all[a], all[b], count]) } };
}

function reliability() {
  const now = lookNow()?.now;
  if (!now || now.missing) return now?.missing ?? "Nothing is shown.";
  const values = now.bins.map(([upto, n, confidence, accuracy]) => ({ upto, n, confidence, accuracy }));
  const scale = { domain: [0, 100] };
  const x = { field: "confidence", type: "quantitative", title: "confidence (%)", scale };
  const y = { field: "accuracy", type: "quantitative", title: "accuracy (%)", scale };
  const tip = Object.keys(values[0]).map((field) => ({ field, format: field === "n" ? "," : ".2f" }));
  return { spec: { data: { values }, width: "container", height: 260, layer: [
    { data: { values: [{ confidence: 0, accuracy: 0 }, { confidence: 100, accuracy: 100 }] }, mark: { type: "line", stroke: "var(--soft)", strokeDash: [5, 4] }, encoding: { x, y } },
    { mark: { type: "line", stroke: "var(--more)" }, encoding: { x, y } },
    { mark: { type: "point", filled: true, color: "var(--more)", opacity: 1 }, encoding: { x, y, tooltip: tip, size: { field: "n", type: "quantitative", legend: null, scale: { range: [25, 220] } } } },
  ] },
    label: "Accuracy against confidence, in bins. The numbers are in the table below.",
    note: `Expected calibration error ${fixed(now.ece)} points${now.cells > 1 ? `, the mean of ${now.cells} seeds` : ""}. A point is a bin of confidence with its images; dashed: as often right as confident.`,
    table: { head: ["confidence up to", "images", "confidence (%)", "accuracy (%)"], body: () => values.map((v) => [fixed(v.upto), v.n, fixed(v.confidence), fixed(v.accuracy)]) } };
}

function training() {
  const now = lookNow()?.now;
  if (!now) return "Nothing is shown.";
  if (!now.curve) return now.shots ? "Its cells kept no training curves, or curves of different epochs." : "Nothing was trained.";
  const [epochs, losses, accuracies] = now.curve;
  const values = epochs.map((epoch, i) => ({ epoch, loss: losses[i], accuracy: accuracies[i] }));
  const x = { field: "epoch", type: "quantitative", title: "epoch", axis: { tickMinStep: 1, format: "d" } };
  const line = (field, title, stroke, scale) => ({ width: "container", height: 110, mark: { type: "line", stroke, point: { color: stroke, size: 18 } },
    encoding: { x, y: { field, type: "quantitative", title, scale }, tooltip: ["epoch", field].map((f) => ({ field: f })) } });
  return { spec: { data: { values }, width: "container", height: 260, resolve: { scale: { y: "independent" } }, layer: [
    line("loss", "loss", "var(--less)", { zero: true }), line("accuracy", "training accuracy (%)", "var(--more)", { domain: [0, 100] }),
  ].map(({ width, height, ...layer }) => layer) },
    label: "Training loss and accuracy by epoch. The numbers are in the table below.",
    note: "Loss (red, left) and accuracy on the training images (blue, right), mean of the seeds; at most 20 epochs are shown.",
    table: { head: ["epoch", "loss", "training accuracy (%)"], body: () => values.map((v) => [v.epoch, fixed(v.loss, 4), fixed(v.accuracy)]) } };
}

function startCloser() {
  const figures = [
    figure("look-classes", "Accuracy of each class", perClass),
    figure("look-confusion", "Confusion", confusion),
    figure("look-reliability", "Reliability", reliability),
    figure("look-training", "Training", training),
  ];
  $("#closer-figures").append(...figures.map((made) => made.element));
  const again = () => {
    const there = DATA.blocks.filter(visible);
    if (there.length && !there.includes(DATA.blocks[look.block])) look.block = there[0].place;
    const found = there.length ? lookNow() : null;
    const block = DATA.blocks[look.block];
    const controls = [];
    const add = (name, label, options) => {
      const made = choice(label, options, look[name], (value) => {
        look[name] = name === "part" ? value : Number(value);
        again();
        $(`#closer-controls [data-name=${name}] select`)?.focus();
      });
      made.dataset.name = name;
      controls.push(made);
    };
    if (there.length > 1) add("block", "table", there.map((b) => [b.place, b.title]));
    if (found) {
      add("task", "task", found.tasks.map((t) => [t, block.tasks[t].name]));
      add("row", "method", found.rows.map((place) => [place, block.rows[place].label]));
      add("shots", "shots", found.shots.map((n) => [n, n]));
      if (found.parts.length > 1) add("part", "classes", found.parts.map((part) => [part, part]));
    }
    $("#closer-controls").replaceChildren(...controls);
    const kept = block.looks_left_out || block.looks.some((one) => !one.missing || one.curve);
    $("#closer-figures").hidden = !found || !kept;
    $("#closer-said").textContent = !kept
      ? "No cell of this table kept predictions of single images or training curves: runs of this version keep the curves, and the predictions unless with --discard."
      : block.looks_left_out
      ? `To keep the page small, ${plural(block.looks_left_out, "row")} of this table at single shot counts are left out here, those with the fewest shots first.`
      : "";
    return found ? inTurn("closer", figures) : Promise.resolve();
  };
  listeners.push(again);
  return again();
}
