/** Photos that wait for their turn, one at a time; the one that is looked at goes first. */

/**
 * What becomes of a photo, `{name, blob}` or `{name, path}` of one of ours.
 *
 * `state` is waiting, running, done, failed or cancelled; then there is `answer`, or `error`, which
 * one that waits for a key has as well.
 */
export class Queue {
  #work;
  #changed;
  #running = null;
  #held = false;
  entries = [];
  /** The one that is looked at. */
  selected = null;

  /** `work(entry, signal)` resolves to the answer; `changed(entry)` follows each change of state. */
  constructor(work, changed) {
    this.#work = work;
    this.#changed = changed;
  }

  /** Adds photos and looks at the first of them. */
  add(photos) {
    const added = photos.map((photo) => ({ ...photo, page: 1, state: "waiting" }));
    this.entries.push(...added);
    for (const entry of added) this.#changed(entry);
    if (added.length) this.select(added[0]);
  }

  select(entry) {
    this.selected = entry;
    this.#changed(entry);
    this.#next();
  }

  /** Asks again, of an answer that is there already or of none. */
  again(entry) {
    if (entry === this.#running?.entry) this.#running.stop.abort();
    this.#turn(entry, "waiting");
    this.#next();
  }

  /** Gives up what is running and waiting. */
  cancel() {
    for (const entry of this.entries) if (this.#open(entry)) this.#turn(entry, "cancelled");
    this.#running?.stop.abort();
  }

  /** Forgets all photos. */
  clear() {
    this.cancel();
    this.entries = [];
    this.selected = null;
  }

  /** Goes on after a key was asked for. */
  resume() {
    this.#held = false;
    this.#next();
  }

  /** How many have come to an end. */
  get finished() {
    return this.entries.filter((entry) => !this.#open(entry)).length;
  }

  get busy() {
    return !this.#held && this.finished < this.entries.length;
  }

  #open(entry) {
    return entry.state === "waiting" || entry.state === "running";
  }

  #turn(entry, state, found = {}) {
    Object.assign(entry, { state, answer: null, error: null }, found);
    this.#changed(entry);
  }

  async #next() {
    if (this.#running || this.#held) return;
    const waiting = this.entries.filter((entry) => entry.state === "waiting");
    const entry = waiting.includes(this.selected) ? this.selected : waiting[0];
    if (!entry) return;
    const stop = new AbortController();
    this.#running = { entry, stop };
    this.#turn(entry, "running");
    try {
      const answer = await this.#work(entry, stop.signal);
      if (!stop.signal.aborted) this.#turn(entry, "done", { answer });
    } catch (error) {
      if (error.locked) this.#held = true;
      if (!stop.signal.aborted) this.#turn(entry, error.locked ? "waiting" : "failed", { error });
    }
    this.#running = null;
    this.#next();
  }
}
