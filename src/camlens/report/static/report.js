"use strict";
// The gallery of a camlens report. No framework and no network: everything is in this page.
// Text gets into the document as text only (textContent), never as HTML.

// ---------------------------------------------------------------- the page's data

const readJSON = (id) => JSON.parse(document.getElementById(id).textContent);
const report = readJSON("data");
const pictures = readJSON("pictures");
const colors = bytesOf(report.colors); // 256 times red, green, blue
const find = (id) => document.getElementById(id);

/** What the user chose, apart from what the controls themselves hold. */
const state = { shown: [], active: 0, stop: null, open: null };

/** Of no picture more pixels than this are drawn on a side. */
const MOST_PIXELS = 224;
/** Of how many images a printed page has the pictures. */
const MOST_PRINTED = 60;

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

function className(id) {
  if (id === null) return "unknown";
  if (id < 0) return "own score";
  return report.classes[id] ?? `class ${id}`;
}

// ---------------------------------------------------------------- from a map to a picture

/** For each of `to` pixels two of `from` ones and the second's weight, as torch resizes them. */
function weights(from, to) {
  const low = new Int32Array(to);
  const high = new Int32Array(to);
  const part = new Float64Array(to);
  for (let i = 0; i < to; i++) {
    const at = Math.max(0, ((i + 0.5) * from) / to - 0.5);
    low[i] = Math.min(Math.floor(at), from - 1);
    high[i] = Math.min(low[i] + 1, from - 1);
    part[i] = at - low[i];
  }
  return { low, high, part };
}

/** Resize a map bilinearly and divide it by its maximum: camlens.heatmap.scale(resize(map)). */
function heatmap(cells, height, width, toHeight, toWidth) {
  const across = weights(width, toWidth);
  const wide = new Float64Array(height * toWidth);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < toWidth; x++, i++) {
      const [left, right] = [cells[y * width + across.low[x]], cells[y * width + across.high[x]]];
      wide[i] = left + (right - left) * across.part[x];
    }
  }
  const down = weights(height, toHeight);
  const heat = new Float32Array(toHeight * toWidth);
  let maximum = 0;
  for (let y = 0, i = 0; y < toHeight; y++) {
    const [top, bottom] = [down.low[y] * toWidth, down.high[y] * toWidth];
    for (let x = 0; x < toWidth; x++, i++) {
      heat[i] = wide[top + x] + (wide[bottom + x] - wide[top + x]) * down.part[y];
      if (heat[i] > maximum) maximum = heat[i];
    }
  }
  if (maximum > 0) for (let i = 0; i < heat.length; i++) heat[i] /= maximum;
  return heat;
}

/** The 256 colours as the four bytes of a pixel, each one number. */
const pixelsOf = (() => {
  const bytes = new Uint8ClampedArray(4 * 256).fill(255);
  for (let i = 0; i < 256; i++) bytes.set(colors.subarray(3 * i, 3 * i + 3), 4 * i);
  return new Uint32Array(bytes.buffer);
})();

/** Draw heat in the colours of the page. */
function paint(canvas, heat, height, width) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < heat.length; i++) pixels[i] = pixelsOf[Math.floor(heat[i] * 255 + 0.5)];
  context.putImageData(image, 0, 0);
}

/** Where the line between two neighbouring values crosses the level, or null. */
function crossing(a, b, level) {
  return a < level === b < level ? null : (level - a) / (b - a);
}

/** Segments [x, y, x, y] of the line on which heat has a level, in pixels: marching squares. */
function contour(heat, height, width, level = 0.5) {
  const segments = [];
  for (let y = 0; y < height - 1; y++) {
    for (let x = 0; x < width - 1; x++) {
      const i = y * width + x;
      const [a, b, c, d] = [heat[i], heat[i + 1], heat[i + width + 1], heat[i + width]];
      const above = (a >= level) + (b >= level) + (c >= level) + (d >= level);
      if (above === 0 || above === 4) continue;
      const points = [];
      const add = (t, place) => t !== null && points.push(place(t));
      add(crossing(a, b, level), (t) => [x + t, y]);
      add(crossing(b, c, level), (t) => [x + 1, y + t]);
      add(crossing(d, c, level), (t) => [x + t, y + 1]);
      add(crossing(a, d, level), (t) => [x, y + t]);
      // Of a saddle the corners on the side of its middle stay together.
      if (points.length === 4 && a < level === (a + b + c + d) / 4 < level) {
        points.push(points.shift());
      }
      for (let p = 0; p + 1 < points.length; p += 2) {
        segments.push([...points[p], ...points[p + 1]].map((value) => value + 0.5));
      }
    }
  }
  return segments;
}

/** Draw the contour at a resolution of its own, so that it is thin over small images too. */
function outline(canvas, heat, height, width) {
  const scale = Math.max(1, Math.round(448 / Math.max(height, width)));
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext("2d");
  context.beginPath();
  for (const [x, y, toX, toY] of contour(heat, height, width)) {
    context.moveTo(x * scale, y * scale);
    context.lineTo(toX * scale, toY * scale);
  }
  context.lineCap = "round";
  for (const [style, thick] of [["#000", 7], ["#fff", 3.5]]) {
    context.strokeStyle = style;
    context.lineWidth = thick;
    context.stroke();
  }
}

/** The size a heatmap is drawn at: the image's, as far as that is not too large. */
function drawnSize(image) {
  const factor = Math.min(1, MOST_PIXELS / Math.max(image.height, image.width));
  return [image.height, image.width].map((side) => Math.max(1, Math.round(side * factor)));
}

/** Draw a map over a picture; of a map without evidence there is nothing to draw. */
function drawMap(picture, image, map) {
  const heatCanvas = picture.querySelector(".heat");
  const lineCanvas = picture.querySelector(".line");
  if (!map || !map.evidence) return clear(picture);
  const [height, width] = drawnSize(image);
  const heat = heatmap(bytesOf(map.heat), map.height, map.width, height, width);
  paint(heatCanvas, heat, height, width);
  if (find("contours").checked) outline(lineCanvas, heat, height, width);
  else lineCanvas.width = 0;
}

/** Give back the memory of a picture's canvases. */
function clear(picture) {
  for (const canvas of picture.querySelectorAll("canvas")) canvas.width = 0;
}

// ---------------------------------------------------------------- what an image says

/** The image's map of the method and target that are chosen. */
function chosenMap(image) {
  const setting = Number(find("setting").value || 0);
  const target = find("target").value;
  return image.maps.find((map) => map.setting === setting && isTarget(image, map, target));
}

function isTarget(image, map, target) {
  if (target === "prediction") return map.target === image.prediction;
  if (target === "label") return map.target === image.label;
  return `k${map.k}` === target;
}

/** The place of the region with the densest heat, or -1. */
function topRegion(map) {
  let top = -1;
  (map?.density ?? []).forEach((value, i) => {
    if (value !== null && (top < 0 || value > map.density[top])) top = i;
  });
  return top;
}

/** What is known of the image's densest region, in a few words. */
function placeText(map) {
  if (!map) return "no map of this target";
  if (!map.evidence) return "no evidence";
  if (!map.density) return `grid ${map.height}×${map.width}`;
  const top = topRegion(map);
  return top < 0 ? "regions too coarse" : `${report.regions[top]} ${map.density[top].toFixed(2)}`;
}

/** Right, wrong, or null where label or prediction is unknown. */
function isCorrect(image) {
  if (image.label === null || image.prediction === null) return null;
  return image.label === image.prediction;
}

const asText = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const asSigned = (value) => (value === null || value === undefined ? "–" : (value > 0 ? "+" : "") + value.toFixed(3));

// ---------------------------------------------------------------- elements

/** Make an element with properties and children; strings become text. */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A name as text that cannot reorder the text around it. */
const isolated = (text, properties = {}) => element("bdi", { textContent: text, ...properties });

function pictureOf(image, place, description) {
  const picture = element(
    "span",
    { className: "picture" },
    element("img", { alt: description, decoding: "async" }),
    element("canvas", { className: "heat", width: 0 }),
    element("canvas", { className: "line", width: 0 }),
  );
  for (const canvas of picture.querySelectorAll("canvas")) canvas.ariaHidden = "true";
  picture.dataset.place = place;
  return picture;
}

function showPhoto(picture) {
  const photo = picture.querySelector("img");
  const address = pictures[picture.dataset.place];
  if (!photo.src && address) photo.src = address;
}

function saidLine(image) {
  const line = element("span", { className: "said" });
  const correct = isCorrect(image);
  if (image.prediction === null) return line;
  if (correct !== null) {
    line.append(element("span", { className: correct ? "right" : "wrong" }, correct ? "right: " : "wrong: "));
  }
  line.append(isolated(className(image.prediction)), ` ${asText(image.confidence)}`);
  return line;
}

function labelLine(image) {
  if (isCorrect(image) !== false) return element("span", { hidden: true });
  return element("span", {}, "is ", isolated(className(image.label)));
}

function cardOf(image, place) {
  const card = element(
    "button",
    { type: "button", className: "card", tabIndex: -1 },
    pictureOf(image, place, `Image ${image.name}`),
    element(
      "span",
      { className: "caption" },
      saidLine(image),
      labelLine(image),
      element("span", { className: "place" }),
      isolated(image.name, { className: "file", title: image.name }),
    ),
  );
  card.querySelector(".file").style.display = "block";
  card.ariaHasPopup = "dialog";
  card.addEventListener("click", () => openRecord(place));
  return element("li", {}, card);
}

const cards = report.images.map(cardOf);

// ---------------------------------------------------------------- drawing what is in sight

const near = new Set(); // places of the cards in sight or nearly so

const watcher = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      const place = Number(target.dataset.place);
      if (isIntersecting) {
        near.add(place);
        drawCard(place);
      } else if (near.delete(place)) clear(pictureIn(place));
    }
  },
  { rootMargin: "500px 0px" },
);

const pictureIn = (place) => cards[place].querySelector(".picture");

function drawCard(place) {
  showPhoto(pictureIn(place));
  drawMap(pictureIn(place), report.images[place], chosenMap(report.images[place]));
}

/** Method, target or contours changed: captions of all cards, pictures of those in sight. */
function redraw() {
  cards.forEach((card, place) => {
    card.querySelector(".place").textContent = placeText(chosenMap(report.images[place]));
  });
  near.forEach(drawCard);
  if (state.open !== null && find("record").open) fillRecord(state.open);
}

// ---------------------------------------------------------------- filters and order

/** The tests an image must pass, one for each filter that is set. */
function tests() {
  const value = (id) => find(id).value;
  const found = [];
  const words = value("search").trim().toLocaleLowerCase();
  if (words) found.push((image) => image.name.toLocaleLowerCase().includes(words));
  if (value("label")) found.push((image) => String(image.label) === value("label"));
  if (value("prediction")) found.push((image) => String(image.prediction) === value("prediction"));
  if (value("correct")) found.push((image) => String(isCorrect(image)) === value("correct"));
  if (value("region")) found.push((image) => String(topRegion(chosenMap(image))) === value("region"));
  if (value("pair")) found.push((image) => `${image.label}>${image.prediction}` === value("pair"));
  return found;
}

/** The number that images are sorted by, or null where an image has none. */
function sortKey(order) {
  const [kind, place] = order.split(":");
  if (kind === "sure" || kind === "unsure") return (image) => image.confidence;
  if (kind === "density") return (image) => chosenMap(image)?.density?.[place] ?? null;
  if (kind === "disagreement") return (image) => chosenMap(image)?.agreement ?? null;
  return (image) => image.image;
}

/** Places of the images to show, in order; those without a number come last. */
function chosenPlaces() {
  const order = find("sort").value;
  const passed = tests();
  const key = sortKey(order);
  const sign = /^(sure|density)/.test(order) ? -1 : 1;
  const ranked = report.images
    .map((image, place) => ({ place, image }))
    .filter(({ image }) => passed.every((test) => test(image)))
    .map(({ place, image }) => ({ place, key: key(image) }));
  ranked.sort((a, b) => {
    if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.place - b.place;
    return sign * (a.key - b.key) || a.place - b.place;
  });
  return ranked.map(({ place }) => place);
}

function update() {
  state.shown = chosenPlaces();
  find("cards").replaceChildren(...state.shown.map((place) => cards[place]));
  setActive(0);
  find("count").textContent = countText(state.shown.length, report.images.length);
}

function countText(count, total) {
  const [shown, all] = [count, total].map((number) => number.toLocaleString("en"));
  if (!total) return "There are no images to show.";
  if (!count) return `None of ${all} images fits. “Show all” takes the filters away.`;
  return count === total ? `All ${all} images` : `${shown} of ${all} images`;
}

// ---------------------------------------------------------------- keyboard

const cardAt = (index) => cards[state.shown[index]]?.querySelector(".card");

/** Of all cards one alone is a stop of the Tab key. */
function setActive(index) {
  if (state.stop) state.stop.tabIndex = -1;
  state.active = index;
  state.stop = cardAt(index);
  if (state.stop) state.stop.tabIndex = 0;
}

function focusCard(index) {
  setActive(Math.max(0, Math.min(index, state.shown.length - 1)));
  cardAt(state.active)?.focus();
}

const columnsShown = () => getComputedStyle(find("cards")).gridTemplateColumns.split(" ").length;

function onGalleryKey(event) {
  const moves = {
    ArrowRight: () => state.active + 1,
    ArrowLeft: () => state.active - 1,
    ArrowDown: () => state.active + columnsShown(),
    ArrowUp: () => state.active - columnsShown(),
    Home: () => 0,
    End: () => state.shown.length - 1,
  };
  if (!(event.key in moves) || event.ctrlKey || event.altKey || event.metaKey) return;
  const to = moves[event.key]();
  event.preventDefault();
  if (to >= 0 && to < state.shown.length) focusCard(to);
}

// ---------------------------------------------------------------- one image's record

function openRecord(place) {
  setActive(state.shown.indexOf(place));
  fillRecord(place);
  if (!find("record").open) find("record").showModal();
  find("record").scrollTop = 0;
}

function closeRecord() {
  find("record").close();
}

/** Show the record of the next or previous image of the gallery. */
function turn(by) {
  const index = state.shown.indexOf(state.open) + by;
  if (index < 0 || index >= state.shown.length) return;
  const focused = document.activeElement?.dataset?.turn;
  openRecord(state.shown[index]);
  if (!focused) return;
  const same = find("record").querySelector(`[data-turn="${focused}"]:enabled`);
  (same ?? find("record").querySelector("button:enabled")).focus();
}

function fillRecord(place, map = chosenMap(report.images[place]) ?? report.images[place].maps[0]) {
  const image = report.images[place];
  state.open = place;
  const picture = pictureOf(image, place, `Image ${image.name}`);
  const left = element("div", {}, picture, factsOf(image));
  const right = element("div", {}, mapsTable(image, map), regionsTable(image, map));
  find("record").replaceChildren(barOf(image), element("div", { className: "body" }, left, right));
  showPhoto(picture);
  drawMap(picture, image, map);
}

function barOf(image) {
  const button = (text, action) => {
    const made = element("button", { type: "button", textContent: text });
    made.addEventListener("click", action);
    return made;
  };
  const turning = (text, by) => {
    const made = button(text, () => turn(by));
    made.dataset.turn = by;
    made.disabled = !(state.shown.indexOf(state.open) + by in state.shown);
    return made;
  };
  return element(
    "div",
    { className: "bar" },
    element("h2", { id: "record-title" }, isolated(image.name)),
    turning("Previous", -1),
    turning("Next", 1),
    button("Close", closeRecord),
  );
}

function factsOf(image) {
  const facts = [
    ["dataset index", String(image.image)],
    ["label", className(image.label)],
    ["prediction", className(image.prediction)],
    ["confidence", asText(image.confidence, 3)],
    ["size", `${image.width} × ${image.height} pixels`],
  ];
  const list = element("dl");
  for (const [term, text] of facts) list.append(element("dt", {}, term), element("dd", {}, isolated(text)));
  return list;
}

/** A table in a box that scrolls by itself on narrow screens. */
function tableOf(caption, head, rows) {
  const heading = head.map(([text, kind]) => element("th", { scope: "col", className: kind }, text));
  const table = element(
    "table",
    { className: "plain" },
    element("thead", {}, element("tr", {}, ...heading)),
    element("tbody", {}, ...rows),
  );
  const box = element("div", { className: "scroll", tabIndex: 0, role: "region" }, table);
  box.ariaLabel = caption;
  table.ariaLabel = caption;
  return element("div", { className: "framed" }, element("h3", {}, caption), box);
}

const cell = (text, className = "") => element("td", { className }, text);
const numberCell = (text, className = "") => cell(text, `number ${className}`);

/** All of the image's maps, one of which is chosen. */
function mapsTable(image, chosen) {
  const several = report.settings.length > 1;
  const rows = image.maps.map((map) => {
    const radio = element("input", { type: "radio", name: "map", checked: map === chosen });
    radio.dataset.map = "";
    radio.addEventListener("change", () => {
      fillRecord(state.open, map);
      find("record").querySelector("[data-map]:checked").focus();
    });
    const target = element("label", {}, radio, isolated(className(map.target)));
    return element(
      "tr",
      { className: map === chosen ? "chosen" : "" },
      cell(target),
      numberCell(asText(map.score, 3)),
      cell(map.evidence ? "yes" : "none"),
      numberCell(asText(map.agreement)),
      ...(several ? [cell(report.settings[map.setting], "wide")] : []),
    );
  });
  const head = [["target"], ["score", "number"], ["evidence"], ["agreement", "number"]];
  if (several) head.push(["heatmap"]);
  const caption = "Targets: choose the map to show";
  return Object.assign(tableOf(caption, head, rows), { role: "radiogroup", ariaLabel: caption });
}

function regionsTable(image, map) {
  if (!map?.density) return element("p", { className: "aside" }, "No regions were scored.");
  const rows = report.regions.map((name, i) => {
    const [density, area] = [map.density[i], image.area[i] ?? null];
    return element(
      "tr",
      {},
      element("td", {}, isolated(name)),
      numberCell(density === null ? whyNone(map, area) : asText(density), shadeOf(density)),
      numberCell(density === null || area === null ? "–" : `${(100 * density * area).toFixed(1)}%`),
      numberCell(area === null ? "–" : `${(100 * area).toFixed(1)}%`),
      ...(map.excess ? [numberCell(asSigned(map.excess[i])), numberCell(asSigned(map.probability?.[i]))] : []),
    );
  });
  const head = [["region"], ["density", "number"], ["share of heat", "number"], ["area", "number"]];
  if (map.excess) head.push(["effect on score", "number"], ["on probability", "number"]);
  return tableOf(`Regions of the map of ${className(map.target)}`, head, rows);
}

function whyNone(map, area) {
  if (!map.evidence) return "no evidence";
  return area === 0 ? "absent" : "too coarse";
}

/** The class of a density's colour, as the table above the gallery has it. */
function shadeOf(density) {
  if (density === null) return "";
  const doublings = Math.log2(Math.max(density, 0.25)) / 2;
  return `shade-${8 + Math.round(8 * Math.min(1, doublings))}`;
}

// ---------------------------------------------------------------- the controls

function fillSelect(id, options) {
  find(id).replaceChildren(...options.map(([value, text]) => new Option(text, value)));
}

/** Fill a filter, or hide it where there is nothing to choose. */
function fillFilter(id, options, all = [["", "all"]]) {
  fillSelect(id, [...all, ...options]);
  document.querySelector(`[data-for="${id}"]`).hidden = options.length < 2;
}

/** The values of a column with how often each occurs, by number. */
function counted(values) {
  const counts = new Map();
  for (const value of values) if (value !== null) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts];
}

function classOptions(column) {
  return counted(report.images.map((image) => image[column]))
    .sort(([a], [b]) => a - b)
    .map(([id, count]) => [String(id), `${className(id)} (${count})`]);
}

function pairOptions() {
  const wrong = report.images.filter((image) => isCorrect(image) === false);
  return counted(wrong.map((image) => `${image.label}>${image.prediction}`))
    .sort(([, a], [, b]) => b - a)
    .map(([pair, count]) => {
      const [label, prediction] = pair.split(">").map(Number);
      return [pair, `${className(label)} taken for ${className(prediction)} (${count})`];
    });
}

function sortOptions() {
  const maps = report.images.flatMap((image) => image.maps);
  const options = [["", "dataset order"]];
  if (report.images.some((image) => image.confidence !== null)) {
    options.push(["sure", "confidence, highest first"], ["unsure", "confidence, lowest first"]);
  }
  if (maps.some((map) => (map.agreement ?? null) !== null)) {
    options.push(["disagreement", "disagreement of heat and effect"]);
  }
  report.regions.forEach((name, i) => options.push([`density:${i}`, `density on ${name}`]));
  return options;
}

function fillControls() {
  fillFilter("label", classOptions("label"));
  fillFilter("prediction", classOptions("prediction"));
  const judged = new Set(report.images.map(isCorrect));
  fillFilter("correct", judged.has(true) || judged.has(false) ? [["true", "right"], ["false", "wrong"]] : []);
  fillFilter("region", report.regions.map((name, i) => [String(i), name]));
  fillFilter("pair", pairOptions());
  if (pairOptions().length === 1) document.querySelector('[data-for="pair"]').hidden = false;
  fillSelect("sort", sortOptions());
  fillFilter("setting", report.settings.map((name, i) => [String(i), name]), []);
  fillFilter("target", report.targets.map(({ id, name }) => [id, name]), []);
}

function setOpacity() {
  const percent = Number(find("opacity").value);
  document.documentElement.style.setProperty("--heat", percent / 100);
  find("opacity").ariaValueText = `${percent}% heatmap`;
}

/** Wait until typing pauses. */
function paused(action, milliseconds = 120) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, milliseconds);
  };
}

function listen() {
  const form = find("controls");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => [setOpacity, redraw, update].forEach((f) => f())));
  find("search").addEventListener("input", paused(update));
  find("opacity").addEventListener("input", setOpacity);
  find("contours").addEventListener("change", redraw);
  for (const id of ["label", "prediction", "correct", "region", "pair", "sort"]) {
    find(id).addEventListener("change", update);
  }
  for (const id of ["setting", "target"]) {
    find(id).addEventListener("change", () => [redraw, update].forEach((f) => f()));
  }
  find("cards").addEventListener("keydown", onGalleryKey);
  find("cards").addEventListener("focusin", (event) => {
    const place = event.target.closest("li") && cards.indexOf(event.target.closest("li"));
    if (state.shown.includes(place)) setActive(state.shown.indexOf(place));
  });
  find("record").addEventListener("close", () => cardAt(state.active)?.focus());
  find("record").addEventListener("click", (event) => event.target === find("record") && closeRecord());
  addEventListener("beforeprint", preparePrint);
}

/** Draw what is printed, and say what is not. */
function preparePrint() {
  for (const details of document.querySelectorAll("details")) details.open = true;
  state.shown.forEach((place, index) => {
    cards[place].classList.toggle("unprinted", index >= MOST_PRINTED);
    if (index >= MOST_PRINTED) return;
    pictureIn(place).querySelector("img").decoding = "sync";
    drawCard(place);
  });
  const more = state.shown.length > MOST_PRINTED;
  find("print-note").textContent = more ? `Printed are the first ${MOST_PRINTED} of ${state.shown.length} images.` : "";
}

function paintScale() {
  paint(find("scale"), Float32Array.from({ length: 256 }, (_, i) => i / 255), 1, 256);
}

function start() {
  fillControls();
  setOpacity();
  paintScale();
  cards.forEach((card, place) => {
    card.dataset.place = place;
    watcher.observe(card);
  });
  listen();
  redraw();
  update();
  document.documentElement.dataset.ready = Math.round(performance.now());
}

start();
