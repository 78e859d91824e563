/** The large picture: a photo with its mask, one class of it, or an alpha map on top. */

import { labelsOf } from "./runs.js";

// Of a canvas: phones have no larger ones.
const MAX_SIDE = 4096;

// What is not highlighted sinks under this, RGBA.
const VEIL = [18, 20, 26, 200];

/** Decodes a base64 PNG. */
export async function decodedPng(base64) {
  const image = new Image();
  image.src = `data:image/png;base64,${base64}`;
  await image.decode();
  return image;
}

export class View {
  #canvas;
  #context;
  #photo = null;
  #mask;
  #labels;
  #classes = [];
  #opacity = 1;
  #highlighted = null;
  #map = null;

  constructor(canvas) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
  }

  /**
   * Shows a new photo under its mask.
   *
   * `photo` is an ImageBitmap, or null where the browser cannot show this kind of file; `mask` is
   * an image in the colours of `result.classes`, or null where `result` has run lengths.
   */
  show(photo, mask, result) {
    this.#photo?.close();
    const scale = Math.min(1, MAX_SIDE / Math.max(result.width, result.height));
    const width = Math.max(1, Math.round(result.width * scale));
    const height = Math.max(1, Math.round(result.height * scale));
    Object.assign(this.#canvas, { width, height });
    this.#photo = photo;
    this.#classes = result.classes;
    this.#labels = mask
      ? labelsIn(mask, result.classes, width, height)
      : labelsOf(result.mask, width, height);
    const colours = new Map(result.classes.map((area) => [area.id, [...rgb(area.color), 255]]));
    this.#mask = this.#painted((id) => colours.get(id));
    this.#highlighted = this.#map = null;
    this.#paint();
  }

  /** Sets how much the mask or the map covers the photo, 0 to 1. */
  set opacity(value) {
    this.#opacity = value;
    this.#paint();
  }

  /** Shows one class alone, by its id; null shows all. */
  highlight(id) {
    if (id === this.#highlighted) return;
    this.#highlighted = id;
    this.#paint();
  }

  /** Shows `{image, across, down}`, a map and how many photo widths and heights it spans, or null. */
  overlay(map) {
    this.#map = map;
    this.#paint();
  }

  /** The class id under the pointer. */
  classAt(event) {
    const box = this.#canvas.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * this.#canvas.width);
    const row = Math.floor(((event.clientY - box.top) / box.height) * this.#canvas.height);
    return this.#labels[row * this.#canvas.width + column];
  }

  #paint() {
    if (!this.#labels) return;
    const context = this.#context;
    const { width, height } = this.#canvas;
    context.globalAlpha = 1;
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    if (this.#photo) context.drawImage(this.#photo, 0, 0, width, height);
    if (this.#highlighted !== null) {
      context.drawImage(this.#spotlight(), 0, 0);
      return;
    }
    context.globalAlpha = this.#opacity;
    context.imageSmoothingEnabled = this.#map === null;
    if (this.#map) {
      const { image, across, down } = this.#map;
      context.drawImage(image, 0, 0, across * width, down * height);
    } else {
      context.drawImage(this.#mask, 0, 0);
    }
  }

  /** The highlighted class in its colour, the rest under a veil. */
  #spotlight() {
    const { color } = this.#classes.find((area) => area.id === this.#highlighted);
    const lit = [...rgb(color), Math.round(255 * Math.max(this.#opacity, 0.35))];
    return this.#painted((id) => (id === this.#highlighted ? lit : VEIL));
  }

  /** A layer whose pixels have the colour, RGBA, of their class. */
  #painted(colourOf) {
    const { width, height } = this.#canvas;
    const canvas = layer(width, height);
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const colours = new Map(this.#classes.map(({ id }) => [id, packed(colourOf(id))]));
    this.#labels.forEach((id, at) => {
      pixels[at] = colours.get(id);
    });
    context.putImageData(image, 0, 0);
    return canvas;
  }
}

function layer(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

/** The class id of every pixel of a mask in the colours of its classes. */
function labelsIn(mask, classes, width, height) {
  const context = layer(width, height).getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  context.drawImage(mask, 0, 0, width, height);
  const image = context.getImageData(0, 0, width, height);
  const ids = new Map(classes.map((area) => [packed([...rgb(area.color), 255]), area.id]));
  return Uint16Array.from(new Uint32Array(image.data.buffer), (color) => ids.get(color));
}

function rgb(color) {
  return [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
}

/** Red, green, blue and alpha as the number that holds them in memory. */
function packed(rgba) {
  return new Uint32Array(Uint8Array.from(rgba).buffer)[0];
}
