/** Zooms and moves an element inside the box that clips it: wheel, pinch, drag, buttons and keys. */

const MOST = 32;
const STEP = 1.5;
// Of the box, for each press of an arrow key.
const STRIDE = 0.15;

export class Zoom {
  #target;
  #changed;
  #scale = 1;
  #left = 0;
  #top = 0;
  #pointers = new Map();

  /** `box` clips `target` and takes the keys; `changed` is called with the scale. */
  constructor(box, target, changed) {
    this.#target = target;
    this.#changed = changed;
    target.style.transformOrigin = "0 0";
    target.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    target.addEventListener("pointerdown", (event) => this.#down(event));
    target.addEventListener("pointermove", (event) => this.#move(event));
    for (const kind of ["pointerup", "pointercancel"])
      target.addEventListener(kind, (event) => this.#pointers.delete(event.pointerId));
    box.addEventListener("keydown", (event) => this.#key(event));
    target.addEventListener("dblclick", (event) =>
      this.#by(this.#scale > 1 ? 1 / this.#scale : 2 * STEP, ...this.#place(event)),
    );
  }

  in() {
    this.#by(STEP);
  }

  out() {
    this.#by(1 / STEP);
  }

  /** Shows all of it. */
  reset() {
    this.#by(1 / this.#scale);
  }

  /** Zooms by a factor; the point `x`, `y` of the box stays where it is, by default its middle. */
  #by(factor, x = this.#target.offsetWidth / 2, y = this.#target.offsetHeight / 2) {
    const scale = Math.min(Math.max(this.#scale * factor, 1), MOST);
    const kept = scale / this.#scale;
    this.#scale = scale;
    this.#to(x - (x - this.#left) * kept, y - (y - this.#top) * kept);
  }

  /** Moves the upper left corner, no further than that the box stays full. */
  #to(left, top) {
    const { offsetWidth, offsetHeight, style } = this.#target;
    this.#left = Math.min(Math.max(left, offsetWidth * (1 - this.#scale)), 0);
    this.#top = Math.min(Math.max(top, offsetHeight * (1 - this.#scale)), 0);
    style.transform = `matrix(${this.#scale}, 0, 0, ${this.#scale}, ${this.#left}, ${this.#top})`;
    // One finger scrolls the page until there is something to move.
    style.touchAction = this.#scale > 1 ? "none" : "pan-x pan-y";
    this.#changed(this.#scale);
  }

  /** Where an event is, in pixels of the box. */
  #place(event) {
    const box = this.#target.getBoundingClientRect();
    return [event.clientX - box.left + this.#left, event.clientY - box.top + this.#top];
  }

  #wheel(event) {
    // A page has to scroll past; a pinch on a touchpad is a wheel with Ctrl.
    if (!event.ctrlKey && this.#scale === 1) return;
    event.preventDefault();
    const lines = event.deltaMode ? 24 : 1;
    const speed = event.ctrlKey ? 0.01 : 0.002;
    this.#by(Math.exp(-event.deltaY * lines * speed), ...this.#place(event));
  }

  #down(event) {
    this.#pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (this.#scale > 1) this.#target.setPointerCapture(event.pointerId);
  }

  #move(event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY];
    const other = [...this.#pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.#pointers.set(event.pointerId, now);
    if (other) this.#by(distance(now, other) / distance(before, other), ...this.#place(event));
    else if (this.#scale > 1)
      this.#to(this.#left + now[0] - before[0], this.#top + now[1] - before[1]);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { offsetWidth, offsetHeight } = this.#target;
    const across = STRIDE * offsetWidth;
    const down = STRIDE * offsetHeight;
    const moves = {
      ArrowLeft: [across, 0],
      ArrowRight: [-across, 0],
      ArrowUp: [0, down],
      ArrowDown: [0, -down],
    };
    if (event.key === "+" || event.key === "=") this.in();
    else if (event.key === "-") this.out();
    else if (event.key === "0") this.reset();
    else if (event.key in moves && this.#scale > 1)
      this.#to(this.#left + moves[event.key][0], this.#top + moves[event.key][1]);
    else return;
    event.preventDefault();
  }
}

function distance(one, other) {
  return Math.max(Math.hypot(one[0] - other[0], one[1] - other[1]), 1);
}
