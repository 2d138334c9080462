"use strict";
// Everything that comes from files and labels becomes text nodes, never HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const { classes, items } = data;
const byId = (id) => document.getElementById(id);
const percent = (p) => `${(100 * p).toFixed(p > 0 && p < 0.1 ? 1 : 0)}%`;

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Corrections: position of an item to its label, "" for one that is not to be used.

const storageKey = `skbridge-corrections-${data.id}`;
const corrections = new Map(restore());

function restore() {
  try {
    return JSON.parse(localStorage.getItem(storageKey)) || [];
  } catch {
    return [];
  }
}

function correct(position, label) {
  if (label === undefined) corrections.delete(position);
  else corrections.set(position, label);
  try {
    localStorage.setItem(storageKey, JSON.stringify([...corrections]));
  } catch {
    // Private windows store nothing; the page works without.
  }
  for (const tile of document.querySelectorAll(`[data-item="${position}"]`)) fill(tile);
  showCorrections();
}

function showCorrections() {
  const n = corrections.size;
  byId("corrections").hidden = !n;
  byId("corrected").textContent = n === 1 ? "1 correction" : `${n} corrections`;
}

function asCsv() {
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  const lines = [...corrections].map(([position, label]) =>
    [items[position].path, label, guess(items[position])].map(quoted).join(","));
  return `path,label,was\n${lines.join("\n")}\n`;
}

byId("export").onclick = () => {
  const url = URL.createObjectURL(new Blob([asCsv()], { type: "text/csv" }));
  make("a", { href: url, download: "corrections.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
};
byId("discard").onclick = () => {
  if (!confirm("Discard all corrections?")) return;
  for (const position of [...corrections.keys()]) correct(position, undefined);
};

// Tiles

const guess = (item) => (item.given === undefined ? classes[item.top[0][0]] : item.given);
const isWrong = (item) => item.true !== undefined && item.true !== item.top[0][0];
const margin = (item) => item.top[0][1] - (item.top[1] ? item.top[1][1] : 0);

// A thumbnail is decoded when its tile comes near the window.
const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    target.src = thumbnail(Number(target.dataset.picture));
  }
}, { rootMargin: "600px" });

function thumbnail(position) {
  return `data:image/webp;base64,${items[position].thumb}`;
}

function tile(position) {
  const button = make("button", { type: "button", className: "tile" });
  button.dataset.item = position;
  const image = make("img", { alt: "", decoding: "async" });
  image.dataset.picture = position;
  const frame = make("div", { className: "frame" });
  if (items[position].thumb) {
    frame.append(image);
    near.observe(image);
  }
  frame.append(make("div", { className: "badges" }));
  button.append(frame, make("div", { className: "text" }));
  button.onclick = () => edit(position, button);
  fill(button);
  return button;
}

function fill(button) {
  const position = Number(button.dataset.item);
  const item = items[position];
  const label = corrections.get(position);
  button.classList.toggle("corrected", label !== undefined);
  const badge = (text, kind = "") => make("span", { className: `badge ${kind}` }, text);
  const badges = [];
  if (label !== undefined) badges.push(badge(label === "" ? "not used" : "corrected"));
  if (isWrong(item)) badges.push(badge(`is ${classes[item.true]}`, "warn"));
  if (item.unknown) badges.push(badge("unknown", "warn"));
  if (item.rank) badges.push(badge(`label no. ${item.rank}`));
  if (item.duplicate) badges.push(badge("near-duplicate"));
  button.querySelector(".badges").replaceChildren(...badges);
  const line = (name, left, right) =>
    make("div", { className: `line ${name}` }, make("span", {}, left), make("span", {}, right));
  const text = [];
  if (item.given !== undefined) {
    text.push(line("best", label || item.given, ""));
  } else {
    const [[, p], second] = item.top;
    const bar = make("div", { className: "bar" }, make("i"), make("i"));
    bar.children[0].style.width = percent(p);
    bar.children[1].style.width = percent(second ? second[1] : 0);
    text.push(line("best", label || guess(item), label === undefined ? percent(p) : ""), bar);
    if (second) text.push(line("second", classes[second[0]], percent(second[1])));
  }
  text.push(make("div", { className: "name", title: item.path }, item.name));
  button.querySelector(".text").replaceChildren(...text);
  button.setAttribute("aria-label", `${item.name}: ${label ?? guess(item)}`);
}

// The contact sheet, with filters

const isNew = (item) => item.given === undefined;
const shows = {
  all: ["All", () => true],
  unknown: ["Unknown", (item) => item.unknown],
  next: ["To label next", (item) => item.rank],
  duplicates: ["Near-duplicates", (item) => item.duplicate],
  ...(data.matrix.new && { wrong: ["Wrong", isWrong] }),
  corrected: ["Corrected", (item, position) => corrections.has(position)],
};
const orders = {
  uncertain: ["Uncertain first", (a, b) => margin(items[a]) - margin(items[b])],
  certain: ["Certain first", (a, b) => margin(items[b]) - margin(items[a])],
  next: ["To label first", (a, b) => (items[a].rank || 1e9) - (items[b].rank || 1e9)],
  name: ["By name", (a, b) => (items[a].name < items[b].name ? -1 : 1)],
};
const positions = items.map((_, position) => position).filter((position) => isNew(items[position]));
let listed = [];
const sheet = byId("sheet");
let columns = 1;
let rowHeight = 1;
let drawn = [0, 0];

for (const [id, options] of [["show", shows], ["order", orders]]) {
  byId(id).append(...Object.entries(options).map(([value, [text]]) => make("option", { value }, text)));
}
const counts = new Map();
for (const position of positions) {
  const name = guess(items[position]);
  counts.set(name, (counts.get(name) || 0) + 1);
}
byId("class").append(make("option", { value: "" }, "All"),
  ...classes.map((name, k) =>
    make("option", { value: k }, `${name} (${counts.get(name) || 0})`)));
byId("classes").append(...classes.map((name) => make("option", { value: name })));

function list() {
  const [, wanted] = shows[byId("show").value];
  const [, order] = orders[byId("order").value];
  const ofClass = byId("class").value;
  const text = byId("text").value.trim().toLowerCase();
  listed = positions.filter((position) => {
    const item = items[position];
    const name = corrections.get(position) ?? guess(item);
    return wanted(item, position)
      && (ofClass === "" || name === classes[ofClass])
      && `${item.name}\n${name}`.toLowerCase().includes(text);
  }).sort(order);
  const n = listed.length;
  byId("count").textContent = `${n.toLocaleString("en")} of ${positions.length.toLocaleString("en")}`;
  sheet.style.padding = "0";
  sheet.replaceChildren(make("p", { className: "none" }, "No photograph is like this."));
  remeasure();
}

// Only the rows of tiles near the window are there; padding stands for the others.
function measure() {
  const { style } = sheet;
  style.padding = "0";
  drawn = [0, 0];
  sheet.replaceChildren(tile(listed[0]));
  const grid = getComputedStyle(sheet);
  columns = grid.gridTemplateColumns.split(" ").length;
  rowHeight = sheet.firstChild.getBoundingClientRect().height + parseFloat(grid.rowGap);
}

function draw() {
  if (!listed.length || !sheet.offsetWidth) return;
  const above = -sheet.getBoundingClientRect().top / rowHeight;
  const screen = innerHeight / rowHeight;
  const first = Math.max(0, Math.floor(above - screen));
  const last = Math.max(1, Math.ceil(above + 2 * screen));
  const [begin, stop] = [first * columns, Math.min(listed.length, last * columns)];
  if (begin >= stop || (begin === drawn[0] && stop === drawn[1])) return;
  const tiles = (from, to) => listed.slice(from, to).map(tile);
  const [oldBegin, oldStop] = drawn;
  drawn = [begin, stop];
  if (begin >= oldStop || stop <= oldBegin) {
    sheet.replaceChildren(...tiles(begin, stop));
  } else {
    // Tiles that stay are not touched, so that the browser lays out new ones only.
    for (let place = oldBegin; place < begin; place++) sheet.firstChild.remove();
    for (let place = stop; place < oldStop; place++) sheet.lastChild.remove();
    sheet.prepend(...tiles(begin, oldBegin));
    sheet.append(...tiles(oldStop, stop));
  }
  const below = Math.ceil(listed.length / columns) - Math.ceil(stop / columns);
  sheet.style.padding = `${first * rowHeight}px 0 ${below * rowHeight}px`;
}

function remeasure() {
  if (!listed.length || !sheet.offsetWidth) return;
  measure();
  draw();
}

let waiting = false;
addEventListener("scroll", () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    draw();
  });
}, { passive: true });
addEventListener("resize", remeasure);

// Bring the tile of a photograph to the window, and there focus it.
function focusTile(position) {
  const place = listed.indexOf(position);
  if (place < 0 || !sheet.offsetWidth) return false;
  const find = () => sheet.querySelector(`[data-item="${position}"]`);
  if (!find()) {
    const top = sheet.getBoundingClientRect().top + scrollY;
    scrollTo(0, top + Math.floor(place / columns) * rowHeight - innerHeight / 3);
    draw();
  }
  find()?.focus();
  return true;
}

byId("filters").oninput = list;
byId("filters").onsubmit = (event) => event.preventDefault();

sheet.onkeydown = (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  const place = listed.indexOf(Number(document.activeElement.dataset.item));
  const next = listed[place + step];
  if (next === undefined) return;
  event.preventDefault();
  focusTile(next);
};
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || /INPUT|SELECT/.test(event.target.tagName)) return;
  event.preventDefault();
  open("photographs");
  byId("text").focus();
});

// The editor of one label

const editor = byId("editor");
let edited = null;

function edit(position, origin) {
  const item = items[position];
  edited = { position, origin: origin || edited?.origin };
  const image = editor.querySelector("img");
  if (item.thumb) image.src = thumbnail(position);
  else image.removeAttribute("src");
  byId("editor-name").textContent = item.name;
  byId("editor-about").textContent = item.path;
  const label = corrections.get(position);
  const choices = item.given === undefined ? item.top.map(([k, p]) => [classes[k], percent(p)])
    : [[item.given, "as it is"], ...item.top.map(([k]) => [classes[k], "suggested"])];
  if (isWrong(item)) {
    const name = classes[item.true];
    const choice = choices.find(([other]) => other === name);
    if (choice) choice[1] += ", as labelled";
    else choices.push([name, "as labelled"]);
  }
  byId("choices").replaceChildren(...choices.map(([name, note]) => {
    const button = make("button", { type: "button" }, `${name} · ${note}`);
    button.setAttribute("aria-pressed", label === name);
    button.onclick = () => decide(name);
    return button;
  }));
  byId("unused").setAttribute("aria-pressed", label === "");
  byId("undo").disabled = label === undefined;
  byId("label").value = label || "";
  if (!editor.open) editor.showModal();
}

function decide(label) {
  correct(edited.position, label);
  step(1) || editor.close();
}

function step(by) {
  const place = listed.indexOf(edited.position);
  const next = listed[place + by];
  if (place < 0 || next === undefined) return false;
  edit(next);
  return true;
}

byId("other").onsubmit = (event) => {
  event.preventDefault();
  const label = byId("label").value.trim();
  if (label) decide(label);
};
byId("unused").onclick = () => decide("");
byId("undo").onclick = () => {
  correct(edited.position, undefined);
  edit(edited.position);
};
byId("previous").onclick = () => step(-1);
byId("next").onclick = () => step(1);
byId("close").onclick = () => editor.close();
editor.onclose = () => {
  if (!focusTile(edited.position)) edited.origin?.focus();
};
editor.onkeydown = (event) => {
  if (event.target.tagName === "INPUT") return;
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (by) step(by);
  else byId("choices").children[Number(event.key) - 1]?.click();
};

// Sections

function rows(id, content) {
  const place = byId(id).querySelector(".rows");
  place.append(...(content.length ? content : [make("p", { className: "none" }, "None.")]));
}

function row(first, heading, note, others) {
  const title = make("h2", {}, heading, " ", make("small", {}, note));
  const strip = make("div", { className: "strip" }, ...others.map(tile));
  const body = make("div", {}, title, strip);
  return first === null ? make("div", { className: "row wide" }, body)
    : make("div", { className: "row" }, tile(first), body);
}

const build = {
  photographs: list,
  suspicious: () => rows("suspicious", data.suspicious.map(({ item, nearest }) => {
    const suggested = classes[items[item].top[0][0]];
    return row(item, `${items[item].given} → ${suggested}?`, "most like it", nearest);
  })),
  confusions: () => {
    byId(data.matrix.new ? "of-new" : "of-shots").hidden = false;
    matrix();
    rows("confusions", data.confusions.map(pair));
  },
  duplicates: () => rows("duplicates", data.duplicates.map(([item, shot, cosine]) =>
    row(item, items[shot].given, `cosine ${cosine.toFixed(3)}`, [shot]))),
};
const built = new Set();

function pair({ true: own, predicted, count, of, items: tiles }) {
  const element = row(null, `${classes[own]} taken for ${classes[predicted]}`, `${count} of ${of}`, tiles);
  element.id = `pair-${own}-${predicted}`;
  element.tabIndex = -1;
  return element;
}

function matrix() {
  const { shown: part, counts: cells } = data.matrix;
  const head = make("tr", {}, make("th"), ...part.map((k) =>
    make("th", { scope: "col", title: classes[k] }, make("span", {}, classes[k]))));
  const body = cells.map((line, i) => {
    const total = Math.max(1, line.reduce((sum, n) => sum + n, 0));
    return make("tr", {}, make("th", { scope: "row", title: classes[part[i]] }, classes[part[i]]),
      ...line.map((n, j) => {
        const cell = make("td", { className: i === j ? "right" : "" });
        cell.style.setProperty("--share", n / total);
        const target = `pair-${part[i]}-${part[j]}`;
        if (n && i !== j) {
          const button = make("button", { type: "button" }, String(n));
          button.setAttribute("aria-label", `${n} of ${classes[part[i]]} taken for ${classes[part[j]]}`);
          button.onclick = () => {
            byId(target)?.scrollIntoView({ block: "center" });
            byId(target)?.focus({ preventScroll: true });
          };
          cell.append(button);
        } else if (n) cell.append(String(n));
        return cell;
      }));
  });
  byId("confusions").querySelector("table").replaceChildren(
    make("thead", {}, head), make("tbody", {}, ...body));
}

const sections = {
  photographs: ["Photographs", positions.length],
  suspicious: ["Suspicious labels", data.suspicious.length],
  confusions: ["Confusions", data.confusions.length],
  duplicates: ["Near-duplicates", data.duplicates.length],
};
for (const [id, [text, n]] of Object.entries(sections)) {
  const button = make("button", { type: "button" }, `${text} (${n.toLocaleString("en")})`);
  button.dataset.section = id;
  button.onclick = () => open(id);
  byId("sections").append(button);
}

function open(id) {
  for (const name of Object.keys(sections)) byId(name).hidden = name !== id;
  for (const button of byId("sections").children) {
    if (button.dataset.section === id) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
  if (built.has(id)) {
    if (id === "photographs") remeasure();
    return;
  }
  built.add(id);
  build[id]();
}

byId("title").textContent = data.title;
byId("subtitle").textContent = data.subtitle;
byId("numbers").append(...data.numbers.map(([name, value, note]) =>
  make("div", {}, make("dt", {}, name), make("dd", {}, value, make("small", {}, note)))));
if (data.unreadable.length) {
  const place = byId("unreadable");
  place.hidden = false;
  place.querySelector("summary").textContent = `${data.unreadable.length} photographs cannot be read`;
  place.querySelector("ul").append(...data.unreadable.map(([path, why]) => make("li", {}, `${path}: ${why}`)));
}
showCorrections();
open("photographs");
