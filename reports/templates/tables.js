// Tables: DataTables sorts them and hides rows and columns; the filters above them say which.

const tables = [];

/** A table that its headings sort. types: of the columns. */
function sortable(element, types) {
  return new DataTable(element, {
    paging: false,
    info: false,
    autoWidth: false,
    order: [],
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
    columnDefs: types.map((type, i) => (type === "num"
      ? { targets: i, type, orderSequence: ["desc", "asc", ""] } : { targets: i, type, orderSequence: ["asc", "desc", ""] })),
  });
}

function startTables() {
  for (const article of $$("#results .block")) {
    const element = $("table.scores", article);
    const heads = $$("thead th", element);
    const table = sortable(element, heads.map((_, i) => (i ? "num" : "string")));
    const block = DATA.blocks[article.dataset.block];
    table.search.fixed("filters", (_text, _data, index) => shown(block.rows[table.row(index).node().dataset.row]));
    element.addEventListener("keydown", move);
    element.addEventListener("click", (event) => {
      const button = event.target.closest("button.cell");
      if (button) openCell(block, Number(button.closest("tr").dataset.row), Number(button.dataset.shots), button);
    });
    tables.push({ article, table, block, heads: heads.map((head) => ({ ...head.dataset })) });
  }
  filterTables();
  listeners.push(filterTables);
}

function filterTables() {
  const show = $("input[name=show]:checked").value;
  let rows = 0;
  let count = 0;
  for (const { article, table, block, heads } of tables) {
    article.hidden = !visible(block);
    if (article.hidden) continue;
    count += 1;
    heads.forEach(({ kind, shots }, i) => {
      if (!kind) return;
      const asked = show === "all" || kind === show || (!block.compared && kind === "ours");
      // An average over shots of which some are hidden would be misread.
      const whole = Number(shots) === AVERAGE ? shotsOf(block).length === block.shots.length : !state.shots.has(Number(shots));
      const wanted = asked && whole;
      if (table.column(i).visible() !== wanted) table.column(i).visible(wanted, false);
    });
    table.draw();
    const buttons = $$("button.cell", article);
    buttons.forEach((button, i) => (button.tabIndex = i ? -1 : 0)); // one stop of the Tab key a table
    rows += table.rows({ search: "applied" }).count();
  }
  $("#nothing").hidden = count > 0;
  const told = $("#found");
  if (told) told.textContent = `${plural(count, "table")}, ${plural(rows, "row")}`;
}

/** Arrow keys, Home and End go from number to number. */
function move(event) {
  const button = event.target.closest("button.cell");
  if (!button) return;
  const cell = button.closest("td");
  const row = cell.parentElement;
  const across = $$("button.cell", row);
  const place = across.indexOf(button);
  const body = [...row.parentElement.rows];
  const beside = (step) => {
    for (let i = body.indexOf(row) + step; i >= 0 && i < body.length; i += step) {
      const found = $("button.cell", body[i].cells[cell.cellIndex]);
      if (found) return found;
    }
  };
  const targets = {
    ArrowRight: () => across[place + 1],
    ArrowLeft: () => across[place - 1],
    ArrowDown: () => beside(1),
    ArrowUp: () => beside(-1),
    Home: () => across[0],
    End: () => across.at(-1),
  };
  const target = targets[event.key]?.();
  if (!(event.key in targets)) return;
  event.preventDefault();
  if (!target) return;
  button.tabIndex = -1;
  target.tabIndex = 0;
  target.focus();
}

function startFilters() {
  const form = $("#filters");
  const of = (name) => distinct(DATA.blocks.map((block) => block[name]));
  const all = (name) => [["", `All (${of(name).length})`], ...of(name).map((value) => [value, title(name, value)])];
  const title = (name, value) => (name === "suite" ? DATA.blocks.find((block) => block.suite === value).suite_title : value);
  const rows = DATA.blocks.flatMap((block) => block.rows);
  const variants = distinct(rows.map(settings).filter(Boolean));
  const shots = distinct(DATA.blocks.flatMap((block) => block.scores.map((line) => line.shots)));
  const counted = shots.filter((n) => n !== AVERAGE).sort((a, b) => a - b);

  const select = (name, options) =>
    choice(name, options, "", (value) => {
      state[name] = value;
      changed();
    });
  const flip = (set, value, on) => {
    if (on) set.delete(value);
    else set.add(value);
    summary();
    changed();
  };
  const boxes = counted.map((n) =>
    h("label", {}, h("input", { type: "checkbox", name: "shots", value: n, checked: true,
      onchange: (event) => flip(state.shots, n, event.target.checked) }), h("span", {}, String(n))));
  const methods = DATA.methods.map((name) =>
    h("label", { class: "method" }, h("input", { type: "checkbox", name: "methods", value: name, checked: true,
      onchange: (event) => flip(state.methods, name, event.target.checked) }), swatch(name), h("bdi", {}, name)));
  const told = h("summary", {});
  const summary = () => (told.textContent = `Methods (${DATA.methods.length - state.methods.size} of ${DATA.methods.length})`);
  const setAll = (on) => {
    state.methods = new Set(on ? [] : DATA.methods);
    $$("input[name=methods]", form).forEach((box) => (box.checked = on));
    summary();
    changed();
  };
  const menu = h("details", { class: "menu" }, told,
    h("div", { class: "sheet" },
      h("div", { class: "controls" },
        h("button", { type: "button", onclick: () => setAll(true) }, "All"),
        h("button", { type: "button", onclick: () => setAll(false) }, "None")),
      methods));
  menu.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      menu.open = false;
      told.focus();
    }
  });
  document.addEventListener("click", (event) => {
    if (!menu.contains(event.target)) menu.open = false;
  });
  summary();

  form.append(
    select("suite", all("suite")),
    select("backbone", all("backbone")),
    select("protocol", all("protocol")),
    h("fieldset", { class: "chips" }, h("legend", {}, "shots"), boxes),
    menu,
    select("variant", [["", "All"], ["main", "Default settings"], ...variants.map((text) => [text, text])]),
    h("button", { type: "reset" }, "Reset"),
    h("output", { id: "found", role: "status" }));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => {
    Object.assign(state, { suite: "", backbone: "", protocol: "", variant: "", shots: new Set(), methods: new Set() });
    summary();
    setTimeout(changed); // after the form has reset its fields
  });
  $$("input[name=show]").forEach((input) => input.addEventListener("change", changed));
}

/** A method's colour and marker. */
function swatch(method) {
  const { shape } = METHODS.get(method);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "-1.2 -1.2 2.4 2.4");
  svg.setAttribute("class", "swatch");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", shape);
  path.setAttribute("fill", colour(method));
  svg.append(path);
  return svg;
}
