// Theme, start, and what happens when the window changes.

function startTheme() {
  const choose = (value) => {
    if (value === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = value;
  };
  const stored = remembered("theme");
  if (["light", "dark"].includes(stored)) {
    $(`input[name=theme][value=${stored}]`).checked = true;
    choose(stored);
  }
  $$("input[name=theme]").forEach((input) =>
    input.addEventListener("change", () => {
      choose(input.value);
      remember("theme", input.value);
    }));
}

async function start() {
  startTheme();
  $$("i.swatch").forEach((place) => place.replaceWith(swatch(place.dataset.method)));
  startFilters();
  startTables();
  startMore();
  await startCharts();
  await startCloser();
  let width = innerWidth;
  let waiting;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    if (innerWidth === width) return; // a phone's bars come and go
    waiting = setTimeout(() => {
      width = innerWidth;
      changed();
    }, 200);
  });
  document.documentElement.dataset.ready = Math.round(performance.now()); // milliseconds since it was opened
}

start();
