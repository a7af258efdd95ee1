"use strict";
// The gallery of a camlens report. It uses no framework and no network: this page contains
// everything, including heat drawn as pictures. Text is inserted as text, never as HTML.

// ---------------------------------------------------------------- the page's data

const find = (id) => document.getElementById(id);
const readJSON = (id) => JSON.parse(find(id).textContent);
const report = readJSON("data");
const pictures = readJSON("pictures"); // for each image `photo`, and `heat` for each of its maps

/** Number of cards shown at first, so that the tables below stay in reach. */
const FIRST = 24;
/** Largest number of images whose pictures are printed. */
const MOST_PRINTED = 60;
/** Smallest number of images that can be filtered. */
const FEW = 9;

/** The user's choices besides the values of the controls. */
const state = { shown: [], limit: FIRST, active: 0, open: null, sides: [null, null], zoom: 1, split: 50 };

function className(id) {
  if (id === null) return "unknown";
  return id < 0 ? "custom score" : (report.classes[id] ?? `class ${id}`);
}

// ---------------------------------------------------------------- an image's maps

const targetOf = (image, map) => {
  if (map.target === image.prediction) return "prediction";
  return map.target === image.label ? "label" : `k${map.k}`;
};

/** The role of a map's class for the image, as a suffix of its name. */
const roleOf = (image, map) => ({ prediction: " (predicted)", label: " (true)" })[targetOf(image, map)] ?? "";

function isTarget(image, map, target) {
  if (target === "prediction") return map.target === image.prediction;
  if (target === "label") return map.target === image.label;
  return target === "all" || `k${map.k}` === target;
}

/** The image's maps of the chosen methods and classes. */
function chosenMaps(image) {
  const [setting, target] = [find("setting").value, find("target").value];
  return image.maps.filter((map) => (setting === "" || map.setting === Number(setting)) && isTarget(image, map, target));
}

const chosenMap = (image) => chosenMaps(image)[0];

/** The index of the region with the densest heat, or -1. */
function topRegion(map) {
  let top = -1;
  (map?.density ?? []).forEach((value, i) => {
    if (value !== null && (top < 0 || value > map.density[top])) top = i;
  });
  return top;
}

/** Whether the prediction is right; null if the label or the prediction is unknown. */
function isCorrect(image) {
  if (image.label === null || image.prediction === null) return null;
  return image.label === image.prediction;
}

const asText = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const asSigned = (value) => (value === null || value === undefined ? "–" : (value > 0 ? "+" : "") + value.toFixed(3));
const asPercent = (value) => (value === null ? "" : ` ${value > 0.995 && value < 1 ? "over 99" : Math.round(100 * value)}%`);

// ---------------------------------------------------------------- elements

/** Create an element with properties and children; strings become text. */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter((child) => child !== null));
  return made;
}

const span = (className, ...children) => element("span", { className }, ...children);

/** A name as text that cannot reorder the text around it; the tooltip shows all of it. */
const named = (text, className = "") => element("bdi", { textContent: text, className, title: text });

function button(text, action, properties = {}) {
  const made = element("button", { type: "button", textContent: text, ...properties });
  made.addEventListener("click", action);
  return made;
}

/** An image's photograph, and over it the heat of one of its maps. */
function pictureOf(place, map, description) {
  const image = report.images[place];
  const { photo, heat } = pictures[place];
  const drawn = map ? heat[image.maps.indexOf(map)] : "";
  const picture = span(
    "picture",
    element("img", { className: "photo", alt: description, decoding: "async", ...(photo ? { src: photo } : {}) }),
    drawn ? element("img", { className: "heat", alt: "", decoding: "async", src: drawn }) : null,
    outlinesOf(place),
  );
  picture.style.aspectRatio = String(ratioOf(image));
  return picture;
}

/** An element of a drawing. */
function drawing(tag, attributes, ...children) {
  const made = document.createElementNS(find("drawing").namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Units of the outlines' paths in a pixel of the image: the longer side has 224. */
const unitsOf = (image) => 224 / Math.max(image.width, image.height);
const lineColor = (i) => report.lines[i % report.lines.length];

/** The paths and places of an image's outlines; the first region comes last, on top of shared edges. */
const linesOf = (place) => pictures[place].outlines.map((d, i) => ({ d, i })).filter(({ d }) => d).reverse();

/** The outlines of an image's regions, over a dark line that makes them visible on any picture. */
function outlinesOf(place) {
  const image = report.images[place];
  const [width, height] = [image.width, image.height].map((side) => side * unitsOf(image));
  const paths = linesOf(place).flatMap(({ d, i }) => {
    const line = drawing("path", { d, stroke: lineColor(i) }, drawing("title", {}, report.regions[i]));
    return [drawing("path", { d, class: "under" }), line];
  });
  return drawing("svg", { class: "outlines", viewBox: `0 0 ${width} ${height}`, "aria-hidden": true }, ...paths);
}

/** A region's name, beside a piece of its outline if there is any. */
function regionName(i) {
  if (!pictures.some(({ outlines }) => outlines[i])) return named(report.regions[i]);
  const line = span("line");
  line.style.background = lineColor(i);
  return span("", line, named(report.regions[i]));
}

const ratioOf = (image) => Math.min(4, Math.max(0.4, image.width / image.height));

/** Whether several methods, and several classes of an image, are shown. */
const several = () => ({
  methods: report.settings.length > 1 && find("setting").value === "",
  classes: find("target").value === "all",
});

/** A map's method and class, unless the card shows them already, and the region of its highest density. */
function tileName(image, map) {
  const { methods, classes } = several();
  const words = [];
  if (methods) words.push(named(report.settings[map.setting].name));
  if (classes) words.push(span("", named(className(map.target)), asPercent(map.confidence)));
  if (!words.length) words.push(named(report.settings[map.setting].name));
  const top = topRegion(map);
  if (!map.evidence) words.push(span("none", "no evidence"));
  else if (top >= 0) words.push(span("place", named(report.regions[top]), ` ${map.density[top].toFixed(2)}`));
  else if (map.density) words.push(span("none", "regions too coarse"));
  return span("tile-name", ...words.flatMap((word, i) => (i ? [" · ", word] : [word])));
}

/** An image's chosen maps in reading order, and the number of columns including the photograph. */
function layoutOf(image) {
  const maps = chosenMaps(image);
  const [methods, classes] = ["setting", "k"].map((name) => new Set(maps.map((map) => map[name])).size);
  // Methods or classes, whichever are more, are placed side by side.
  if (methods >= classes) maps.sort((a, b) => a.k - b.k || a.setting - b.setting);
  return { maps, columns: 1 + Math.max(1, methods, classes) };
}

function tilesOf(image, place) {
  const { maps, columns } = layoutOf(image);
  const photo = span("tile", pictureOf(place, null, `Image ${image.name}`), span("tile-name", "photograph"));
  const tiles = span("tiles", photo);
  tiles.style.setProperty("--columns", columns);
  photo.style.gridRow = `span ${Math.max(1, Math.ceil(maps.length / (columns - 1)))}`;
  for (const map of maps) {
    const what = `${report.settings[map.setting].name}, ${className(map.target)}`;
    const tile = span("tile", pictureOf(place, map, what), tileName(image, map));
    tile.dataset.map = image.maps.indexOf(map);
    tiles.append(tile);
  }
  if (!maps.length) tiles.append(span("tile none", "no map of this class"));
  return tiles;
}

/** True and predicted class; a sign and a word, not only a colour, show whether it is right. */
function saidLine(image) {
  const line = span("said");
  const correct = isCorrect(image);
  if (correct !== null) {
    const [sign, word, kind] = correct ? ["✓", "right", "right"] : ["✗", "wrong", "wrong"];
    line.append(span(kind, span("sign", sign), span("hidden", ` ${word}: `)));
  }
  if (image.label !== null) line.append(span("class", "true: ", named(className(image.label))));
  if (image.prediction !== null) {
    line.append(span("class", "predicted: ", named(className(image.prediction)), asPercent(image.confidence)));
  }
  return line;
}

/** The class that the heat explains, unless it is the correctly predicted class. */
function explainedLine(image) {
  const map = chosenMap(image);
  if (!map || find("target").value === "all") return null;
  if (isCorrect(image) !== false && map.target === image.prediction) return null;
  return span("explained", "heat explains: ", named(className(map.target)), asPercent(map.confidence), roleOf(image, map));
}

function cardOf(place) {
  const image = report.images[place];
  const caption = span("caption", named(image.name, "file"), saidLine(image), explainedLine(image));
  const card = element("button", { type: "button", className: "card", tabIndex: -1 }, caption, span("tiles"));
  card.ariaHasPopup = "dialog";
  card.addEventListener("click", (event) => {
    const map = event.target.closest("[data-map]")?.dataset.map;
    openRecord(place, map === undefined ? undefined : image.maps[map]);
  });
  const saving = button("Save", () => saveCard(place), { className: "tool", title: "Save these pictures as PNG", tabIndex: -1 });
  const item = element("li", {}, card, saving);
  item.dataset.place = place;
  watcher.observe(item);
  return item;
}

/** Fill in the pictures of a card that scrolls into view. */
function fill(item) {
  const place = Number(item.dataset.place);
  item.querySelector(".tiles").replaceWith(tilesOf(report.images[place], place));
}

const watcher = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      watcher.unobserve(target);
      fill(target);
    }
  },
  { rootMargin: "600px 0px" },
);

// ---------------------------------------------------------------- filters and order

/** The tests that an image must pass, one for each filter that is set. */
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

/** The number that images are sorted by, or null if an image has none. */
function sortKey(order) {
  const [kind, place] = order.split(":");
  if (kind === "sure" || kind === "unsure") return (image) => image.confidence;
  if (kind === "density") return (image) => chosenMap(image)?.density?.[place] ?? null;
  if (kind === "disagreement") return (image) => chosenMap(image)?.agreement ?? null;
  return (image) => image.image;
}

/** Indexes of the images to show, in order; images without a number come last. */
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

/** Show the images that the controls select. */
function update() {
  state.shown = chosenPlaces();
  showLegend();
  showCards();
  setActive(0);
}

/** Name the method, layer and grid of the maps shown, beside the colour bar. */
function showLegend() {
  const chosen = find("setting").value;
  const shown = report.settings.filter((_, i) => chosen === "" || Number(chosen) === i);
  find("shown-methods").replaceChildren(...shown.map(({ name, detail }) => span("", named(name), `: ${detail}`)));
  find("legend").hidden = !report.images.length;
}

function showCards() {
  watcher.disconnect();
  const across = Math.max(2, ...report.images.slice(0, 50).map((image) => layoutOf(image).columns));
  find("cards").style.setProperty("--across", across);
  find("cards").replaceChildren(...state.shown.slice(0, state.limit).map(cardOf));
  const more = state.shown.length - state.limit;
  find("more").hidden = more <= 0;
  find("more").textContent = `Show all ${state.shown.length.toLocaleString("en")} images`;
  find("count").textContent = countText(Math.min(state.shown.length, state.limit), state.shown.length);
}

function countText(visible, fitting) {
  const [a, b, c] = [visible, fitting, report.images.length].map((number) => number.toLocaleString("en"));
  if (!report.images.length) return "There are no images to show.";
  if (!fitting) return `None of ${c} images matches. “Clear” removes the filters.`;
  if (visible < fitting) return fitting === report.images.length ? `First ${a} of ${b} images` : `First ${a} of ${b} matching images, ${c} in total`;
  return fitting < report.images.length ? `${b} of ${c} images` : report.images.length < FEW ? "" : `All ${c} images`;
}

function showAll() {
  const first = state.limit;
  state.limit = Infinity;
  showCards();
  focusCard(first);
}

// ---------------------------------------------------------------- keyboard

const cardAt = (index) => find("cards").children[index]?.querySelector(".card");

/** Only one card and its save button can be reached by the Tab key. */
function setActive(index) {
  for (const stop of find("cards").querySelectorAll('[tabindex="0"]')) stop.tabIndex = -1;
  state.active = index;
  for (const stop of find("cards").children[index]?.querySelectorAll("button") ?? []) stop.tabIndex = 0;
}

function focusCard(index) {
  setActive(Math.max(0, Math.min(index, find("cards").children.length - 1)));
  cardAt(state.active)?.focus();
}

const columnsShown = () => getComputedStyle(find("cards")).gridTemplateColumns.split(" ").length;

function onGalleryKey(event) {
  const last = find("cards").children.length - 1;
  const moves = {
    ArrowRight: () => state.active + 1,
    ArrowLeft: () => state.active - 1,
    ArrowDown: () => state.active + columnsShown(),
    ArrowUp: () => state.active - columnsShown(),
    Home: () => 0,
    End: () => last,
  };
  if (!(event.key in moves) || event.ctrlKey || event.altKey || event.metaKey) return;
  const to = moves[event.key]();
  event.preventDefault();
  if (to >= 0 && to <= last) focusCard(to);
}

function onRecordKey(event) {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by || event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input, select, .scroll, .stage")) return;
  event.preventDefault();
  turn(by);
}

// ---------------------------------------------------------------- one image's record

function openRecord(place, map) {
  setActive(state.shown.indexOf(place));
  const image = report.images[place];
  const right = map ?? chosenMap(image) ?? image.maps[0];
  state.sides = [null, right ? { setting: right.setting, target: targetOf(image, right) } : null];
  state.zoom = 1;
  fillRecord(place);
  find("record").showModal();
  find("record").scrollTop = 0;
  find("record").querySelector("[data-turn]:enabled, .close").focus();
}

/** Show the record of the next or previous image of the gallery. */
function turn(by) {
  const index = state.shown.indexOf(state.open) + by;
  if (index < 0 || index >= state.shown.length) return;
  const focused = document.activeElement?.dataset?.turn;
  if (index >= state.limit) {
    state.limit = Infinity;
    showCards();
  }
  setActive(index);
  fillRecord(state.shown[index]);
  if (!focused) return;
  const same = find("record").querySelector(`[data-turn="${focused}"]:enabled`);
  (same ?? find("record").querySelector("button:enabled")).focus();
}

/** The map of one side, of the method and class chosen there, if the image has it. */
function sideMap(image, side) {
  const wanted = state.sides[side];
  if (!wanted) return null;
  const own = image.maps.filter((map) => map.setting === wanted.setting);
  return own.find((map) => isTarget(image, map, wanted.target)) ?? own[0] ?? null;
}

function fillRecord(place) {
  const image = report.images[place];
  state.open = place;
  const stage = element("div", { className: "show" }, stageOf(image, place), ...stageControls(image, place));
  const facts = element("div", { className: "told" }, saidLine(image), factsOf(image), mapsTable(image), ...regionsTable(image));
  find("record").replaceChildren(barOf(image), element("div", { className: "body" }, stage, facts));
  setSplit(state.split);
  setZoom(state.zoom);
  setOpacity(Number(find("opacity").value));
}

function barOf(image) {
  const turning = (text, by) => {
    const made = button(text, () => turn(by));
    made.dataset.turn = by;
    made.disabled = !(state.shown.indexOf(state.open) + by in state.shown);
    return made;
  };
  return element(
    "div",
    { className: "bar" },
    element("h2", { id: "record-title" }, named(image.name)),
    element("div", { className: "buttons" }, turning("Next", 1), turning("Previous", -1), button("Close", () => find("record").close(), { className: "close" })),
  );
}

/** The name of the picture on one side. */
function sideName(image, map) {
  if (!map) return "photograph";
  const name = report.settings[map.setting].name;
  return report.settings.length > 1 ? `${name}: ${className(map.target)}` : className(map.target);
}

/** Two pictures on top of each other; the slider sets how much of each is visible. */
function stageOf(image, place) {
  const pictures = [0, 1].map((side) => {
    const map = sideMap(image, side);
    const picture = pictureOf(place, map, sideName(image, map));
    picture.classList.add(["left", "right-side"][side]);
    return picture;
  });
  const canvas = element("div", { className: "canvas" }, ...pictures, span("divider"));
  const stage = element("div", { className: "stage", tabIndex: 0, role: "region", ariaLabel: "Pictures" }, canvas);
  stage.style.setProperty("--ratio", ratioOf(image));
  const drag = (event) => {
    if (state.zoom > 1 || !(event.buttons & 1)) return;
    const { left, width } = canvas.getBoundingClientRect();
    setSplit(Math.round(Math.min(100, Math.max(0, (100 * (event.clientX - left)) / width))));
  };
  stage.addEventListener("pointerdown", drag);
  stage.addEventListener("pointermove", drag);
  stage.addEventListener("dragstart", (event) => event.preventDefault());
  stage.addEventListener("dblclick", () => setZoom(state.zoom > 1 ? 1 : 3));
  return stage;
}

function stageControls(image, place) {
  const chooser = (side) => {
    const map = sideMap(image, side);
    const options = [null, ...image.maps].map((one, i) => new Option(sideName(image, one), i, false, one === map));
    const select = element("select", { ariaLabel: `Picture on the ${["left", "right"][side]}` }, ...options);
    select.dataset.side = side;
    select.addEventListener("change", () => {
      const chosen = image.maps[select.value - 1];
      state.sides[side] = chosen ? { setting: chosen.setting, target: targetOf(image, chosen) } : null;
      fillRecord(place);
      find("record").querySelector(`[data-side="${side}"]`).focus();
    });
    return select;
  };
  const slider = (id, label, value, action) => {
    const input = element("input", { type: "range", id, min: 0, max: 100, value, ariaLabel: label });
    input.addEventListener("input", () => action(Number(input.value)));
    return input;
  };
  const compare = element("div", { className: "compare" }, chooser(0), slider("split", "Compare: left to right", state.split, setSplit), chooser(1));
  const zoom = element(
    "span",
    { className: "buttons" },
    button("−", () => setZoom(state.zoom / 1.5), { id: "zoom-out", ariaLabel: "Zoom out", title: "Zoom out" }),
    button("+", () => setZoom(state.zoom * 1.5), { id: "zoom-in", ariaLabel: "Zoom in", title: "Zoom in" }),
    button("Save picture", () => saveStage(place), { id: "save-picture" }),
    image.link === null ? null : element("a", { href: image.link, target: "_blank", rel: "noopener", className: "original", textContent: "Original file" }),
  );
  const heat = element("label", { className: "range" }, "Heat opacity ", slider("record-opacity", "Heat opacity", find("opacity").value, setOpacity));
  return [compare, element("div", { className: "tools" }, heat, zoom)];
}

function setSplit(percent) {
  state.split = percent;
  find("split").value = percent;
  find("record").style.setProperty("--split", `${percent}%`);
}

/** Enlarge the picture around its centre; the box scrolls. */
function setZoom(zoom) {
  const stage = find("record").querySelector(".stage");
  const across = (stage.scrollLeft + stage.clientWidth / 2) / stage.scrollWidth;
  const down = (stage.scrollTop + stage.clientHeight / 2) / stage.scrollHeight;
  state.zoom = Math.min(8, Math.max(1, zoom));
  stage.style.setProperty("--zoom", state.zoom);
  stage.classList.toggle("zoomed", state.zoom > 1);
  stage.scrollLeft = across * stage.scrollWidth - stage.clientWidth / 2;
  stage.scrollTop = down * stage.scrollHeight - stage.clientHeight / 2;
  find("zoom-out").disabled = state.zoom === 1;
  find("zoom-in").disabled = state.zoom === 8;
}

function factsOf(image) {
  const map = sideMap(image, 1) ?? sideMap(image, 0);
  const facts = [
    ["image", String(image.image)],
    ["size", `${image.width} × ${image.height} pixels`],
    ...(map ? [["layer, grid", report.settings[map.setting].detail]] : []),
  ];
  return element("dl", {}, ...facts.flatMap(([term, text]) => [element("dt", {}, term), element("dd", {}, named(text))]));
}

/** A table in a box that scrolls on narrow screens. */
function tableOf(caption, head, rows) {
  const heading = head.map(([text, kind]) => element("th", { scope: "col", className: kind }, text));
  const table = element(
    "table",
    { className: "plain", ariaLabel: caption },
    element("thead", {}, element("tr", {}, ...heading)),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row))),
  );
  const box = element("div", { className: "scroll", tabIndex: 0, role: "group", ariaLabel: caption }, table);
  return element("div", { className: "framed" }, element("h3", {}, caption), box);
}

const cell = (text, className = "") => element("td", { className }, text);
const numberCell = (text, className = "") => cell(text, `number ${className}`);

/** The scores of all of the image's maps. */
function mapsTable(image) {
  const agreement = image.maps.some((map) => (map.agreement ?? null) !== null);
  const probability = image.maps.some((map) => map.confidence !== null);
  const methods = report.settings.length > 1;
  const rows = image.maps.map((map) => {
    const none = map.evidence ? null : span("none", " no evidence");
    return [
      element("td", {}, named(className(map.target)), roleOf(image, map), none),
      ...(methods ? [element("td", {}, named(report.settings[map.setting].name))] : []),
      numberCell(asText(map.score, 3)),
      ...(probability ? [numberCell(map.confidence === null ? "–" : asPercent(map.confidence).trim(), "detail")] : []),
      ...(agreement ? [numberCell(asText(map.agreement))] : []),
      ...report.measures.map((_, i) => numberCell(asText(map.measures[i], 3))),
    ];
  });
  const head = [["class"], ...(methods ? [["method"]] : []), ["score", "number"]];
  if (probability) head.push(["probability", "number detail"]);
  if (agreement) head.push(["agreement", "number"]);
  head.push(...report.measures.map((name) => [name, "number"]));
  return rows.length ? tableOf("Scores", head, rows) : null;
}

function regionsTable(image) {
  const map = sideMap(image, 1) ?? sideMap(image, 0);
  if (!map?.density) return [];
  const rows = report.regions.map((_, i) => {
    const [density, area] = [map.density[i], image.area[i] ?? null];
    return [
      element("td", {}, regionName(i)),
      numberCell(density === null ? whyNone(map, area) : asText(density), density === null ? "none" : ""),
      numberCell(density === null || area === null ? "–" : `${(100 * density * area).toFixed(1)}%`, "detail"),
      numberCell(area === null ? "–" : `${(100 * area).toFixed(1)}%`, "detail"),
      ...(map.excess ? excessCells(map, i) : []),
    ];
  });
  const head = [["region"], ["density", "number"], ["of heat", "number detail"], ["of area", "number detail"]];
  if (!map.excess) return [tableOf(`Regions: ${sideName(image, map)}`, head, rows)];
  head.push(["excess of the score", "number"], ["costs more than", "number"], ["excess of the prob\u00adability", "number detail"]);
  const table = tableOf(`Regions: ${sideName(image, map)}`, head, rows);
  table.append(element("p", { className: "aside" }, howToReadExcess));
  return [table];
}

const howToReadExcess =
  "Excess: the drop beyond the mean at random positions; ± is the standard error of that mean. The share of these " +
  "positions where removing the same shape costs less: a region that matters costs more than nearly all of them, " +
  "an arbitrary one more than any share of them.";

function excessCells(map, i) {
  const withError = (value, error) => asSigned(value) + (value === null ? "" : ` ± ${asText(error, 3)}`);
  const exceeds = map.exceeds?.[i] ?? null;
  return [
    numberCell(withError(map.excess[i], map.error[i])),
    numberCell(exceeds === null ? "–" : `${Math.round(100 * exceeds)}%`),
    numberCell(withError(map.probability?.[i] ?? null, map.probability_error?.[i] ?? null), "detail"),
  ];
}

function whyNone(map, area) {
  if (!map.evidence) return "no evidence";
  return area === 0 ? "absent" : "too coarse";
}

// ---------------------------------------------------------------- saving

function save(name, content) {
  const address = URL.createObjectURL(content);
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

const fileName = (image, end) => `${image.name.replace(/[^\p{L}\p{N}.-]+/gu, "_").slice(-80)}-${end}.png`;

async function loaded(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  return image;
}

/** Draw a photograph and a map's heat between two shares of the width. */
async function drawPicture(context, place, map, box, [from, to] = [0, 1]) {
  const { photo, heat } = pictures[place];
  const drawn = map ? heat[report.images[place].maps.indexOf(map)] : "";
  const layers = [[photo, 1], [drawn, Number(find("opacity").value) / 100]].filter(([address]) => address);
  const images = await Promise.all(layers.map(([address]) => loaded(address)));
  context.save();
  context.beginPath();
  context.rect(box.x + from * box.width, box.y, (to - from) * box.width, box.height);
  context.clip();
  images.forEach((image, i) => {
    context.globalAlpha = layers[i][1];
    context.drawImage(image, box.x, box.y, box.width, box.height);
  });
  if (find("outlines").checked) drawOutlines(context, place, box);
  context.restore();
}

function drawOutlines(context, place, box) {
  const scale = box.width / (report.images[place].width * unitsOf(report.images[place]));
  const position = new DOMMatrix().translate(box.x, box.y).scale(scale);
  context.globalAlpha = 1;
  linesOf(place).forEach(({ d, i }) => {
    const path = new Path2D();
    path.addPath(new Path2D(d), position);
    for (const [strokeStyle, lineWidth] of [["#000", 4], [lineColor(i), 2]]) {
      Object.assign(context, { strokeStyle, lineWidth });
      context.stroke(path);
    }
  });
}

function blank(width, height) {
  const canvas = element("canvas", { width, height });
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.fillStyle = "#1b1f24";
  context.font = "18px sans-serif";
  return [canvas, context];
}

const saveCanvas = (canvas, name) => new Promise((done) => canvas.toBlob((content) => done(save(name, content))));

/** Save a card's pictures side by side with captions. */
async function saveCard(place) {
  const image = report.images[place];
  const maps = [null, ...chosenMaps(image)];
  const [width, text] = [360, 30];
  const height = Math.round((width * image.height) / image.width);
  const [canvas, context] = blank(maps.length * (width + 12) - 12, height + 2 * text);
  context.fillText(`${image.name}  ${saidLine(image).textContent}`, 4, 21, canvas.width - 8);
  for (const [i, map] of maps.entries()) {
    const x = i * (width + 12);
    await drawPicture(context, place, map, { x, y: text, width, height });
    const { name, detail } = map ? report.settings[map.setting] : {};
    const words = map ? `${name} (${detail}): ${className(map.target)}` : "photograph";
    context.fillText(words, x + 4, height + text + 21, width - 8);
  }
  await saveCanvas(canvas, fileName(image, "maps"));
}

/** Save the large picture as shown. */
async function saveStage(place) {
  const image = report.images[place];
  const factor = Math.max(1, Math.round(896 / Math.max(image.width, image.height)));
  const shrunk = Math.min(1, 1792 / Math.max(image.width, image.height));
  const [width, height] = [image.width, image.height].map((side) => Math.max(1, Math.round(side * factor * shrunk)));
  const [canvas, context] = blank(width, height);
  const box = { x: 0, y: 0, width, height };
  await drawPicture(context, place, sideMap(image, 0), box, [0, state.split / 100]);
  await drawPicture(context, place, sideMap(image, 1), box, [state.split / 100, 1]);
  await saveCanvas(canvas, fileName(image, "compared"));
}

/** A CSV field: quoted if needed, and never a formula. */
function field(value) {
  if (value === null || value === undefined) return "";
  const text = typeof value === "string" ? value.replace(/^(?=[=+\-@\t\r])/, "'") : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The matching images as CSV, with a line for each of their maps. */
function tableText() {
  const head = ["image", "name", "true", "predicted", "confidence", "method", "maps", "class", "score", "probability", "evidence", ...report.measures];
  const densities = report.regions.map((name) => `density of ${name}`);
  const lines = state.shown.flatMap((place) => {
    const image = report.images[place];
    const [label, prediction] = [image.label, image.prediction].map((id) => (id === null ? null : className(id)));
    return image.maps.map((map) => [
      ...[image.image, image.name, label, prediction, image.confidence],
      ...[report.settings[map.setting].name, report.settings[map.setting].detail, className(map.target)],
      ...[map.score, map.confidence, map.evidence, ...map.measures, ...report.regions.map((_, i) => map.density?.[i] ?? null)],
    ]);
  });
  return [[...head, ...densities], ...lines].map((line) => `${line.map(field).join(",")}\r\n`).join("");
}

const saveText = (name, text) => save(name, new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));

// ---------------------------------------------------------------- the controls

/** Fill a select, or hide it if there is nothing to choose. */
function fillSelect(id, options, least = 2) {
  find(id).replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  const label = document.querySelector(`[data-for="${id}"]`);
  if (label) label.hidden = options.length < least;
}

/** The values of a column and how often each occurs. */
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
      return [pair, `${className(label)} mistaken for ${className(prediction)} (${count})`];
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
  const all = [["", "all"]];
  const judged = new Set(report.images.map(isCorrect));
  fillSelect("label", [...all, ...classOptions("label")], 3);
  fillSelect("prediction", [...all, ...classOptions("prediction")], 3);
  fillSelect("correct", [...all, ...(judged.has(true) && judged.has(false) ? [["true", "right"], ["false", "wrong"]] : [])]);
  fillSelect("region", [...all, ...report.regions.map((name, i) => [String(i), name])], 3);
  fillSelect("pair", [...all, ...pairOptions()]);
  fillSelect("sort", sortOptions());
  const [methods, most] = [report.settings.length, Math.max(0, ...report.images.map((image) => image.maps.length))];
  fillSelect("setting", [...(methods > 1 ? [["", "all methods"]] : []), ...report.settings.map(({ name }, i) => [String(i), name])]);
  if (methods > 6) find("setting").value = "0";
  const every = most > methods && most <= 12 ? [["all", "all classes"]] : [];
  fillSelect("target", [...report.targets.map(({ id, name }) => [id, name]), ...every]);
  if (every.length && (report.images.length === 1 || (methods === 1 && most <= 3))) find("target").value = "all";
  for (const id of ["setting", "target"]) markDefault(find(id));
  const outlined = report.regions.map((_, i) => i).filter((i) => pictures.some(({ outlines }) => outlines[i]));
  find("key").append(...outlined.map(regionName));
  find("key").hidden = !outlined.length;
  find("filter").hidden = report.images.length < FEW;
  find("save").hidden = !report.images.length;
  const size = report.images.length <= 4 ? 280 : report.images.length <= 200 ? 180 : 130;
  find("size").defaultValue = find("size").value = size;
}

/** Make the current choice the one that a reset restores. */
function markDefault(select) {
  for (const option of select.options) option.defaultSelected = option.selected;
}

function setOpacity(percent) {
  document.documentElement.style.setProperty("--heat", percent / 100);
  for (const id of ["opacity", "record-opacity"]) {
    if (!find(id)) continue;
    find(id).value = percent;
    find(id).ariaValueText = `${percent}% heat`;
  }
}

const setOutlines = () => document.documentElement.classList.toggle("outlined", find("outlines").checked);
const setSize = () => find("cards").style.setProperty("--tile", `${find("size").value}px`);

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
  const readSliders = () => [setOpacity(Number(find("opacity").value)), setSize(), setOutlines()];
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => [readSliders(), update()]));
  find("search").addEventListener("input", paused(update));
  find("opacity").addEventListener("input", readSliders);
  find("size").addEventListener("input", readSliders);
  find("outlines").addEventListener("input", readSliders);
  for (const id of ["label", "prediction", "correct", "region", "pair", "sort", "setting", "target"]) {
    find(id).addEventListener("change", update);
  }
  find("filter").addEventListener("click", () => {
    const open = find("filters").hidden;
    find("filters").hidden = !open;
    find("filter").ariaExpanded = String(open);
    // On a touch screen the keyboard would cover the filtered images.
    if (open && !matchMedia("(pointer: coarse)").matches) find("search").focus();
  });
  find("more").addEventListener("click", showAll);
  find("save").addEventListener("click", () => saveText("images.csv", tableText()));
  for (const made of document.querySelectorAll("[data-file]")) {
    made.addEventListener("click", () => saveText(made.dataset.file, report.files[made.dataset.file]));
  }
  find("cards").addEventListener("keydown", onGalleryKey);
  find("cards").addEventListener("focusin", (event) => setActive([...find("cards").children].indexOf(event.target.closest("li"))));
  find("record").addEventListener("keydown", onRecordKey);
  // Otherwise the browser would restore the focus to the image that was opened first.
  find("record").addEventListener("close", () => focusCard(state.shown.indexOf(state.open)));
  find("record").addEventListener("click", (event) => event.target === find("record") && find("record").close());
  addEventListener("beforeprint", preparePrint);
}

/** Fill in the pictures to print, and note how many images are left out. */
function preparePrint() {
  for (const details of document.querySelectorAll("details")) details.open = true;
  const items = [...find("cards").children];
  items.forEach((item, index) => {
    item.classList.toggle("unprinted", index >= MOST_PRINTED);
    if (index >= MOST_PRINTED) return;
    fill(item);
    for (const image of item.querySelectorAll("img")) image.decoding = "sync";
  });
  const printed = Math.min(items.length, MOST_PRINTED);
  const more = state.shown.length > printed;
  find("print-note").textContent = more ? `Only the first ${printed} of ${state.shown.length} images are printed.` : "";
}

fillControls();
setOpacity(Number(find("opacity").value));
setSize();
setOutlines();
listen();
update();
document.documentElement.dataset.ready = Math.round(performance.now());
