/** The playground: takes photos, asks the service, shows what it answers. */

import { byId, copyOf, element } from "./dom.js";
import { mark, showFacts, showMask } from "./facts.js";
import { Queue } from "./queue.js";
import {
  absolute,
  curlCommand,
  fetched,
  key,
  KINDS,
  loadedModels,
  Problem,
  savedAs,
  segment,
} from "./request.js";
import { decodedPng, View } from "./view.js";
import { Zoom } from "./zoom.js";

const STATES = {
  waiting: "waiting",
  running: "segmenting …",
  failed: "failed",
  cancelled: "cancelled",
};

const view = new View(byId("canvas"));
const zoom = new Zoom(byId("stage"), byId("canvas"), showScale);
const queue = new Queue(work, changed);
let models = [];
let inView = null;
let since = 0;

/** Segments a photo the way the page is set now. */
async function work(entry, signal) {
  since = performance.now();
  entry.blob ??= await fetched(entry.path, signal);
  entry.asked = { ...asked(), page: entry.page, runs: blurred(aboutModel(asked().model)) };
  const answer = await segment(entry, signal);
  // Another may be loaded since.
  if (!aboutModel(answer.result.model)) await welcome();
  return answer;
}

/** What the page is set to. */
function asked() {
  return { model: byId("models").value, tile: byId("tile").checked && !byId("tile").disabled };
}

/** Whether a mask in colours does not tell all classes of a model from each other. */
function blurred(about) {
  const colors = new Set(about?.classes.map((label) => label.color));
  return Boolean(about) && (colors.size < about.classes.length || colors.size > 256);
}

function aboutModel(name) {
  return models.find((model) => model.name === name);
}

/** Follows a photo through its states. */
function changed(entry) {
  fillQueue();
  fillBusy();
  if (entry.error?.locked) askForKey();
  if (entry !== queue.selected) {
    // To be heard; it is seen in the list.
    if (entry.error) byId("elsewhere").textContent = `${entry.name}: ${titled(entry.error)}`;
    return;
  }
  byId("problem").hidden = true;
  byId("result").toggleAttribute("aria-busy", entry.state !== "done");
  if (entry.state === "done") show(entry);
  else if (entry.error && (!entry.error.locked || key.get())) fail(entry);
  else if (entry.state === "running") say(`Segmenting ${entry.name} …`);
  else if (entry.state === "cancelled") say(`${entry.name}: cancelled.`);
}

async function show(entry) {
  const { result, milliseconds } = entry.answer;
  const [bitmap, mask, ...maps] = await Promise.all([
    createImageBitmap(entry.blob).catch(() => null),
    result.mask.encoding === "png" ? decodedPng(result.mask.data) : null,
    ...(result.alpha ?? []).map((stage) => decodedPng(stage.map)),
  ]);
  // The next may have come while these were decoded.
  if (queue.selected !== entry || entry.answer?.result !== result) return;
  const about = aboutModel(result.model);
  byId("result").hidden = false;
  // Of one page: the browser shows the first of a file, whichever was asked for.
  view.show(result.pages > 1 && entry.page > 1 ? null : bitmap, mask, result);
  if (inView !== entry) zoom.reset();
  inView = entry;
  const found = result.classes.map((area) => area.name).join(", ");
  byId("canvas").setAttribute("aria-label", `${entry.name} and its mask: ${found}`);
  introduce(about);
  showFacts(view, { result, milliseconds, maps }, about);
  byId("page-choice").hidden = result.pages < 2;
  Object.assign(byId("page"), { max: result.pages, value: entry.page });
  byId("pages").textContent = `of ${result.pages}`;
  byId("curl").textContent = curlCommand(entry);
  byId("copy").textContent = "Copy";
  const unseen = bitmap ? "" : " Your browser cannot show this kind of photo; here is the mask.";
  say(
    `${entry.name}: ${result.width} × ${result.height} pixels, ${result.classes.length} of ` +
      `${about.classes.length} classes found in ${milliseconds.toFixed(0)} ms.${unseen}`,
  );
}

function fail(entry) {
  const { error } = entry;
  const box = byId("problem");
  say("");
  byId("result").hidden = true;
  box.querySelector("strong").textContent = `${entry.name}: ${titled(error)}`;
  box.querySelector("p").textContent = error.message;
  box.querySelector("button").onclick = () => queue.again(entry);
  box.querySelector("button").hidden = !error.temporary;
  box.hidden = false;
  if (!(error instanceof Problem)) console.error(error);
}

function titled(error) {
  return error instanceof Problem ? error.title : "Unexpected";
}

/** Lists the photos, where there are several, each with its state. */
function fillQueue() {
  const { entries, selected } = queue;
  byId("queue").hidden = entries.length < 2;
  for (const entry of entries) {
    if (!entry.row) byId("photos").append((entry.row = queueRow(entry)));
    const button = entry.row.firstElementChild;
    const time = entry.answer && `${(entry.answer.milliseconds / 1000).toFixed(1)} s`;
    entry.row.dataset.state = entry.state;
    button.querySelector(".state").textContent = time ?? STATES[entry.state];
    button.title = entry.error ? `${entry.name}: ${titled(entry.error)}` : entry.name;
    if (entry === selected) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
  const done = entries.filter((entry) => entry.state === "done").length;
  byId("save-all").hidden = done < 2;
  byId("save-all").textContent = `Download all ${done}`;
}

function queueRow(entry) {
  const row = copyOf("photo-row");
  row.querySelector(".name").textContent = entry.name;
  row.firstElementChild.addEventListener("click", () => {
    queue.select(entry);
    if (entry.state === "cancelled" || outdated(entry)) queue.again(entry);
  });
  return row;
}

/** Whether a photo's answer is of other settings than the page has now. */
function outdated(entry) {
  const { model, tile } = asked();
  return entry.state === "done" && (entry.asked.model !== model || entry.asked.tile !== tile);
}

/** Shows how far it is while it works. */
function fillBusy() {
  const { busy, finished, entries } = queue;
  byId("busy").hidden = !busy;
  const bar = byId("progress");
  if (entries.length > 1) Object.assign(bar, { max: entries.length, value: finished });
  else bar.removeAttribute("value");
  const seconds = Math.floor((performance.now() - since) / 1000);
  const count = entries.length > 1 ? `${finished} of ${entries.length}` : "";
  byId("elapsed").textContent = [count, seconds ? `${seconds} s` : ""].filter(Boolean).join(", ");
}

/** Learns what is loaded; the first model answers until another is chosen. */
async function welcome() {
  const used = key.get();
  try {
    models = await loadedModels();
    const { value } = byId("models");
    byId("models").replaceChildren(...models.map((about) => element("option", about.name)));
    if (aboutModel(value)) byId("models").value = value;
    byId("model-choice").hidden = models.length < 2;
    introduce(aboutModel(byId("models").value));
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
  fillKinds(about);
  byId("tile").disabled = !about.modes.includes("tile");
  byId("tile-choice").hidden = byId("tile").disabled;
}

/** Offers to save what the model can answer with. */
function fillKinds(about) {
  const chosen = byId("kind").value;
  const offered = Object.entries(KINDS).filter(([, { needs }]) => !needs || needs(about));
  const options = offered.map(([kind, { label }]) =>
    Object.assign(element("option", label), { value: kind, selected: kind === chosen }),
  );
  byId("kind").replaceChildren(...options);
  const id = byId("of-class").value;
  byId("of-class").replaceChildren(
    ...about.classes.map((label) =>
      Object.assign(element("option", label.name), {
        value: label.id,
        selected: String(label.id) === id || (!id && label.id === 1),
      }),
    ),
  );
  fillOfClass();
}

/** Asks for a class where the answer is of one. */
function fillOfClass() {
  byId("of-class").hidden = !KINDS[byId("kind").value].ofClass;
}

function askForKey() {
  say("");
  byId("key-entry").hidden = false;
  byId("key").select();
}

function showScale(scale) {
  byId("zoom-level").textContent = `${Math.round(100 * scale)} %`;
  byId("zoom-out").disabled = scale === 1;
  byId("stage").classList.toggle("zoomed", scale > 1);
}

/** Asks anew for what the page is set to now. */
function again() {
  introduce(aboutModel(byId("models").value) ?? models[0]);
  if (queue.selected) queue.again(queue.selected);
}

function add(photos) {
  queue.add(photos);
  if (photos.length) byId("status").scrollIntoView({ block: "nearest" });
}

function addFiles(files) {
  add([...files].map((file) => ({ name: file.name, blob: file })));
}

function addSample(button) {
  const { file } = button.dataset;
  add([{ name: file, path: `playground/${file}` }]);
}

/** Asks for each photo's answer of the kind chosen, and saves it. */
async function save(entries) {
  for (const button of [byId("save"), byId("save-all")]) button.disabled = true;
  try {
    for (const entry of entries) {
      say(`Fetching ${entry.name} …`);
      const file = await savedAs(entry, byId("kind").value, byId("of-class").value);
      const link = Object.assign(document.createElement("a"), {
        href: URL.createObjectURL(file.blob),
        download: file.name,
      });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
      say(`Saved ${file.name}.`);
    }
  } catch (error) {
    say(`Not saved. ${error.message}`);
  } finally {
    for (const button of [byId("save"), byId("save-all")]) button.disabled = false;
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

const samples = [...document.querySelectorAll(".sample")];
for (const button of samples) button.addEventListener("click", () => addSample(button));
for (const span of document.querySelectorAll(".base")) span.textContent = absolute(".");

byId("file").addEventListener("change", (event) => {
  addFiles(event.target.files);
  // So that choosing the same file again is a change.
  event.target.value = "";
});
byId("opacity").addEventListener("input", (event) => {
  view.opacity = event.target.value / 100;
});
byId("canvas").addEventListener("pointermove", (event) => mark(view.classAt(event)));
byId("canvas").addEventListener("pointerleave", () => mark(null));
byId("zoom-in").addEventListener("click", () => zoom.in());
byId("zoom-out").addEventListener("click", () => zoom.out());
byId("zoom-all").addEventListener("click", () => zoom.reset());
byId("to-mask").addEventListener("click", showMask);
byId("copy").addEventListener("click", copyCommand);
byId("kind").addEventListener("change", fillOfClass);
byId("save").addEventListener("click", () => save([queue.selected]));
byId("save-all").addEventListener("click", () =>
  save(queue.entries.filter((entry) => entry.state === "done")),
);
byId("models").addEventListener("change", again);
byId("tile").addEventListener("change", again);
byId("page").addEventListener("change", (event) => {
  if (!event.target.reportValidity()) return;
  queue.selected.page = event.target.valueAsNumber;
  queue.again(queue.selected);
});
byId("cancel").addEventListener("click", () => queue.cancel());
byId("clear").addEventListener("click", () => {
  queue.clear();
  byId("photos").replaceChildren();
  for (const part of ["queue", "busy", "result", "problem"]) byId(part).hidden = true;
  say("");
  byId("file").focus();
});
byId("key-entry").addEventListener("submit", async (event) => {
  event.preventDefault();
  key.set(byId("key").value.trim());
  byId("key-entry").hidden = true;
  byId("problem").hidden = true;
  if (!(await welcome())) return;
  byId("key-entry").hidden = true;
  queue.resume();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && queue.busy) queue.cancel();
});
addEventListener("paste", (event) => addFiles(event.clipboardData.files));
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
  addFiles(event.dataTransfer.files);
});

view.opacity = byId("opacity").value / 100;
setInterval(() => queue.busy && fillBusy(), 500);
const wanted = Number(new URLSearchParams(location.search).get("sample"));
welcome().then(() => samples[wanted - 1] && addSample(samples[wanted - 1]));
