/** What is known of the photo in view: its classes, where the time went, how each stage pools. */

import { byId, copyOf, element } from "./dom.js";
import { axisTop, drawPlot, number } from "./plot.js";

const MOST_ABSENT = 12;

let view = null;
let pinned = null;

/** Shows the facts of an answer, `{result, milliseconds, maps}`, of the model `about`, beside `where`. */
export function showFacts(where, { result, milliseconds, maps }, about) {
  view = where;
  pinned = null;
  fillLegend(result.classes, about.classes);
  fillTiming(result.timing_ms, milliseconds);
  byId("alpha").hidden = !result.alpha?.length;
  if (result.alpha) fillStages(result, maps, about);
  showMask();
}

function fillLegend(areas, classes) {
  const largestFirst = areas.toSorted((one, other) => other.pixels - one.pixels);
  byId("legend").replaceChildren(...largestFirst.map(legendRow));
  const present = new Set(areas.map((area) => area.id));
  const absent = classes.filter((label) => !present.has(label.id)).map((label) => label.name);
  const others = absent.length > MOST_ABSENT ? `${absent.length} others` : absent.join(", ");
  byId("absent").textContent = absent.length ? `Not found: ${others}.` : "";
}

function legendRow(area) {
  const row = copyOf("class-row");
  const button = row.querySelector("button");
  button.dataset.id = area.id;
  row.querySelector(".swatch").style.backgroundColor = area.color;
  row.querySelector(".name").textContent = area.name;
  row.querySelector(".share").textContent = share(area.fraction);
  row.querySelector(".pixels").textContent = `${area.pixels.toLocaleString("en")} px`;
  const bar = row.querySelector(".bar");
  bar.style.width = `${100 * area.fraction}%`;
  bar.style.backgroundColor = area.color;
  for (const kind of ["pointerenter", "focus"])
    button.addEventListener(kind, () => view.highlight(area.id));
  for (const kind of ["pointerleave", "blur"])
    button.addEventListener(kind, () => view.highlight(pinned));
  button.addEventListener("click", () => {
    showMask();
    pin(pinned === area.id ? null : area.id);
  });
  return row;
}

/** Keeps one class highlighted, by its id; null lets go. */
function pin(id) {
  pinned = id;
  for (const button of byId("legend").querySelectorAll("button"))
    button.setAttribute("aria-pressed", String(Number(button.dataset.id) === id));
  view.highlight(id);
}

/** Marks the legend's row of the class under the pointer. */
export function mark(id) {
  for (const button of byId("legend").querySelectorAll("button"))
    button.classList.toggle("under", Number(button.dataset.id) === id);
}

function fillTiming(timing, milliseconds) {
  const stages = Object.entries({
    decode: timing.decode,
    queue: timing.queue,
    infer: timing.infer,
    encode: timing.encode,
  });
  byId("timing-bar").replaceChildren(
    ...stages.map(([stage, time]) => {
      const part = element("span", "", stage);
      part.style.flexGrow = time;
      return part;
    }),
  );
  byId("timing").replaceChildren(
    ...stages.map(([stage, time]) => {
      const entry = document.createElement("div");
      entry.append(element("dt", stage, stage), element("dd", `${time.toFixed(1)} ms`));
      return entry;
    }),
  );
  byId("round-trip").textContent = `${milliseconds.toFixed(1)} ms in all, as seen from this page.`;
}

function fillStages(result, maps, about) {
  const top = axisTop(Math.max(...result.alpha.flatMap((stage) => stage.channel_mean)));
  const cards = result.alpha.map((stage, at) => {
    const { stride } = about.stages.find((entry) => entry.name === stage.stage);
    return stageCard(stage, maps[at], extent(stage, stride, result, about), top);
  });
  byId("stages").replaceChildren(...cards);
}

/** How many photo widths and heights a map spans: its last row and column may hang over. */
function extent(stage, stride, result, about) {
  const [, rows, columns] = stage.shape;
  const scale = Math.min(1, about.input.max_side / Math.max(result.width, result.height));
  return {
    across: (columns * stride) / Math.round(result.width * scale),
    down: (rows * stride) / Math.round(result.height * scale),
  };
}

function stageCard(stage, image, spans, top) {
  const card = copyOf("stage-card");
  const [channels, rows, columns] = stage.shape;
  card.querySelector("h3").textContent = stage.stage;
  card.querySelector("p").textContent = `${channels} channels of ${columns} × ${rows}`;
  card.querySelector(".range").textContent =
    `α from ${number(stage.min)} to ${number(stage.max)}, mean ${number(stage.mean)}`;
  const button = card.querySelector(".map");
  const picture = card.querySelector("img");
  picture.src = image.src;
  picture.alt =
    `Alpha map of ${stage.stage}, mean over channels: ` +
    `black is ${number(stage.map_min)}, white ${number(stage.map_max)}. Lay it over the photo.`;
  button.addEventListener("click", () => {
    if (button.getAttribute("aria-pressed") === "true") showMask();
    else showMap(stage, { image, ...spans }, button);
  });
  drawPlot(card.querySelector(".plot"), stage.channel_mean, stage.mean, top);
  return card;
}

function showMap(stage, map, button) {
  showMask();
  pin(null);
  view.overlay(map);
  button.setAttribute("aria-pressed", "true");
  byId("shown").textContent = `Alpha map of ${stage.stage} over the photo`;
  byId("to-mask").hidden = false;
  byId("canvas").scrollIntoView({ block: "nearest" });
}

export function showMask() {
  view.overlay(null);
  for (const button of byId("stages").querySelectorAll(".map"))
    button.setAttribute("aria-pressed", "false");
  byId("shown").textContent = "Mask over the photo";
  byId("to-mask").hidden = true;
}

function share(fraction) {
  return fraction > 0 && fraction < 0.001 ? "< 0.1 %" : `${(100 * fraction).toFixed(1)} %`;
}
