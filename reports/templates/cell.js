// Where a number comes from: a dialog, in which every cell that a number is made of says how it was made.

function openCell(block, place, shots, opener) {
  const row = block.rows[place];
  const cells = (block.of.get(place) || []).filter((cell) => (shots === AVERAGE ? cell.shots > 0 : cell.shots === shots));
  const parts = block.parts.map((part, p) => {
    const score = block.score.get(`${place}|${shots}|${p}`);
    if (!score) return null;
    const spread = score.std === null ? "" : ` ± ${fixed(score.std)}`;
    const interval = score.low === null ? "a single seed has no interval" : `95 % interval ${fixed(score.low)} to ${fixed(score.high)}`;
    return h("p", { class: "number" },
      part.label ? h("span", { class: "part" }, part.label) : null,
      h("strong", {}, fixed(score.mean)), spread,
      h("span", { class: "more" }, `${plural(score.n_seeds, "seed")}; ${interval}`),
      score.paper === null ? null
        : h("span", { class: "more" }, `paper ${fixed(score.paper)}${score.paper_std === null ? "" : ` ± ${fixed(score.paper_std)}`}`
          + (score.delta === null ? "" : `; difference ${signed(score.delta)}`)));
  });
  const dialog = $("#cell");
  dialog.replaceChildren(h("div", { class: "inside" },
    h("header", {},
      h("h2", { id: "cell-title" }, swatch(row.method), h("bdi", {}, short(row.label, 120)), ` · ${shotsName(shots)}`),
      h("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => dialog.close() }, "×")),
    h("p", { class: "where" }, h("bdi", {}, block.title)),
    ...parts.filter(Boolean),
    row.selected ? h("p", { class: "caption selected" }, h("bdi", {}, row.selected)) : "",
    ...cells.flatMap((cell) => cell.marks.map((mark) =>
      h("p", { class: "warning" }, `⚠ ${shotsName(cell.shots)}, seed ${cell.seed}: `, h("bdi", {}, mark)))),
    ...row.notes.map((n) => h("p", { class: "caption" }, h("bdi", {}, DATA.notes[n]))),
    ...cells.map((cell, i) => provenance(block, cell, i === 0))));
  dialog.onclose = () => opener?.focus();
  dialog.onclick = (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  };
  dialog.showModal();
  dialog.scrollTop = 0;
}

function provenance(block, cell, open) {
  const about = DATA.shared[cell.about];
  const { splits, copies } = DATA.shared[cell.data];
  const per = block.parts.length;
  const suite = block.parts.map((_, p) => mean(block.tasks.map((_, t) => cell.accuracy[t * per + p])));
  const facts = [
    ["key", code(cell.key)],
    ["seed", String(cell.seed)],
    ["few-shot draw", cell.draw ? code(cell.draw) : "none: nothing is trained"],
    ["weights", [about.settings.pretrained, " ", code(about.weights || "not recorded")]],
    ["test data", code(about.test_data || "not recorded")],
    ["parameters", pairs(about.parameters)],
    ["settings", pairs(about.settings)],
    ["recipe", about.recipe || "the suite's own"],
    ["options of the run", pairs(about.run)],
    ["draws", about.draws || null],
    ["versions", pairs(about.versions)],
    ["device", [about.device, about.processor, about.threads ? plural(about.threads, "thread") : ""].filter(Boolean).join(", ")],
    ["training", seconds(cell.train_seconds)],
    ["image features", seconds(cell.feature_seconds)],
    ["test", seconds(cell.test_seconds)],
    ["peak memory", cell.peak_memory_mb === null ? null : `${fixed(cell.peak_memory_mb, 0)} MB`],
    ["curvature of the loss", steadiness(cell.stability)],
    ["trained together with seeds", about.trained_together.join(", ") || null],
    ["finished", cell.finished],
    ["note", about.note || null],
  ];
  const head = block.parts.map((part) => part.label || "accuracy");
  const validated = cell.val.some((value) => value !== null);
  const val = (t) => (validated ? [fixed(cell.val.slice(t * per, (t + 1) * per).find((value) => value !== null))] : []);
  const body = block.tasks.map((task, t) => [
    task.name, ...block.parts.map((_, p) => fixed(cell.accuracy[t * per + p])), ...val(t), task.metric, task.n_classes, task.n_test,
    splits[task.name] || "not recorded", task.name in copies ? copies[task.name] : "not recorded",
  ]);
  return h("details", { open, class: "provenance" },
    h("summary", {}, `${shotsName(cell.shots)}, seed ${cell.seed}: `, h("b", {}, suite.map((value) => fixed(value)).join(" / "))),
    h("dl", {}, facts.filter(([, value]) => value !== null && value !== "").map(([name, value]) =>
      [h("dt", {}, name), h("dd", {}, h("bdi", {}, value))])),
    plainTable("Every task of the cell",
      ["task", ...head, ...(validated ? ["few-shot validation"] : []), "metric", "classes", "test images", "split from", "test images that are also few-shot images"], body),
    Object.keys(DATA.shared[cell.chosen]).length ? plainTable("What was chosen on the few-shot validation images",
      ["task", "values chosen", "validation accuracy", "validation images", "settings tried", "others as accurate"],
      Object.entries(DATA.shared[cell.chosen]).map(([name, one]) => [name, pairs(one.values), fixed(one.accuracy), one.images, one.tried, one.ties])) : "",
    cell.trained.length ? plainTable("Trainings of the cell", ["training", "first loss", "last loss", "last training accuracy"],
      cell.trained.map(([name, first, last, accuracy]) => [name, fixed(first, 4), fixed(last, 4), fixed(accuracy)])) : "");
}

/** What `bench stability` measured of a cell, in the order of MEASURED. */
function steadiness([start, end, limit, range]) {
  if (end === null) return null;
  const number = (value) => Number(value.toPrecision(3)).toLocaleString("en");
  return `largest eigenvalue ${number(start)} before and ${number(end)} after training, ${end <= limit ? "within" : "beyond"} the `
    + `${number(limit)} up to which the recipe is stable`
    + (range === null ? "" : `; accuracy's range under noise of 1e-7: ${fixed(range)} points`);
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const code = (text) => h("code", {}, text);
const seconds = (value) => (value === null ? null : `${value < 10 ? fixed(value, 2) : fixed(value, 0)} s`);

/** { epochs: 50, lr: 0.002 } as "epochs 50, lr 0.002". */
function pairs(values) {
  const texts = Object.entries(values || {}).map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`);
  return texts.join(", ") || null;
}
