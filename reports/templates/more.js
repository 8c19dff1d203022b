// The report's other tables: sorted by DataTables, filtered as the results are, both once a reader comes near them.

const more = [];

function startMore() {
  for (const article of $$(".more .block")) {
    const made = { article, details: $("details", article), element: $("table.scores", article), table: null };
    made.block = article.dataset.block === "" ? null : DATA.blocks[article.dataset.block];
    made.rows = $$("tbody tr", made.element).map((row) => JSON.parse(row.dataset.about));
    made.heads = $$("thead th", made.element).map((head) => JSON.parse(head.dataset.about));
    made.details.addEventListener("toggle", () => filterOne(made));
    more.push(made);
  }
  const come = (made) => {
    made.near = true;
    filterOne(made);
  };
  const watch = new IntersectionObserver((seen) => seen.filter((one) => one.isIntersecting).forEach(({ target }) => {
    watch.unobserve(target);
    come(more.find((made) => made.article === target));
  }), { rootMargin: "600px" });
  more.forEach((made) => watch.observe(made.article));
  addEventListener("beforeprint", () => more.forEach(come));
  const all = () => more.forEach(filterOne);
  all();
  listeners.push(all);
}

/** Whether the filters show what a row or column is about. */
function asked(about, block) {
  if (about.label !== undefined && !shown(block.rows.find((row) => row.label === about.label))) return false;
  if (about.method !== undefined && state.methods.has(about.method)) return false;
  if (about.settings !== undefined && state.variant && about.settings !== (state.variant === "main" ? "" : state.variant)) return false;
  if (about.shots === AVERAGE ? state.shots.size : state.shots.has(about.shots)) return false;
  return ["suite", "backbone", "protocol"].every((name) => about[name] === undefined || !state[name] || about[name] === state[name]);
}

function filterOne(made) {
  const { article, block, rows, heads, details, element } = made;
  const some = rows.length === 0 || rows.some((about) => asked(about, block));
  article.hidden = !((!block || inside(block)) && some);
  const section = article.parentElement;
  section.classList.toggle("none", $$(".block", section).every((other) => other.hidden));
  if (article.hidden || !details.open || !made.near) return;
  if (!made.table) {
    made.table = sortable(element, $$("thead th", element).map((head) => head.dataset.type));
    made.table.search.fixed("filters", (_text, _data, index) => asked(rows[index], block));
  }
  heads.forEach((about, i) => {
    const wanted = asked(about, block);
    if (made.table.column(i).visible() !== wanted) made.table.column(i).visible(wanted, false);
  });
  made.table.draw();
}
