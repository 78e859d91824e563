/** The playground: takes a photo, asks the service, shows what it answers. */

import { axisTop, drawPlot, number } from "./plot.js";
import {
  absolute,
  curlCommand,
  fetched,
  key,
  loadedModels,
  Problem,
  savedAs,
  segment,
} from "./request.js";
import { decodedPng, View } from "./view.js";

const byId = (id) => document.getElementById(id);
const view = new View(byId("canvas"));
let pinned = null;
let current = null;
let running = new AbortController();

/** Segments a photo, `{name, blob}` or `{name, path}` of one of ours, and shows the answer. */
async function run(photo) {
  current = photo;
  photo.model = byId("models").value;
  running.abort();
  running = new AbortController();
  const { signal } = running;
  byId("problem").hidden = true;
  byId("result").setAttribute("aria-busy", "true");
  say(`Segmenting ${photo.name} …`);
  try {
    photo.blob ??= await fetched(photo.path);
    const [answer, models] = await Promise.all([segment(photo, signal), loadedModels()]);
    const about = models.find((model) => model.name === answer.result.model);
    const [bitmap, mask, ...maps] = await Promise.all([
      createImageBitmap(photo.blob).catch(() => null),
      decodedPng(answer.result.mask.data),
      ...answer.result.alpha.map((stage) => decodedPng(stage.map)),
    ]);
    if (signal.aborted) return;
    show(photo, { bitmap, mask, maps }, answer, about);
  } catch (error) {
    if (signal.aborted) return;
    fail(error, photo);
  }
  byId("result").removeAttribute("aria-busy");
}

function show(photo, { bitmap, mask, maps }, { result, milliseconds }, about) {
  byId("result").hidden = false;
  pinned = null;
  view.show(bitmap, mask, result);
  const found = result.classes.map((area) => area.name).join(", ");
  byId("canvas").setAttribute("aria-label", `${photo.name} and its mask: ${found}`);
  introduce(about);
  fillLegend(result.classes, about.classes);
  fillTiming(result.timing_ms, milliseconds);
  fillStages(result, maps, about);
  showMask();
  byId("curl").textContent = curlCommand(photo);
  byId("copy").textContent = "Copy";
  const unseen = bitmap ? "" : " Your browser cannot show this kind of photo; here is the mask.";
  say(
    `${photo.name}: ${result.width} × ${result.height} pixels, ${result.classes.length} of ` +
      `${about.classes.length} classes found in ${milliseconds.toFixed(0)} ms.${unseen}`,
  );
}

/** Shows what is loaded, where there is a choice; the first one answers until another is chosen. */
async function welcome() {
  const used = key.get();
  try {
    const models = await loadedModels();
    byId("models").replaceChildren(...models.map((about) => element("option", about.name)));
    byId("model-choice").hidden = models.length < 2;
    introduce(models[0]);
    return true;
  } catch (error) {
    if (!error.locked) say(error.message);
    else if (key.get() === used) askForKey();
    return false;
  }
}

function introduce(about) {
  const kernels = about.kernels_reason
    ? `${about.kernels} kernels (${about.kernels_reason})`
    : `${about.kernels} kernels`;
  byId("model").textContent = `Model ${about.name} (${about.network}), ${kernels}, ${about.provider}`;
}

function fillLegend(areas, classes) {
  const largestFirst = areas.toSorted((one, other) => other.pixels - one.pixels);
  byId("legend").replaceChildren(...largestFirst.map(legendRow));
  const present = new Set(areas.map((area) => area.id));
  const absent = classes.filter((label) => !present.has(label.id)).map((label) => label.name);
  byId("absent").textContent = absent.length ? `Not found: ${absent.join(", ")}.` : "";
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
function mark(id) {
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

function showMask() {
  view.overlay(null);
  for (const button of byId("stages").querySelectorAll(".map"))
    button.setAttribute("aria-pressed", "false");
  byId("shown").textContent = "Mask over the photo";
  byId("to-mask").hidden = true;
}

function askForKey() {
  say("");
  byId("key-entry").hidden = false;
  byId("key").select();
}

function fail(error, photo) {
  const box = byId("problem");
  const title = error instanceof Problem ? error.title : "Unexpected";
  say("");
  byId("result").hidden = true;
  if (error.locked) {
    askForKey();
    if (!key.get()) return;
  }
  box.querySelector("strong").textContent = `${photo.name}: ${title}`;
  box.querySelector("p").textContent = error.message;
  box.querySelector("button").onclick = () => run(photo);
  box.querySelector("button").hidden = !error.temporary;
  box.hidden = false;
  if (!(error instanceof Problem)) throw error;
}

function runSample(button) {
  const { file } = button.dataset;
  run({ name: file, path: `playground/${file}` });
}

function runFile(file) {
  if (file) run({ name: file.name, blob: file });
}

/** Asks for the current photo's answer of the kind chosen, and saves it. */
async function save() {
  byId("save").disabled = true;
  try {
    const file = await savedAs(current, byId("kind").value);
    const link = Object.assign(document.createElement("a"), {
      href: URL.createObjectURL(file.blob),
      download: file.name,
    });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    say(`Saved ${file.name}.`);
  } catch (error) {
    fail(error, current);
  } finally {
    byId("save").disabled = false;
  }
}

async function copyCommand() {
  try {
    await navigator.clipboard.writeText(byId("curl").textContent);
    byId("copy").textContent = "Copied";
    say("Command copied.");
  } catch {
    // Browsers give the clipboard to secure origins only: plain http from another machine is none.
    getSelection().selectAllChildren(byId("curl"));
    say("Command selected; copy it with your keyboard.");
  }
}

function say(text) {
  byId("status").textContent = text;
}

function share(fraction) {
  return fraction > 0 && fraction < 0.001 ? "< 0.1 %" : `${(100 * fraction).toFixed(1)} %`;
}

function copyOf(template) {
  return byId(template).content.firstElementChild.cloneNode(true);
}

function element(tag, text, className = "") {
  return Object.assign(document.createElement(tag), { textContent: text, className });
}

const samples = [...document.querySelectorAll(".sample")];
for (const button of samples) button.addEventListener("click", () => runSample(button));
for (const span of document.querySelectorAll(".base")) span.textContent = absolute(".");

byId("file").addEventListener("change", (event) => {
  runFile(event.target.files[0]);
  // So that choosing the same file again is a change.
  event.target.value = "";
});
byId("opacity").addEventListener("input", (event) => {
  view.opacity = event.target.value / 100;
});
byId("canvas").addEventListener("pointermove", (event) => mark(view.classAt(event)));
byId("canvas").addEventListener("pointerleave", () => mark(null));
byId("to-mask").addEventListener("click", showMask);
byId("copy").addEventListener("click", copyCommand);
byId("save").addEventListener("click", save);
byId("models").addEventListener("change", () => current && run(current));
byId("key-entry").addEventListener("submit", async (event) => {
  event.preventDefault();
  key.set(byId("key").value.trim());
  byId("key-entry").hidden = true;
  byId("problem").hidden = true;
  running.abort();
  if (!(await welcome())) return;
  byId("key-entry").hidden = true;
  if (current) run(current);
});
addEventListener("paste", (event) => runFile(event.clipboardData.files[0]));
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  runFile(event.dataTransfer.files[0]);
});

view.opacity = byId("opacity").value / 100;
const wanted = Number(new URLSearchParams(location.search).get("sample"));
welcome().then(() => samples[wanted - 1] && runSample(samples[wanted - 1]));
