// What all parts of the page share: the data, the filters' state, and elements made without any HTML from data.

const AVERAGE = -1;
const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

/** An element. Texts become text nodes, so that no name is ever read as HTML. */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Rows of what is stored by column. */
function lines(columns) {
  const names = Object.keys(columns);
  return names.length ? columns[names[0]].map((_, i) => Object.fromEntries(names.map((name) => [name, columns[name][i]]))) : [];
}

function groups(items, key) {
  const found = new Map();
  for (const item of items) {
    const name = key(item);
    if (!found.has(name)) found.set(name, []);
    found.get(name).push(item);
  }
  return found;
}

const distinct = (values) => [...new Set(values)];
const fixed = (value, digits = 2) => (value === null || value === undefined ? "—" : value.toFixed(digits).replace("-", "−"));
const signed = (value, digits = 2) => (value === null || value === undefined ? "—" : (value > 0 ? "+" : "") + fixed(value, digits));
const plural = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
const shotsName = (shots) => (shots === AVERAGE ? "average over shots" : plural(shots, "shot"));
const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

const DATA = JSON.parse($("#data").textContent);
DATA.blocks.forEach((block, place) => {
  block.place = place;
  for (const name of ["scores", "task_scores", "cells", "pairs"]) block[name] = lines(block[name]);
  block.score = new Map(block.scores.map((line) => [`${line.row}|${line.shots}|${line.part}`, line]));
  block.of = groups(block.cells, (cell) => cell.row);
});
const METHODS = new Map(DATA.methods.map((name, place) => [name, { ...DATA.looks[place], place }]));
const colour = (method) => `var(--m${METHODS.get(method).place})`;

const state = {
  suite: "",
  backbone: "",
  protocol: "",
  variant: "",
  shots: new Set(), // those that are hidden
  methods: new Set(), // those that are hidden
};

/** Whether the filters show a row of a block. */
function shown(row) {
  if (state.methods.has(row.method)) return false;
  if (state.variant === "main") return row.main;
  return !state.variant || settings(row) === state.variant;
}

/** What a row's method was given beside its defaults. */
const settings = (row) => [row.variant, row.setting].filter(Boolean).join(", ");
const inside = (block) => ["suite", "backbone", "protocol"].every((name) => !state[name] || block[name] === state[name]);
const visible = (block) => inside(block) && block.rows.some(shown);
const shotsOf = (block) => block.shots.filter((n) => !state.shots.has(n));

const listeners = [];
const changed = () => listeners.forEach((listener) => listener());

function remember(name, value) {
  try {
    localStorage.setItem(`bench-${name}`, value);
  } catch {} // a browser may forbid it for files; then nothing is remembered
}

function remembered(name) {
  try {
    return localStorage.getItem(`bench-${name}`);
  } catch {
    return null;
  }
}

/** A table of plain texts and numbers. */
function plainTable(caption, head, body) {
  const cell = (value, i) =>
    h(i ? "td" : "th", { scope: i ? null : "row", class: typeof value === "number" || /^[−+]?[\d.,—]+$/.test(value) ? "n" : null },
      h("bdi", {}, typeof value === "number" ? value.toLocaleString("en") : value ?? "—"));
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    h("table", { class: "plain" },
      h("caption", { class: "away" }, caption),
      h("thead", {}, h("tr", {}, head.map((name) => h("th", { scope: "col" }, h("bdi", {}, name))))),
      h("tbody", {}, body.map((values) => h("tr", {}, values.map(cell))))));
}

/** A select with a label. options: [value, text] */
function choice(label, options, value, choose) {
  const select = h("select", { onchange: () => choose(select.value) },
    options.map(([key, text]) => h("option", { value: key, selected: String(key) === String(value) }, short(String(text), 80))));
  return h("label", { class: "choice" }, h("span", {}, label), select);
}
