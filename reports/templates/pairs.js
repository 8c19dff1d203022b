// Every pair of methods: the probability that a row's method beats a column's, and whether a test tells them apart.

function pairsOfMethods(width) {
  const block = current();
  const part = lastPart(block);
  const rows = block.rows.map((row, place) => ({ ...row, place })).filter((row) => row.main && shown(row));
  const there = new Set(rows.map((row) => row.place));
  const pairs = block.pairs.filter((pair) => pair.part === part && there.has(pair.a) && there.has(pair.b) && pair.better !== null);
  if (!pairs.length) return "There are no two methods with tasks and seeds in common.";
  const rank = new Map();
  for (const { a, b, difference } of pairs) {
    rank.set(a, (rank.get(a) || 0) + difference);
    rank.set(b, (rank.get(b) || 0) - difference);
  }
  const order = [...rank.keys()].sort((a, b) => rank.get(b) - rank.get(a)).map((place) => block.rows[place].label);
  const one = (a, b, pair, turn) => ({
    a: block.rows[a].label, b: block.rows[b].label, better: turn ? 1 - pair.better : pair.better, p: pair.p,
    difference: turn ? -pair.difference : pair.difference, verdict: pair.verdict, n: pair.n,
    text: `${Math.round(100 * (turn ? 1 - pair.better : pair.better))}${pair.told ? "*" : ""}`,
  });
  const values = pairs.flatMap((pair) => [one(pair.a, pair.b, pair, false), one(pair.b, pair.a, pair, true)]);
  const axis = { grid: false, domain: false, ticks: false, labelLimit: 130 };
  const x = { field: "b", type: "nominal", sort: order, title: null, axis: { ...axis, orient: "top", labelAngle: -45 } };
  const y = { field: "a", type: "nominal", sort: order, title: null, axis };
  const tip = [{ field: "a", title: "row" }, { field: "b", title: "column" }, { field: "better", title: "P(row is better)", format: ".3f" },
    { field: "difference", title: "difference (points)", format: "+.2f" }, { field: "p", title: "p (Holm)", format: ".3g" },
    { field: "n", title: "pairs of a task and a seed" }, { field: "verdict" }];
  const spec = { data: { values }, width: { step: Math.max(30, Math.min(60, (width - 230) / order.length)) }, height: { step: 22 }, autosize: "pad", layer: [
    { mark: { type: "rect", stroke: "var(--back)", strokeWidth: 1.5, cornerRadius: 3 }, encoding: { x, y, tooltip: tip,
      color: { condition: { test: "datum.better < 0.5", value: "var(--less)" }, value: "var(--more)" },
      fillOpacity: { field: "better", type: "quantitative", legend: null, scale: { domain: [0, 0.5, 1], range: HEAT } } } },
    { mark: { type: "text", fontSize: 11 }, encoding: { x, y, tooltip: tip, text: { field: "text" } } },
  ] };
  const shots = block.pairs_over.filter((n) => n);
  const over = shots.length > 1 ? `, averaged over ${shots.join(", ")} shots` : shots.length ? ` at ${plural(shots[0], "shot")}` : "";
  const told = pairs.filter((pair) => pair.told).length;
  const few = pairs.filter((pair) => pair.few).length;
  return { spec,
    label: `Probability in percent that a row's method beats a column's${partName(block)}. The numbers are in the table below.`,
    note: `How probable it is, in percent, that the row's method beats the column's on a task: mean over tasks, ties half${over}. * (${told} of ${plural(pairs.length, "pair")}): p < 0.05, Wilcoxon's signed-rank test over `
      + "tasks and seeds, Holm over all pairs of the table, the hidden ones, too."
      + (few ? ` ${plural(few, "pair")} ${few === 1 ? "has" : "have"} too few tasks and seeds for the test.` : "")
      + " Seeds of one task share its test images: with few tasks, p is optimistic.",
    table: { head: ["method", "against", "P(better)", "difference", "p (Holm)", "pairs", "verdict"],
      body: () => pairs.map((pair) => [block.rows[pair.a].label, block.rows[pair.b].label, fixed(pair.better, 3), signed(pair.difference),
        fixed(pair.p, 3), pair.n, pair.verdict]) } };
}
